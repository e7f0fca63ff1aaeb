"""The layers of one image, made one after the other, for drivers that cannot fill several at once.

While one layer is written the next is decompressed ahead, and the one before
is made durable: three stages that wait for different things.
"""

import contextlib
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import attrs

from graphdrivers.store import making
from graphdrivers.store.ahead import Ahead
from graphdrivers.store.incoming import Wanted
from graphdrivers.store.ledger import Layer


@attrs.frozen(eq=False)
class _Pending:
    """A layer that is being made durable and recorded, with what must stay open until then."""

    number: int
    future: Future[Layer]
    scope: contextlib.ExitStack


class OneByOne:
    """One import at work."""

    def __init__(self, wanted: Wanted, stack: contextlib.ExitStack) -> None:
        """Start two threads; ``stack`` ends them."""
        self._wanted = wanted
        self._ahead = stack.enter_context(Ahead(wanted.opened))
        self._syncing = stack.enter_context(ThreadPoolExecutor(1, "graphdrivers-sync"))
        self._pending: deque[_Pending] = deque()
        stack.callback(self._abandon)

    def layers(self, present: Sequence[Layer]) -> list[Layer]:
        """Make the layers above ``present``, and give them, lowest first."""
        done: list[Layer] = []
        below = present[-1] if present else None
        for number in range(len(present), len(self._wanted.sources)):
            scope = contextlib.ExitStack()
            try:
                below = self._layer(number, below, scope, done)
            except BaseException as error:
                scope.__exit__(type(error), error, error.__traceback__)
                raise
        while self._pending:
            done.append(self._finish(self._pending.popleft()))
        return done

    def _layer(self, number: int, below: Layer | None, scope: contextlib.ExitStack, done: list[Layer]) -> Layer:
        """Make or find one layer; in the first case its record is still on its way."""
        wanted = self._wanted
        scope.enter_context(wanted.lock(number))
        if (found := wanted.found(number)) is not None:  # another process was faster
            while self._pending:
                done.append(self._finish(self._pending.popleft()))
            self._ahead.skip(number)
            scope.close()
            wanted.told.found(number, found)
            done.append(found)
            return found
        made = scope.enter_context(self._filled(number, below))
        # Its parent has to be acknowledged first; the single thread keeps the order.
        future = self._syncing.submit(making.acknowledge, wanted.site, made, wanted.lease)
        # From here on the layer ends with its future, whatever fails meanwhile.
        self._pending.append(_Pending(number, future, scope.pop_all()))
        if len(self._pending) > 1:
            done.append(self._finish(self._pending.popleft()))
        return _provisional(made)

    def _filled(self, number: int, below: Layer | None) -> contextlib.AbstractContextManager[making.Made]:
        wanted = self._wanted
        wanted.told.began(number)
        plain = self._ahead.take(number, more=number + 1 < len(wanted.sources))
        return making.making(
            wanted.site,
            below,
            plain,
            expected=wanted.sources[number].diff_id,
            limits=wanted.limits,
            progress=lambda size: wanted.told.consumed(number, size),
        )

    def _finish(self, pending: _Pending) -> Layer:
        try:
            layer = pending.future.result()
        except BaseException:
            self._pending.appendleft(pending)
            self._abandon()  # those above it first
            raise
        pending.scope.close()
        self._wanted.told.done(pending.number, layer)
        return layer

    def _abandon(self) -> None:
        """After an error: take back, top first, what was not acknowledged."""
        while self._pending:
            pending = self._pending.pop()
            with contextlib.suppress(BaseException):  # the first error is on its way already
                pending.future.result()
            # Only now: what is acknowledged a moment later (after Ctrl-C) must be seen to be so.
            pending.scope.close()


def _provisional(made: making.Made) -> Layer:
    """Describe a layer that is not acknowledged yet, for its child."""
    applied, parent = made.applied, None if made.parent is None else made.parent.name
    return Layer(made.name, parent, made.chain_id, applied.diff_id, made.tar_size, applied.size, applied.entries, (), 0)
