"""Mounts, counted for each holder across processes; the last one who lets go unmounts.

A row of the ledger is one holder: a process, or nobody, as for a mount made at
a command line, which stays until it is unmounted or the machine restarts. A
holder that died without letting go is found by its pid and start time. Rows of
an earlier boot, and of mounts that somebody has taken away, count no more.
"""

import contextlib
import errno
import os
from collections.abc import Callable, Iterator, Sequence
from collections.abc import Set as AbstractSet

import attrs

from graphdrivers import errors
from graphdrivers.linux import mountinfo, mounts, namespaces
from graphdrivers.linux.boot import boot_id
from graphdrivers.linux.locks import FileLock
from graphdrivers.linux.mountinfo import MountPoint
from graphdrivers.linux.namespaces import mount_namespace
from graphdrivers.model import Mount
from graphdrivers.store import names
from graphdrivers.store.database import Step, is_text
from graphdrivers.store.holders import Holder
from graphdrivers.store.site import Site

_COLUMNS = "mount_id, layer, target, attached, writable, namespace, boot, holder"


@attrs.frozen
class Held:
    """One holder of one mount."""

    mount_id: int
    layer: str
    target: str
    attached: bool
    """False where the layer's own folder is used as it is, without a mount."""
    writable: bool
    namespace: str
    boot: str
    holder: Holder | None


def holders_of(site: Site, layer: str | None = None) -> list[Held]:
    """Give who holds a layer mounted now, and where; all layers for ``None``."""
    return [now for now in _looked_at(site, _rows(site, layer)) if now is not None]


def still_held(site: Site, layer: str) -> list[Held]:
    """Drop holders that are over, and give those that are left: also dead ones, where files in the mount are open."""
    recorded = _rows(site, layer)
    if _looked_at(site, recorded) != recorded:
        with site.lock(f"mount:{layer}"):
            return _reap(site, layer)
    return recorded


def attach(
    site: Site,
    layer: str,
    *,
    view: bool,
    target: str | None = None,
    holder: Holder | None = None,
    note: Callable[[Step], object] = bool,
) -> Held:
    """Mount a layer, or join those who have it mounted in the same place.

    Args:
        site: the store.
        layer: which; the caller keeps others from removing it.
        view: read-only.
        target: an existing directory; ``None`` for the layer's own mount point, or its folder where no mount is needed.
        holder: the process that it ends with, ``None`` to keep it beyond any process.
        note: records what else has to stand before anything is mounted, in the step that records the holder.

    Raises:
        LayerInUse: it is mounted writable somewhere else, or another layer is mounted there.
        LayerSealed: a view is all that can be had of it.
        LayerNotFound: it was removed a moment ago.
        LockTimeout: a layer below it is being repaired.
    """
    where = site.mount_point(layer) if target is None else os.path.realpath(target)
    for other in {held.layer for held in _rows(site, target=where) if held.layer != layer}:
        reap(site, other)
    with site.lock(f"mount:{layer}"):
        present = _reap(site, layer)
        plan = site.driver.mounts(layer, view=view)
        plain = mounts.plain_directory(plan)
        attached = plain is None or target is not None
        where = where if attached else plain or where
        wanted = Held(0, layer, where, attached, not view, mount_namespace(), boot_id(), holder)
        if any(_same_place(held, wanted) and held.writable == wanted.writable for held in present):
            return _record(site, wanted, note)
        _refuse(present, wanted)
        if not attached:
            return _record(site, wanted, note)
        return _mounted(site, wanted, plan, note, own=target is None)


def release(site: Site, held: Held, *, lazy: bool = False) -> bool:
    """Let go; the last holder of a place unmounts it and brings the layer to rest. Idempotent.

    Returns:
        Whether it was the last one.

    Raises:
        OSError: ``EBUSY`` while files in it are open; it is held as before.
        LayerInUse: it is mounted in another mount namespace, and has to be unmounted there.
        ReservedNameError: names that mean deletions were put aside.
    """
    with site.lock(f"mount:{held.layer}"):
        others = [one for one in _rows(site, held.layer) if one.mount_id != held.mount_id and not is_over(site, one)]
        last = not any(_same_place(one, held) for one in others)
        if last and held.attached and held.boot == boot_id():
            if held.namespace == mount_namespace():
                _detach(site, held, others, lazy=lazy)
            elif namespaces.lives(held.namespace):
                raise errors.LayerInUse(held.layer, f"at {held.target!r} in another mount namespace")
        try:
            if last and not any(one.writable for one in others):
                site.driver.settle(held.layer)  # the row still keeps others from removing the layer
        finally:
            _forget(site, held)
        return last


