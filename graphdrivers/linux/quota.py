"""Project quotas: a number on inodes, and how many bytes all inodes with one number may take together.

A directory can hand its number down: what is made in it gets the same one, and
what has another can be neither linked nor renamed into it (``EXDEV``). xfs and
ext4 know project quotas; the calls that xfs brought serve both. The kernel
takes them from root outside of user namespaces only.

Source: quotactl(2), ioctl_xfs_fsgetxattr(2), xfs_quota(8) (*Directory tree
quota*); Linux ``include/uapi/linux/{quota,dqblk_xfs,fs}.h``, ``fs/quota/quota.c``.
"""

import contextlib
import ctypes
import errno
import fcntl
import os
import stat
import struct
from collections.abc import Iterator

import attrs

from graphdrivers.linux import mountinfo
from graphdrivers.linux.libc import c_string, check, failure, function, system_call

_FSGETXATTR, _FSSETXATTR = 0x801C581F, 0x401C5820
"""``_IOR('X', 31, struct fsxattr)`` and ``_IOW('X', 32, struct fsxattr)`` of ``linux/fs.h``."""

_FSXATTR = struct.Struct("=5I8x")
"""``struct fsxattr``: flags, extent size, extents, project, extent size for copies on write."""

_PROJINHERIT = 0x200

_PRJQUOTA = 2
_GET_QUOTA, _SET_LIMIT, _GET_STATE = (((ord("X") << 8) + number) << 8 | _PRJQUOTA for number in (3, 4, 8))
"""``Q_XGETQUOTA``, ``Q_XSETQLIM`` and ``Q_XGETQSTATV`` for project quotas (``QCMD``)."""

_DISK_QUOTA = struct.Struct("=bbHI6QiiHH4b3QiHhq")
"""``struct fs_disk_quota``; sizes are in units of 512 bytes."""
_STRUCT_VERSION = 1
_IS_PROJECT = 2
_BLOCK_LIMITS = 1 << 2 | 1 << 3
"""``FS_DQ_BSOFT | FS_DQ_BHARD``: the fields that count."""
_UNIT = 512
_LARGEST = 1 << 62
"""Bytes; what is above is no limit anywhere."""

_STATE_SIZE = 256
"""More than ``struct fs_quota_statv`` has; it begins with version, padding and flags."""
_ACCOUNTED, _ENFORCED = 1 << 4, 1 << 5

_QUOTACTL_FD = 443
_quotactl_fd = system_call(ctypes.c_int, ctypes.c_uint, ctypes.c_uint, ctypes.c_void_p)
_quotactl = function("quotactl", ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_void_p)


@attrs.frozen
class Project:
    """Which project an inode belongs to; 0 is none in particular."""

    number: int = 0
    inherited: bool = False
    """What is made in the directory belongs to it too."""


@attrs.frozen
class Quota:
    """What a project takes and may take."""

    limit: int = 0
    """Bytes; 0 for no limit."""
    used: int = 0
    """Bytes on disk, those that wait to be written included."""
    inodes: int = 0


def project_of(directory: str) -> Project:
    """Read the project of a directory.

    Raises:
        OSError: ``ENOTTY`` or ``EOPNOTSUPP`` where the file system has no projects.
    """
    with _opened(directory) as fd:
        flags, _, _, number, _ = _FSXATTR.unpack(fcntl.ioctl(fd, _FSGETXATTR, bytes(_FSXATTR.size)))
    return Project(number, bool(flags & _PROJINHERIT))


def set_project(directory: str, project: Project) -> None:
    """Put a directory, not what is in it, into a project.

    Raises:
        OSError: ``ENOTTY`` or ``EOPNOTSUPP`` where the file system has no projects, ``EINVAL`` in a user namespace.
    """
    with _opened(directory) as fd:
        found = list(_FSXATTR.unpack(fcntl.ioctl(fd, _FSGETXATTR, bytes(_FSXATTR.size))))
        found[0] = found[0] | _PROJINHERIT if project.inherited else found[0] & ~_PROJINHERIT
        found[3] = project.number
        fcntl.ioctl(fd, _FSSETXATTR, _FSXATTR.pack(*found))


