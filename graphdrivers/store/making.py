"""Making one layer: intent in the ledger, the driver's work, the disk, then the ledger again.

A crash between any two of these leaves a row in state 'making' whose holder is
dead; `graphdrivers.store.recover` takes it back. Nothing looks at the layer
before it is 'ready'.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, BinaryIO, cast

import attrs

from graphdrivers import archive, errors
from graphdrivers.linux import durable
from graphdrivers.model import Applied, ChainID, DiffID, Limits, Progress
from graphdrivers.store import collect, files, leases, ledger, names
from graphdrivers.store.database import Step
from graphdrivers.store.holders import Holder
from graphdrivers.store.ledger import Layer
from graphdrivers.store.site import Durability, Site

if TYPE_CHECKING:
    from graphdrivers.archive.stream import Counted


@attrs.frozen(eq=False)
class Made:
    """A layer that is filled and sealed, but not acknowledged yet."""

    name: str
    parent: Layer | None
    applied: Applied
    tar_size: int
    sync: Callable[[], None]
    """Makes it durable."""

    @property
    def chain_id(self) -> ChainID:
        """The ChainID of the stack that it is the top of."""
        return names.chain_id(None if self.parent is None else self.parent.chain_id, self.applied.diff_id)


@attrs.frozen(eq=False)
class Begun:
    """A layer that the ledger has and the driver does not yet."""

    name: str
    parent: Layer | None
    sync: Callable[[], None]
    """Makes all that is written for it durable."""

    @property
    def below(self) -> str | None:
        """The parent's name."""
        return None if self.parent is None else self.parent.name


@contextlib.contextmanager
def making(
    site: Site,
    parent: Layer | None,
    tar: BinaryIO,
    *,
    expected: DiffID | None = None,
    limits: Limits = Limits(),
    progress: Progress | None = None,
) -> Iterator[Made]:
    """Unpack an uncompressed tar into a new sealed layer; in the block it waits for `acknowledge`.

    What was not acknowledged when the block ends is removed again.

    Args:
        site: the store.
        parent: what it stands on; acknowledged, or in the making by the caller.
        tar: read to its end.
        expected: the DiffID that it must have.
        limits: what the tar may ask for.
        progress: called with the tar's bytes consumed so far.

    Raises:
        DigestMismatch: it has another DiffID.
        ArchiveError, OSError: see `driver.Driver.apply`.
    """
    with intended(site, parent) as begun:
        site.driver.create(begun.name, begun.below)
        counted = archive.stream.Counted(tar)
        applied = _fill(site, begun.name, counted, limits, progress)
        yield filled(site, begun, applied, counted.count, expected)


@contextlib.contextmanager
def intended(site: Site, parent: Layer | None) -> Iterator[Begun]:
    """Record that a layer is about to be made; the driver makes it in the block, and there it waits for `acknowledge`.

    What was not acknowledged when the block ends is removed again.
    """
    begun = Begun(names.image_layer(), parent, lambda: None)
    try:
        with site.database.write() as step:
            ledger.intend(step, begun.name, begun.below, Holder.here())
        with site.syncing() as sync:
            yield attrs.evolve(begun, sync=sync)
    except BaseException:
        with contextlib.suppress(errors.GraphDriverError, OSError):  # the next collection tries again
            undo(site, begun.name)
        raise
    if site.database.one("SELECT 1 FROM layers WHERE name = ? AND state = 'making'", (begun.name,)):
        undo(site, begun.name)


def filled(site: Site, begun: Begun, applied: Applied, tar_size: int, expected: DiffID | None) -> Made:
    """Seal a layer that the driver has filled.

    Raises:
        DigestMismatch: it is not the ``expected`` one.
    """
    _check(applied, expected)
    site.driver.seal(begun.name)
    return Made(begun.name, begun.parent, applied, tar_size, begun.sync)


def acknowledge(site: Site, made: Made, lease: str) -> Layer:
    """Make a layer durable and record it as ready; from now on it is there. Durable, atomic.

    Where another process has acknowledged the same stack meanwhile, that one is
    given, and `making` removes ours.

    Raises:
        LayerNotFound: the layer was taken back meanwhile, or the one below it was never acknowledged.
    """
    chain = made.chain_id
    if site.durability is Durability.FILE:
        files.sync_each(site.driver, made.name)
    made.sync()
    with site.database.write(durable=site.is_durable) as step:
        there = step.execute("SELECT name FROM layers WHERE chain_id = ? AND state = 'ready'", (chain,)).fetchone()
        name = there[0] if there else made.name
        if not there:
            _refuse_orphan(step, made)
            ledger.complete(step, name, made.applied, chain, made.tar_size)
        leases.hold(step, lease, name)
    return ledger.find_layer(site.database, name)


def undo(site: Site, name: str) -> None:
    """Take back a layer that was not acknowledged, and what is kept beside it. Idempotent.

    One that was acknowledged stays, and one that stands in for a layer that is being repaired. Where it cannot be
    deleted it is out of use, and the next collection tries again.
    """
    kept = """
        SELECT 1 FROM layers WHERE name = :name AND state = 'ready'
        UNION ALL SELECT 1 FROM repairs JOIN layers ON name = layer AND state = 'ready' WHERE substitute = :name"""
    if site.database.one(kept, {"name": name}):
        return  # what failed came after the acknowledgement (Ctrl-C, somebody's callback)
    try:
        collect.delete(site, name)
    except BaseException as error:
        reason = str(error) or type(error).__name__
        site.database.take_back(lambda step: _give_up(step, name, reason))
        raise
    site.database.take_back(lambda step: _forget(step, name))


def _forget(step: Step, name: str) -> None:
    step.execute("DELETE FROM repairs WHERE substitute = ?", (name,))
    collect.forget(step, name)


def _give_up(step: Step, name: str, reason: str) -> None:
    """Put a layer out of use that could not be deleted now; the next collection tries again."""
    step.execute("DELETE FROM repairs WHERE substitute = ?", (name,))
    step.execute("UPDATE layers SET state = 'removing' WHERE name = ? AND state = 'making'", (name,))
    collect.hand_back(step, name, reason)


def fill_again(site: Site, layer: Layer, tar: BinaryIO, limits: Limits) -> None:
    """Make a layer that the ledger has and the driver lost, from its uncompressed tar; not made durable.

    Raises:
        DigestMismatch: it is another tar; what was made of it is removed.
    """
    try:
        site.driver.create(layer.name, layer.parent)
        _check(_fill(site, layer.name, archive.stream.Counted(tar), limits, None), layer.diff_id)
        site.driver.seal(layer.name)
    except BaseException:
        with contextlib.suppress(errors.GraphDriverError, OSError):
            site.driver.remove(layer.name)
        raise


def _refuse_orphan(step: Step, made: Made) -> None:
    """Raise LayerNotFound where the layer below was filled, and could not be made durable or recorded."""
    if made.parent is None:
        return
    below = made.parent.name
    if not step.execute("SELECT 1 FROM layers WHERE name = ? AND state = 'ready'", (below,)).fetchone():
        raise errors.LayerNotFound(below)


def _fill(site: Site, name: str, tar: "Counted", limits: Limits, progress: Progress | None) -> Applied:
    with durable.created(site.record_path(name)) as record:
        return site.driver.apply(name, cast("BinaryIO", tar), headers=record, limits=limits, progress=progress)


def _check(applied: Applied, expected: DiffID | None) -> None:
    if expected is not None and applied.diff_id != expected:
        raise errors.DigestMismatch("the uncompressed layer", expected, applied.diff_id)
