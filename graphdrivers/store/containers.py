"""Containers: a writable layer over an init layer over an image; made, branched, taken back and removed.

What a container *is* at any moment is its present writable layer. A checkpoint
or a fork makes a snapshot of it, mounted or not, where the driver can; else it
seals that layer, and the container goes on in a new child. No tar is made.
"""

import contextlib
import functools
import io
import os
from collections.abc import Callable, Sequence
from typing import TypeVar

import attrs

from graphdrivers import errors
from graphdrivers.driver import Snapshots
from graphdrivers.model import LayerSpec
from graphdrivers.store import collect, images, ledger, making, mounted, names
from graphdrivers.store.database import Row, Step, is_text
from graphdrivers.store.holders import Holder
from graphdrivers.store.site import Site

COLUMNS = "container_id, name, image_id, init, layer, size, touched, created"

Done = TypeVar("Done")

CREATED = "created"
"""The point that every container has: as it was when it was made."""


@attrs.frozen
class Container:
    """One container, as the ledger has it."""

    container_id: str
    """64 hex digits."""
    name: str
    image_id: str | None
    init: str
    """Its init layer, or that of the container it was forked from."""
    layer: str
    """The writable layer."""
    size: int | None
    """Limit of the writable layer, in bytes."""
    touched: bool
    """The writable layer may have been written to."""
    created: int
    """When, in ns since the epoch."""


@attrs.frozen
class Checkpoint:
    """A state that a container can be taken back to."""

    point: str
    layer: str
    created: int
    """When, in ns since the epoch."""


def create(
    site: Site,
    name: str | None,
    *,
    image_id: str | None,
    parent: str | None,
    init: str | None = None,
    init_tar: bytes = b"",
    size: int | None = None,
) -> Container:
    """Make a container. Atomic, and durable as the store is.

    Where the driver makes children without copying, containers of an image
    share an init layer: it is made with the first one and stays with the image.

    Args:
        site: the store.
        name: what to call it; ``None`` for the beginning of its ID.
        image_id: the image it is of.
        parent: that image's top layer; ``None`` for an image without layers.
        init: the init layer that the image has already (`images.init_of`).
        init_tar: what an init layer holds, an uncompressed layer tar; not asked for where there is one.
        size: limit of its writable layer in bytes.

    Raises:
        ContainerExists, InvalidContainerName: the name cannot be had.
        ImageNotFound, LayerNotFound: the image was removed.
        NotSupported: the driver cannot limit sizes here.
    """
    container_id = os.urandom(32).hex()
    chosen = names.validate_container_name(container_id[:12] if name is None else name)
    layer = names.container_layer(container_id)
    shared = image_id is not None and site.driver.support.capabilities.copy_on_write
    base = init or (names.shared_init_layer() if shared else names.init_layer(container_id))
    made = Container(container_id, chosen, image_id, base, layer, size, touched=False, created=ledger.now())

    def fill() -> None:
        if init is None:
            site.driver.create(base, parent)
            if init_tar:
                site.driver.apply(base, io.BytesIO(init_tar))
            site.driver.seal(base)
        site.driver.create(layer, base, LayerSpec(size=size))

    _make(site, made, [*([] if init else [(base, parent)]), (layer, base)], fill, keep_init=shared and init is None)
    return made


def find(site: Site, name: str) -> Container:
    """Give a container by its name, its ID or the beginning of its ID.

    Raises:
        ContainerNotFound, AmbiguousName
    """
    query = f"SELECT {COLUMNS} FROM containers WHERE ready AND "  # noqa: S608 - constants
    if not is_text(name):
        raise errors.ContainerNotFound(name)
    rows = site.database.read(f"{query} (name = ? OR container_id = ?)", (name, name))
    if not rows and name and all(char in "0123456789abcdef" for char in name):
        rows = site.database.read(f"{query} container_id GLOB ?", (f"{name}*",))
    if not rows:
        raise errors.ContainerNotFound(name)
    if len(rows) > 1:
        raise errors.AmbiguousName(name, f"{len(rows)} containers have an ID that begins so")
    return _container(rows[0])


