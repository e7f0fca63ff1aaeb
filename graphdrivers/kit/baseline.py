"""A record of which inodes a copy made and when they last changed, which proves files unchanged without reading them.

A user cannot set an inode's ctime. But a file that changes within the same tick
of the file system's clock as its copy was made keeps it, so copies as young as
the last tick are left out and will be compared by content (git's rule for a
*racily clean* index entry). The tick is read from the record's own file, made
after the copy: the same clock and the same granularity as the ctimes have.

A power cut can take a ctime back and leave the content that came with it:
fdatasync(2) makes only the latter durable. So the record of a layer that may be
written to proves nothing after a restart of the machine. One that was sealed
before keeps its proof: nothing has changed since its mark was durable.
"""

import array
import contextlib
import os
from collections.abc import Iterable

from graphdrivers.linux.boot import boot_id

_MAGIC = b"vfs-baseline-2\n\0"
"""Behind it the boot ID, 16 bytes; then pairs of 64-bit numbers in the machine's byte order."""


def write(path: str, made: Iterable[tuple[int, int]]) -> None:
    """Write down inode numbers and ctimes (ns) of copies; call it after the last one."""
    with open(path, "xb") as file:
        tick = os.fstat(file.fileno()).st_ctime_ns
        file.write(_MAGIC + _boot())
        array.array("Q", [number for pair in made if 0 <= pair[1] < tick for number in pair]).tofile(file)


def read(path: str, *, lasting: bool = False) -> set[tuple[int, int]]:
    """Read the proven copies; nothing, and an unknown format, prove nothing.

    Args:
        path: the record.
        lasting: what it says holds beyond a restart of the machine (the layer is sealed).
    """
    boot, pairs = _parsed(path)
    if not boot or not (lasting or boot == _boot()):
        return set()
    numbers = array.array("Q", pairs)
    return set(zip(numbers[::2], numbers[1::2], strict=True))


def expire(path: str) -> None:
    """Remove a record from before the machine was restarted; to be called before its layer is sealed. Idempotent."""
    if _parsed(path)[0] != _boot():
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)


def _parsed(path: str) -> tuple[bytes, bytes]:
    """Give the boot that a record was made in, and its pairs; nothing where it cannot be understood."""
    try:
        with open(path, "rb") as file:
            magic, boot, pairs = file.read(len(_MAGIC)), file.read(16), file.read()
    except FileNotFoundError:
        return b"", b""
    return (b"", b"") if magic != _MAGIC or len(boot) != 16 or len(pairs) % 16 else (boot, pairs)


def _boot() -> bytes:
    return bytes.fromhex(boot_id().replace("-", ""))
