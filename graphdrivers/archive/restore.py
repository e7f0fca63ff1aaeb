"""Give back the identical tar from a header record and the files that were unpacked."""

import os
from collections import deque
from collections.abc import Callable, Generator, Iterator
from typing import BinaryIO, cast

from graphdrivers import errors
from graphdrivers.archive.headers import FOOTER, FRAME, MAGIC, REGION, SPILL
from graphdrivers.archive.segments import PIECE, ByteRange, Segment, damaged
from graphdrivers.archive.stream import ChunkStream

_Spills = dict[bytes, deque[tuple[int, int, int]]]
"""By path: frames before it, start and end of its segment."""

OpenFile = Callable[[bytes], int]
"""Opens a file of the layer by its path for reading; the descriptor is closed here."""

_BATCH = 256 << 10
_PATH_MAX = 1 << 20
_LITERAL_MAX = 1 << 24


def restore(record: BinaryIO, open_file: OpenFile) -> BinaryIO:
    """Stream the tar that ``record`` was made from.

    Whether it is identical is for the caller to verify, with the DiffID and
    `digests.VerifiedReader`: a file that changed in place is not noticed here.

    Args:
        record: a complete record, seekable; used until the stream is closed, and left open.
        open_file: gives the files' content.

    Raises:
        ArchiveError: while reading: the record is damaged, or a file is
            missing or shorter than it was; the error names it.
    """
    return cast("BinaryIO", ChunkStream(_batched(_tar(record, open_file)), lambda: None))


def _batched(pieces: Iterator[bytes]) -> Generator[bytes]:
    """Join small pieces: tens of thousands of small files would mean as many small reads."""
    batch = bytearray()
    for piece in pieces:
        if len(piece) >= _BATCH:
            if batch:
                yield bytes(batch)
                batch.clear()
            yield piece
            continue
        batch += piece
        if len(batch) >= _BATCH:
            yield bytes(batch)
            batch.clear()
    if batch:
        yield bytes(batch)


def _tar(record: BinaryIO, open_file: OpenFile) -> Iterator[bytes]:
    """Walk through the frames of the tar segments, and read each content from where it is now."""
    spills, sections = _index(record)
    content = _Content(record, open_file, spills)
    number = 0
    try:
        for start, end in sections:
            segment = Segment(record, start, end)
            while head := segment.read(FRAME.size, at_end=True):
                literal, path_length, offset, length = FRAME.unpack(head)
                if literal > _LITERAL_MAX or path_length > _PATH_MAX:
                    raise damaged()
                path = segment.read(path_length)
                if b"\0" in path or (length and not path):
                    raise damaged()
                yield segment.read(literal)
                if length:
                    yield from content.read(path, number, offset, length)
                number += 1
        content.finish()
    finally:
        content.close()


class _Content:
    """The files' content, wherever it is: in the tree, or spilled into the record."""

    def __init__(self, record: BinaryIO, open_file: OpenFile, spills: _Spills) -> None:
        """Open nothing yet."""
        self._record = record
        self._open_file = open_file
        self._spills = spills
        self._path: bytes | None = None
        self._fd = -1
        self._spill: _Spill | None = None

    def read(self, path: bytes, number: int, offset: int, length: int) -> Iterator[bytes]:
        """Give a stretch of what ``path`` held at frame ``number``."""
        spills = self._spills.get(path)
        while spills and spills[0][0] <= number:
            spills.popleft()
            self._path = None
        if path != self._path:
            self._open(path, spills[0] if spills else None)
        if self._spill is not None:
            return self._spill.read(offset, length)
        return self._from_file(offset, length)

    def finish(self) -> None:
        """Let go of the present content; verify it to its end where it was spilled."""
        if self._spill is not None:
            self._spill.finish()
            self._spill = None
        self.close()

    def close(self) -> None:
        """Close the file."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _open(self, path: bytes, spill: tuple[int, int, int] | None) -> None:
        self.finish()
        self._path = path
        if spill is not None:
            self._spill = _Spill(Segment(self._record, spill[1], spill[2]))
            return
        try:
            self._fd = self._open_file(path)
        except OSError as error:
            raise _lost(path, "cannot be opened") from error

    def _from_file(self, offset: int, length: int) -> Iterator[bytes]:
        end = offset + length
        while offset < end:
            piece = os.pread(self._fd, min(PIECE, end - offset), offset)
            if not piece:
                raise _lost(self._path or b"", "is shorter than it was")
            yield piece
            offset += len(piece)


class _Spill:
    """The regions of one spilled file, read in order; zeros between them."""

    def __init__(self, segment: Segment) -> None:
        """Start before the first region."""
        self._segment = segment
        self._at = self._end = 0  # what of the present region is still unread

    def read(self, offset: int, length: int) -> Iterator[bytes]:
        """Give a stretch that does not begin before the end of the last one."""
        end = offset + length
        while offset < end:
            while offset >= self._end:
                self._next_region(end)
            if offset < self._at:
                piece = bytes(min(PIECE, self._at - offset, end - offset))
            else:
                self._pass(offset)
                piece = self._segment.read(min(PIECE, self._end - offset, end - offset))
                self._at += len(piece)
            yield piece
            offset += len(piece)

    def finish(self) -> None:
        """Verify the rest."""
        self._segment.finish()

    def _next_region(self, end: int) -> None:
        """Go on to the next region; behind the last one there is a hole up to ``end``."""
        self._pass(self._end)
        head = self._segment.read(REGION.size, at_end=True)
        if not head:
            self._at = self._end = end + 1
            return
        self._at, length = REGION.unpack(head)
        self._end = self._at + length

    def _pass(self, offset: int) -> None:
        """Pass over data before ``offset`` that nobody asked for."""
        while self._at < offset:
            self._at += len(self._segment.read(min(PIECE, offset - self._at)))


def _index(record: BinaryIO) -> tuple[_Spills, list[tuple[int, int]]]:
    """Read the list of spills; return them by path, and the tar segments around them as (start, end)."""
    size = record.seek(0, os.SEEK_END)
    footer = ByteRange(record, max(0, size - FOOTER.size), size).read(FOOTER.size)
    if len(footer) < FOOTER.size or ByteRange(record, 0, len(MAGIC)).read(len(MAGIC)) != MAGIC:
        raise damaged()
    index, magic = FOOTER.unpack(footer)
    if magic != MAGIC or not len(MAGIC) <= index <= size - FOOTER.size:
        raise damaged()
    segment = Segment(record, index, size - FOOTER.size)
    spills: _Spills = {}
    sections = []
    position = len(MAGIC)
    while head := segment.read(SPILL.size, at_end=True):
        path_length, frames, start, end = SPILL.unpack(head)
        if path_length > _PATH_MAX or not position <= start <= end <= index:
            raise damaged()
        spills.setdefault(segment.read(path_length), deque()).append((frames, start, end))
        sections.append((position, start))
        position = end
    return spills, [*sections, (position, index)]


def _lost(path: bytes, reason: str) -> errors.ArchiveError:
    return errors.ArchiveError(
        f"the identical tar cannot be given back: the layer's file {reason}", member=os.fsdecode(path)
    )
