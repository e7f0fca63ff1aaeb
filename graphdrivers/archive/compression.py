"""Compressed layers as plain streams: decompressed in a thread of its own, a few MiB ahead.

Nothing outside the process is asked to decompress. Concatenated streams are one
stream, as gzip(1), zstd(1), xz(1) and bzip2(1) have it; NUL padding between and
behind them is passed over; anything else behind them is refused.
"""

import bz2
import enum
import lzma
import os
import stat
from collections.abc import Callable, Generator, Iterator
from typing import BinaryIO, Protocol, cast

import zstandard
from isal import igzip_lib

from graphdrivers import errors
from graphdrivers.archive.fields import malformed
from graphdrivers.archive.pipeline import ReadAhead
from graphdrivers.archive.stream import ChunkStream
from graphdrivers.archive.zstdframes import FrameWalker
from graphdrivers.model import Limits

CHUNK = 4 << 20
"""Most bytes in one chunk of output."""

_INPUT = 2 << 20
_FIRST_INPUT = 4 << 10
_MAGIC = 10
_IsalError = cast("type[Exception]", igzip_lib.IsalError)  # its stub says that it is an instance
_LZMA_OVERHEAD = 16 << 20
_RATIO_FROM = 64 << 20


class Compression(enum.Enum):
    """How a layer is compressed."""

    NONE = "none"
    GZIP = "gzip"
    ZSTD = "zstd"
    XZ = "xz"
    BZIP2 = "bzip2"


def detect(start: bytes) -> Compression:
    """Tell the compression from the first bytes of a stream; 10 are enough.

    Source: RFC 1952, RFC 8878 (skippable frames too), *The .xz File Format*.
    bzip2 has a second magic, without which a tar of a file ``BZh...`` would look like one.
    """
    if start.startswith(b"\x1f\x8b\x08"):
        return Compression.GZIP
    if start.startswith(b"\x28\xb5\x2f\xfd") or (start[1:4] == b"\x2a\x4d\x18" and start[0] >> 4 == 5):
        return Compression.ZSTD
    if start.startswith(b"\xfd7zXZ\0"):
        return Compression.XZ
    if start.startswith(b"BZh") and start[4:10] in {b"1AY&SY", b"\x17\x72\x45\x38\x50\x90"}:
        return Compression.BZIP2
    return Compression.NONE


def open_plain(stream: BinaryIO, limits: Limits, *, compression: Compression | None = None) -> BinaryIO:
    """Open the decompressed bytes of ``stream``, read ahead in a thread and in bounded memory.

    A raw stream: one read gives up to one chunk. Closing it ends the thread, at
    any moment; only a read of ``stream`` that is under way is waited for.

    Args:
        stream: is read to its end and left open.
        limits: `Limits.ratio` and `Limits.window_log`, which also bounds what xz may allocate.
        compression: ``None`` to detect it.

    Raises:
        MalformedArchive: while reading: damaged, cut, or followed by something else.
        LimitExceeded: while reading: it expands too much, or needs too much memory.
    """
    feed = _Feed(stream)
    if _is_file(stream):
        # The kernel reads files ahead by itself; a second thread would only take the GIL from the one that unpacks.
        compression = detect(feed.fill(_MAGIC)) if compression is None else compression
        if compression is Compression.NONE:
            return cast("BinaryIO", ChunkStream(_plain(feed, limits, compression), bool))
    ahead = ReadAhead(_plain(feed, limits, compression), depth=2)
    return cast("BinaryIO", ChunkStream(_chunks(ahead), ahead.close))


def _is_file(stream: BinaryIO) -> bool:
    """Tell whether reading never has to wait for another process."""
    try:
        return stat.S_ISREG(os.fstat(stream.fileno()).st_mode)
    except (AttributeError, OSError):  # no descriptor behind it: UnsupportedOperation is an OSError
        return False


def _chunks(ahead: ReadAhead) -> Generator[bytes]:
    while chunk := ahead.next_chunk():
        yield chunk


class _Feed:
    """The compressed bytes: counted, and given out in slices that may be given back."""

    def __init__(self, stream: BinaryIO) -> None:
        """Read nothing yet."""
        self._read = stream.read
        self._chunk = memoryview(b"")
        self._position = 0
        self.total = 0
        """Bytes read from the stream."""

    def fill(self, size: int) -> bytes:
        """Look at the first ``size`` bytes of the stream; fewer only if it has no more. Idempotent."""
        start = bytes(self._chunk)
        while len(start) < size and (more := self._read(_INPUT)):
            start += more
        self.total = len(start)
        self._chunk = memoryview(start)
        return start[:size]

    def read(self, size: int) -> memoryview:
        """Read up to ``size`` bytes; none at the end."""
        if self._position == len(self._chunk):
            self._chunk = memoryview(self._read(_INPUT) or b"")
            self._position = 0
            self.total += len(self._chunk)
        piece = self._chunk[self._position : self._position + size]
        self._position += len(piece)
        return piece

    def read_whole(self, size: int) -> bytes:
        """Read up to ``size`` bytes straight from the stream; what was looked at must be used up."""
        chunk = self._read(size)
        self.total += len(chunk)
        return chunk

    def give_back(self, size: int) -> None:
        """Take back the last ``size`` bytes of the last slice."""
        self._position -= size


