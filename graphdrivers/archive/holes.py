"""Find the holes worth recording in a file, from its content alone.

Where the kernel reports holes depends on the file system and on how a file got
there, and a produced diff must not: see
``docs/decisions/0003-sparse-in-diffs.rst``. So a hole, here, is a run of zero
bytes that starts on a 4096-byte boundary, ends on one (or at the end of the
file) and is at least `MIN_HOLE` bytes long, allocated on disk or not.
"""

import errno
import os
from collections.abc import Iterator

Region = tuple[int, int]
"""Offset and length in bytes."""

GRAIN = 4096
"""Holes start and end on multiples of this."""

MIN_HOLE = 64 << 10
"""Shorter runs of zeros are ordinary content; so a shorter file has no holes."""

_ZEROS = bytes(256 << 10)


def data_regions(fd: int, size: int) -> tuple[Region, ...] | None:
    """Return where the content of a file is, or ``None`` when it has no hole.

    The result depends only on the file's bytes. About one page in 16 is read of
    a file without holes; holes that the kernel knows cost nothing.

    Args:
        fd: a regular file, open for reading; its offset may move.
        size: of the file in bytes.
    """
    regions = []
    position = 0
    found = False
    for start, end in _holes(fd, size):
        found = True
        if start > position:
            regions.append((position, start - position))
        position = end
    if not found:
        return None
    if position < size:
        regions.append((position, size - position))
    return tuple(regions)


def _holes(fd: int, size: int) -> Iterator[Region]:
    """Give start and end of every hole.

    As in Boyer-Moore search, it looks first at the last page of the first place
    where a hole could be: when that page is not zero, no hole can start before
    its end, and the 15 pages in front of it need not be read.
    """
    bound = 0  # no hole starts before this
    while bound + MIN_HOLE <= size:
        probe = bound + MIN_HOLE - GRAIN
        if not _is_zero(fd, probe):
            bound = probe + GRAIN
            continue
        start = probe
        while start > bound and _is_zero(fd, start - GRAIN):
            start -= GRAIN
        end = _zeros_end(fd, probe + GRAIN, size)
        if end - start >= MIN_HOLE:
            yield start, end
        bound = end


def _is_zero(fd: int, offset: int) -> bool:
    return os.pread(fd, GRAIN, offset) == _ZEROS[:GRAIN]


def _zeros_end(fd: int, offset: int, size: int) -> int:
    """Return where the zeros that go on at ``offset``, a grain boundary, end: another one, or ``size``."""
    while offset < size:
        offset = _next_data(fd, offset, size)
        piece = os.pread(fd, len(_ZEROS), offset)
        if not piece or piece != _ZEROS[: len(piece)]:
            return offset + _zero_grains(piece)
        offset += len(piece)
    return size


def _zero_grains(piece: bytes) -> int:
    """Count the zeros in front of a piece that is not all zeros, in whole grains."""
    end = 0
    while end < len(piece) and piece[end : end + GRAIN] == _ZEROS[:GRAIN]:
        end += GRAIN
    return end


def _next_data(fd: int, offset: int, size: int) -> int:
    """Skip a hole that the kernel knows of.

    Source: lseek(2), ``SEEK_DATA``; file systems without support report data everywhere.
    """
    try:
        data = os.lseek(fd, offset, os.SEEK_DATA)
    except OSError as error:
        if error.errno == errno.ENXIO:
            return size
        if error.errno in {errno.EINVAL, errno.ENOTSUP}:
            return offset
        raise
    return min(data - data % GRAIN, size)
