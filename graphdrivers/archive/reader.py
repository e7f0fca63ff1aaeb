"""Read the members of an uncompressed tar, strictly and fast.

Understands v7, ustar, GNU (long names, base-256 numbers, all four sparse
forms), PAX and star, as GNU tar and Go's ``archive/tar`` read them. What two
readers could understand differently is refused.
"""

import os
import struct
from collections.abc import Callable, Iterator
from typing import TypeVar

from isal.isal_zlib import adler32, crc32

from graphdrivers import errors
from graphdrivers.archive import fields
from graphdrivers.archive.blocks import BlockStream, Recorder, Source
from graphdrivers.archive.entries import (
    BLOCK,
    BLOCKDEV,
    CHARDEV,
    DIRECTORY,
    FIFO,
    HARDLINK,
    REGULAR,
    SYMLINK,
    Entry,
)
from graphdrivers.archive.extensions import OLD_SPARSE, Extensions
from graphdrivers.archive.fields import malformed
from graphdrivers.archive.pax import NO_XATTRS
from graphdrivers.model import Limits

CHUNK = 4 << 20
"""Bytes asked of the source at a time: fewer chunks are fewer hand-overs of the GIL to the hashing thread."""

SMALL = 64 << 10
"""Payloads up to this size are always given whole."""

_DUMP_DIRECTORY = b"D"
_KINDS = {
    **{kind: kind for kind in (REGULAR, HARDLINK, SYMLINK, CHARDEV, BLOCKDEV, DIRECTORY, FIFO)},
    b"\0": REGULAR,  # v7
    b"7": REGULAR,  # contiguous
    OLD_SPARSE: REGULAR,
    _DUMP_DIRECTORY: DIRECTORY,  # its payload lists names, for incremental backups only
}
_WITH_PAYLOAD = frozenset({REGULAR, b"\0", b"7", OLD_SPARSE, _DUMP_DIRECTORY})
"""The others carry none, whatever their size field says (as Go's archive/tar reads them)."""

_LINKS = frozenset({HARDLINK, SYMLINK})
_DEVICES = frozenset({CHARDEV, BLOCKDEV})
_NO_DEVICE = (0, 0)

_FRONT = struct.Struct("100s24s11sB11sB8sc188xB")
"""Of a plain file's header: name, mode and owners, size and time with what ends each, checksum, kind, prefix."""

_SPECIAL = frozenset({b"", b".", b"/"})
"""How names begin whose meaning is not just what they say."""

Directory = TypeVar("Directory")

File = tuple[Directory, bytes, bytes, tuple[int, int, int], int, memoryview]
"""Directory, name in it, whole name without ``./``; mode, uid and gid; mtime in whole seconds; content."""


