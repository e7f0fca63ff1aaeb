"""The layers of one image, lowest first, made or found: each stack once, whoever else imports it at the same time.

While one layer is written the next is decompressed ahead, and the one before
is made durable: three stages that wait for different things.
"""

import contextlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import BinaryIO

import attrs

from graphdrivers import errors
from graphdrivers.archive import compression
from graphdrivers.model import ChainID, DiffID, Limits
from graphdrivers.store import ledger, making, names
from graphdrivers.store.ahead import Ahead
from graphdrivers.store.ledger import Layer
from graphdrivers.store.site import Site

OF_A_CONTAINER = 2
"""Layers that a container has at least on those of its image: its init layer, and the writable one."""


@attrs.frozen(eq=False)
class Source:
    """Where one layer comes from."""

    diff_id: DiffID
    open: Callable[[], BinaryIO]
    """Opens its tar, compressed or not; asked for only when the store lacks the layer."""


class Watch:
    """Told how an import goes, from several threads; this one does nothing."""

    def found(self, number: int, layer: Layer) -> None:
        """Layer ``number`` (from 0) is there already."""

    def began(self, number: int) -> None:
        """Layer ``number`` is unpacked from now on."""

    def consumed(self, number: int, size: int) -> None:
        """``size`` bytes of the uncompressed tar of layer ``number`` are unpacked."""

    def done(self, number: int, layer: Layer) -> None:
        """Layer ``number`` is there now, and durable."""


def import_layers(
    site: Site, sources: Sequence[Source], *, lease: str, limits: Limits = Limits(), watch: Watch | None = None
) -> list[Layer]:
    """Make the stack of ``sources`` (lowest first) or find what is there of it; give its layers, lowest first.

    Each layer is acknowledged (see `making.acknowledge`) on its own: after an
    error or a crash those before it stay, held by the lease while this process
    lives, and the next import goes on from there.

    Raises:
        ChainTooDeep: no container could stand on so many layers; nothing was read.
        DigestMismatch: a layer is not the one that was promised.
        ArchiveError, OSError: see `driver.Driver.apply`.
    """
    _refuse_too_deep(site, sources)
    present = _present(site, sources, lease)
    told = watch or Watch()
    for number, layer in enumerate(present):
        told.found(number, layer)
    with contextlib.ExitStack() as stack:
        run = _Run(site, sources, stack, lease=lease, limits=limits, told=told)
        return [*present, *run.layers(present)] if len(present) < len(sources) else present


def import_tar(
    site: Site,
    parent: Layer | None,
    tar: BinaryIO,
    *,
    lease: str,
    limits: Limits = Limits(),
    watch: Watch | None = None,
) -> Layer:
    """Make one layer of an uncompressed tar whose DiffID nobody knows yet."""
    told = watch or Watch()
    told.began(0)
    made = making.making(site, parent, tar, limits=limits, progress=lambda size: told.consumed(0, size))
    with made as layer, site.lock(f"chain:{layer.chain_id}"):
        done = making.acknowledge(site, layer, lease)
    told.done(0, done)
    return done


def _refuse_too_deep(site: Site, sources: Sequence[Source]) -> None:
    """Raise ChainTooDeep where the driver has no room for the layers of an image and for those of a container."""
    limit = site.driver.support.capabilities.max_depth
    if limit is not None and len(sources) + OF_A_CONTAINER > limit:
        raise errors.ChainTooDeep(sources[-1].diff_id, len(sources), limit - OF_A_CONTAINER)


def chains_of(diff_ids: Sequence[DiffID]) -> list[ChainID]:
    """Compute the ChainIDs of all stacks that begin with the lowest layer."""
    chains: list[ChainID] = []
    for diff_id in diff_ids:
        chains.append(names.chain_id(chains[-1] if chains else None, diff_id))
    return chains


def _present(site: Site, sources: Sequence[Source], lease: str) -> list[Layer]:
    """Give the layers that are there, from the lowest up to the first that is not, and hold them."""
    return _hold(site, chains_of([source.diff_id for source in sources]), lease)


def _hold(site: Site, chains: Sequence[ChainID], lease: str) -> list[Layer]:
    """Let a lease keep the layers of stacks, up to the first that is not there; give them. Atomic."""
    found: list[Layer] = []
    if not chains or ledger.find_chain(site.database, chains[0]) is None:
        return found
    with site.database.write() as step:
        for chain in chains:
            layer = ledger.find_chain(site.database, chain)  # again: it may just have been collected
            if layer is None:
                break
            making.hold(step, lease, layer.name)
            found.append(layer)
    return found