def everything(site: Site) -> list[Container]:
    """Give all containers, oldest first."""
    query = f"SELECT {COLUMNS} FROM containers WHERE ready ORDER BY created, name"  # noqa: S608 - constants
    return [_container(row) for row in site.database.read(query)]


def remove(site: Site, container: Container) -> collect.Collected:
    """Remove a container with its checkpoints, and the layers that only it needs.

    It is gone, durably, before the first layer is deleted.

    Raises:
        ContainerInUse: it is mounted.
        ContainerNotFound: another process was faster.
    """
    with site.lock(f"container:{container.container_id}"):
        container = find(site, container.container_id)  # its layer may be another one by now
        refuse_mounted(site, container)
        with site.database.write(durable=site.is_durable) as step:
            key = (container.container_id,)
            points = [row[0] for row in step.execute("SELECT layer FROM checkpoints WHERE container_id = ?", key)]
            step.execute("DELETE FROM checkpoints WHERE container_id = ?", key)
            if not step.execute("DELETE FROM containers WHERE container_id = ?", key).rowcount:
                raise errors.ContainerNotFound(container.name)
            marked = collect.mark_unused(step, [container.init, *points, container.layer])
        return collect.sweep(site, marked)


def fork(site: Site, container: Container, name: str) -> Container:
    """Make a second container of the present state of the first; both are free to diverge. Atomic.

    Costs a snapshot and a create of the driver where it can make snapshots,
    else a seal and two creates; one create when nothing was written since the
    last branch.

    Raises:
        ContainerInUse: it is mounted, and this driver cannot make snapshots.
        ContainerExists, InvalidContainerName, ChainTooDeep
    """
    container_id = os.urandom(32).hex()
    names.validate_container_name(name)
    with site.lock(f"container:{container.container_id}"):
        if site.database.one("SELECT 1 FROM containers WHERE name = ?", (name,)):
            raise errors.ContainerExists(name)
        branch = _branch(site, container.container_id)
        layer = names.container_layer(container_id)
        made = attrs.evolve(
            container, container_id=container_id, name=name, layer=layer, touched=False, created=ledger.now()
        )
        kept = Checkpoint(CREATED, branch.layer, made.created)

        def fill() -> None:
            branch.fill()
            site.driver.create(layer, branch.layer, LayerSpec(size=container.size))

        def note(step: Step) -> None:
            branch.note(step)
            _keep(step, made, kept)

        _make(site, made, [*branch.new, (layer, branch.layer)], fill, note)
    return made


def checkpoint(site: Site, container: Container, point: str | None = None) -> Checkpoint:
    """Keep the present state under a name, by default the next number. Atomic.

    Raises:
        ContainerInUse: it is mounted, and this driver cannot make snapshots.
        CheckpointExists, InvalidContainerName, ChainTooDeep
    """
    with site.lock(f"container:{container.container_id}"):
        taken = {one.point for one in points_of(site, container)} | {CREATED}
        if point is None:
            point = next(str(number) for number in range(1, len(taken) + 2) if str(number) not in taken)
        names.validate_container_name(point)
        if point in taken:
            raise errors.CheckpointExists(container.name, point)
        branch = _branch(site, container.container_id)
        kept = Checkpoint(point, branch.layer, ledger.now())

        def note(step: Step) -> None:
            branch.note(step)
            _keep(step, container, kept)

        _made(site, branch.new, branch.fill, note)
    return kept


def points_of(site: Site, container: Container) -> list[Checkpoint]:
    """Give a container's checkpoints, oldest first, without `CREATED`."""
    return [one for one in _kept(site, container) if one.point != CREATED]


def rollback(site: Site, container: Container, point: str | None = None) -> Container:
    """Take a container back to a checkpoint, by default the latest; what was written since is dropped. Atomic.

    Other checkpoints stay, later ones too.

    Raises:
        ContainerInUse: it is mounted.
        CheckpointNotFound
    """
    with site.lock(f"container:{container.container_id}"):
        present = find(site, container.container_id)
        refuse_mounted(site, present)
        base = _layer_at(site, present, point)
        layer, marked = _grow(site, present, base)
        collect.sweep(site, marked)
    return attrs.evolve(present, layer=layer, touched=False)


