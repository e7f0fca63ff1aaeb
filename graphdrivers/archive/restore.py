"""Give back the identical tar from a header record and the files that were unpacked.

Each stretch of content is verified on its way with the record's checksum, so a
file that changed is named; with `Damages` all of them are, in one pass.
"""

import enum
import errno
import os
from collections import deque
from collections.abc import Callable, Generator, Iterator
from typing import BinaryIO, cast

import attrs
from isal.isal_zlib import crc32

from graphdrivers import errors
from graphdrivers.archive.headers import FOOTER, FRAME, MAGIC, NUMBER, REGION, SPILL
from graphdrivers.archive.segments import PIECE, ByteRange, Segment, check_magic, damaged
from graphdrivers.archive.stream import ChunkStream

_Spills = dict[bytes, deque[tuple[int, int, int]]]
"""By path: frames before it, start and end of its segment."""

OpenFile = Callable[[bytes], int]
"""Opens a file of the layer by its path for reading; the descriptor is closed here."""

_BATCH = 256 << 10
_PATH_MAX = 1 << 20
_LITERAL_MAX = 1 << 24
_GROUP_MAX = 1 << 20
_ZEROS = bytes(PIECE)

LACKING = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})
"""Errors of who reads, which say nothing about what is read."""


class DamageKind(enum.StrEnum):
    """What is wrong with a file whose content is needed; each value completes "the file ..."."""

    MISSING = "cannot be opened"
    UNREADABLE = "cannot be read"
    SHORT = "is shorter than it was"
    CHANGED = "has other content than was unpacked"


@attrs.frozen
class Damage:
    """One file of a layer that does not hold what its tar brought."""

    path: bytes
    """As the layer's tree has it."""
    kind: DamageKind
    offset: int
    """Where it begins, in bytes: of what is missing, or of the stretch (up to the whole file) that changed."""
    reason: str = ""
    """What the system said, where it said something."""


Damages = Callable[[Damage], object]
"""Told of every damaged file once, at its first damage; raise from it to stop."""


def restore(record: BinaryIO, open_file: OpenFile, damages: Damages | None = None) -> BinaryIO:
    """Stream the tar that ``record`` was made from, verifying the files' content on the way.

    The whole of a stretch of content that fails is never given. The literal
    bytes are as good as zstd's checksums; proof that all is identical is only the
    DiffID, with `digests.VerifiedReader`.

    Args:
        record: a complete record, seekable; used until the stream is closed, and left open.
        open_file: gives the files' content. It is for the caller to open
            nothing but regular files, and to follow no links.
        damages: with it the stream goes on behind damaged files, of the right
            length but not identical: it has zeros for what cannot be read, and
            changed content as it is.

    Raises:
        ArchiveError: while reading: the record is damaged, or (without
            ``damages``) a file is missing, shorter than it was, unreadable or
            changed; the error names it.
    """
    content = _Content(record, open_file, damages or _refuse)
    return cast("BinaryIO", ChunkStream(_batched(_tar(record, content)), content.close))


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


def _tar(record: BinaryIO, content: "_Content") -> Iterator[bytes]:
    """Walk through the frames of the tar segments, and read each content from where it is now."""
    content.spills, sections = _index(record)
    number = 0
    for start, end in sections:
        segment = Segment(record, start, end)
        for checksum in _checksums(segment):
            literal, path_length, offset, length = FRAME.unpack(segment.read(FRAME.size))
            if literal > _LITERAL_MAX or path_length > _PATH_MAX:
                raise damaged()
            path = segment.read(path_length)
            if b"\0" in path or (length and not path):
                raise damaged()
            yield segment.read(literal)
            if length:
                yield from content.read(path, number, (offset, length), checksum)
            number += 1
    content.finish()


def _checksums(segment: Segment) -> Iterator[int]:
    """Give the checksum of each frame of a tar segment, just before the frame is to be read."""
    while number := segment.read(NUMBER.size, at_end=True):
        (count,) = NUMBER.unpack(number)
        if count > _GROUP_MAX:
            raise damaged()
        sums = segment.read(count * NUMBER.size)
        yield from (checksum for (checksum,) in NUMBER.iter_unpack(sums))


class _Content:
    """The files' content, wherever it is: in the tree, or spilled into the record."""

    def __init__(self, record: BinaryIO, open_file: OpenFile, damages: Damages) -> None:
        """Open nothing yet."""
        self.spills: _Spills = {}
        self._record = record
        self._open_file = open_file
        self._damages = damages
        self._told: set[bytes] = set()
        self._path: bytes | None = None
        self._fd = -1
        self._spill: _Spill | None = None

    def read(self, path: bytes, number: int, place: tuple[int, int], checksum: int) -> Iterator[bytes]:
        """Give a stretch (offset, length) of what ``path`` held at frame ``number``; judge it before its last piece."""
        spills = self.spills.get(path)
        while spills and spills[0][0] <= number:
            spills.popleft()
            self._path = None
        if path != self._path:
            self._open(path, spills[0] if spills else None)
        offset, left = place
        pieces = self._from_file(path, *place) if self._spill is None else self._spill.read(*place)
        found = 0
        for piece in pieces:
            found = crc32(piece, found)
            left -= len(piece)
            if not left and found != checksum:
                if self._spill is not None:
                    raise damaged()
                self._tell(path, DamageKind.CHANGED, offset)
            yield piece

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
            self._tell(path, DamageKind.MISSING, 0, error)

    def _from_file(self, path: bytes, offset: int, length: int) -> Iterator[bytes]:
        """Read from the file; zeros where it has nothing."""
        end = offset + length
        while offset < end:
            size = min(PIECE, end - offset)
            piece = b"" if self._fd < 0 else self._from_disk(path, offset, size)
            if not piece:
                self._tell(path, DamageKind.SHORT, offset)
                piece = _ZEROS[:size]
            yield piece
            offset += len(piece)

    def _from_disk(self, path: bytes, offset: int, size: int) -> bytes:
        """Read a piece; a bad block costs the rest of it, and the pieces behind it are tried again."""
        try:
            return os.pread(self._fd, size, offset)
        except OSError as error:
            self._tell(path, DamageKind.UNREADABLE, offset, error)
            return _ZEROS[:size]

    def _tell(self, path: bytes, kind: DamageKind, offset: int, error: OSError | None = None) -> None:
        """Tell of a file's first damage."""
        if error is not None and error.errno in LACKING:
            raise error
        if path not in self._told:
            self._told.add(path)
            self._damages(Damage(path, kind, offset, "" if error is None else os.strerror(error.errno or 0).lower()))


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
    check_magic(ByteRange(record, 0, len(MAGIC)).read(len(MAGIC)), MAGIC)
    if len(footer) < FOOTER.size:
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


def _refuse(damage: Damage) -> None:
    """Stop at the first damage."""
    reason = f" ({damage.reason})" if damage.reason else ""
    raise errors.ArchiveError(
        f"the identical tar cannot be given back: the layer's file {damage.kind}{reason}",
        member=os.fsdecode(damage.path),
    )
