"""Ordered work in a second thread: the stages of an import overlap where the GIL is released."""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Pump(Generic[Item]):
    """Hand items to a function that runs in its own thread, one at a time and in order.

    At most ``depth`` items wait: `put` blocks beyond that. An error of the
    function comes out of a later `put` or of `close`; no item is consumed after it.
    """

    def __init__(self, consume: Callable[[Item], object], depth: int = 8) -> None:
        """Start nothing yet; the thread begins with the first item."""
        self._consume = consume
        self._depth = depth
        self._executor = ThreadPoolExecutor(1, "graphdrivers-pump")
        self._waiting: deque[Future[None]] = deque()
        self._stopped = False

    def put(self, item: Item) -> None:
        """Queue one item; it must not change any more.

        Raises:
            Whatever the function raised for an earlier item.
        """
        if len(self._waiting) >= self._depth:
            self._waiting.popleft().result()
        self._waiting.append(self._executor.submit(self._step, item))

    def wait(self) -> None:
        """Wait until all is consumed.

        Raises:
            Whatever the function raised.
        """
        while self._waiting:
            self._waiting.popleft().result()

    def close(self) -> None:
        """Wait until all is consumed and end the thread. Idempotent; raises as `wait` does."""
        try:
            self.wait()
        finally:
            self.abort()

    def abort(self) -> None:
        """Drop what waits and end the thread, after the item in work. Idempotent, raises nothing."""
        self._stopped = True
        self._waiting.clear()
        self._executor.shutdown(cancel_futures=True)

    def _step(self, item: Item) -> None:
        if self._stopped:
            return
        self._stopped = True  # stays so if the function raises
        self._consume(item)
        self._stopped = False


class ReadAhead:
    """Run an iterator of chunks in its own thread, a few chunks ahead of whoever reads them.

    Memory is bounded by ``depth`` chunks. An error of the iterator comes out of
    `next_chunk` in its place, behind the chunks before it.
    """

    def __init__(self, chunks: Iterator[bytes], depth: int = 4) -> None:
        """Start nothing yet; the thread begins with the first `next_chunk`."""
        self._chunks = chunks
        self._depth = depth
        self._executor = ThreadPoolExecutor(1, "graphdrivers-readahead")
        self._waiting: deque[Future[bytes]] = deque()

    def next_chunk(self) -> bytes:
        """Return the next chunk; empty at the end.

        Raises:
            Whatever the iterator raised.
        """
        while len(self._waiting) < self._depth:
            self._waiting.append(self._executor.submit(next, self._chunks, b""))
        return self._waiting.popleft().result()

    def close(self) -> None:
        """End the thread, after the chunk in work (a read of the source is waited for). Idempotent."""
        self._waiting.clear()
        self._executor.shutdown(cancel_futures=True)
