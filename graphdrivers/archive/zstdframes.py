"""Where zstd frames end: libzstd's stream reader, as Python has it, takes a cut stream for a complete one.

Source: RFC 8878, sections 3.1.1 (frame header, blocks) and 3.1.2 (skippable frames).
"""

from collections.abc import Callable

from graphdrivers.archive.fields import malformed

_MAGIC = 0xFD2FB528
_SKIPPABLE = 0x184D2A5
_RLE, _RESERVED = 1, 3


class FrameWalker:
    """Follow the sizes in a zstd stream, without decompressing it."""

    def __init__(self) -> None:
        """Start before the first frame."""
        self._skip = 0
        self._head = b""
        self._wanted = 4
        self._understand: Callable[[int], None] = self._magic
        self._checksum = 0

    @property
    def at_boundary(self) -> bool:
        """Whether all that was walked is whole frames."""
        return not self._skip and not self._head and self._wanted == 4 and self._understand == self._magic

    def walk(self, piece: bytes) -> None:
        """Follow the next bytes of the stream.

        Raises:
            MalformedArchive: there is something else behind a frame.
        """
        position, end = self._skip, len(piece)
        while position < end:
            missing = self._wanted - len(self._head)
            self._head += piece[position : position + missing]
            position += missing
            if len(self._head) < self._wanted:
                break
            head, self._head, self._skip = self._head, b"", 0
            self._understand(int.from_bytes(head, "little"))
            position += self._skip
        self._skip = max(0, position - end) if not self._head else 0

    def _expect(self, wanted: int, understand: Callable[[int], None], skip: int = 0) -> None:
        self._wanted, self._understand, self._skip = wanted, understand, skip

    def _magic(self, value: int) -> None:
        if value == _MAGIC:
            self._expect(1, self._descriptor)
        elif value >> 4 == _SKIPPABLE:
            self._expect(4, self._skippable)
        else:
            raise malformed("a zstd stream is followed by something else")

    def _skippable(self, value: int) -> None:
        self._expect(4, self._magic, value)

    def _descriptor(self, value: int) -> None:
        """Skip the rest of the frame header: window, dictionary, content size."""
        single = value >> 5 & 1
        content = (single, 2, 4, 8)[value >> 6]
        self._checksum = 4 * (value >> 2 & 1)
        self._expect(3, self._block, 1 - single + (0, 1, 2, 4)[value & 3] + content)

    def _block(self, value: int) -> None:
        kind, size = value >> 1 & 3, 1 if value >> 1 & 3 == _RLE else value >> 3
        if kind == _RESERVED:
            raise malformed("a zstd block has a reserved type")
        if value & 1:
            self._expect(4, self._magic, size + self._checksum)
        else:
            self._expect(3, self._block, size)
