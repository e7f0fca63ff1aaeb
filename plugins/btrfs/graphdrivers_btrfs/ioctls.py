"""The ioctls of btrfs that the driver uses, as functions of open directories.

Source: Linux ``include/uapi/linux/btrfs.h`` and ``btrfs_tree.h``. Numbers and
layouts are those of all architectures but alpha, mips, powerpc and sparc.
"""

import errno
import fcntl
import os
import struct
from collections.abc import Iterator
from typing import NamedTuple

import attrs

from graphdrivers.linux.libc import failure

FIRST_INODE = 256
"""Inode number of the root of every subvolume (``BTRFS_FIRST_FREE_OBJECTID``)."""

STUB_INODE = 2
"""Inode number of every directory that stands, in a snapshot, where there was a subvolume (``EMPTY_SUBVOL_DIR``)."""

ROOT_TREE, QUOTA_TREE = 1, 8
INODE_ITEM, INODE_REF, INODE_EXTREF, DIR_INDEX, ROOT_ITEM = 1, 12, 13, 96, 132
QGROUP_STATUS, QGROUP_INFO, QGROUP_LIMIT, QGROUP_RELATION = 240, 242, 244, 246

READONLY = 2
"""``BTRFS_SUBVOL_RDONLY``."""

MAX_RFER, MAX_EXCL = 1, 2
"""``BTRFS_QGROUP_LIMIT_MAX_RFER``, ``BTRFS_QGROUP_LIMIT_MAX_EXCL``."""

_SUBVOL_CREATE_V2 = 0x50009418
_SNAP_CREATE_V2 = 0x50009417
_SNAP_DESTROY = 0x5000940F
_GETFLAGS = 0x80089419
_SETFLAGS = 0x4008941A
_TREE_SEARCH_V2 = 0xC0709411
_SYNC = 0x9408
_QGROUP_ASSIGN = 0x40189429
_QGROUP_CREATE = 0x4010942A
_QGROUP_LIMIT = 0x8030942B
_FS_INFO = 0x8400941F
_GET_SUBVOL_INFO = 0x81F8943C
_GET_SUBVOL_ROOTREF = 0xD000943D
_INO_LOOKUP_USER = 0xD000943E

_PAGE = 4096
"""Bytes of the structures that hold a name."""
_VOL_ARGS_V2 = struct.Struct("=qQQ32x4040s")
_VOL_ARGS = struct.Struct("=q4088s")
_FLAGS = struct.Struct("=Q")
_INFO = struct.Struct("=Q256xQQQQ16s16s16xQQ16xQI4xQI4x")
"""``struct btrfs_ioctl_get_subvol_info_args`` up to the time of creation; 504 bytes in all."""
_INFO_SIZE = 504
_ROOTREF = struct.Struct("=QQ")
_ROOTREFS_MAX = 255
_FS = struct.Struct("=48xQQ960x")
"""``struct btrfs_ioctl_fs_info_args``: flags, and what ``BTRFS_FS_INFO_FLAG_GENERATION`` (2) asks for."""
_LOOKUP = struct.Struct("=QQ256s3824s")
_SEARCH = struct.Struct("=QQQQQQQIIII32xQ")
"""``struct btrfs_ioctl_search_args_v2``; behind it come the items that are found."""
_ITEM = struct.Struct("=QQQII")
"""``struct btrfs_ioctl_search_header``; behind it comes the item's content."""
_LIMIT = struct.Struct("=QQQQQQ")

_ROOM = 1 << 16
"""Bytes for the items of one call of a search; an item has at most this many."""
_MAX64 = (1 << 64) - 1
_MAX32 = (1 << 32) - 1
_SECOND = 1_000_000_000


class Key(NamedTuple):
    """Where an item is in a tree; trees are sorted by it."""

    objectid: int
    type: int
    offset: int


LAST = Key(_MAX64, 255, _MAX64)


@attrs.frozen
class Subvolume:
    """What the kernel tells about a subvolume, to anybody."""

    number: int
    """Its tree's, which is its qgroup's too."""
    generation: int
    """The transaction that last wrote to its tree."""
    readonly: bool
    uuid: str
    changed: int
    """The transaction of the last change to a file."""
    made: int
    """The transaction that made it: whatever was changed in it since is of a later one."""
    made_ns: int
    """When that was."""


