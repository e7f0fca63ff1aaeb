"""Containers of a store: handles to make, mount, compare, branch and remove them."""

import contextlib
import functools
import os
import pathlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, BinaryIO, NoReturn, Self

from graphdrivers import errors
from graphdrivers.api import images
from graphdrivers.driver import Tells
from graphdrivers.linux import namespaces
from graphdrivers.model import Change, Mount, Profile
from graphdrivers.store import containers, differing, ledger, mounted, names
from graphdrivers.store.collect import Collected
from graphdrivers.store.containers import Checkpoint
from graphdrivers.store.holders import Holder
from graphdrivers.store.ledger import Layer
from graphdrivers.store.mounted import Held
from graphdrivers.store.site import Site

if TYPE_CHECKING:  # only bundles need them, and they take long to import
    from graphdrivers.images.run_options import RunOptions
    from graphdrivers.images.runtime_spec import RuntimeSpec


class Container:
    """One container; usable as long as its store is open.

    As a context manager it is a throw-away one: leaving the block removes it
    (what was committed stays). Without, it stays until `remove`. After that,
    whoever removed it, each verb raises ContainerNotFound.
    """

    def __init__(self, site: Site, record: containers.Container) -> None:
        """Give a handle to what the ledger has; see ``Store.create`` and ``Store.container``."""
        self._site = site
        self._record = record

    @property
    def container_id(self) -> str:
        """64 hex digits."""
        return self._record.container_id

    @property
    def name(self) -> str:
        """What it is called."""
        return self._record.name

    @property
    def image_id(self) -> str | None:
        """The image that it is of."""
        return self._record.image_id

    @property
    def size_limit(self) -> int | None:
        """Limit of its writable layer in bytes."""
        return self._record.size

    @property
    def created(self) -> int:
        """When it was made, in ns since the epoch."""
        return self._record.created

    def record(self) -> containers.Container:
        """Give what the ledger has now.

        Raises:
            ContainerNotFound: it was removed.
        """
        self._record = containers.find(self._site, self.container_id)
        return self._record

    def layers(self) -> list[Layer]:
        """Give its layers, top first: the writable one, sealed ones of checkpoints, the init layer, the image's."""
        return ledger.stack_of(self._site.database, self.record().layer)

    def facts(self) -> dict[str, str]:
        """Give what the driver tells of its writable layer (branches, engine)."""
        driver = self._site.driver
        return dict(driver.facts(self.record().layer)) if isinstance(driver, Tells) else {}

    def plan(self, *, read_only: bool = False) -> tuple[Mount, ...]:
        """Give how its merged tree is mounted, as values, for those who mount by themselves; mounts nothing.

        Who acts on a writable plan is not counted: the caller keeps the
        container from being mounted, branched or removed meanwhile.
        """
        with self._locked():
            if read_only:
                return self._site.driver.mounts(self.record().layer, view=True)
            present = containers.writable(self._site, self._record)
            if not present.touched:
                with self._site.database.write() as step:
                    containers.expect_writes(step, present)
            return self._site.driver.mounts(present.layer)

    def mount(
        self, target: str | os.PathLike[str] | None = None, *, read_only: bool = False, keep: bool = False
    ) -> "Mounted":
        """Mount its merged tree, or join those who have it mounted in this place.

        Args:
            target: an existing directory; by default a folder of the store's own.
            read_only: a view; any number of them, beside a writable mount too where the driver allows it.
            keep: beyond this process, until `unmount`; else for as long as the process holds it.

        Raises:
            ContainerInUse: it is mounted writable somewhere else, or in the other way at this place.
            LayerInUse: another container or an image is mounted there.
            OSError: it cannot be mounted there (``ENOENT``, ``EPERM``).
        """
        where = None if target is None else os.fspath(target)
        with self._locked(), self._named():
            holder = None if keep else Holder.here()
            attach = functools.partial(mounted.attach, self._site, target=where, holder=holder)
            if read_only:
                return Mounted(self._site, attach(self.record().layer, view=True))
            present = containers.writable(self._site, self._record)
            note = functools.partial(containers.expect_writes, container=present)
            return Mounted(self._site, attach(present.layer, view=False, note=note))

    @contextlib.contextmanager
    def mounted(
        self, target: str | os.PathLike[str] | None = None, *, read_only: bool = False
    ) -> Iterator[pathlib.Path]:
        """Mount it for the time of a block; gives the path."""
        with self.mount(target, read_only=read_only) as place:
            yield place.path

    def mounts(self) -> list[Held]:
        """Give who has it mounted now."""
        return mounted.holders_of(self._site, self.record().layer)

    def unmount(self, *, lazy: bool = False) -> list[str]:
        """Undo mounts that were made to be kept; give their places. Idempotent.

        Raises:
            ContainerInUse: a process holds it, or it has to be unmounted in another mount namespace.
            OSError: ``EBUSY`` while files in it are open.
        """
        with self._locked(), self._named():
            held = mounted.still_held(self._site, self.record().layer)
            busy = [one for one in held if one.holder is not None and self._site.is_alive(one.holder)]
            if busy:
                raise errors.ContainerInUse(self.name, f" by process {busy[0].holder.pid}")  # type: ignore[union-attr]
            return [one.target for one in held if mounted.release(self._site, one, lazy=lazy)]

    def changes(self) -> Iterator[Change]:
        """Give what it changes against its image, sorted by path bytes; the init layer does not count."""
        record = self.record()
        return differing.changes(self._site, self.base(), record.layer)

    def diff(self, *, profile: Profile = Profile.FULL, source_date_epoch: int | None = None) -> BinaryIO:
        """Give the same as an uncompressed OCI layer tar; the caller closes it."""
        record = self.record()
        return differing.diff(
            self._site, self.base(), record.layer, profile=profile, source_date_epoch=source_date_epoch
        )

    def base(self) -> str:
        """Give the name of its init layer, which `changes` compares with."""
        return self.record().init

    def bundle(self, directory: str | os.PathLike[str], options: "RunOptions | None" = None) -> "RuntimeSpec":
        """Make an OCI runtime bundle that ``crun`` and ``runc`` run as it is; the container stays mounted in it.

        The folder gets ``rootfs``, on which the container is mounted until
        `unmount`, and then ``config.json``. Where the driver keeps whole trees
        and this user may not mount, the configuration names the tree in its
        place. After an error the container is not mounted there, and the folder
        can be used again.

        Raises:
            InvalidRunOption, UserNotFound, InvalidManifest: what was asked for, or what the image says, cannot be run.
            ContainerInUse: it is mounted somewhere else.
            OSError: ``ENOTEMPTY`` for a folder with content.
        """
        from graphdrivers.images.bundle import ROOTFS, write_bundle  # noqa: PLC0415 - see TYPE_CHECKING above
        from graphdrivers.images.run_options import RunOptions  # noqa: PLC0415 - as above
        from graphdrivers.images.runtime_spec import runtime_spec  # noqa: PLC0415 - as above

        options = RunOptions() if options is None else options
        place = os.path.abspath(directory)
        image = images.find(self._site, self.image_id or "")
        mount_free = self._site.driver.support.capabilities.mount_free
        with self.mount(read_only=options.readonly) as mounted_root, _opened(mounted_root.path) as root:
            spec = runtime_spec(image.config, root, options, image.image_id)
            plain = None if mounted_root.attached else str(mounted_root.path)
        in_place = plain is not None and mount_free and not namespaces.has_capability("CAP_SYS_ADMIN")
        target = None if in_place else os.path.join(place, ROOTFS)
        with contextlib.ExitStack() as undoing:
            keep = functools.partial(self.mount, target, read_only=options.readonly, keep=True)
            write_bundle(place, spec, rootfs=plain if in_place else None, mount=lambda: undoing.enter_context(keep()))
            undoing.pop_all()
        return spec

    def fork(self, name: str) -> Self:
        """Make a second container of its present state; both are free to diverge. Atomic.

        Costs a few calls of the driver, however large container and image are, where
        ``capabilities.copy_on_write`` holds; else a copy for each. Where ``capabilities.fork_live``
        holds it may be mounted and written to meanwhile; see `driver.Snapshots` for what state that gives.

        Raises:
            ContainerInUse: it is mounted, and the driver cannot make snapshots.
            ContainerExists, InvalidContainerName, ChainTooDeep
        """
        return type(self)(self._site, containers.fork(self._site, self.record(), name))

    def checkpoint(self, point: str | None = None) -> Checkpoint:
        """Keep its present state, by default under the next number. Atomic; costs, and can, what `fork` does.

        Raises:
            ContainerInUse: it is mounted, and the driver cannot make snapshots.
            CheckpointExists, ChainTooDeep
        """
        return containers.checkpoint(self._site, self.record(), point)

    def checkpoints(self) -> list[Checkpoint]:
        """Give its checkpoints, oldest first."""
        return containers.points_of(self._site, self.record())

    def rollback(self, point: str | None = None) -> None:
        """Take it back to a checkpoint (by default the latest), or to ``created``; drops what was written since.

        Raises:
            ContainerInUse: it is mounted.
            CheckpointNotFound
        """
        self._record = containers.rollback(self._site, self.record(), point)

    def forget(self, point: str) -> None:
        """Drop a checkpoint.

        Raises:
            CheckpointNotFound
        """
        containers.forget(self._site, self.record(), point)

    def remove(self) -> Collected:
        """Remove it, with its checkpoints and the layers that only it needs. Durable, atomic.

        Raises:
            ContainerInUse: it is mounted.
        """
        return containers.remove(self._site, self._record)

    def __eq__(self, other: object) -> bool:
        """Say whether both are handles to one container of one root."""
        if not isinstance(other, Container):
            return NotImplemented
        return (self.container_id, self._site.root) == (other.container_id, other._site.root)

    def __hash__(self) -> int:
        """Fit what equal means."""
        return hash(self.container_id)

    def __reduce__(self) -> NoReturn:
        """Refuse to be pickled or copied.

        Raises:
            TypeError: always.
        """
        raise TypeError("a container cannot be pickled: open the store in the other process, and ask it by name")

    def __repr__(self) -> str:
        """Tell one from others, for people who look at it."""
        return f"<Container {self.name!r} {self.container_id[:12]}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        with contextlib.suppress(errors.ContainerNotFound):
            self.remove()

    @contextlib.contextmanager
    def _named(self) -> Iterator[None]:
        """Tell that a layer of its own is in use by the container's name."""
        try:
            yield
        except errors.LayerInUse as error:
            if not names.is_of_container(error.layer, self.container_id):
                raise
            raise errors.ContainerInUse(self.name, f": mounted {error.where}") from None

    def _locked(self) -> contextlib.AbstractContextManager[object]:
        return self._site.lock(f"container:{self.container_id}")


class Mounted:
    """One holder of a mount; a context manager that lets go at the end."""

    def __init__(self, site: Site, held: Held) -> None:
        """Take over what `mounted.attach` gave."""
        self._site = site
        self._held: Held | None = held
        self.path = pathlib.Path(held.target)
        """The root of the merged tree."""
        self.attached = held.attached
        """False where it is the layer's own folder, and nothing had to be mounted."""

    def release(self, *, lazy: bool = False) -> None:
        """Let go; the last holder unmounts. Idempotent.

        Raises:
            OSError: ``EBUSY`` while files in it are open; it is held as before.
            ReservedNameError: names that mean deletions were put aside.
        """
        if self._held is not None:
            mounted.release(self._site, self._held, lazy=lazy)
            self._held = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.release()


@contextlib.contextmanager
def _opened(directory: pathlib.Path) -> Iterator[int]:
    opened = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield opened
    finally:
        os.close(opened)
