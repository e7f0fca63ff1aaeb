"""A record of which inodes a copy made and when they last changed, which proves files unchanged without reading them.

A user cannot set an inode's ctime. But a file that changes within the same tick
of the file system's clock as its copy was made keeps it, so copies as young as
the last tick are left out and will be compared by content (git's rule for a
*racily clean* index entry). The tick is read from the record's own file, made
after the copy: the same clock and the same granularity as the ctimes have.
"""

import array
import os
from collections.abc import Iterable

_MAGIC = b"vfs-baseline-1\n\0"
"""A multiple of eight bytes: behind it come pairs of 64-bit numbers in the machine's byte order."""


def write(path: str, made: Iterable[tuple[int, int]]) -> None:
    """Write down inode numbers and ctimes (ns) of copies; call it after the last one."""
    with open(path, "xb") as file:
        tick = os.fstat(file.fileno()).st_ctime_ns
        file.write(_MAGIC)
        array.array("Q", [number for pair in made if 0 <= pair[1] < tick for number in pair]).tofile(file)


def read(path: str) -> set[tuple[int, int]]:
    """Read the proven copies; nothing, and an unknown format, prove nothing."""
    try:
        with open(path, "rb") as file:
            magic, pairs = file.read(len(_MAGIC)), file.read()
    except FileNotFoundError:
        return set()
    if magic != _MAGIC or len(pairs) % 16:
        return set()
    numbers = array.array("Q", pairs)
    return set(zip(numbers[::2], numbers[1::2], strict=True))
