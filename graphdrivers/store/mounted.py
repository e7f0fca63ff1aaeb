"""Mounts, counted for each holder across processes; the last one who lets go unmounts.

A row of the ledger is one holder: a process, or nobody, as for a mount made at
a command line, which stays until it is unmounted or the machine restarts. A
holder that died without letting go is found by its pid and start time. Rows of
an earlier boot, and of mounts that somebody has taken away, count no more.
"""

import contextlib
import os
from collections.abc import Iterator

import attrs

from graphdrivers import errors
from graphdrivers.linux import mountinfo, mounts
from graphdrivers.store.holders import Holder, boot_id, mount_namespace
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


def holders_of(site: Site, layer: str) -> list[Held]:
    """Give who holds a layer mounted now."""
    return [held for held in _rows(site, layer) if is_over(held) is False]


def all_held(site: Site) -> list[Held]:
    """Give all rows, also those that are over."""
    return _rows(site, None)


def attach(site: Site, layer: str, *, view: bool, target: str | None = None, holder: Holder | None = None) -> Held:
    """Mount a layer, or join those who have it mounted in the same place.

    Args:
        site: the store.
        layer: which; the caller keeps others from removing it.
        view: read-only.
        target: an existing directory; ``None`` for the layer's own mount point, or its folder where no mount is needed.
        holder: the process that it ends with, ``None`` to keep it beyond any process.

    Raises:
        LayerInUse: it is mounted writable somewhere else.
        LayerSealed: a view is all that can be had of it.
    """
    with site.lock(f"mount:{layer}"):
        reap(site, layer)
        present = _rows(site, layer)
        plan = site.driver.mounts(layer, view=view)
        plain = mounts.plain_directory(plan)
        attached = plain is None or target is not None
        where = site.mount_point(layer) if target is None else os.path.realpath(target)
        where = where if attached else plain or where
        if not any(held.target == where and held.writable != view for held in present):
            _refuse(layer, present, where, view=view)
            if attached:
                with _made(where) if target is None else contextlib.nullcontext():
                    mounts.attach(plan, where)
        return _record(site, Held(0, layer, where, attached, not view, mount_namespace(), boot_id(), holder))


def release(site: Site, held: Held, *, lazy: bool = False) -> bool:
    """Let go; the last holder of a place unmounts it and brings the layer to rest. Idempotent.

    Returns:
        Whether it was the last one.

    Raises:
        OSError: ``EBUSY`` while files in it are open; it is held as before.
        ReservedNameError: names that mean deletions were put aside.
    """
    with site.lock(f"mount:{held.layer}"):
        others = [one for one in _rows(site, held.layer) if one.mount_id != held.mount_id and is_over(one) is False]
        last = not any(one.target == held.target for one in others)
        if last and held.attached and held.namespace == mount_namespace():
            _detach(site, held, lazy=lazy)
        with site.database.write() as step:
            step.execute("DELETE FROM mounts WHERE mount_id = ?", (held.mount_id,))
        if last:
            site.driver.settle(held.layer)
        return last


def reap(site: Site, layer: str | None = None) -> list[Held]:
    """Drop holders that are over; unmount what only they held, and bring those layers to rest."""
    over = [held for held in _rows(site, layer) if is_over(held)]
    for held in over:
        others = [one for one in _rows(site, held.layer) if one.mount_id != held.mount_id and one.target == held.target]
        if not others and held.attached and held.boot == boot_id() and held.namespace == mount_namespace():
            with contextlib.suppress(OSError):  # busy: whoever uses it still does
                _detach(site, held, lazy=False)
        with site.database.write() as step:
            step.execute("DELETE FROM mounts WHERE mount_id = ?", (held.mount_id,))
        if held.writable and not others:
            with contextlib.suppress(errors.LayerError):
                site.driver.settle(held.layer)
    return over


def is_over(held: Held) -> bool:
    """Say whether nobody holds this any more."""
    if held.boot != boot_id():
        return True
    if held.holder is not None and not held.holder.is_alive():
        return True
    if held.namespace == mount_namespace():
        return held.attached and mountinfo.mounted_at(held.target) is None
    return held.holder is None and not _namespace_lives(held.namespace)


def _refuse(layer: str, present: list[Held], where: str, *, view: bool) -> None:
    """Refuse a second place for a writable mount, and a place where something else is mounted."""
    writable = [held.target for held in present if held.writable]
    if not view and writable:
        raise errors.LayerInUse(layer, f"at {writable[0]!r}")
    if any(held.target == where for held in present):
        raise errors.LayerInUse(layer, f"at {where!r}, in the other way")


def _detach(site: Site, held: Held, *, lazy: bool) -> None:
    if mountinfo.mounted_at(held.target) is not None:
        mounts.detach(held.target, lazy=lazy)
    if held.target == site.mount_point(held.layer):
        with contextlib.suppress(OSError):  # something else is mounted there or in it
            os.rmdir(held.target)


@contextlib.contextmanager
def _made(where: str) -> Iterator[None]:
    os.makedirs(os.path.dirname(where), mode=0o700, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        os.mkdir(where, 0o700)
    try:
        yield
    except BaseException:
        with contextlib.suppress(OSError):
            os.rmdir(where)
        raise


def _record(site: Site, held: Held) -> Held:
    values = (held.layer, held.target, held.attached, held.writable, held.namespace, held.boot)
    holder = None if held.holder is None else str(held.holder)
    with site.database.write() as step:
        done = step.execute(
            "INSERT INTO mounts (layer, target, attached, writable, namespace, boot, holder) VALUES (?,?,?,?,?,?,?)",
            (*values, holder),
        )
    return attrs.evolve(held, mount_id=done.lastrowid or 0)


def _rows(site: Site, layer: str | None) -> list[Held]:
    where = "" if layer is None else " WHERE layer = :layer"
    rows = site.database.read(f"SELECT {_COLUMNS} FROM mounts{where} ORDER BY mount_id", {"layer": layer})  # noqa: S608 - constants
    return [
        Held(number, name, target, bool(attached), bool(writable), namespace, boot, Holder.parse(who) if who else None)
        for number, name, target, attached, writable, namespace, boot, who in rows
    ]


def _namespace_lives(namespace: str) -> bool:
    """Say whether any process that we can see is in a mount namespace."""
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError):
                if os.readlink(f"/proc/{name}/ns/mnt") == namespace:
                    return True
    return False