def ended(site: Site) -> list[Held]:
    """Give the holders that are over, of all layers."""
    rows = _rows(site)
    return [held for held, now in zip(rows, _looked_at(site, rows), strict=True) if now is None]


def over(site: Site) -> list[str]:
    """Give the layers that have holders which are over, sorted."""
    return sorted({held.layer for held in ended(site)})


def reap(site: Site, layer: str) -> None:
    """Drop holders of a layer that are over; unmount what only they held, and bring the layer to rest.

    Where files in such a mount are open its holder stays: whoever uses it still does.
    """
    still_held(site, layer)


def abandoned(site: Site) -> list[Held]:
    """Give the rows that are over, but for layers that somebody mounts or unmounts at this moment."""
    found: list[Held] = []
    for layer in over(site):
        with contextlib.suppress(errors.LockTimeout), site.lock(f"mount:{layer}", timeout=0):
            rows = _rows(site, layer)
            found += [held for held, now in zip(rows, _looked_at(site, rows), strict=True) if now is None]
    return found


def strays(site: Site) -> list[str]:
    """Give our own writable layers that are mounted at their own place without any holder; nothing looks after those.

    A view without one is somebody's own: ``graphdriver layer mount`` makes such.
    """
    place = os.path.join(os.path.realpath(site.root), "mounts")
    found = {
        os.path.basename(mount.target)
        for mount in mountinfo.mounted_within(place)
        if os.path.dirname(mount.target) == place and "ro" not in mount.options
    }
    found -= {held.layer for held in _rows(site)}
    return [layer for layer in sorted(found) if names.is_own(layer) and _is_stray(site, layer)]


def drop_stray(site: Site, layer: str) -> None:
    """Unmount what `strays` gave. Idempotent.

    Raises:
        OSError: ``EBUSY``, files in it are open.
    """
    with site.lock(f"mount:{layer}"):
        if _is_stray(site, layer):
            mounts.detach(site.mount_point(layer), lazy=False)
            with contextlib.suppress(OSError):  # something else is mounted there
                os.rmdir(site.mount_point(layer))


def _is_stray(site: Site, layer: str) -> bool:
    """Look again: its row comes before a mount, and goes after it."""
    return mountinfo.mounted_at(site.mount_point(layer)) is not None and not _rows(site, layer)


def tidy(site: Site) -> None:
    """Remove the folders of mounts that are no more; only needed after a restart of the machine. Idempotent."""
    for name in os.listdir(os.path.join(site.root, "mounts")):
        with site.lock(f"mount:{name}"):
            if not _rows(site, name):
                with contextlib.suppress(OSError):  # something is mounted there or in it
                    os.rmdir(site.mount_point(name))


def repairing(site: Site, layer: str, *, timeout: float | None = None) -> FileLock:
    """Give the lock of who makes a layer anew; while it is held, nothing of what stands on the layer is mounted."""
    return site.lock(f"repair:{layer}", timeout=timeout)


def is_repaired_now(site: Site, layer: str) -> bool:
    """Say whether somebody makes a layer anew at this moment."""
    return not repairing(site, layer).is_free()


def is_over(site: Site, held: Held) -> bool:
    """Say whether nobody holds this any more."""
    return _present(site, held, frozenset()) is None


def _looked_at(site: Site, rows: list[Held]) -> list[Held | None]:
    """Do what `_present` does for each; the mount table, which is as long as there are mounts, is read once."""
    table = mountinfo.targets() if any(held.attached for held in rows) else frozenset()
    return [_present(site, held, table) for held in rows]


def _present(site: Site, held: Held, table: AbstractSet[str]) -> Held | None:
    """Give a holder with the place where it is now: a folder above it may have got another name. ``None`` when over.

    ``table`` are places where something is mounted, if that is known.
    """
    if held.boot != boot_id():
        return None
    dead = held.holder is not None and not site.is_alive(held.holder)
    if not held.attached:
        return None if dead else held
    if held.namespace == mount_namespace():
        if dead or held.target in table or mountinfo.mounted_at(held.target) is not None:
            return None if dead else held
        moved = _moved_to(site, held)
        return None if moved is None else attrs.evolve(held, target=moved)
    # What a dead process mounted in another namespace stays mounted for as long as that lives.
    over = (dead or held.holder is None) and not namespaces.lives(held.namespace)
    return None if over else held


