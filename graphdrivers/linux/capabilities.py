"""Capabilities that a thread gives up for a while.

Source: capget(2), capabilities(7); Linux ``include/uapi/linux/capability.h``.
"""

import contextlib
import ctypes
import struct
from collections.abc import Iterator

from graphdrivers.linux.libc import check, function

CAP_SYS_RESOURCE = 24

_VERSION_3 = 0x20080522
_HEADER = struct.Struct("=Ii")
"""``struct __user_cap_header_struct``: version, and 0 for the calling thread."""
_SETS = struct.Struct("=6I")
"""Two ``struct __user_cap_data_struct``: effective, permitted and inheritable, low half first."""

_capget = function("capget", ctypes.c_void_p, ctypes.c_void_p)
_capset = function("capset", ctypes.c_void_p, ctypes.c_void_p)


@contextlib.contextmanager
def bound_by_limits() -> Iterator[None]:
    """Let limits of quotas bind this thread, and threads that it starts, for the time of a block.

    With ``CAP_SYS_RESOURCE`` ext4 would let it pass them. Overlayfs gives the same one up for what it writes.
    """
    before = _sets()
    effective = before[0] & ~(1 << CAP_SYS_RESOURCE)
    if effective == before[0]:
        yield
        return
    _set((effective, *before[1:]))
    try:
        yield
    finally:
        _set(before)


def _sets() -> tuple[int, ...]:
    sets = ctypes.create_string_buffer(_SETS.size)
    check(_capget(_header(), sets), "capget")
    return _SETS.unpack(sets.raw)


def _set(sets: tuple[int, ...]) -> None:
    check(_capset(_header(), ctypes.create_string_buffer(_SETS.pack(*sets), _SETS.size)), "capset")


def _header() -> ctypes.Array[ctypes.c_char]:
    return ctypes.create_string_buffer(_HEADER.pack(_VERSION_3, 0), _HEADER.size)
