"""The header record: all of a tar that its unpacked files do not hold, so that the identical tar can be given back.

A record is a sequence of zstd frames (*segments*) behind `MAGIC`:

* *tar segments* hold, for each stretch of the tar, its literal bytes and the
  place of the content that follows them: ``literal length, path length, offset,
  length`` (`FRAME`), the path, the literal bytes. Frames come in groups, and in
  front of each stand their number and their checksums (`NUMBER` each);
* *spill segments* hold the content of a file that a later member replaced:
  ``offset, length`` (`REGION`) and data of each region that is no hole;
* the *index*, last, lists the spills: ``path length, frames before it, start,
  end`` (`SPILL`) and the path.

`FOOTER` (start of the index, `MAGIC` again) ends it. Numbers are little-endian.
A checksum is the CRC-32 of the content (of gzip, RFC 1952, heading *CRC32*;
without content 0), wherever it is kept: so what is read back is verified stretch
by stretch, and a damaged file can be named. Frames carry zstd's own checksum.
"""

import os
import struct
from typing import BinaryIO

import zstandard
from isal.isal_zlib import crc32

from graphdrivers.archive.blocks import Noted
from graphdrivers.archive.pipeline import Pump
from graphdrivers.linux import copying

VERSION = 2
"""Version 1 had no checksums; it was never released, and is not read."""

MAGIC = b"GDHEADR" + bytes([VERSION])
"""The last byte is the version."""

FRAME = struct.Struct("<IIQQ")
NUMBER = struct.Struct("<I")
REGION = struct.Struct("<QQ")
SPILL = struct.Struct("<IQQQ")
FOOTER = struct.Struct("<Q8s")
_PACK = FRAME.pack

_LEVEL = 3
_BATCH = 1 << 20
"""Bytes handed over at a time: each hand-over to the compressing thread costs the reading one some waiting."""
_PIECE = 1 << 20