def _moved_to(site: Site, held: Held) -> str | None:
    """Find a mount that is not where it was made, and that no other row is about."""
    known = {one.target for one in _rows(site, held.layer) if one.mount_id != held.mount_id}
    for found, path in mountinfo.users_within(site.driver.home):
        alike = held.layer in path.split("/") and ("ro" not in found.options) is held.writable
        if alike and found.target not in known and not found.target.startswith(f"{site.driver.home}/"):
            return found.target
    return None


def _reap(site: Site, layer: str) -> list[Held]:
    """Do what `still_held` does; the caller has the lock."""
    recorded = _rows(site, layer)
    now = list(zip(recorded, _looked_at(site, recorded), strict=True))
    present = [held if found is None else found for held, found in now]
    _follow(site, [found for held, found in now if found is not None and found != held])
    for held in [held for held, found in now if found is None]:
        others = [one for one in present if one.mount_id != held.mount_id]
        shared = any(_same_place(one, held) for one in others)
        if not shared and held.attached and held.boot == boot_id() and held.namespace == mount_namespace():
            try:
                _detach(site, held, others, lazy=False)
            except OSError:
                continue
        if held.writable and not shared:
            with contextlib.suppress(errors.LayerError):
                site.driver.settle(layer)  # the row still keeps others from removing the layer
        _forget(site, held)
        present = others
    return present


def _follow(site: Site, moved: Sequence[Held]) -> None:
    """Record where mounts are now."""
    if moved:
        with site.database.write() as step:
            for held in moved:
                step.execute("UPDATE mounts SET target = ? WHERE mount_id = ?", (_column(held.target), held.mount_id))


def _same_place(one: Held, other: Held) -> bool:
    """Say whether two share a mount; a folder that is used as it is is the same one in every namespace."""
    return one.target == other.target and (not one.attached or one.namespace == other.namespace)


def _refuse(present: list[Held], wanted: Held) -> None:
    """Refuse a second place for a writable mount, and a place where something else is mounted."""
    writable = [held.target for held in present if held.writable]
    if wanted.writable and writable:
        raise errors.LayerInUse(wanted.layer, f"at {writable[0]!r}")
    if any(_same_place(held, wanted) for held in present):
        how = "read-only" if wanted.writable else "writable: a view needs a place of its own"
        raise errors.LayerInUse(wanted.layer, f"at {wanted.target!r}, {how}")


def _mounted(site: Site, wanted: Held, plan: Sequence[Mount], note: Callable[[Step], object], *, own: bool) -> Held:
    """Mount a layer. Its row comes first, as this process's: were it to die in between, that is found and undone."""
    held = _record(site, attrs.evolve(wanted, holder=Holder.here()), note)
    may_be_mounted = True
    try:
        with mount_point_made(held.target) if own else contextlib.nullcontext():
            try:
                mounts.attach(plan, held.target)
            except (errors.GraphDriverError, OSError, ValueError):  # but not Ctrl-C, which is told when it is mounted
                may_be_mounted = False
                raise
        if wanted.holder is None:
            with site.database.write() as step:
                step.execute("UPDATE mounts SET holder = NULL WHERE mount_id = ?", (held.mount_id,))
    except BaseException:
        if may_be_mounted:
            _detach(site, held, [], lazy=True)
        _forget(site, held)
        raise
    return attrs.evolve(held, holder=wanted.holder)


def _detach(site: Site, held: Held, others: Sequence[Held], *, lazy: bool) -> None:
    """Unmount what a row is about; what somebody else has mounted there meanwhile is left alone."""
    own = held.target == site.mount_point(held.layer)
    if own:
        _detach_own(held.target, lazy=lazy)
    elif (found := mountinfo.mounted_at(held.target)) is None:
        moved = _moved_to(site, held)
        if moved is not None:
            mounts.detach(moved, lazy=lazy)
    elif _is_of(site, held, found):
        mounts.detach(held.target, lazy=lazy)
    # Removing a directory takes away what is mounted on it in other namespaces.
    if own and not any(one.target == held.target for one in others):
        with contextlib.suppress(OSError):  # something else is mounted there or in it
            os.rmdir(held.target)


def _detach_own(target: str, *, lazy: bool) -> None:
    """Unmount what is mounted at a layer's own mount point, if anything is."""
    try:
        mounts.detach(target, lazy=lazy)
    except errors.SyscallError as error:
        if error.errno not in {errno.EINVAL, errno.ENOENT}:  # nothing is mounted, or not even a folder is there
            raise