def make_subvolume(directory: int, name: bytes) -> None:
    """Make an empty subvolume in an open directory."""
    _call(directory, _SUBVOL_CREATE_V2, _VOL_ARGS_V2.pack(0, 0, 0, _checked(name)), "BTRFS_IOC_SUBVOL_CREATE", name)


def make_snapshot(source: int, directory: int, name: bytes, *, readonly: bool = False) -> None:
    """Make a snapshot of the subvolume whose root is open as ``source``: all of one moment, not yet written data too.

    Subvolumes in it are not part of it: empty directories stand for them.
    """
    flags = READONLY if readonly else 0
    arguments = _VOL_ARGS_V2.pack(source, 0, flags, _checked(name))
    _call(directory, _SNAP_CREATE_V2, arguments, "BTRFS_IOC_SNAP_CREATE", name)


def destroy(directory: int, name: bytes) -> None:
    """Delete a subvolume without subvolumes in it, whatever else is; its blocks are freed later.

    Raises:
        OSError: ``EPERM`` for a user without ``CAP_SYS_ADMIN``, unless the file system is mounted with
            ``user_subvol_rm_allowed``.
    """
    _call(directory, _SNAP_DESTROY, _VOL_ARGS.pack(0, _checked(name)), "BTRFS_IOC_SNAP_DESTROY", name)


def is_readonly(subvolume: int) -> bool:
    """Say whether a subvolume is read-only."""
    return bool(_FLAGS.unpack(_call(subvolume, _GETFLAGS, bytes(8), "BTRFS_IOC_SUBVOL_GETFLAGS"))[0] & READONLY)


def set_readonly(subvolume: int, wanted: bool) -> None:  # noqa: FBT001 - as the flag of the kernel is
    """Make a subvolume read-only or writable. Idempotent. Commits the transaction where that is a change."""
    (flags,) = _FLAGS.unpack(_call(subvolume, _GETFLAGS, bytes(8), "BTRFS_IOC_SUBVOL_GETFLAGS"))
    if bool(flags & READONLY) != wanted:
        _call(subvolume, _SETFLAGS, _FLAGS.pack(flags ^ READONLY), "BTRFS_IOC_SUBVOL_SETFLAGS")


def describe(inside: int) -> Subvolume:
    """Describe the subvolume that an open file is in."""
    found = _INFO.unpack_from(_call(inside, _GET_SUBVOL_INFO, bytes(_INFO_SIZE), "BTRFS_IOC_GET_SUBVOL_INFO"))
    number, _parent, _directory, generation, flags, uuid, _parent_uuid, changed, made, *times = found
    seconds, nanoseconds = times[2:]
    readonly = bool(flags & 1)  # BTRFS_ROOT_SUBVOL_RDONLY, the bit on the disk
    return Subvolume(number, generation, readonly, uuid.hex(), changed, made, seconds * _SECOND + nanoseconds)


def subvolumes_in(root: int) -> Iterator[tuple[int, int]]:
    """Give number, and inode number of the directory, of each subvolume directly in the one whose root is open."""
    first = 0
    while True:
        arguments = bytearray(_PAGE)
        _FLAGS.pack_into(arguments, 0, first)
        full = False
        try:
            fcntl.ioctl(root, _GET_SUBVOL_ROOTREF, arguments)
        except OSError as error:
            if error.errno != errno.EOVERFLOW:
                raise failure(error.errno or errno.EIO, "BTRFS_IOC_GET_SUBVOL_ROOTREF") from error
            full = True
        for place in range(arguments[8 + _ROOTREFS_MAX * _ROOTREF.size]):
            number, directory = _ROOTREF.unpack_from(arguments, 8 + place * _ROOTREF.size)
            yield number, directory
        if not full:
            return
        (first,) = _FLAGS.unpack_from(arguments, 0)


def path_of(root: int, number: int, directory: int) -> bytes:
    """Give the path of a subvolume that `subvolumes_in` found, from the same root.

    Raises:
        OSError: ``ENAMETOOLONG`` beyond 3,823 bytes, ``EACCES`` where it leads through what this user may not read,
            ``ENOENT`` where the subvolume is gone by now.
    """
    arguments = bytearray(_LOOKUP.pack(directory, number, b"", b""))
    answer = _call(root, _INO_LOOKUP_USER, arguments, "BTRFS_IOC_INO_LOOKUP_USER")
    _, _, name, path = _LOOKUP.unpack(answer)
    return bytes(path.partition(b"\0")[0] + name.partition(b"\0")[0])


