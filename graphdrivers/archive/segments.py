"""Reading the parts of a header record: byte ranges, and the zstd frames in them, checked to their end."""

from typing import BinaryIO, cast

import zstandard

from graphdrivers import errors
from graphdrivers.archive.zstdframes import FrameWalker

PIECE = 1 << 20
"""Most bytes read at a time."""


def damaged() -> errors.ArchiveError:
    """Make the error for a record that does not make sense."""
    return errors.ArchiveError("the header record is damaged: the identical tar cannot be given back")


def check_magic(found: bytes, magic: bytes) -> None:
    """Refuse a record whose first bytes are not ``magic``, the last of which is the version that is read here.

    Raises:
        ArchiveError: it is of another version, or no record.
    """
    if found == magic:
        return
    if found[:-1] != magic[:-1] or len(found) != len(magic):
        raise damaged()
    raise errors.ArchiveError(
        f"the header record has version {found[-1]}, and {magic[-1]} is read here: "
        "give the layer's tar once more, from where it came, and keep a new record"
    )


class ByteRange:
    """A part of the record as a stream; others may be read meanwhile."""

    def __init__(self, record: BinaryIO, start: int, end: int) -> None:
        """Read from ``start`` to ``end``."""
        self._record = record
        self._position = start
        self._end = end

    def read(self, size: int) -> bytes:
        """Read up to ``size`` bytes."""
        self._record.seek(self._position)
        piece = self._record.read(min(size, self._end - self._position))
        self._position += len(piece)
        return piece


class _Frames(ByteRange):
    """A part of the record that is whole zstd frames, which libzstd's stream reader does not check."""

    def __init__(self, record: BinaryIO, start: int, end: int) -> None:
        """Read from ``start`` to ``end``."""
        super().__init__(record, start, end)
        self._walker = FrameWalker()

    def read(self, size: int) -> bytes:
        """Read up to ``size`` bytes.

        Raises:
            MalformedArchive: they are no frames, or end within one.
        """
        piece = super().read(size)
        self._walker.walk(piece)
        if not piece and not self._walker.at_boundary:
            raise damaged()
        return piece


class Segment:
    """The decompressed bytes of one segment."""

    def __init__(self, record: BinaryIO, start: int, end: int) -> None:
        """Decompress what is between ``start`` and ``end``."""
        packed = cast("BinaryIO", _Frames(record, start, end))
        self._stream = zstandard.ZstdDecompressor().stream_reader(packed, read_across_frames=True)

    def read(self, size: int, *, at_end: bool = False) -> bytes:
        """Read exactly ``size`` bytes, or, where allowed, none at the end.

        Raises:
            ArchiveError: the segment ends too early or is damaged.
        """
        joined = b""
        while len(joined) < size:
            piece = self._some(size - len(joined))
            if not piece:
                if at_end and not joined:
                    return b""
                raise damaged()
            joined += piece
        return joined

    def finish(self) -> None:
        """Read on to the end: only there the checksum tells whether what was read is right."""
        while self._some(PIECE):
            pass

    def _some(self, size: int) -> bytes:
        try:
            return self._stream.read(size)
        except (zstandard.ZstdError, errors.MalformedArchive) as error:
            raise damaged() from error
