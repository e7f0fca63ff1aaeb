"""Layers of images brought back under their names, from the tars that they were made of."""

from collections.abc import Callable, Sequence
from typing import BinaryIO

import attrs

from graphdrivers import errors
from graphdrivers.archive import compression
from graphdrivers.model import DiffID, Limits
from graphdrivers.store import check, images, mounted, recover, substitutes
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
    out to be wrong costs nothing; then it takes the damaged one's place. After a
    crash in between the next opening of the store goes on, without the tar: see
    `substitutes`.

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
    return Repaired(tuple(whole), tuple(one for one in lost if one[0] not in whole))


def _tidy(site: Site, faults: Sequence[Fault]) -> list[recover.Problem]:
    """Remove leftovers, and give what resisted."""
    kinds = {fault.kind for fault in faults}
    if not kinds & {FaultKind.UNKNOWN, FaultKind.UNFINISHED, FaultKind.MOUNT}:
        return []
    problems = recover.recover(site)
    for layer in mounted.strays(site):
        try:
            mounted.drop_stray(site, layer)
        except OSError as error:
            problems.append(recover.Problem(layer, str(error)))
    return problems + [one for one in recover.compare(site, repair=True) if one not in problems and one.is_leftover]


def _remake(site: Site, layer: Layer, open_blob: OpenBlob, limits: Limits) -> None:
    """Make a layer anew in its place: from what an earlier repair left, else from its tar.

    Raises:
        StoreCorrupt: its tar cannot be had.
        LayerInUse: it is mounted, alone or below others.
    """
    with substitutes.working(site, layer.name):
        if substitutes.of(site, layer.name) is not None and _finished(site, layer, open_blob):
            return
        with _opened(site, layer, open_blob) as blob, compression.open_plain(blob, limits) as plain:
            substitutes.exchange(site, layer, plain, limits)


def _finished(site: Site, layer: Layer, open_blob: OpenBlob) -> bool:
    """Finish an earlier repair; false where what that left is damaged too, and the tar can be had."""
    try:
        substitutes.finish(site, layer)
    except errors.LayerInUse:
        raise
    except (errors.GraphDriverError, OSError):
        blob = open_blob(layer.diff_id or DiffID(""))
        if blob is None:
            raise
        blob.close()
        return False
    return True


def _opened(site: Site, layer: Layer, open_blob: OpenBlob) -> BinaryIO:
    blob = open_blob(layer.diff_id or DiffID(""))
    if blob is None:
        reason = f"layer {layer.name!r} is lost until its tar {layer.diff_id} can be had: give what holds it"
        raise errors.StoreCorrupt(site.root, reason)
    return blob
