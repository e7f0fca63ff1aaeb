"""A damaged layer exchanged for a whole one, so that neither a crash nor a full disk costs it.

No driver can rename a layer, and those that stand on it name it: what is whole
has to be made under the name of what is damaged. First a *substitute* is made
of the tar, sealed, and made durable. The ledger notes for whom it stands in.
Only then is the damaged layer removed, and made anew from the substitute, which
gives back the identical tar. Whoever comes after a crash in between goes on from
the substitute; the tar is not needed again.
"""

import contextlib
import os
from collections.abc import Iterator
from typing import BinaryIO

import attrs

from graphdrivers import errors
from graphdrivers.model import Limits
from graphdrivers.store import files, leases, ledger, making, mounted, tars
from graphdrivers.store.database import Step
from graphdrivers.store.ledger import Layer
from graphdrivers.store.site import Durability, Site

_ANYTHING = 1 << 62
_UNLIMITED = Limits(
    header_chain=_ANYTHING, path=_ANYTHING, xattrs=_ANYTHING, sparse_entries=_ANYTHING, members=_ANYTHING
)
"""For a tar that was unpacked already, within limits that somebody chose."""


@contextlib.contextmanager
def working(site: Site, layer: str, *, timeout: float | None = None) -> Iterator[None]:
    """Let nobody else repair a layer, collect it, or mount what stands on it.

    Raises:
        LockTimeout: somebody repairs it.
        LayerNotFound: it was removed.
    """
    with mounted.repairing(site, layer, timeout=timeout):
        lease = leases.take(site, layer)
        try:
            yield
        finally:
            leases.end(site, lease)


def of(site: Site, layer: str) -> str | None:
    """Give what stands in for a layer that is not made anew yet."""
    query = "SELECT substitute FROM repairs JOIN layers ON name = substitute WHERE layer = ? AND state = 'making'"
    row = site.database.one(query, (layer,))
    return None if row is None else str(row[0])


def left(site: Site) -> list[Layer]:
    """Give the layers whose repair was begun and nobody works on, parents first."""
    query = f"""
        WITH RECURSIVE stacks (top, layer, depth) AS (
            SELECT layer, layer, 0 FROM repairs
            UNION SELECT top, parent, depth + 1 FROM stacks JOIN layers ON name = layer
            WHERE parent IS NOT NULL AND depth < {ledger.DEPTH_MAX})
        SELECT {ledger.COLUMNS} FROM layers JOIN stacks ON name = top
        WHERE state = 'ready' GROUP BY name ORDER BY max(depth), name"""  # noqa: S608 - constants
    found = [ledger.layer_of(row) for row in site.database.read(query)]
    return [layer for layer in found if not mounted.is_repaired_now(site, layer.name)]


def exchange(site: Site, layer: Layer, tar: BinaryIO, limits: Limits) -> None:
    """Make a layer anew in its place; the caller has the layer (`working`). Durable.

    On an error it is as it was, or a substitute of it is there and `finish` goes on.

    Args:
        site: the store.
        layer: of an image.
        tar: its uncompressed tar.
        limits: what that may ask for.

    Raises:
        LayerInUse: it is mounted, alone or below others.
        DigestMismatch, ArchiveError: it is not its tar.
    """
    older = of(site, layer.name)
    parent = None if layer.parent is None else ledger.find_layer(site.database, layer.parent)
    with making.making(site, parent, tar, expected=layer.diff_id, limits=limits) as made:
        if site.durability is Durability.FILE:
            files.sync_each(site.driver, made.name)
        made.sync()
        _intend(site, layer.name, made.name)
        if older is not None:
            making.undo(site, older)
        _take_place(site, layer, made.name, may_abandon=older is None)


def finish(site: Site, layer: Layer) -> None:
    """Make a layer anew from its substitute, which goes; the caller has the layer. Durable, idempotent.

    Raises:
        LayerInUse: it is mounted, alone or below others.
        DigestMismatch, ArchiveError, StoreCorrupt: the substitute is damaged too.
    """
    substitute = of(site, layer.name)
    if substitute is None:
        return
    with site.database.write() as step:
        _refuse_mounted(site, step, layer.name)
    _take_place(site, layer, substitute)


def _take_place(site: Site, layer: Layer, substitute: str, *, may_abandon: bool = False) -> None:
    _clear(site, layer.name, may_abandon=may_abandon)
    with site.syncing() as sync, tars.open_tar(site, attrs.evolve(layer, name=substitute)) as tar:
        making.fill_again(site, layer, tar, _UNLIMITED)
        if site.durability is Durability.FILE:
            files.sync_each(site.driver, layer.name)
        sync()
    _forget(site, layer.name)
    making.undo(site, substitute)


def _intend(site: Site, layer: str, substitute: str) -> None:
    """Note durably what stands in for a layer, before anything happens to that."""
    with site.database.write(durable=site.is_durable) as step:
        _refuse_mounted(site, step, layer)
        if not step.execute("SELECT 1 FROM layers WHERE name = ? AND state = 'ready'", (layer,)).fetchone():
            raise errors.LayerNotFound(layer)
        step.execute("INSERT OR REPLACE INTO repairs (layer, substitute) VALUES (?, ?)", (layer, substitute))


def _forget(site: Site, layer: str) -> None:
    with site.database.write(durable=site.is_durable) as step:
        step.execute("DELETE FROM repairs WHERE layer = ?", (layer,))


def _clear(site: Site, layer: str, *, may_abandon: bool) -> None:
    """Remove what is damaged; where the driver cannot, the layer stays as it was, and is not to be repaired."""
    try:
        site.driver.remove(layer)
    except (errors.GraphDriverError, OSError):
        if any(record.name == layer for record in site.driver.layers()):
            if may_abandon:
                _forget(site, layer)
            raise
        # Out of sight, though not deleted yet: the next opening of the store does that.
    with contextlib.suppress(FileNotFoundError):
        os.unlink(site.record_path(layer))


def _refuse_mounted(site: Site, step: Step, layer: str) -> None:
    """Refuse where the layer is under a mount: what is below one must not change.

    In a step, so that no mount is recorded meanwhile; later ones see that the layer is worked on.
    """
    query = """
        WITH RECURSIVE above (layer) AS (
            SELECT :name UNION SELECT name FROM layers JOIN above ON parent = layer)
        SELECT DISTINCT above.layer FROM above JOIN mounts ON mounts.layer = above.layer"""
    for (name,) in step.execute(query, {"name": layer}).fetchall():
        for held in mounted.holders_of(site, name):
            raise errors.LayerInUse(layer, f"by the mount at {held.target!r}")
