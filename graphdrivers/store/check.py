"""What is damaged in a store: its ledger, its layers, and (deeply) every file of every layer of an image."""

import enum
import hashlib
import io
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from typing import BinaryIO, cast

import attrs

from graphdrivers import errors
from graphdrivers.archive.restore import LACKING, Damage
from graphdrivers.archive.verify import Finding, FindingKind, verify
from graphdrivers.driver import Driver
from graphdrivers.model import LayerRecord
from graphdrivers.store import ledger, mounted, names, rows, substitutes, tars, trees
from graphdrivers.store.database import Row
from graphdrivers.store.holders import NOBODY
from graphdrivers.store.ledger import Layer
from graphdrivers.store.site import Site


class FaultKind(enum.StrEnum):
    """What is wrong."""

    LEDGER = "ledger"
    """The ledger's file is damaged, or a row in it cannot be true."""
    LOST = "lost"
    """The ledger has a layer that the driver does not have, or that has lost its header record."""
    UNKNOWN = "unknown"
    """A layer of ours, or a record, that the ledger does not have."""
    STATE = "state"
    """Driver and ledger disagree about a layer's parent, or whether it is sealed."""
    UNFINISHED = "unfinished"
    """Something that a dead process left half done, and that could not be finished."""
    MOUNT = "mount"
    """A mount that nobody holds."""
    DAMAGED = "damaged"
    """A path of a layer is not what it was."""


@attrs.frozen
class Fault:
    """One thing that is wrong."""

    kind: FaultKind
    layer: str
    """Its name; empty where it is none of a layer."""
    path: str
    """Inside the layer, absolute; empty where it is the layer as a whole."""
    detail: str
    """In one line, for people."""


Observe = Callable[[int, int], object]
"""Called with how many layers are checked, and how many there are to check."""


def check(site: Site, *, deep: bool = False, observe: Observe | None = None) -> Iterator[Fault]:
    """Look for damage; changes nothing. What other processes are making or removing right now is left out.

    So are layers that could not be deleted: they are out of use and harm nobody, and `collect.abandoned` has them.

    Args:
        site: the store.
        deep: read every file of every layer of an image, and hold it against
            its checksum, its attributes and the layer's DiffID. A path that is
            damaged in a layer is not told again of those on top of it: what they
            hold there can be judged only when it is whole again. A layer that
            is lost is not read, nor what stands on one that cannot be read.
        observe: told how it goes.

    Raises (while iterating):
        OSError: ``EMFILE``, ``ENFILE``, ``ENOMEM``: that says nothing about a layer.
    """
    for complaint in site.database.is_sound():
        yield Fault(FaultKind.LEDGER, "", "", complaint)
    with site.database.snapshot():
        nonsense = list(rows.impossible(site))
    yield from (Fault(FaultKind.LEDGER, "", "", sentence) for sentence in nonsense)
    if nonsense:
        return  # what is built on such rows cannot be judged, nor be repaired
    structure = list(_structure(site))
    yield from structure
    if deep:
        yield from _contents(site, {fault.layer: fault.kind for fault in structure}, observe)


def _contents(site: Site, told: Mapping[str, FaultKind], observe: Observe | None) -> Iterator[Fault]:
    """Read all layers of images, but for those that are told already, and those that stand on what cannot be read."""
    layers = image_layers(site)
    damaged: dict[str | None, _Damaged] = {None: _Damaged()}
    unreadable: set[str | None] = {name for name, kind in told.items() if kind is FaultKind.STATE}
    for number, layer in enumerate(layers):
        if observe is not None:
            observe(number, len(layers))
        below = damaged.get(layer.parent, _Damaged())
        if unreadable & {layer.name, layer.parent}:
            unreadable.add(layer.name)
            continue
        found = [] if layer.name in told else [one for one in _found(site, layer) if not below.explains(one.fault.path)]
        damaged[layer.name] = below.and_also(found)
        if (layer.name in told or any(not one.fault.path for one in found)) and not _can_be_read(site, layer.name):
            unreadable.add(layer.name)
        if found and _is_there(site, layer.name):
            yield from (one.fault for one in found)
    if observe is not None:
        observe(len(layers), len(layers))


