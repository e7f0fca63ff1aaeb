"""The layers of one image, made one after the other, for drivers that cannot fill several at once.

While one layer is written the next is decompressed ahead, and the one before
is made durable: three stages that wait for different things.
"""

import contextlib
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import BinaryIO

import attrs

from graphdrivers.archive import compression
from graphdrivers.model import ChainID, Limits
from graphdrivers.store import incoming, making
from graphdrivers.store.ahead import Ahead
from graphdrivers.store.incoming import Source, Watch
from graphdrivers.store.ledger import Layer
from graphdrivers.store.site import Site


@attrs.frozen(eq=False)
class _Pending:
    """A layer that is being made durable and recorded, with what must stay open until then."""

    number: int
    future: Future[Layer]
    scope: contextlib.ExitStack


class OneByOne:
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
        chains = incoming.chains_of([source.diff_id for source in self._sources])
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
        held = incoming.hold(self._site, [chain], self._lease)
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
