"""The door to the C library: private prototypes, and errors that name their call.

Each wrapper in this room declares its own prototype, once. A function object
taken from ``ctypes.CDLL`` by attribute is shared by the whole process: two
modules that set its ``argtypes`` differently break each other.
"""

import ctypes
import errno
import os
from collections.abc import Callable
from typing import Any

from graphdrivers.errors import SyscallError

AT_FDCWD = -100
AT_EMPTY_PATH = 0x1000

_LIBRARY = ctypes.CDLL(None, use_errno=True)


class MissingPath(SyscallError, FileNotFoundError):
    """``ENOENT``, also caught as the ``FileNotFoundError`` that Python's own calls raise."""


class ExistingPath(SyscallError, FileExistsError):
    """``EEXIST``, also caught as ``FileExistsError``."""


class NoDirectory(SyscallError, NotADirectoryError):
    """``ENOTDIR``, also caught as ``NotADirectoryError``."""


class NoPermission(SyscallError, PermissionError):
    """``EACCES`` or ``EPERM``, also caught as ``PermissionError``."""


_KINDS = {
    errno.ENOENT: MissingPath,
    errno.EEXIST: ExistingPath,
    errno.ENOTDIR: NoDirectory,
    errno.EACCES: NoPermission,
    errno.EPERM: NoPermission,
}


def function(name: str, *argtypes: Any) -> Callable[..., int]:
    """Give the C function ``name`` returning ``int``; one that the C library lacks fails with ``ENOSYS``."""
    try:
        return ctypes.CFUNCTYPE(ctypes.c_int, *argtypes, use_errno=True)((name, _LIBRARY))
    except AttributeError:
        return _missing


def system_call(*argtypes: Any) -> Callable[..., int]:
    """Give ``syscall(2)`` for arguments of these types; its first argument is the number.

    It is for calls younger than the C libraries in use. Numbers from 424 on are
    the same on every architecture but alpha.
    Source: Linux ``include/uapi/asm-generic/unistd.h``.
    """
    return ctypes.CFUNCTYPE(ctypes.c_long, ctypes.c_long, *argtypes, use_errno=True)(("syscall", _LIBRARY))


def system_call_of_ints() -> Callable[..., int]:
    """Give ``syscall(2)`` for ``int`` and pointer arguments whose types are not checked: at two thirds of the price.

    It is for calls that are made by the hundred. ctypes passes a number as ``int``, bytes as a pointer to them
    (the caller has seen to it that there is no NUL byte in them) and ``None`` as NULL.
    """
    return ctypes.CFUNCTYPE(ctypes.c_long, use_errno=True)(("syscall", _LIBRARY))


def c_string(value: str | bytes) -> bytes:
    """Encode a path or another string for a C function; ctypes alone would silently cut it at a NUL byte.

    Raises:
        ValueError: it contains a NUL byte.
    """
    encoded = value if isinstance(value, bytes) else os.fsencode(value)
    if b"\0" in encoded:
        raise ValueError("embedded null byte")
    return encoded


def failure(code: int, syscall: str, path: object = None, path2: object = None) -> SyscallError:
    """Make the error for an errno: a `SyscallError` that is also what Python's own calls would raise."""
    return _KINDS.get(code, SyscallError)(code, syscall, path, path2)


def check(result: int, syscall: str, path: object = None, path2: object = None) -> int:
    """Return ``result``, or raise what ``errno`` says where it is -1.

    Raises:
        SyscallError: naming ``syscall`` and the paths.
    """
    if result == -1:
        raise failure(ctypes.get_errno(), syscall, path, path2)
    return result


def _missing(*_arguments: object) -> int:
    """Fail as a kernel without the call does."""
    ctypes.set_errno(errno.ENOSYS)
    return -1
