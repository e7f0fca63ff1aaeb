"""CRC-32 of a file's content, holes passed over in logarithmic time.

Source: RFC 1952, heading *CRC32*; for the arithmetic zlib's ``crc32_combine``
(``x2nmodp`` and ``multmodp`` in ``crc32.c``).
"""

import os
from collections.abc import Iterable, Iterator

from isal.isal_zlib import crc32

from graphdrivers.linux import copying

_POLYNOMIAL = 0xEDB88320
_ONE = 1 << 31
"""The polynomial 1: bits are in reverse order."""

_EIGHT = 1 << 23
"""The polynomial x to the 8th: one zero byte."""

_MASK = 0xFFFFFFFF
_PIECE = 1 << 20


def of_pieces(pieces: Iterable[tuple[int, bytes | memoryview]], size: int) -> int:
    """Return the checksum of ``size`` bytes given as (offset, bytes) in order; zeros are between the pieces."""
    checksum = end = 0
    for offset, piece in pieces:
        if offset > end:
            checksum = over_zeros(checksum, offset - end)
        checksum = crc32(piece, checksum)
        end = offset + len(piece)
    return over_zeros(checksum, size - end)


def of_file(fd: int) -> int:
    """Return the checksum of an open regular file."""
    size = os.fstat(fd).st_size
    return of_pieces(_pieces(fd, size), size)


def over_zeros(checksum: int, count: int) -> int:
    """Return the checksum that ``checksum`` becomes when ``count`` zero bytes follow."""
    if not count:
        return checksum
    factor, power = _ONE, _EIGHT
    while count:
        if count & 1:
            factor = _product(factor, power)
        power = _product(power, power)
        count >>= 1
    return _product(factor, checksum ^ _MASK) ^ _MASK


def _product(one: int, other: int) -> int:
    """Multiply two polynomials modulo the checksum's."""
    result = 0
    bit = _ONE
    while bit:
        if one & bit:
            result ^= other
        other = (other >> 1) ^ _POLYNOMIAL if other & 1 else other >> 1
        bit >>= 1
    return result


def _pieces(fd: int, size: int) -> Iterator[tuple[int, bytes]]:
    for start, length in copying.data_regions(fd, size):
        offset, end = start, start + length
        while offset < end:
            piece = os.pread(fd, min(_PIECE, end - offset), offset)
            if not piece:
                return
            yield offset, piece
            offset += len(piece)
