"""Layers compressed so that one tar always gives one blob: no name, no time, whatever the number of processors.

Both methods work on several processors: the input is cut into pieces of a fixed
size, each is compressed by itself (knowing the end of the one before), and the
results are joined into one ordinary stream. A newer zlib or libzstd may give
other bytes; ISA-L, which is faster, would give other ones on other processors.
"""

import os
import zlib
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import zstandard

from graphdrivers.archive.compression import Compression

PIECE = 1 << 20
"""Bytes of input that are compressed at once."""

_GZIP_LEVEL = 4  # nearly twice as fast as the usual 6, and 3 % larger
_ZSTD_LEVEL = 3
_WINDOW = 32 << 10
_HEADER = b"\x1f\x8b\x08\x00\0\0\0\0\x00\xff"  # no flags, no time, no level, no system
_LAST_BLOCK = b"\x03\x00"  # the last one, and empty


def compress(chunks: Iterable[bytes], compression: Compression, size: int) -> Generator[bytes]:
    """Give the compressed bytes of ``chunks``, made while they are read, in bounded memory.

    Args:
        chunks: the plain bytes.
        compression: ``GZIP`` or ``ZSTD``: those that manifests have media types for.
        size: how many plain bytes there are.

    Raises:
        ValueError: another compression.
        Whatever reading ``chunks`` raises.
    """
    if compression is Compression.GZIP:
        return _gzip(chunks)
    if compression is Compression.ZSTD:
        return _zstd(chunks, size)
    raise ValueError(f"layers are not compressed with {compression.value}; use gzip or zstd")


def _gzip(chunks: Iterable[bytes]) -> Generator[bytes]:
    """Compress as pigz does: each piece is ended by an empty block, which aligns it to bytes.

    Source: RFC 1951, section 3.2.4; RFC 1952, section 2.3.
    """
    checksum = total = 0
    before = b""
    waiting: deque[Future[bytes]] = deque()
    processors = _processors()
    with ThreadPoolExecutor(processors, "graphdrivers-gzip") as executor:
        try:
            yield _HEADER
            for piece in _pieces(chunks):
                waiting.append(executor.submit(_deflate, piece, before))
                checksum = zlib.crc32(piece, checksum)
                total += len(piece)
                before = piece[-_WINDOW:]
                if len(waiting) > processors:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            executor.shutdown(cancel_futures=True)
    yield _LAST_BLOCK + checksum.to_bytes(4, "little") + (total & 0xFFFFFFFF).to_bytes(4, "little")


def _deflate(piece: bytes, before: bytes) -> bytes:
    """Compress one piece; ``before`` is the end of the one before it, empty for the first."""
    compressor = zlib.compressobj(_GZIP_LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS, 8, zlib.Z_DEFAULT_STRATEGY, before)
    return compressor.compress(piece) + compressor.flush(zlib.Z_SYNC_FLUSH)


def _zstd(chunks: Iterable[bytes], size: int) -> Generator[bytes]:
    """Compress into one frame. With threads, also with just one, libzstd gives the same bytes for any number."""
    compressor = zstandard.ZstdCompressor(level=_ZSTD_LEVEL, threads=_processors(), write_checksum=True)
    frame = compressor.compressobj(size=size)
    for piece in _pieces(chunks):
        if packed := frame.compress(piece):
            yield packed
    yield frame.flush()


def _pieces(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Cut the input anew into pieces of `PIECE` bytes; the last is what is left, and there may be none."""
    left = bytearray()
    for chunk in chunks:
        left += chunk
        whole = len(left) - len(left) % PIECE
        for start in range(0, whole, PIECE):
            yield bytes(memoryview(left)[start : start + PIECE])
        del left[:whole]
    if left:
        yield bytes(left)


def _processors() -> int:
    """How many this process may use; the result does not depend on it."""
    return max(1, len(os.sched_getaffinity(0)))
