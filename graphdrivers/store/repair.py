"""Layers of images brought back under their names, from the tars that they were made of."""

import contextlib
import os
from collections.abc import Callable, Sequence
from typing import BinaryIO

import attrs

from graphdrivers import errors
from graphdrivers.archive import compression
from graphdrivers.model import DiffID, Limits
from graphdrivers.store import check, images, ledger, making, mounted, recover
from graphdrivers.store.check import Fault, FaultKind
from graphdrivers.store.ledger import Layer
from graphdrivers.store.site import Site

OpenBlob = Callable[[DiffID], BinaryIO | None]
"""Opens a layer's tar, compressed or not, by its DiffID; ``None`` where it cannot be had."""


@attrs.frozen
class Repaired:
    """What became of repairs."""

    layers: tuple[str, ...] = ()
    """Layers that are whole again."""
    lost: tuple[tuple[str, str], ...] = ()
    """Layers that are still damaged, and why."""


def repair(
    site: Site,
    faults: Sequence[Fault],
    open_blob: OpenBlob,
    *,
    limits: Limits = Limits(),
    began: Callable[[str], object] | None = None,
) -> Repaired:
    """Repair what can be: layers from their tars, parents first; leftovers by removing them.

    An init layer that no container stands on is removed: the next container
    makes another.

    A layer is made anew beside the damaged one first, so that a tar that turns
    out to be wrong costs nothing; then it takes the damaged one's place. A
    crash in between leaves the layer lost, and the next repair brings it back.

    Args:
        site: the store.
        faults: what `check.check` found.
        open_blob: where the tars come from.
        limits: what they may ask for.
        began: called with the name of each layer that is being repaired.

    Raises:
        StoreCorrupt: the ledger itself is damaged; nothing was done.
    """
    for fault in faults:
        if fault.kind is FaultKind.LEDGER:
            raise errors.StoreCorrupt(site.root, f"the ledger is damaged: {fault.detail}")
    lost = [(problem.what, problem.reason) for problem in _tidy(site, faults)]
    broken = {fault.layer for fault in faults if fault.kind in {FaultKind.LOST, FaultKind.STATE, FaultKind.DAMAGED}}
    whole: list[str] = []
    for layer in check.image_layers(site):
        if layer.name not in broken:
            continue
        if began is not None:
            began(layer.name)
        try:
            _remake(site, layer, open_blob, limits)
        except (errors.GraphDriverError, OSError) as error:
            lost.append((layer.name, str(error)))
        else:
            whole.append(layer.name)
        broken.discard(layer.name)
    broken.difference_update(images.drop_inits(site, broken).removed)
    lost += [(name, "it is a container's own layer, and nothing else has its content") for name in sorted(broken)]
    return Repaired(tuple(whole), tuple(lost))


def _tidy(site: Site, faults: Sequence[Fault]) -> list[recover.Problem]:
    """Remove leftovers, and give what resisted."""
    kinds = {fault.kind for fault in faults}
    if not kinds & {FaultKind.UNKNOWN, FaultKind.UNFINISHED, FaultKind.MOUNT}:
        return []
    problems = recover.recover(site)
    return problems + [one for one in recover.compare(site, repair=True) if one not in problems and one.is_leftover]


def _remake(site: Site, layer: Layer, open_blob: OpenBlob, limits: Limits) -> None:
    """Make a layer anew in its place.

    Raises:
        StoreCorrupt: its tar cannot be had.
        LayerInUse: it is mounted, alone or below others.
    """
    with site.lock(f"repair:{layer.name}"):
        _refuse_mounted(site, layer.name)
        _try_out(site, layer, _opened(site, layer, open_blob), limits)
        # From here on until the end the layer is lost, should we die; `check` tells so then.
        site.driver.remove(layer.name)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(site.record_path(layer.name))
        with site.syncing() as sync:
            making.fill_again(site, layer, _opened(site, layer, open_blob), limits)
            sync()


def _try_out(site: Site, layer: Layer, blob: BinaryIO, limits: Limits) -> None:
    """Make the layer under another name, and take it away again."""
    parent = None if layer.parent is None else ledger.find_layer(site.database, layer.parent)
    with (
        blob,
        compression.open_plain(blob, limits) as plain,
        making.making(site, parent, plain, expected=layer.diff_id, limits=limits),
    ):
        pass  # not acknowledged, so it goes


def _opened(site: Site, layer: Layer, open_blob: OpenBlob) -> BinaryIO:
    blob = open_blob(layer.diff_id or DiffID(""))
    if blob is None:
        reason = f"layer {layer.name!r} is lost until its tar {layer.diff_id} can be had: give what holds it"
        raise errors.StoreCorrupt(site.root, reason)
    return blob


def _refuse_mounted(site: Site, layer: str) -> None:
    """Refuse where the layer is under a mount: what is below one must not change."""
    query = """
        WITH RECURSIVE above (layer) AS (
            SELECT :name UNION SELECT name FROM layers JOIN above ON parent = layer)
        SELECT layer FROM above"""
    for (name,) in site.database.read(query, {"name": layer}):
        for held in mounted.holders_of(site, name):
            raise errors.LayerInUse(layer, f"by the mount at {held.target!r}")