def is_enforced(directory: str) -> bool:
    """Say whether the file system of a directory is mounted so that limits of projects hold."""
    state = ctypes.create_string_buffer(bytes([_STRUCT_VERSION]), _STATE_SIZE)
    try:
        _call(_GET_STATE, directory, 0, state)
    except OSError as error:
        # No quotas in the file system, in the kernel, or none switched on.
        if error.errno in {errno.ENOSYS, errno.EINVAL, errno.ESRCH, errno.EOPNOTSUPP, errno.ENOTBLK, errno.ENODEV}:
            return False
        raise
    flags: int = struct.unpack_from("=H", state, 2)[0]
    return bool(flags & _ACCOUNTED and flags & _ENFORCED)


def quota_of(directory: str, number: int) -> Quota:
    """Read what a project on the file system of a directory takes and may take.

    Raises:
        SyscallError: there are no project quotas (``ENOSYS``, ``ESRCH``), or not for this user (``EPERM``).
    """
    buffer = ctypes.create_string_buffer(_DISK_QUOTA.size)
    try:
        _call(_GET_QUOTA, directory, number, buffer)
    except OSError as error:
        if error.errno == errno.ENOENT:  # never used
            return Quota()
        raise
    found = _DISK_QUOTA.unpack(buffer.raw)
    return Quota(found[4] * _UNIT, found[8] * _UNIT, found[9])


def set_limit(directory: str, number: int, size: int) -> None:
    """Limit the bytes of a project on the file system of a directory; the kernel rounds up to its blocks.

    Args:
        directory: any of the file system.
        number: of the project.
        size: in bytes; 0 takes the limit away.

    Raises:
        SyscallError: see `quota_of`.
    """
    units = -(-min(size, _LARGEST) // _UNIT)
    values = (_STRUCT_VERSION, _IS_PROJECT, _BLOCK_LIMITS, number, units, units)
    packed = _DISK_QUOTA.pack(*values, *[0] * 19)
    _call(_SET_LIMIT, directory, number, ctypes.create_string_buffer(packed, len(packed)))


def _call(command: int, directory: str, number: int, buffer: ctypes.Array[ctypes.c_char]) -> None:
    """Call ``quotactl_fd(2)`` (Linux 5.14), before that ``quotactl(2)``, which wants a block device."""
    address = ctypes.addressof(buffer)
    with _opened(directory) as fd:
        if _quotactl_fd(_QUOTACTL_FD, fd, command, number, address) != -1:
            return
        code = ctypes.get_errno()
        if code != errno.ENOSYS or _has_quotactl_fd():
            raise failure(code, "quotactl_fd", directory)
        with _device(fd) as device:
            check(_quotactl(command, c_string(device), number, address), "quotactl", directory)


def _has_quotactl_fd() -> bool:
    """Ask with no descriptor at all: ``ENOSYS`` also means that a file system has no quotas."""
    return _quotactl_fd(_QUOTACTL_FD, -1, _GET_STATE, 0, None) == -1 and ctypes.get_errno() != errno.ENOSYS


@contextlib.contextmanager
def _device(fd: int) -> Iterator[str]:
    """Give a path of the block device that an open directory is on, one made for the occasion if need be.

    Raises:
        OSError: there is none to be found, and none can be made.
    """
    number = os.fstat(fd).st_dev
    if not os.major(number):
        raise failure(errno.ENOTBLK, "quotactl", fd)
    label = f"{os.major(number)}:{os.minor(number)}"
    for path in {mount.source for mount in mountinfo.read() if mount.device == label}:
        with contextlib.suppress(OSError):
            found = os.stat(path)
            if stat.S_ISBLK(found.st_mode) and found.st_rdev == number:
                yield path
                return
    # A container sees the file system, and not the device.
    name = f".device-{os.urandom(8).hex()}"
    os.mknod(name, stat.S_IFBLK | 0o600, number, dir_fd=fd)
    try:
        yield f"/proc/self/fd/{fd}/{name}"
    finally:
        os.unlink(name, dir_fd=fd)


@contextlib.contextmanager
def _opened(directory: str) -> Iterator[int]:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)