def _is_of(site: Site, held: Held, found: MountPoint) -> bool:
    """Tell from the mount table whether a mount is one of a layer, and not the disk of somebody else."""
    within = mountinfo.users_within(site.driver.home)
    if any(mount == found and held.layer in path.split("/") for mount, path in within):
        return True
    try:
        plan = site.driver.mounts(held.layer, view=not held.writable)
    except (errors.GraphDriverError, OSError):
        return False
    if found.fs_type == "overlay":  # its directories may have been named by descriptors, which tell nothing
        shown = found.option("upperdir") or found.option("lowerdir+") or found.option("lowerdir") or ""
        return plan[0].type == "overlay" and shown.startswith("/proc/self/fd/")
    return any((mount.type, mount.source or "none") == (found.fs_type, found.source) for mount in plan)


def _forget(site: Site, held: Held) -> None:
    site.database.take_back(lambda step: step.execute("DELETE FROM mounts WHERE mount_id = ?", (held.mount_id,)))


@contextlib.contextmanager
def mount_point_made(where: str) -> Iterator[None]:
    """Make a mount point of our own for what is mounted in the block, and remove it again when that fails."""
    os.makedirs(os.path.dirname(where), mode=0o700, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        os.mkdir(where, 0o700)
    try:
        yield
    except BaseException:
        with contextlib.suppress(OSError):
            os.rmdir(where)
        raise


def _record(site: Site, held: Held, note: Callable[[Step], object]) -> Held:
    target = _column(held.target)
    values = (held.layer, target, held.attached, held.writable, held.namespace, held.boot)
    holder = None if held.holder is None else str(held.holder)
    with site.database.write() as step:
        found = "SELECT EXISTS (SELECT 1 FROM repairs) FROM layers WHERE name = ? AND state = 'ready'"
        row = step.execute(found, (held.layer,)).fetchone()
        if row is None:
            raise errors.LayerNotFound(held.layer)
        if row[0]:
            _refuse_repaired(site, step, held.layer)
        there = "SELECT layer FROM mounts WHERE target = ? AND namespace = ? AND layer != ?"
        other = step.execute(there, (target, held.namespace, held.layer)).fetchone()
        if other is not None:
            raise errors.LayerInUse(other[0], f"at {held.target!r}")
        done = step.execute(
            "INSERT INTO mounts (layer, target, attached, writable, namespace, boot, holder) VALUES (?,?,?,?,?,?,?)",
            (*values, holder),
        )
        note(step)
    return attrs.evolve(held, mount_id=done.lastrowid or 0)


def _refuse_repaired(site: Site, step: Step, layer: str) -> None:
    """Refuse where a layer of the stack is made anew at this moment."""
    query = """
        WITH RECURSIVE stack (layer) AS (
            SELECT :name UNION SELECT parent FROM stack JOIN layers ON name = layer WHERE parent IS NOT NULL)
        SELECT layer FROM stack JOIN repairs USING (layer)"""
    for (below,) in step.execute(query, {"name": layer}).fetchall():
        if is_repaired_now(site, below):
            raise errors.LockTimeout(site.root, f"layer {below!r} below it is being repaired")


def _rows(site: Site, layer: str | None = None, *, target: str | None = None) -> list[Held]:
    """Read the holders, oldest first: all of them, those of a layer, or those of a place."""
    column, value = ("target", _column(target)) if target is not None else ("layer", layer)
    where = "" if value is None else f" WHERE {column} = :value"
    rows = site.database.read(f"SELECT {_COLUMNS} FROM mounts{where} ORDER BY mount_id", {"value": value})  # noqa: S608 - constants
    return [
        Held(
            number,
            name,
            _place_of(site, target),
            bool(attached),
            bool(writable),
            namespace,
            boot,
            Holder.parse(who) if who else None,
        )
        for number, name, target, attached, writable, namespace, boot, who in rows
    ]


def _column(target: str) -> str | bytes:
    """Give a place as the ledger takes it: SQLite's texts are UTF-8, and a folder's name may be no text at all."""
    return target if is_text(target) else os.fsencode(target)


def _place_of(site: Site, column: object) -> str:
    """Read what `_column` gave; nothing that is not a place is ever looked at, relative to who knows what."""
    place = os.fsdecode(column) if isinstance(column, str | bytes) else ""
    if not place.startswith("/") or "\0" in place:
        raise errors.StoreCorrupt(site.database.path, f"nothing can be mounted at {column!r:.200}")
    return place