def _plain(feed: _Feed, limits: Limits, compression: Compression | None) -> Generator[bytes]:
    """Decompress by the right method, as long as the output is in proportion to what was read for it."""
    start = feed.fill(_MAGIC)
    total = 0
    for chunk in _chosen(feed, limits, detect(start) if compression is None else compression):
        total += len(chunk)
        if total > _RATIO_FROM and total > feed.total * limits.ratio:
            raise errors.LimitExceeded(f"it expands more than {limits.ratio} times", limit="ratio")
        yield chunk


def _chosen(feed: _Feed, limits: Limits, compression: Compression) -> Iterator[bytes]:
    memory = (1 << limits.window_log) + _LZMA_OVERHEAD
    if compression is Compression.GZIP:
        return _concatenated(feed, lambda: igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP))
    if compression is Compression.XZ:
        return _concatenated(feed, lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=memory))
    if compression is Compression.BZIP2:
        return _concatenated(feed, bz2.BZ2Decompressor)
    if compression is Compression.ZSTD:
        return _from_zstd(feed, limits)
    return _copied(feed)


def _copied(feed: _Feed) -> Iterator[bytes]:
    """Pass on a stream that is not compressed."""
    yield bytes(feed.read(CHUNK))
    while chunk := feed.read_whole(CHUNK):
        yield chunk


class _Decompressor(Protocol):
    """What the decompressors of igzip_lib, lzma and bz2 have in common."""

    @property
    def eof(self) -> bool:
        """Whether the stream is complete."""

    @property
    def needs_input(self) -> bool:
        """Whether more output needs more input."""

    @property
    def unused_data(self) -> bytes:
        """What was given behind the stream's end."""

    def decompress(self, data: bytes | memoryview, max_length: int) -> bytes:
        """Take input and give some output."""


def _concatenated(feed: _Feed, make: Callable[[], _Decompressor]) -> Iterator[bytes]:
    """Decompress streams until there are no more; at least one."""
    while True:
        yield from _one_stream(feed, make())
        piece = feed.read(_INPUT)
        while piece and not (rest := bytes(piece).lstrip(b"\0")):
            piece = feed.read(_INPUT)
        if not piece:
            return
        feed.give_back(len(rest))


def _one_stream(feed: _Feed, decompressor: _Decompressor) -> Iterator[bytes]:
    """Decompress one stream and give back what follows it.

    Input is given in slices that grow: millions of tiny streams would otherwise
    mean copying all that follows for each of them.
    """
    size = _FIRST_INPUT
    while not decompressor.eof:
        piece = memoryview(b"")
        if decompressor.needs_input:
            piece = feed.read(size)
            size = min(2 * size, _INPUT)
            if not piece:
                raise malformed("the compressed data ends too early")
        try:
            chunk = decompressor.decompress(piece, CHUNK)
        except lzma.LZMAError as error:
            raise _refused(error) from error
        except (_IsalError, OSError, EOFError, ValueError) as error:
            raise malformed(f"the compressed data is damaged: {error}") from error
        if chunk:
            yield chunk
    feed.give_back(len(decompressor.unused_data))


def _from_zstd(feed: _Feed, limits: Limits) -> Iterator[bytes]:
    """Decompress zstd frames; skippable ones are skipped."""
    walker = FrameWalker()
    decompressor = zstandard.ZstdDecompressor(max_window_size=1 << limits.window_log)
    source = cast("BinaryIO", _Walked(feed, walker))
    stream = decompressor.stream_reader(source, read_size=_INPUT, read_across_frames=True)
    while True:
        try:
            chunk = stream.read(CHUNK)
        except zstandard.ZstdError as error:
            raise _refused(error) from error
        if not chunk:
            break
        yield chunk
    if not walker.at_boundary or not feed.total:
        raise malformed("the compressed data ends too early")


class _Walked:
    """A feed that a walker follows."""

    def __init__(self, feed: _Feed, walker: FrameWalker) -> None:
        """Start where the feed is."""
        self._feed = feed
        self._walker = walker

    def read(self, size: int) -> bytes:
        """Read up to ``size`` bytes."""
        piece = bytes(self._feed.read(size))
        self._walker.walk(piece)
        return piece


def _refused(error: Exception) -> errors.ArchiveError:
    """Tell a decompressor that may not allocate enough from damaged data."""
    text = str(error)
    if "emory" in text:
        return errors.LimitExceeded(f"decompressing needs too much memory ({text})", limit="window_log")
    return malformed(f"the compressed data is damaged: {text}")
