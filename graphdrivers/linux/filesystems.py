"""What the file system below a directory is and can do, found out by trying."""

import ctypes
import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from graphdrivers.linux import copying
from graphdrivers.linux.libc import c_string, check, function

_MAGIC = {
    0xEF53: "ext4",
    0x58465342: "xfs",
    0x9123683E: "btrfs",
    0x01021994: "tmpfs",
    0x794C7630: "overlay",
    0x61756673: "aufs",
    0x6969: "nfs",
    0x2FC12FC1: "zfs",
    0xF2F52010: "f2fs",
    0xCA451A4E: "bcachefs",
    0xE0F5E1E2: "erofs",
    0x73717368: "squashfs",
    0x65735546: "fuse",
    0xFF534D42: "cifs",
    0xFE534D42: "smb2",
    0x517B: "smb",
    0x01021997: "9p",
    0x6A656A63: "virtiofs",
    0x858458F6: "ramfs",
    0xF15F: "ecryptfs",
    0x00C36400: "ceph",
    0x47504653: "gpfs",
    0x0BD00BD0: "lustre",
    0x4D44: "vfat",
    0x2011BAB0: "exfat",
    0x7366746E: "ntfs3",
    0x5346544E: "ntfs",
    0x9660: "iso9660",
    0x28CD3D45: "cramfs",
    0x3153464A: "jfs",
    0x3434: "nilfs2",
    0x9FA0: "proc",
    0x62656572: "sysfs",
}
"""``f_type`` of statfs(2). ext2 and ext3 share ext4's number; virtiofs reports FUSE's on most kernels."""

_statfs = function("statfs", ctypes.c_char_p, ctypes.c_void_p)
_fstatfs = function("fstatfs", ctypes.c_int, ctypes.c_void_p)

_BUFFER = 512
"""More bytes than ``struct statfs`` has anywhere; its first word is the type."""


def is_known(name: str) -> bool:
    """Say whether the kernel has a file system of this type now. Source: proc_filesystems(5)."""
    with open("/proc/filesystems", encoding="ascii") as file:
        return any(line.split()[-1] == name for line in file)


def fs_type(target: int | str | bytes) -> str:
    """Name the type of the file system at an open file or a path; an unknown one by its number (``0x1234``)."""
    buffer = (ctypes.c_long * (_BUFFER // ctypes.sizeof(ctypes.c_long)))()
    if isinstance(target, int):
        check(_fstatfs(target, ctypes.addressof(buffer)), "fstatfs", target)
    else:
        check(_statfs(c_string(target), ctypes.addressof(buffer)), "statfs", target)
    number = buffer[0] & 0xFFFFFFFF
    return _MAGIC.get(number, hex(number))


def free_bytes(fd: int) -> int:
    """Give the bytes that the caller can still write to the file system; a huge number where it does not count them.

    Source: statfs(2): what does not apply to a file system (ramfs, tmpfs without a size) is 0.
    """
    usage = os.fstatvfs(fd)
    if not usage.f_blocks:
        return sys.maxsize
    return usage.f_bavail * usage.f_frsize


def supports_xattr(dir_fd: int, namespace: str) -> bool:
    """Tell, by trying on a scratch file, whether ``NAMESPACE.*`` attributes can be set in this directory.

    Args:
        dir_fd: an open directory the caller may write to.
        namespace: ``user`` or ``trusted`` (which needs CAP_SYS_ADMIN).
    """
    with _scratch_file(dir_fd) as scratch:
        try:
            os.setxattr(scratch, f"{namespace}.graphdrivers.probe", b"1")
        except OSError as error:
            if error.errno in {errno.ENOTSUP, errno.EPERM, errno.EINVAL}:
                return False
            raise
    return True


def supports_reflink(dir_fd: int) -> bool:
    """Tell, by trying on two scratch files, whether files in this directory can share their blocks."""
    with _scratch_file(dir_fd) as source, _scratch_file(dir_fd) as copy:
        os.write(source, b"\0" * 4096)
        return copying.clone(source, copy)


@contextmanager
def _scratch_file(dir_fd: int) -> Iterator[int]:
    """Give an open file that has no name any more: a crash leaves nothing behind."""
    name = f".probe-{os.urandom(8).hex()}"
    scratch = os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=dir_fd)
    try:
        os.unlink(name, dir_fd=dir_fd)
        yield scratch
    finally:
        os.close(scratch)
