"""Extended attributes of files, symbolic links included. Names are ``str`` with surrogateescape."""

import ctypes
import errno
import os
import struct
from collections.abc import Callable, Mapping

from graphdrivers.linux.libc import c_string, check, function

_LONGEST = 1 << 16
"""Bytes of the longest value; limits.h, ``XATTR_SIZE_MAX``."""

_GARBLED = struct.pack("=II", errno.ERANGE, 0)
"""What zfs-fuse gives as the value of an attribute for which the buffer (of 128 bytes at first) is too short."""

_fgetxattr = function("fgetxattr", ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p, ctypes.c_size_t)
_lgetxattr = function("lgetxattr", ctypes.c_char_p, ctypes.c_char_p, ctypes.c_void_p, ctypes.c_size_t)


def at(dir_fd: int, name: bytes) -> bytes:
    """Give a path for ``name`` in an open directory, for calls that know no ``dir_fd`` (needs ``/proc``)."""
    return b"/proc/self/fd/%d/%s" % (dir_fd, name)


def read_all(
    target: int | bytes, leave_out: Callable[[str], bool] | None = None, names: list[str] | None = None
) -> dict[str, bytes]:
    """Read every attribute that the caller may see.

    Args:
        target: an open file, or a path whose last component is not followed.
        leave_out: says of a name whether nobody asks for its value.
        names: what the target has, where that is known.

    Returns:
        Empty where the file system has no attributes.
    """
    follow = isinstance(target, int)
    if names is None:
        try:
            names = os.listxattr(target, follow_symlinks=follow)
        except OSError as error:
            if error.errno == errno.ENOTSUP:
                return {}
            raise
    if names and leave_out is not None:
        names = [name for name in names if not leave_out(name)]
    return _values(target, names) if names else {}


def read(target: int | bytes, name: str) -> bytes:
    """Read one attribute of an open file, or of a path whose last component is not followed.

    Raises:
        OSError: ``ENODATA``, it has none of this name.
    """
    value = os.getxattr(target, name, follow_symlinks=isinstance(target, int))
    return value if value != _GARBLED else _read_at_once(target, name)


def write_all(target: int | bytes, attributes: Mapping[str, bytes]) -> None:
    """Set each attribute; those that the target has besides are left alone.

    Args:
        target: an open file, or a path whose last component is not followed.
        attributes: value by full name (``user.comment``).
    """
    follow = isinstance(target, int)
    for name, value in attributes.items():
        os.setxattr(target, name, value, follow_symlinks=follow)


def _read_at_once(target: int | bytes, name: str) -> bytes:
    """Read a value into a buffer that is long enough for any."""
    buffer = ctypes.create_string_buffer(_LONGEST)
    if isinstance(target, int):
        size = _fgetxattr(target, c_string(name), buffer, _LONGEST)
        return buffer.raw[: check(size, "fgetxattr", target, name)]
    size = _lgetxattr(c_string(target), c_string(name), buffer, _LONGEST)
    return buffer.raw[: check(size, "lgetxattr", target, name)]


def _values(target: int | bytes, names: list[str]) -> dict[str, bytes]:
    found = {}
    for name in names:
        try:
            found[name] = read(target, name)
        except OSError as error:
            if error.errno != errno.ENODATA:  # removed since it was listed
                raise
    return found