def forget(site: Site, container: Container, point: str) -> None:
    """Drop a checkpoint; its layer goes when nothing else needs it.

    Raises:
        CheckpointNotFound
        InvalidContainerName: the point is `CREATED`, which stays as long as the container.
    """
    if point == CREATED:
        raise errors.InvalidContainerName(point, "this point stays as long as the container")
    with site.lock(f"container:{container.container_id}"):
        layer = _layer_at(site, container, point)
        with site.database.write(durable=site.is_durable) as step:
            key = (container.container_id, point)
            step.execute("DELETE FROM checkpoints WHERE container_id = ? AND point = ?", key)
            marked = collect.mark_unused(step, [layer])
        collect.sweep(site, marked)


def writable(site: Site, container: Container) -> Container:
    """Give the container with a writable layer that can be written to; before it is, `expect_writes` is recorded.

    A branch that was cut by a crash leaves it sealed; then this makes the child
    that the branch would have made. The caller holds the container's lock.
    """
    present = find(site, container.container_id)
    try:
        if present.touched:  # else no branch can have begun to seal it
            site.driver.mounts(present.layer)
    except errors.LayerSealed:
        _grow(site, present, present.layer)
        present = find(site, present.container_id)
    return present


def expect_writes(step: Step, container: Container) -> None:
    """Record that a container's writable layer may be written to from now on. Idempotent."""
    if not container.touched:
        step.execute("UPDATE containers SET touched = 1 WHERE container_id = ?", (container.container_id,))


def refuse_mounted(site: Site, container: Container) -> None:
    """Raise ContainerInUse where somebody has it mounted."""
    for held in mounted.still_held(site, container.layer):
        who = f" by process {held.holder.pid}" if held.holder else ""
        raise errors.ContainerInUse(container.name, f": mounted at {held.target!r}{who}")


@attrs.frozen
class _Branch:
    """A sealed layer that holds a container's present state."""

    layer: str
    new: tuple[tuple[str, str | None], ...] = ()
    """What has to be made for it yet, each with its parent: the layer, or the child in which the container goes on."""
    fill: Callable[[], object] = bool
    """Makes it."""
    note: Callable[[Step], object] = bool
    """Records that it is made."""


def _branch(site: Site, container_id: str) -> _Branch:
    """Find or plan the layer to branch from; the container's lock is held.

    With snapshots nothing is done yet. Without, the writable layer is sealed: the container has to go on in a child.

    Raises:
        ContainerInUse: it is mounted, and the driver cannot make snapshots.
        ChainTooDeep: a sealed layer there could have no child.
    """
    present = find(site, container_id)
    parent = ledger.find_layer(site.database, present.layer).parent or present.init
    driver = site.driver
    snapshots = driver if driver.support.capabilities.fork_live and isinstance(driver, Snapshots) else None
    if snapshots is None:
        refuse_mounted(site, present)
    if not present.touched:
        return _Branch(parent)
    _refuse_too_deep(site, present.layer if snapshots is None else parent)
    if snapshots is None:
        driver.settle(present.layer)
        driver.seal(present.layer)
        return _grown(site, present, present.layer)
    if not mounted.still_held(site, present.layer):
        driver.settle(present.layer)
    snapshot = names.container_layer(container_id)
    return _Branch(snapshot, ((snapshot, parent),), functools.partial(snapshots.snapshot, present.layer, snapshot))


def _refuse_too_deep(site: Site, layer: str) -> None:
    """Raise ChainTooDeep where a layer could have no child: once sealed, its container could not go on."""
    limit = site.driver.support.capabilities.max_depth
    if limit is not None and (depth := len(ledger.stack_of(site.database, layer)) + 1) > limit:
        raise errors.ChainTooDeep(layer, depth, limit)


def _grow(site: Site, container: Container, base: str) -> tuple[str, list[str]]:
    """Let a container go on in a new child of ``base``, which is sealed. Atomic.

    Returns:
        That layer, and the layers that nothing needs any more, for `collect.sweep`.
    """
    grown = _grown(site, container, base)

    def move(step: Step) -> list[str]:
        grown.note(step)
        return collect.mark_unused(step, [container.layer])

    return grown.new[0][0], _made(site, grown.new, grown.fill, move)


