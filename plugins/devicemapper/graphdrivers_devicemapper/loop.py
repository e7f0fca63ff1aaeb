"""Loop devices: a file as a block device. Source: loop(4), kernel include/uapi/linux/loop.h."""

import contextlib
import errno
import fcntl
import os
import struct
from collections.abc import Iterator

from graphdrivers.errors import SyscallError
from graphdrivers_devicemapper import dm

CONTROL = "/dev/loop-control"

_LOOP_CTL_GET_FREE = 0x4C82
_LOOP_CONFIGURE = 0x4C0A
"""Linux 5.8."""
_LOOP_GET_STATUS64 = 0x4C05
_LO_FLAGS_AUTOCLEAR = 4
_TRIES = 100


@contextlib.contextmanager
def attached(path: str) -> Iterator[int]:
    """Give a loop device of a file, open. It is gone with its last user: this block, or what it was given to.

    Raises:
        SyscallError: there are no loop devices for this process.
    """
    backing = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        device = _configured(backing, path)
    finally:
        os.close(backing)
    try:
        yield device
    finally:
        os.close(device)


def is_of(label: str, path: str) -> bool:
    """Say whether a block device, ``MAJOR:MINOR``, is a loop device of this very file, whatever it is called now."""
    name = os.path.basename(os.path.realpath(f"/sys/dev/block/{label}"))
    if not name.startswith("loop"):
        return False
    device = os.open(f"/dev/{name}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        answer = fcntl.ioctl(device, _LOOP_GET_STATUS64, bytes(232))
    except OSError as error:
        raise SyscallError(error.errno or 0, "LOOP_GET_STATUS64", name) from None
    finally:
        os.close(device)
    found = os.stat(path)
    encoded, inode = struct.unpack_from("=2Q", answer)
    return (dm.decoded(encoded), inode) == (found.st_dev, found.st_ino)


def _configured(backing: int, path: str) -> int:
    """Take the first free device; another process may be faster."""
    for _ in range(_TRIES):
        device = os.open(f"/dev/loop{_free()}", os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.ioctl(device, _LOOP_CONFIGURE, _configuration(backing, path))
        except OSError as error:
            os.close(device)
            if error.errno != errno.EBUSY:
                raise SyscallError(error.errno or 0, "LOOP_CONFIGURE", path) from None
        else:
            return device
    raise SyscallError(errno.EBUSY, "LOOP_CONFIGURE", path)


def _free() -> int:
    control = os.open(CONTROL, os.O_RDWR | os.O_CLOEXEC)
    try:
        return fcntl.ioctl(control, _LOOP_CTL_GET_FREE)
    except OSError as error:
        raise SyscallError(error.errno or 0, "LOOP_CTL_GET_FREE", CONTROL) from None
    finally:
        os.close(control)


def _configuration(backing: int, path: str) -> bytes:
    """Write ``struct loop_config``: fd, block size, ``struct loop_info64`` (232 bytes), 64 bytes reserved."""
    name = os.fsencode(path)[:63]
    info = struct.pack("=5Q 4I 64s 64s 32s 2Q", 0, 0, 0, 0, 0, 0, 0, 0, _LO_FLAGS_AUTOCLEAR, name, b"", b"", 0, 0)
    return struct.pack("=2I", backing, 0) + info + bytes(64)
