"""When two files count as the same: attributes first, content only where nothing else can tell."""

import errno
import os
import stat
from collections.abc import Callable

from graphdrivers.archive.entries import Node

Proof = Callable[[Node, Node], bool]
"""Says whether what is known besides (inode, ctime) proves that the second entry is the first one unchanged.

It is asked only of entries whose attributes agree. No is no proof of a change.
"""

_CHUNK = 1 << 20


def same(lower: Node, upper: Node, unchanged: Proof | None = None) -> bool:
    """Say whether an entry is unchanged: kind, mode, owner, ns time, size, xattrs, target, device and content.

    Of directories only their own attributes count; sizes and link counts of
    directories mean nothing. Access and change times never count.
    """
    old, new = lower.stat, upper.stat
    if old.st_mtime_ns != new.st_mtime_ns or old.st_mode != new.st_mode:
        return False
    if old.st_uid != new.st_uid or old.st_gid != new.st_gid:
        return False
    if old.st_ino == new.st_ino and old.st_dev == new.st_dev:
        return True
    kind = stat.S_IFMT(new.st_mode)
    if kind != stat.S_IFDIR and old.st_size != new.st_size:
        return False
    if unchanged is not None and unchanged(lower, upper):
        return True
    return lower.xattrs() == upper.xattrs() and _same_kind_of(kind, lower, upper)


def same_file(lower: Node, upper: Node) -> bool:
    """Say whether both are one inode: the file belongs to what lies below, not to the layer that is looked at."""
    old, new = lower.stat, upper.stat
    return old.st_ino == new.st_ino and old.st_dev == new.st_dev


def _same_kind_of(kind: int, lower: Node, upper: Node) -> bool:
    if kind == stat.S_IFREG:
        return same_content(lower, upper)
    if kind == stat.S_IFLNK:
        return lower.readlink() == upper.readlink()
    if kind in {stat.S_IFCHR, stat.S_IFBLK}:
        return lower.stat.st_rdev == upper.stat.st_rdev
    return True


def same_content(lower: Node, upper: Node) -> bool:
    """Compare two regular files of one size byte by byte; what is a hole in both is not read."""
    size = upper.stat.st_size
    if size == 0:
        return True
    old = lower.open()
    try:
        new = upper.open()
        try:
            return _same_bytes(old, new, size)
        finally:
            os.close(new)
    finally:
        os.close(old)


def _same_bytes(old: int, new: int, size: int) -> bool:
    offset = 0
    while offset < size:
        if size > _CHUNK:
            offset = min(_next_data(old, offset, size), _next_data(new, offset, size))
        chunk = os.pread(old, _CHUNK, offset)
        if chunk != os.pread(new, _CHUNK, offset):
            return False
        if not chunk:
            break
        offset += len(chunk)
    return True


def _next_data(fd: int, offset: int, size: int) -> int:
    """Return where data begins at or after ``offset``; ``offset`` itself where the file system cannot tell."""
    try:
        return os.lseek(fd, offset, os.SEEK_DATA)
    except OSError as error:
        return size if error.errno == errno.ENXIO else offset