def _grown(site: Site, container: Container, base: str) -> _Branch:
    """Plan the child of ``base``, which is sealed, in which a container goes on."""
    layer = names.container_layer(container.container_id)

    def move(step: Step) -> None:
        values = (layer, container.container_id)
        step.execute("UPDATE containers SET layer = ?, touched = 0 WHERE container_id = ?", values)

    fill = functools.partial(site.driver.create, layer, base, LayerSpec(size=container.size))
    return _Branch(base, ((layer, base),), fill, move)


def _made(
    site: Site,
    layers: Sequence[tuple[str, str | None]],
    fill: Callable[[], object],
    acknowledge: Callable[[Step], Done],
    *,
    begin: Callable[[Step], object] = bool,
    cancel: Callable[[Step], object] = bool,
) -> Done:
    """Let the driver make layers (lowest first), and acknowledge them together with what they are for. Atomic.

    Args:
        site: the store.
        layers: each with its parent; there may be none.
        fill: asks the driver for them.
        acknowledge: records what they are for, and has the last word.
        begin: records what else has to stand before the driver is asked.
        cancel: takes that back.
    """
    with site.database.write() as step:
        for name, parent in layers:
            ledger.intend(step, name, parent, Holder.here())
        begin(step)
    try:
        with site.syncing() as sync:
            fill()
            sync()
        with site.database.write(durable=site.is_durable) as step:
            for name, _parent in layers:
                ledger.complete(step, name)
            return acknowledge(step)
    except BaseException:
        with contextlib.suppress(errors.GraphDriverError, OSError):  # opening the store tries again
            site.database.take_back(cancel)
            for name, _parent in reversed(layers):
                making.undo(site, name)
        raise


def _keep(step: Step, container: Container, kept: Checkpoint) -> None:
    values = (container.container_id, kept.point, kept.layer, kept.created)
    step.execute("INSERT INTO checkpoints (container_id, point, layer, created) VALUES (?, ?, ?, ?)", values)


def _kept(site: Site, container: Container) -> list[Checkpoint]:
    query = "SELECT point, layer, created FROM checkpoints WHERE container_id = ? ORDER BY created, point"
    return [Checkpoint(*row) for row in site.database.read(query, (container.container_id,))]


def _layer_at(site: Site, container: Container, point: str | None) -> str:
    if point == CREATED:  # a fork was made of the state that it has a checkpoint of
        return next((one.layer for one in _kept(site, container) if one.point == CREATED), container.init)
    kept = points_of(site, container)
    for one in reversed(kept):
        if point is None or one.point == point:
            return one.layer
    raise errors.CheckpointNotFound(container.name, point or "", (CREATED, *(one.point for one in kept)))


def _make(
    site: Site,
    made: Container,
    layers: Sequence[tuple[str, str | None]],
    fill: Callable[[], None],
    note: Callable[[Step], object] = bool,
    *,
    keep_init: bool = False,
) -> None:
    """Record a new container and its new layers (lowest first), let the driver make them, and acknowledge."""

    def begin(step: Step) -> None:
        if step.execute("SELECT 1 FROM containers WHERE name = ?", (made.name,)).fetchone():
            raise errors.ContainerExists(made.name)
        if made.image_id is not None:
            images.refuse_missing(step, made.image_id)
        step.execute(
            f"INSERT INTO containers ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",  # noqa: S608 - constants
            (*attrs.astuple(made),),
        )

    def acknowledge(step: Step) -> None:
        step.execute("UPDATE containers SET ready = 1 WHERE container_id = ?", (made.container_id,))
        note(step)
        if keep_init and made.image_id is not None:
            images.keep_init(step, made.image_id, made.init)

    def cancel(step: Step) -> None:
        step.execute("DELETE FROM containers WHERE container_id = ? AND NOT ready", (made.container_id,))

    _made(site, layers, fill, acknowledge, begin=begin, cancel=cancel)


def _container(row: Row) -> Container:
    container_id, name, image_id, init, layer, size, touched, created = row
    return Container(container_id, name, image_id, init, layer, size, bool(touched), created)
