"""Maps of files with holes, in the four forms that GNU tar has written.

Source: GNU tar manual, appendix *Storing Sparse Files*. A map is checked here
once and for all: regions in order, not overlapping, inside the file, and as
long together as the payload is.
"""

from collections.abc import Callable

import attrs

from graphdrivers import errors
from graphdrivers.archive.entries import BLOCK
from graphdrivers.archive.fields import MAX_SIZE, in_range, malformed, number
from graphdrivers.archive.pax import Records, decimal

_OLD_MAP, _OLD_SLOTS = 386, 4
_OLD_EXTENDED, _OLD_REALSIZE = 482, slice(483, 495)
_MORE_SLOTS, _MORE_EXTENDED = 21, 504
_SLOT = 24

ReadBlock = Callable[[], bytes]
"""Gives the next 512 bytes of the archive."""


@attrs.frozen(eq=False)
class SparseMap:
    """Where a payload's bytes belong."""

    size: int
    """Bytes of the file, holes counted."""
    regions: tuple[tuple[int, int], ...]
    """(offset, length) of each data region, none empty."""
    stored: int
    """Bytes of data that follow in the archive."""
    name: bytes | None = None
    """The file's real name, where the form keeps it apart."""


def from_old_gnu(header: bytes, stored: int, read_block: ReadBlock, limit: int) -> SparseMap:
    """Read the map of a member of type ``S``: in its header and in blocks behind it."""
    numbers = _slots(header, _OLD_MAP, _OLD_SLOTS)
    extended = header[_OLD_EXTENDED]
    while extended:
        block = read_block()
        more = _slots(block, 0, _MORE_SLOTS)
        numbers += more
        _within(len(numbers) // 2, limit)
        extended = block[_MORE_EXTENDED] if more else 0
    size = number(header[_OLD_REALSIZE], "real size")
    return _checked(numbers, size, stored)


def from_records(records: Records, stored: int, read_block: ReadBlock, limit: int) -> SparseMap | None:
    """Read the map that PAX records describe (0.0, 0.1) or announce (1.0, in front of the data).

    Returns ``None`` when there is none: the file has no holes.
    """
    sparse = records.sparse
    if sparse is None:
        return None
    version = sparse.get(b"major"), sparse.get(b"minor")
    if version == (b"1", b"0"):
        numbers, used = _map_in_payload(stored, read_block, limit)
        return _checked(numbers, _real_size(sparse), stored - used, sparse.get(b"name"))
    if version not in {(None, None), (b"0", b"0"), (b"0", b"1")}:
        raise malformed(f"sparse format {version[0]!r}.{version[1]!r} is unknown")
    if b"map" in sparse:
        numbers = [decimal(value, "a sparse map entry") for value in sparse[b"map"].split(b",") if value]
    elif records.sparse_map is not None:
        numbers = records.sparse_map
    elif b"numblocks" in sparse:
        numbers = []
    else:
        return None
    _within(len(numbers) // 2, limit)
    if decimal(sparse.get(b"numblocks", b"%d" % (len(numbers) // 2)), "a sparse map's length") != len(numbers) / 2:
        raise malformed("a sparse map has not as many entries as it says")
    return _checked(numbers, _real_size(sparse), stored, sparse.get(b"name"))


def _slots(block: bytes, start: int, slots: int) -> list[int]:
    """Read up to ``slots`` pairs of 12-byte numbers; an empty slot ends them."""
    numbers = []
    for at in range(start, start + slots * _SLOT, _SLOT):
        if not block[at + 12]:
            break
        numbers.append(number(block[at : at + 12], "sparse offset"))
        numbers.append(number(block[at + 12 : at + _SLOT], "sparse length"))
    return numbers


def _map_in_payload(stored: int, read_block: ReadBlock, limit: int) -> tuple[list[int], int]:
    """Read lines of decimal numbers, a count and that many pairs, up to the end of the last block they touch."""
    numbers: list[int] = []
    used, rest = 0, b""
    while not numbers or len(numbers) < 1 + 2 * numbers[0]:
        used += BLOCK
        if used > stored:
            raise malformed("a sparse map is longer than its member")
        *lines, rest = (rest + read_block()).split(b"\n")
        if len(rest) > BLOCK:
            raise malformed("a sparse map is no list of numbers")
        numbers += [decimal(line, "a sparse map entry") for line in lines]
        if numbers:
            _within(numbers[0], limit)
    return numbers[1 : 1 + 2 * numbers[0]], used


def _real_size(sparse: dict[bytes, bytes]) -> int:
    value = sparse.get(b"realsize", sparse.get(b"size"))
    if value is None:
        raise malformed("a sparse file does not say its size")
    return decimal(value, "a sparse file's size")


def _within(entries: int, limit: int) -> None:
    if entries > limit:
        raise errors.LimitExceeded(f"a sparse map of more than {limit} entries", limit="sparse_entries")


def _checked(numbers: list[int], size: int, stored: int, name: bytes | None = None) -> SparseMap:
    """Check a flat list of offsets and lengths against the file and the payload."""
    in_range(size, MAX_SIZE, "real size")
    if len(numbers) % 2:
        raise malformed("a sparse map ends within an entry")
    regions, end, total = [], 0, 0
    pairs = iter(numbers)
    for offset, length in zip(pairs, pairs, strict=True):
        if offset < end or length < 0 or offset + length > size:
            raise malformed("a sparse map's entries overlap or leave the file")
        end = offset + length
        total += length
        if length:
            regions.append((offset, length))
    if total != stored:
        raise malformed(f"a sparse map describes {total} bytes, but {stored} are stored")
    return SparseMap(size, tuple(regions), stored, name)
