"""The tars of an import's next layers, decompressed ahead while the present one is written."""

import contextlib
import threading
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import BinaryIO, Self, cast

from graphdrivers.archive.compression import CHUNK
from graphdrivers.archive.stream import ChunkStream

AHEAD_MAX = 24 << 20
"""Bytes of the next layer that wait in memory, at most a chunk more."""

Open = Callable[[int], contextlib.AbstractContextManager[BinaryIO]]
"""Opens the uncompressed tar of a layer by its number."""


class Ahead:
    """Give the tar of one layer after the other, each begun while the one before is still read; a context manager."""

    def __init__(self, open_tar: Open) -> None:
        """Begin with nothing; what is opened is opened and read from other threads too."""
        self._open = open_tar
        self._executor = ThreadPoolExecutor(1, "graphdrivers-ahead")
        self._next: tuple[int, _Begun, Future[None]] | None = None
        self._taken: list[_Begun] = []

    def take(self, number: int, *, more: bool) -> BinaryIO:
        """Give the tar of layer ``number``; begin with the one after it where there is ``more``."""
        begun = self._claim(number)
        self._taken.append(begun)
        if more:
            following = _Begun()
            self._next = (number + 1, following, self._executor.submit(following.begin, self._open, number + 1))
        return begun.stream()

    def skip(self, number: int) -> None:
        """Forget layer ``number``: it is not needed."""
        if self._next is not None and self._next[0] == number:
            self._claim(number).close()

    def close(self) -> None:
        """Close all that was opened. Idempotent."""
        if self._next is not None:
            self.skip(self._next[0])
        for begun in self._taken:
            begun.close()
        self._executor.shutdown(cancel_futures=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _claim(self, number: int) -> "_Begun":
        """Stop the thread that reads ahead, and give what it has."""
        while self._taken:
            self._taken.pop().close()
        if self._next is None:
            begun = _Begun()
            begun.enough.set()
            try:
                begun.begin(self._open, number)
            except BaseException:
                begun.close()
                raise
            return begun
        _, begun, future = self._next
        self._next = None
        begun.enough.set()
        begun.error = future.exception()
        return begun


class _Begun:
    """The tar of one layer, with its first chunks read."""

    def __init__(self) -> None:
        """Open nothing yet."""
        self.enough = threading.Event()
        """Set when somebody waits for what there is."""
        self._chunks: list[bytes] = []
        self._scope = contextlib.ExitStack()
        self._tar: BinaryIO | None = None
        self.error: BaseException | None = None
        """What reading ahead came to; it is raised where the stream gets there."""

    def begin(self, open_tar: Open, number: int) -> None:
        """Open the tar and read from it until there is `enough`."""
        self._tar = self._scope.enter_context(open_tar(number))
        size = 0
        while not self.enough.is_set() and size < AHEAD_MAX and (chunk := self._tar.read(CHUNK)):
            self._chunks.append(chunk)
            size += len(chunk)

    def stream(self) -> BinaryIO:
        """Give the whole tar."""
        return cast("BinaryIO", ChunkStream(self._pieces(), bool))

    def close(self) -> None:
        """Close the tar. Idempotent."""
        self._chunks.clear()
        self._scope.close()

    def _pieces(self) -> Generator[bytes]:
        for index, chunk in enumerate(self._chunks):
            self._chunks[index] = b""  # a memory of it is not needed any more
            yield chunk
        if self.error is not None:
            raise self.error
        while self._tar is not None and (chunk := self._tar.read(CHUNK)):
            yield chunk
