"""The byte stream below the tar reader: one chunk at a time, hashed and recorded as it passes."""

from collections.abc import Callable
from typing import Protocol

Noted = tuple[int, int, bytes, int, int]
"""A file given whole: literal bytes of the present chunk from, to; its path; its length, and the CRC-32 of its content.

The content follows the literal bytes. Its checksum is taken at once, while it is in the processor's cache.
"""


class Source(Protocol):
    """What a tar is read from."""

    def read(self, size: int, /) -> bytes | None:
        """Give up to ``size`` bytes, none at the end."""


class Recorder(Protocol):
    """What keeps all that is not a file's content (see ``graphdrivers.archive.headers``)."""

    def literal(self, piece: bytes | memoryview) -> None:
        """Keep bytes as they are; the piece may be forgotten on return."""

    def content(self, path: bytes, offset: int, piece: memoryview) -> None:
        """Note that the next bytes, ``piece``, are those of a file that was written; it may be forgotten on return."""

    noted: list[Noted]
    """Files given whole, in order.

    The same as `literal` and `content` for each, but without a call per file.
    """

    def turn(self, view: memoryview) -> None:
        """Take in what was noted of the chunk before; ``view`` is the next one."""


class BlockStream:
    """A stream cut into chunks; the reader looks into ``chunk`` directly, for speed.

    ``chunk[position:end]`` is still unread. Bytes from ``mark`` on up to the position
    are *literal*: they go to the recorder when a file's content follows or when the
    chunk is used up. Chunks are never written to, so slices of ``view`` stay valid.
    """

    __slots__ = ("_read", "_size", "_tap", "base", "chunk", "end", "mark", "position", "recorder", "view")

    def __init__(
        self, source: Source, size: int, recorder: Recorder | None, tap: Callable[[bytes], None] | None
    ) -> None:
        """Start before the first byte; nothing is read yet."""
        self._read = source.read
        self._size = size
        self._tap = tap
        self.recorder = recorder
        self.chunk = b""
        self.view = memoryview(b"")
        self.position = self.end = self.mark = 0
        self.base = 0
        """Offset of the chunk's first byte in the stream."""

    def load(self) -> bool:
        """Go on to the next chunk; the present one must be used up. False at the end of the stream."""
        self.flush()
        self.base += self.end
        chunk = self._read(self._size) or b""
        if chunk and self._tap is not None:
            self._tap(chunk)
        self.chunk = chunk
        self.view = memoryview(chunk)
        if self.recorder is not None:
            self.recorder.turn(self.view)
        self.position = self.mark = 0
        self.end = len(chunk)
        return bool(chunk)

    def flush(self) -> None:
        """Hand the literal bytes before the position to the recorder."""
        if self.recorder is not None and self.mark < self.position:
            self.recorder.literal(self.view[self.mark : self.position])
        self.mark = self.position

    def piece(self, size: int, path: bytes | None = None, offset: int = 0) -> memoryview:
        """Read up to ``size`` bytes, as many as the chunk holds; none only at the end of the stream.

        With ``path`` they are that file's content at ``offset``, not literal.
        """
        if self.position == self.end and not self.load():
            return self.view
        start = self.position
        stop = min(start + size, self.end)
        if path is not None and self.recorder is not None:
            self.flush()
            self.recorder.content(path, offset, self.view[start:stop])
            self.mark = stop
        self.position = stop
        return self.view[start:stop]

    def take(self, size: int, path: bytes | None = None) -> bytes:
        """Read ``size`` bytes, joined over chunks; fewer only at the end of the stream."""
        start = self.position
        stop = start + size
        if path is None and stop <= self.end:
            self.position = stop
            return self.chunk[start:stop]
        joined = bytearray()
        while len(joined) < size:
            piece = self.piece(size - len(joined), path, len(joined))
            if not piece:
                break
            joined += piece
        return bytes(joined)

    def skip(self, size: int) -> int:
        """Pass over ``size`` literal bytes; returns how many of them the stream did not have."""
        while size > (available := self.end - self.position):
            self.position = self.end
            size -= available
            if not self.load():
                return size
        self.position += size
        return 0