@attrs.frozen(eq=False)
class _Pending:
    """A layer that is being made durable and recorded, with what must stay open until then."""

    number: int
    future: Future[Layer]
    scope: contextlib.ExitStack


class _Run:
    """One import at work."""

    def __init__(
        self,
        site: Site,
        sources: Sequence[Source],
        stack: contextlib.ExitStack,
        *,
        lease: str,
        limits: Limits,
        told: Watch,
    ) -> None:
        """Start two threads; ``stack`` ends them."""
        self._site = site
        self._sources = sources
        self._lease = lease
        self._limits = limits
        self._told = told
        self._ahead = stack.enter_context(Ahead(self._open))
        self._syncing = stack.enter_context(ThreadPoolExecutor(1, "graphdrivers-sync"))
        self._pending: deque[_Pending] = deque()
        stack.callback(self._abandon)

    def layers(self, present: Sequence[Layer]) -> list[Layer]:
        """Make the layers above ``present``, and give them, lowest first."""
        chains = chains_of([source.diff_id for source in self._sources])
        done: list[Layer] = []
        below = present[-1] if present else None
        for number in range(len(present), len(self._sources)):
            scope = contextlib.ExitStack()
            try:
                below = self._layer(number, chains[number], below, scope, done)
            except BaseException as error:
                scope.__exit__(type(error), error, error.__traceback__)
                raise
        while self._pending:
            done.append(self._finish(self._pending.popleft()))
        return done

    def _layer(
        self, number: int, chain: ChainID, below: Layer | None, scope: contextlib.ExitStack, done: list[Layer]
    ) -> Layer:
        """Make or find one layer; in the first case its record is still on its way."""
        lock = self._site.lock(f"chain:{chain}")
        scope.enter_context(lock)
        held = _hold(self._site, [chain], self._lease)
        if held:  # another process was faster
            (found,) = held
            while self._pending:
                done.append(self._finish(self._pending.popleft()))
            self._ahead.skip(number)
            scope.close()
            self._told.found(number, found)
            done.append(found)
            return found
        made = scope.enter_context(self._filled(number, below))
        # Its parent has to be acknowledged first; the single thread keeps the order.
        future = self._syncing.submit(making.acknowledge, self._site, made, self._lease)
        # From here on the layer ends with its future, whatever fails meanwhile.
        self._pending.append(_Pending(number, future, scope.pop_all()))
        if len(self._pending) > 1:
            done.append(self._finish(self._pending.popleft()))
        return _provisional(made)

    def _filled(self, number: int, below: Layer | None) -> contextlib.AbstractContextManager[making.Made]:
        self._told.began(number)
        plain = self._ahead.take(number, more=number + 1 < len(self._sources))
        return making.making(
            self._site,
            below,
            plain,
            expected=self._sources[number].diff_id,
            limits=self._limits,
            progress=lambda size: self._told.consumed(number, size),
        )

    def _finish(self, pending: _Pending) -> Layer:
        try:
            layer = pending.future.result()
        except BaseException:
            self._pending.appendleft(pending)
            self._abandon()  # those above it first
            raise
        pending.scope.close()
        self._told.done(pending.number, layer)
        return layer

    def _abandon(self) -> None:
        """After an error: take back, top first, what was not acknowledged."""
        while self._pending:
            pending = self._pending.pop()
            with contextlib.suppress(BaseException):  # the first error is on its way already
                pending.future.result()
            # Only now: what is acknowledged a moment later (after Ctrl-C) must be seen to be so.
            pending.scope.close()

    @contextlib.contextmanager
    def _open(self, number: int) -> Iterator[BinaryIO]:
        source = self._sources[number]
        with source.open() as stream, compression.open_plain(stream, self._limits) as plain:
            yield plain


def _provisional(made: making.Made) -> Layer:
    """Describe a layer that is not acknowledged yet, for its child."""
    applied, parent = made.applied, None if made.parent is None else made.parent.name
    return Layer(made.name, parent, made.chain_id, applied.diff_id, made.tar_size, applied.size, applied.entries, (), 0)