class HeaderRecorder:
    """Write a header record while a tar is read; compression runs in its own thread."""

    def __init__(self, sink: BinaryIO) -> None:
        """Write to ``sink``, which stays open and is never read or moved."""
        self._segments = _Segments(sink)
        self.noted: list[Noted] = []
        """See `graphdrivers.archive.blocks.Recorder`."""
        self._view = memoryview(b"")
        self._out: list[bytes] = []
        self._checksums: list[int] = []
        self._size = 0
        self._literal = bytearray()
        self._path: bytes | None = None  # of the content behind the literal bytes
        self._start = self._end = self._crc = 0
        self._frames = 0
        self._spills: list[tuple[bytes, int, int]] = []  # path, frames before, segment

    def literal(self, piece: bytes | memoryview) -> None:
        """Keep bytes of the tar as they are."""
        if self.noted:
            self._take_noted()
        if self._path is not None or len(self._literal) > _BATCH:
            self._end_frame()
        self._literal += piece

    def content(self, path: bytes, offset: int, piece: memoryview) -> None:
        """Note that the tar goes on with ``piece``, which the file ``path`` holds at ``offset``."""
        if self.noted:
            self._take_noted()
        if self._path is not None:
            if path == self._path and offset == self._end:
                self._end += len(piece)
                self._crc = crc32(piece, self._crc)
                return
            self._end_frame()
        self._path = path
        self._start = offset
        self._end = offset + len(piece)
        self._crc = crc32(piece)

    def turn(self, view: memoryview) -> None:
        """Take in what was noted of the chunk before; ``view`` is the next one."""
        if self.noted:
            self._take_noted()
        self._view = view

    def spill(self, path: bytes, fd: int) -> None:
        """Keep the content of ``path``, open as ``fd``, because the file is about to be replaced or removed.

        What was noted of ``path`` up to now means this content. Holes stay holes.
        """
        if self.noted:
            self._take_noted()
        self._end_frame()
        self._flush(end=True)
        for start, length in copying.data_regions(fd, os.fstat(fd).st_size):
            self._segments.put(REGION.pack(start, length))
            for offset in range(start, start + length, _PIECE):
                self._segments.put(os.pread(fd, min(_PIECE, start + length - offset), offset))
        self._spills.append((path, self._frames, self._segments.count))
        self._segments.put(b"", end=True)

    def close(self) -> None:
        """Write out the rest; the record is complete only now.

        Raises:
            OSError: the sink failed.
        """
        if self.noted:
            self._take_noted()
        self._end_frame()
        self._flush(end=True)
        ends = self._segments.wait()
        index = ends[-1]
        for path, frames, segment in self._spills:
            self._out += (SPILL.pack(len(path), frames, ends[segment - 1], ends[segment]), path)
        self._flush(end=True)
        self._segments.close(index)

    def abort(self) -> None:
        """Give up; what was written so far is garbage. Idempotent."""
        self._segments.abort()

    def _take_noted(self) -> None:
        """Write out the frames of files given whole."""
        self._end_frame()
        view, checksum = self._view, self._checksums.append
        parts: list[bytes | memoryview] = []
        for start, end, path, length, crc in self.noted:
            parts += (_PACK(end - start, len(path), 0, length), path, view[start:end])
            checksum(crc)
        self._frames += len(self.noted)
        self.noted.clear()
        self._keep(b"".join(parts))  # joined at once: a view would keep its whole chunk alive

    def _keep(self, frames: bytes) -> None:
        """Keep encoded frames until there are enough of them to hand over."""
        self._out.append(frames)
        self._size += len(frames)
        if self._size >= _BATCH:
            self._flush()

    def _end_frame(self) -> None:
        """Write out the stretch that is being collected."""
        path = self._path
        if path is None:
            if not self._literal:
                return
            path = b""
        self._checksums.append(self._crc)
        frame = FRAME.pack(len(self._literal), len(path), self._start, self._end - self._start)
        encoded = b"".join((frame, path, self._literal))
        self._literal.clear()
        self._path = None
        self._start = self._end = self._crc = 0
        self._frames += 1
        self._keep(encoded)

    def _flush(self, *, end: bool = False) -> None:
        """Hand over a group of frames."""
        sums = self._checksums
        # Apart from the frames, which are much alike: among them they would cost the compressor half its speed.
        group = struct.pack(f"<{1 + len(sums)}I", len(sums), *sums) if sums else b""
        self._segments.put(group + b"".join(self._out), end=end)
        self._out.clear()
        sums.clear()
        self._size = 0


class _Segments:
    """Compress segments one after the other in a thread, and remember where they end."""

    def __init__(self, sink: BinaryIO) -> None:
        """Begin the record."""
        self._sink = sink
        self._pump: Pump[tuple[bytes, bool]] = Pump(self._write)
        self._compressor = zstandard.ZstdCompressor(level=_LEVEL, write_checksum=True)
        self._segment = self._compressor.compressobj()
        self._written = _write_all(sink, MAGIC)
        self._ends: list[int] = []
        self.count = 0
        """Segments ended by `put`."""

    def put(self, piece: bytes, *, end: bool = False) -> None:
        """Append to the present segment, and end it."""
        self._pump.put((piece, end))
        self.count += end

    def wait(self) -> list[int]:
        """Wait for all segments ended so far; return the offset behind each."""
        self._pump.wait()
        return list(self._ends)

    def close(self, index: int) -> None:
        """Write the footer."""
        self._pump.close()
        _write_all(self._sink, FOOTER.pack(index, MAGIC))

    def abort(self) -> None:
        """End the thread."""
        self._pump.abort()

    def _write(self, item: tuple[bytes, bool]) -> None:
        piece, end = item
        packed = self._segment.compress(piece)
        if end:
            packed += self._segment.flush()
            self._segment = self._compressor.compressobj()
        self._written += _write_all(self._sink, packed)
        if end:
            self._ends.append(self._written)


def _write_all(sink: BinaryIO, piece: bytes) -> int:
    """Write a piece, also to a raw stream that takes only some of it; returns its length."""
    view = memoryview(piece)
    while view:
        view = view[sink.write(view) :]
    return len(piece)