@attrs.frozen
class _Found:
    """A fault, and at which paths nothing on top can be judged because of it."""

    fault: Fault
    paths: frozenset[str] = frozenset()
    is_gone: bool = False
    """Nor below these."""


@attrs.frozen
class _Damaged:
    """Paths of a stack at which nothing more can be judged."""

    paths: frozenset[str] = frozenset()
    gone: frozenset[str] = frozenset()
    """Those among them below which nothing can be judged either."""

    def explains(self, path: str) -> bool:
        """Say whether what is found at a path of a layer on top may come from those below."""
        parts = path.split("/")
        above = ("/".join(parts[:end]) for end in range(2, len(parts)))
        return path in self.paths or any(folder in self.gone for folder in above)

    def and_also(self, found: Iterable[_Found]) -> "_Damaged":
        """Give the same for the stack with one more layer on top."""
        paths, gone = set(self.paths), set(self.gone)
        for one in found:
            paths |= one.paths
            gone |= one.paths if one.is_gone else frozenset()
        return _Damaged(frozenset(paths), frozenset(gone))


def image_layers(site: Site) -> list[Layer]:
    """Give all layers of images, parents first."""
    query = f"""
        WITH RECURSIVE depths (layer, depth) AS (
            SELECT name, 0 FROM layers WHERE parent IS NULL
            UNION ALL SELECT name, depth + 1 FROM layers JOIN depths ON parent = layer)
        SELECT {ledger.COLUMNS} FROM layers JOIN depths ON layer = name
        WHERE state = 'ready' AND diff_id IS NOT NULL ORDER BY depth, name"""  # noqa: S608 - constants
    return [ledger.layer_of(row) for row in site.database.read(query)]


def _found(site: Site, layer: Layer) -> Iterator[_Found]:
    """Read a layer of an image and name each path that is not what its tar made it."""
    damages: list[Damage] = []
    try:
        with ExitStack() as stack:
            original = _Hashed(stack.enter_context(tars.open_tar(site, layer, damages.append)))
            present = stack.enter_context(site.driver.diff(layer.name))
            lower = None if layer.parent is None else stack.enter_context(trees.opened(site, layer.parent))
            capabilities = site.driver.support.capabilities
            stream = cast("BinaryIO", original)
            found = list(verify(stream, present, capabilities, lower=lower, damages=damages))
            yield from (_of_finding(layer.name, finding) for finding in found)
            if not found and not damages and (original.digest(), original.size) != (layer.diff_id, layer.tar_size):
                are, should = f"{original.digest()} ({original.size} bytes)", f"{layer.diff_id} ({layer.tar_size})"
                detail = f"no file's checksum is wrong, but together they are {are}, not {should}"
                yield _Found(Fault(FaultKind.DAMAGED, layer.name, "", detail))
    except (errors.GraphDriverError, OSError) as error:
        if isinstance(error, OSError) and error.errno in LACKING:
            raise
        yield _Found(Fault(FaultKind.DAMAGED, layer.name, "", str(error)))


def _of_finding(layer: str, finding: Finding) -> _Found:
    path, *others = ("/" + os.fsdecode(name) for name in (finding.path, *finding.others))
    fault = Fault(FaultKind.DAMAGED, layer, path, f"{finding.kind}: {finding.detail}")
    return _Found(fault, frozenset((path, *others)), finding.kind in {FindingKind.MISSING, FindingKind.REPLACED})


class _Hashed(io.RawIOBase):
    """A stream whose bytes are hashed and counted on their way."""

    def __init__(self, stream: BinaryIO) -> None:
        super().__init__()
        self._read = stream.read
        self._hash = hashlib.sha256()
        self.size = 0

    def readable(self) -> bool:
        """Say yes."""
        return True

    def read(self, size: int = -1, /) -> bytes:
        """Read from the stream."""
        piece = self._read(size)
        self._hash.update(piece)
        self.size += len(piece)
        return piece

    def digest(self) -> str:
        """Give the digest of what was read."""
        return f"sha256:{self._hash.hexdigest()}"


