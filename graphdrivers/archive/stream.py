"""Binary streams: over a generator of chunks, and one that counts."""

import io
import sys
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer


class ChunkStream(io.RawIOBase):
    """Reads what a generator yields; a raw stream: a read may give less than was asked for, nothing only at the end.

    The generator is closed at its end, at its first error and with the stream,
    whatever comes first. After an error every further read raises the same
    error: a stream cut short never looks complete.
    """

    def __init__(self, chunks: Generator[bytes], release: Callable[[], object]) -> None:
        """Read ``chunks``; ``release`` is called once when it is done with, also if it was never started."""
        super().__init__()
        self._chunks = chunks
        self._release = release
        self._chunk = b""
        self._used = 0
        self._error: BaseException | None = None
        self._done = False

    def readable(self) -> bool:
        """Always."""
        return True

    def read(self, size: int | None = -1, /) -> bytes:
        """Return up to ``size`` bytes, without a copy where a whole chunk fits; all that is left for -1 or ``None``."""
        if size is None or size < 0:
            return self.readall()
        if not self._advance():
            return b""
        chunk, start = self._chunk, self._used
        self._used = end = min(start + size, len(chunk))
        return chunk if end - start == len(chunk) else chunk[start:end]

    def readall(self) -> bytes:
        """Return all that is left."""
        return b"".join(iter(lambda: self.read(sys.maxsize), b""))

    def readinto(self, buffer: "WriteableBuffer", /) -> int:
        """Fill the front of ``buffer``; return how many bytes, 0 at the end."""
        if not self._advance():
            return 0
        with memoryview(buffer) as view, view.cast("B") as target, memoryview(self._chunk) as chunk:
            piece = chunk[self._used : self._used + len(target)]
            target[: len(piece)] = piece
        self._used += len(piece)
        return len(piece)

    def close(self) -> None:
        """Release the generator. Idempotent."""
        if not self.closed:
            try:
                self._finish()
            finally:
                super().close()

    def _advance(self) -> bool:
        """Make sure that there is something to give; False at the end."""
        if self.closed:
            raise ValueError("read of a closed stream")
        if self._error is not None:
            raise self._error
        while self._used == len(self._chunk) and not self._done:
            self._fetch()
        return self._used < len(self._chunk)

    def _fetch(self) -> None:
        try:
            chunk = next(self._chunks, None)
        except BaseException as error:
            self._error = error
            self._finish()
            raise
        if chunk is None:
            self._finish()
        else:
            self._chunk, self._used = chunk, 0

    def _finish(self) -> None:
        if not self._done:
            self._done = True
            try:
                self._chunks.close()
            finally:
                self._release()


class Counted(io.RawIOBase):
    """A stream that counts what is read from it."""

    def __init__(self, stream: BinaryIO) -> None:
        """Read ``stream``, which stays the caller's."""
        super().__init__()
        self._read = stream.read
        self.count = 0
        """Bytes read."""

    def readable(self) -> bool:
        """Say yes."""
        return True

    def read(self, size: int = -1, /) -> bytes:
        """Read from the stream."""
        piece = self._read(size)
        self.count += len(piece)
        return piece