class TarReader:
    """Iterate over a tar's members and their payloads, in one pass and in bounded memory."""

    def __init__(
        self,
        source: Source,
        limits: Limits = Limits(),
        *,
        recorder: Recorder | None = None,
        tap: Callable[[bytes], None] | None = None,
        chunk: int = CHUNK,
    ) -> None:
        """Start before the first member; nothing is read yet.

        Args:
            source: the uncompressed tar; short reads are fine.
            limits: what the archive may ask for; `Limits.size` is left to the caller.
            recorder: gets every byte of the tar, in order, either literally or as the content of a path.
            tap: gets every byte of the tar, in order, in the chunks that were read.
            chunk: bytes asked of ``source`` at a time.
        """
        self._blocks = BlockStream(source, chunk, recorder, tap)
        self._extensions = Extensions(self._blocks, limits)
        self._limits = limits
        self._members = 0
        self._header = fields.ZERO_BLOCK
        self._entry: Entry | None = None
        self._left = 0  # bytes of the present payload that nobody asked for yet
        self._padding = 0
        self._ended = False
        self._adlers = fields.FieldCache(fields.expected_adler)
        self._modes = fields.FieldCache(fields.mode_and_owners)
        self._sizes = fields.FieldCache(fields.size)
        self._times = fields.FieldCache(fields.nanoseconds)

    @property
    def consumed(self) -> int:
        """Bytes of the tar passed so far."""
        return self._blocks.base + self._blocks.position

    def next(self) -> Entry | None:
        """Go on to the next member, past what is left of the present one; ``None`` after the last.

        Raises:
            MalformedArchive: cut, or contradicting itself.
            LimitExceeded: it asks for more than the limits allow.
        """
        self._entry = None
        blocks = self._blocks
        position = blocks.position + self._left + self._padding
        if position <= blocks.end:
            blocks.position = position
        else:
            self._finish_payload()
        self._left = self._padding = 0
        if self._ended:
            return None
        offset = blocks.base + blocks.position
        try:
            entry = self._read_member(offset)
        except errors.ArchiveError as error:
            if error.offset < 0:
                error.offset = offset
            error.member = error.member or os.fsdecode(fields.full_name(self._header))
            raise
        self._entry = entry
        return entry

    def files(self, known: Callable[[bytes], Directory | None]) -> Iterator[File[Directory]]:
        """Go on over the plain files that come next, up to the first member that takes more than a glance; maybe none.

        The fast way through most of a layer: whatever is odd or wrong is left to
        `next`. The caller writes each file under its name before it asks for the
        next one, as for `stored`: the recorder then remembers the place. The
        iterator has to be used up; meanwhile `consumed` is the member's offset.

        Args:
            known: gives the directory of a name that is real (see `graphdrivers.archive.places`),
                or None: then the file is left to `next`.
        """
        blocks = self._blocks
        chunk, view, end = blocks.chunk, blocks.view, blocks.end
        recorder = blocks.recorder
        start = position = blocks.position + self._left + self._padding
        left = self._limits.members - self._members
        if self._extensions.wanted or self._ended or position > end:
            return
        self._entry = None
        self._left = padding = 0
        try:
            while start + BLOCK <= end and left > 0:
                name, owners, size, size_end, time, time_end, checksum, kind, prefix = _FRONT.unpack_from(chunk, start)
                content = start + BLOCK
                if kind != REGULAR or prefix or (size_end | time_end) & ~0x20:  # they end with a NUL or a blank
                    break
                if not (size.isdigit() and time.isdigit()):
                    break
                if adler32(chunk[start:content]) & 0xFFFF != self._adlers[checksum]:
                    break
                stop = content + int(size, 8)
                name = name.partition(b"\0")[0]
                if name[:2] == b"./":
                    name = name[2:]
                head, _, base = name.rpartition(b"/")
                directory = known(head)
                if directory is None or stop > end or name[:1] in _SPECIAL or base[:1] in _SPECIAL:
                    break
                blocks.position = start
                payload = view[content:stop]
                yield directory, base, name, self._modes[owners], int(time, 8), payload
                if recorder is not None and stop > content:
                    recorder.noted.append((blocks.mark, content, name, stop - content, crc32(payload)))
                    blocks.mark = stop
                left -= 1
                position, padding = stop, (content - stop) % BLOCK
                start = stop + padding
        except (errors.MalformedArchive, ValueError):  # `next` says what is wrong
            pass
        blocks.position, self._padding = position, padding
        self._members = self._limits.members - left

    def stored(self, path: bytes | None) -> memoryview | None:
        """Give the present member's payload if it is small and without holes; else use `pieces`.

        The view stays valid until the next call of `next`.

        Args:
            path: where the caller writes it: the recorder then remembers the
                place in place of the bytes. ``None`` keeps the bytes.

        Raises:
            MalformedArchive: the stream ends too early.
        """
        size = self._left
        if self._entry is None or self._entry.sparse is not None:
            return None
        blocks = self._blocks
        start = blocks.position
        stop = start + size
        if stop <= blocks.end:
            self._left = 0
            blocks.position = stop
            payload = blocks.view[start:stop]
            if path is not None and size and blocks.recorder is not None:
                blocks.recorder.noted.append((blocks.mark, start, path, size, crc32(payload)))
                blocks.mark = stop
            return payload
        if size > SMALL:
            return None
        joined = blocks.take(size, path)
        self._left = size - len(joined)
        if self._left:
            raise self._cut()
        return memoryview(joined)

    def pieces(self, path: bytes | None) -> Iterator[tuple[int, memoryview]]:
        """Give the present member's data as (offset in the file, bytes), in order, holes left out.

        Each view stays valid until the next call of `next`.

        Args:
            path: as for `stored`.

        Raises:
            MalformedArchive: the stream ends too early.
        """
        entry = self._entry
        if entry is None:
            return
        regions = ((0, self._left),) if entry.sparse is None else entry.sparse
        for start, length in regions:
            offset, end = start, start + length
            while offset < end:
                piece = self._blocks.piece(end - offset, path, offset)
                if not piece:
                    raise self._cut()
                self._left -= len(piece)
                yield offset, piece
                offset += len(piece)

    def drain(self) -> None:
        """Read on to the end of the stream, whatever follows the archive's end."""
        self._entry = None
        self._left = self._padding = 0
        self._ended = True
        blocks = self._blocks
        blocks.position = blocks.end
        while blocks.load():
            blocks.position = blocks.end

    def _cut(self) -> errors.MalformedArchive:
        """Make the error for a stream that ends within the present payload."""
        name, offset = (self._entry.name, self._entry.offset) if self._entry else (b"", -1)
        return malformed("the archive ends within a member's data", name, offset)

    def _finish_payload(self) -> None:
        """Pass over what is left of the payload, and its padding, which the last member may lack (as in Go)."""
        missing = self._blocks.skip(self._left + self._padding)
        if missing > self._padding:
            raise malformed("the archive ends within a member's data", fields.full_name(self._header))
        self._ended = missing > 0

    def _read_header(self) -> bytes | None:
        """Read one header block and check its sum; ``None`` at the end of the archive."""
        blocks = self._blocks
        start = blocks.position
        stop = start + 512
        if stop <= blocks.end:
            blocks.position = stop
            header = blocks.chunk[start:stop]
        else:
            header = blocks.take(BLOCK)
            if len(header) < BLOCK:
                if header:
                    raise malformed("the archive ends within a header")
                return None
        self._header = header
        if adler32(header) & 0xFFFF == self._adlers[header[148:156]] or self._is_header(header):
            return header
        return None

    def _is_header(self, header: bytes) -> bool:
        """Judge a block whose sum looks wrong: False for a zero block that ends the archive."""
        if header == fields.ZERO_BLOCK:
            second = self._blocks.take(BLOCK)
            if second.strip(b"\0"):
                raise malformed("a lone zero block stands between members")
            return False
        if not fields.checksum_holds(header):
            raise malformed("a header's checksum is wrong (not a tar, or damaged)")
        return True

    def _read_member(self, offset: int) -> Entry | None:
        """Read headers up to and including a member's own."""
        while True:
            header = self._read_header()
            if header is None:
                if self._extensions.dangling:
                    raise malformed("the archive ends behind an extension header")
                self._ended = True
                return None
            kind = header[156:157]
            known = _KINDS.get(kind)
            if known is not None:
                break
            self._extensions.read(header, kind)
        self._members += 1
        if self._members > self._limits.members:
            raise errors.LimitExceeded(f"more than {self._limits.members} members", limit="members")
        # Constant slices, because this runs once per member: see `fields` for their names.
        name = header[0:100]
        mode, uid, gid = self._modes[header[100:124]]
        entry = Entry(
            fields.full_name(header) if header[345] else name[:end] if (end := name.find(0)) >= 0 else name,
            known,
            mode,
            uid,
            gid,
            size := self._sizes[header[124:136]],
            self._times[header[136:148]],
            fields.text(header[157:257]) if kind in _LINKS else b"",
            fields.device(header) if kind in _DEVICES else _NO_DEVICE,
            NO_XATTRS,
            None,
            offset,
        )
        if self._extensions.wanted or kind == OLD_SPARSE:
            size = self._extensions.merge(entry, header)
        if kind in _WITH_PAYLOAD:
            self._left = size
            self._padding = -size % 512
        if known is not REGULAR:
            entry.size = 0
        elif entry.name[-1:] == b"/":  # v7 had no other way to write a directory
            entry.kind, entry.size, entry.sparse = DIRECTORY, 0, None
        return entry