def _structure(site: Site) -> Iterator[Fault]:
    """Hold ledger, driver, records and mounts against each other."""
    there = {record.name: record for record in site.driver.layers()}
    known = {row[0]: row for row in site.database.read("SELECT name, parent, state, diff_id, holder FROM layers")}
    records = set(os.listdir(os.path.join(site.folder, "records")))
    for name in sorted({name for name in there if names.is_own(name)} | records):
        if name not in known and _is_unknown(site, name):
            yield Fault(FaultKind.UNKNOWN, name, "", "the ledger does not know it")
    for name, parent, diff_id in _complete(known.values()):
        found = there.get(name)
        if found is None or found.parent != parent or (diff_id is not None and not found.sealed):
            yield from _disagreements(site, name, parent, diff_id)
        if diff_id is not None and name not in records and not os.path.exists(site.record_path(name)):
            yield from _if_still_there(site, name, FaultKind.LOST, "its header record is gone")
    yield from _unfinished(site, known.values())
    for held in mounted.abandoned(site):
        yield Fault(FaultKind.MOUNT, held.layer, "", f"mounted at {held.target!r} by a process that is gone")
    for name in mounted.strays(site):
        detail = f"mounted writable at {site.mount_point(name)!r}, and the ledger does not know of it"
        yield Fault(FaultKind.MOUNT, name, "", detail)


def _complete(known: Iterable[Row]) -> Iterator[tuple[str, str | None, str | None]]:
    """Give name, parent and DiffID of the layers that are to be there."""
    return ((name, parent, diff_id) for name, parent, state, diff_id, _ in known if state == "ready")


def _unfinished(site: Site, known: Iterable[Row]) -> Iterator[Fault]:
    """Name what dead processes left, and the layers of which a whole one waits to take the place."""
    for name, _parent, state, _, holder in known:
        if state != "ready" and holder != str(NOBODY) and site.is_dead(holder):
            yield Fault(FaultKind.UNFINISHED, name, "", f"{state}, by a process that is gone")
    for layer in substitutes.left(site):
        yield Fault(FaultKind.UNFINISHED, layer.name, "", "its repair was begun; it goes on without the layer's tar")


def _is_unknown(site: Site, name: str) -> bool:
    """Look again, in this order: the ledger has a layer before it is anywhere else, and until it is nowhere else."""
    if site.database.one("SELECT 1 FROM layers WHERE name = ?", (name,)):
        return False
    return os.path.exists(site.record_path(name)) or (names.is_own(name) and _found_now(site.driver, name) is not None)


def _disagreements(site: Site, name: str, parent: str | None, diff_id: str | None) -> Iterator[Fault]:
    """Look again at what the driver has: the layer may have been made since."""
    found = _found_now(site.driver, name)
    if found is None:
        yield from _if_still_there(site, name, FaultKind.LOST, "the driver does not have it any more")
        return
    if found.parent != parent:
        detail = f"its parent is {found.parent!r} in the driver, {parent!r} in the ledger"
        yield from _if_still_there(site, name, FaultKind.STATE, detail)
    if diff_id is not None and not found.sealed and not (_found_now(site.driver, name) or found).sealed:
        yield from _if_still_there(site, name, FaultKind.STATE, "it is a layer of an image, and not sealed")


def _if_still_there(site: Site, name: str, kind: FaultKind, detail: str) -> Iterator[Fault]:
    """Give a fault, unless the layer was removed since, or is being repaired."""
    if _is_there(site, name):
        yield Fault(kind, name, "", detail)


def _can_be_read(site: Site, layer: str) -> bool:
    """Say whether the merged tree of a layer can be opened, so that those on top of it can be judged."""
    try:
        with trees.opened(site, layer):
            return True
    except (errors.GraphDriverError, OSError):
        return False


def _found_now(driver: Driver, name: str) -> LayerRecord | None:
    return next((record for record in driver.layers() if record.name == name), None)


def _is_there(site: Site, layer: str) -> bool:
    """Say whether a layer is to be judged: it was not removed since, and nobody makes it anew at this moment."""
    there = bool(site.database.one("SELECT 1 FROM layers WHERE name = ? AND state = 'ready'", (layer,)))
    return there and not mounted.is_repaired_now(site, layer)