def generation(inside: int) -> int:
    """Give the number of the file system's running transaction; 0 before Linux 5.10."""
    flags, number = _FS.unpack(_call(inside, _FS_INFO, _FS.pack(2, 0), "BTRFS_IOC_FS_INFO"))
    return int(number) if flags & 2 else 0


def sync(inside: int) -> None:
    """Write all that is in memory, and commit the transaction."""
    try:
        fcntl.ioctl(inside, _SYNC)
    except OSError as error:
        raise failure(error.errno or errno.EIO, "BTRFS_IOC_SYNC") from error


def search(inside: int, tree: int, first: Key, last: Key, newer_than: int = 0) -> Iterator[tuple[Key, memoryview]]:
    """Give the items of a tree from one key to another, each with its content, valid until the next is asked for.

    Needs ``CAP_SYS_ADMIN`` in the initial user namespace. Seen is what was committed.

    Args:
        inside: a file on the file system.
        tree: its number.
        first: where to begin.
        last: where to end.
        newer_than: leave out blocks of the tree that no later transaction than this one has written. Of the other
            blocks all items are given.
    """
    buffer = bytearray(_SEARCH.size + _ROOM)
    content = memoryview(buffer)
    while first <= last:
        low, high = first, last
        _SEARCH.pack_into(
            *(buffer, 0, tree, low.objectid, high.objectid, low.offset, high.offset),
            *(newer_than + 1, _MAX64, low.type, high.type, _MAX32, 0, _ROOM),
        )
        try:
            fcntl.ioctl(inside, _TREE_SEARCH_V2, buffer)
        except OSError as error:
            raise failure(error.errno or errno.EIO, "BTRFS_IOC_TREE_SEARCH_V2") from error
        found = _SEARCH.unpack_from(buffer)[9]
        offset = _SEARCH.size
        key = last
        for _ in range(found):
            _, objectid, position, kind, length = _ITEM.unpack_from(buffer, offset)
            offset += _ITEM.size
            key = Key(objectid, kind, position)
            yield key, content[offset : offset + length]
            offset += length
        if not found:
            return
        first = _after(key)


def set_qgroup_limit(inside: int, number: int, limits: dict[int, int]) -> None:
    """Limit what a qgroup counts.

    Args:
        inside: a file on the file system.
        number: the qgroup's, a subvolume's.
        limits: bytes for `MAX_RFER` and `MAX_EXCL`; ``2**64 - 1`` takes a limit away.
    """
    flags = sum(limits)
    arguments = _LIMIT.pack(number, flags, limits.get(MAX_RFER, 0), limits.get(MAX_EXCL, 0), 0, 0)
    _call(inside, _QGROUP_LIMIT, arguments, "BTRFS_IOC_QGROUP_LIMIT")


def make_qgroup(inside: int, number: int, member: int) -> None:
    """Make a qgroup of a higher level, with another one in it."""
    _call(inside, _QGROUP_CREATE, struct.pack("=QQ", 1, number), "BTRFS_IOC_QGROUP_CREATE")
    _call(inside, _QGROUP_ASSIGN, struct.pack("=QQQ", 1, member, number), "BTRFS_IOC_QGROUP_ASSIGN")


def remove_qgroup(inside: int, number: int) -> None:
    """Remove a qgroup."""
    _call(inside, _QGROUP_CREATE, struct.pack("=QQ", 0, number), "BTRFS_IOC_QGROUP_CREATE")


def _after(key: Key) -> Key:
    if key.offset < _MAX64:
        return Key(key.objectid, key.type, key.offset + 1)
    return Key(key.objectid, key.type + 1, 0) if key.type < LAST.type else Key(key.objectid + 1, 0, 0)


def _checked(name: bytes) -> bytes:
    if not name or len(name) > 255 or b"/" in name or b"\0" in name:
        raise failure(errno.EINVAL, "ioctl", os.fsdecode(name))
    return name


def _call(fd: int, request: int, arguments: bytes | bytearray, name: str, path: bytes | None = None) -> bytearray:
    """Call, and give the structure as the kernel left it."""
    buffer = bytearray(arguments)
    try:
        fcntl.ioctl(fd, request, buffer)
    except OSError as error:
        raise failure(error.errno or errno.EIO, name, path) from error
    return buffer
