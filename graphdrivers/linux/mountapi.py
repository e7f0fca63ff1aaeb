"""The mount system calls, one short wrapper each, named as the kernel names them.

Descriptors are close-on-exec. Nothing here decides anything; `mounts` does.
Source: mount_setattr(2), mount(2), umount2(2); Linux ``Documentation/filesystems/mount_api.rst``
and ``include/uapi/linux/mount.h``. The new calls need Linux 5.2, ``mount_setattr`` 5.12.
"""

import ctypes
import os
import struct

from graphdrivers.errors import SyscallError
from graphdrivers.linux.libc import AT_EMPTY_PATH, c_string, check, failure, function, system_call, system_call_of_ints

FSOPEN_CLOEXEC = 0x1
FSMOUNT_CLOEXEC = 0x1
FSCONFIG_SET_FLAG, FSCONFIG_SET_STRING, FSCONFIG_SET_FD, FSCONFIG_CMD_CREATE = 0, 1, 5, 6
MOVE_MOUNT_F_EMPTY_PATH, MOVE_MOUNT_T_EMPTY_PATH = 0x04, 0x40
OPEN_TREE_CLONE = 0x1
AT_RECURSIVE = 0x8000

MOUNT_ATTR_RDONLY = 0x01
MOUNT_ATTR_NOSUID = 0x02
MOUNT_ATTR_NODEV = 0x04
MOUNT_ATTR_NOEXEC = 0x08
MOUNT_ATTR_NOATIME = 0x10
MOUNT_ATTR__ATIME = 0x70

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT, MS_NOATIME, MS_NODIRATIME, MS_BIND = (
    1,
    2,
    4,
    8,
    32,
    1024,
    2048,
    4096,
)
MNT_DETACH, UMOUNT_NOFOLLOW = 2, 8

FSCONFIG_STRING_MAX = 255
"""Longest string value that ``fsconfig`` takes, in bytes (``strndup_user(_value, 256)``)."""

_NR_OPEN_TREE, _NR_MOVE_MOUNT, _NR_FSOPEN, _NR_FSCONFIG, _NR_FSMOUNT, _NR_MOUNT_SETATTR = 428, 429, 430, 431, 432, 442

_fsopen = system_call(ctypes.c_char_p, ctypes.c_uint)
_fsconfig = system_call_of_ints()
_fsmount = system_call(ctypes.c_int, ctypes.c_uint, ctypes.c_uint)
_open_tree = system_call(ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)
_move_mount = system_call(ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)
_mount_setattr = system_call(ctypes.c_int, ctypes.c_char_p, ctypes.c_uint, ctypes.c_char_p, ctypes.c_size_t)
_mount = function("mount", ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p)
_umount2 = function("umount2", ctypes.c_char_p, ctypes.c_int)

_MOUNT_ATTR = struct.Struct("=QQQQ")


def fsopen(fs_type: str) -> int:
    """Open a context in which a file system of this type is configured.

    Raises:
        SyscallError: ``ENODEV`` for an unknown type, ``EPERM`` without CAP_SYS_ADMIN.
    """
    return check(_fsopen(_NR_FSOPEN, c_string(fs_type), FSOPEN_CLOEXEC), "fsopen", fs_type)


def fsconfig_set_flag(fs_fd: int, key: str) -> None:
    """Set a parameter without a value."""
    if _fsconfig(_NR_FSCONFIG, fs_fd, FSCONFIG_SET_FLAG, key.encode(), None, 0) == -1:
        raise _explained(fs_fd, key, None)


def fsconfig_set_string(fs_fd: int, key: str, value: bytes) -> None:
    """Set a parameter to a string of at most 255 bytes; ``EINVAL`` for a longer one.

    The caller has made ``value`` with `c_string`: this runs once for each of up to 500 layers.
    """
    if _fsconfig(_NR_FSCONFIG, fs_fd, FSCONFIG_SET_STRING, key.encode(), value, 0) == -1:
        raise _explained(fs_fd, key, value)


def fsconfig_set_fd(fs_fd: int, key: str, value_fd: int) -> None:
    """Set a parameter to an open file."""
    if _fsconfig(_NR_FSCONFIG, fs_fd, FSCONFIG_SET_FD, key.encode(), None, value_fd) == -1:
        raise _explained(fs_fd, key, None)


def fsconfig_create(fs_fd: int) -> None:
    """Make the file system from what was configured."""
    if _fsconfig(_NR_FSCONFIG, fs_fd, FSCONFIG_CMD_CREATE, None, None, 0) == -1:
        raise _explained(fs_fd, "create", None)


def fsmount(fs_fd: int, attributes: int = 0) -> int:
    """Give a detached mount of a created file system; closing the descriptor undoes it."""
    if (result := _fsmount(_NR_FSMOUNT, fs_fd, FSMOUNT_CLOEXEC, attributes)) == -1:
        raise _explained(fs_fd, None, None, syscall="fsmount")
    return result


def open_tree(dir_fd: int, path: str | bytes, flags: int) -> int:
    """Open a mount, or with ``OPEN_TREE_CLONE`` a detached copy of it rooted at ``path``."""
    return check(_open_tree(_NR_OPEN_TREE, dir_fd, c_string(path), flags | os.O_CLOEXEC), "open_tree", path)


def move_mount(mount_fd: int, target_fd: int, *, what: object = None) -> None:
    """Attach a detached mount on the directory that ``target_fd`` is open on.

    No path is looked up, so nothing can be swapped in between.
    """
    flags = MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH
    check(_move_mount(_NR_MOVE_MOUNT, mount_fd, b"", target_fd, b"", flags), "move_mount", what)


def mount_setattr(mount_fd: int, attributes: int) -> None:
    """Add attributes (``MOUNT_ATTR_*``) to a mount; none is removed, but one rule for access times replaces another."""
    replaced = MOUNT_ATTR__ATIME if attributes & MOUNT_ATTR__ATIME else 0
    packed = _MOUNT_ATTR.pack(attributes, replaced, 0, 0)
    check(_mount_setattr(_NR_MOUNT_SETATTR, mount_fd, b"", AT_EMPTY_PATH, packed, len(packed)), "mount_setattr")


def mount(source: str | bytes | None, target: str | bytes, fs_type: str | None, flags: int, options: bytes) -> None:
    """Mount the old way. The kernel silently cuts ``options`` at a page less one byte: check before."""
    names = [None if name is None else c_string(name) for name in (source, target, fs_type)]
    check(_mount(*names, flags, c_string(options)), "mount", source, target)


def umount2(target: str | bytes, flags: int = 0) -> None:
    """Unmount what is on top at ``target``."""
    check(_umount2(c_string(target), flags), "umount2", target)


def _explained(fs_fd: int, key: str | None, value: str | bytes | None, syscall: str = "fsconfig") -> SyscallError:
    """Make the error of a failed call on a context, with what the kernel wrote into the context's log."""
    error = failure(ctypes.get_errno(), syscall, key, None if value is None else os.fsdecode(value))
    if messages := _log(fs_fd):
        error.strerror = f"{error.strerror} ({'; '.join(messages)})"
    return error


def _log(fs_fd: int) -> list[str]:
    """Read the context's messages without their class letter (``e``, ``w``, ``i``)."""
    messages: list[str] = []
    while True:
        try:
            line = os.read(fs_fd, 4096)
        except OSError:  # ENODATA: no more of them
            return messages
        messages.append(os.fsdecode(line[2:].strip()))
