"""The device mapper's own interface: ioctls on ``/dev/mapper/control``, without dmsetup, libdevmapper or udev.

Where udev runs, it is told with each event to leave the device alone: no scan
that would hold it open, no links by UUID, which a snapshot shares with its
origin. The one node that somebody mounts is made here (`node`).

Source: kernel, include/uapi/linux/dm-ioctl.h and drivers/md/dm-ioctl.c.
"""

import contextlib
import errno
import fcntl
import os
import stat
import struct

import attrs

from graphdrivers.errors import SyscallError

CONTROL = "/dev/mapper/control"
FOLDER = "/dev/mapper"

_HEADER = struct.Struct("=3I I I I i I I I Q 128s 129s 7x")
"""``struct dm_ioctl``, 312 bytes: version, data_size, data_start, target_count, open_count, flags, event_nr, padding,
dev, name, uuid."""
_TARGET = struct.Struct("=Q Q i I 16s")
"""``struct dm_target_spec``: sector_start, length, status, next, target_type."""
_VERSION = (4, 0, 0)
_IOCTL = 0xC138FD00
"""``_IOWR(DM_IOCTL, 0, struct dm_ioctl)``; the command is added."""

_VERSION_COMMAND = 0
_LIST_DEVICES = 2
_DEV_CREATE = 3
_DEV_REMOVE = 4
_DEV_SUSPEND = 6
_DEV_STATUS = 7
_TABLE_LOAD = 9
_TABLE_STATUS = 12
_TARGET_MSG = 14
_GET_TARGET_VERSION = 17

_NAMES = {
    _VERSION_COMMAND: "DM_VERSION",
    _LIST_DEVICES: "DM_LIST_DEVICES",
    _DEV_CREATE: "DM_DEV_CREATE",
    _DEV_REMOVE: "DM_DEV_REMOVE",
    _DEV_SUSPEND: "DM_DEV_SUSPEND",
    _DEV_STATUS: "DM_DEV_STATUS",
    _TABLE_LOAD: "DM_TABLE_LOAD",
    _TABLE_STATUS: "DM_TABLE_STATUS",
    _TARGET_MSG: "DM_TARGET_MSG",
    _GET_TARGET_VERSION: "DM_GET_TARGET_VERSION",
}

_SUSPEND = 1 << 1
_STATUS_TABLE = 1 << 4
_ACTIVE_PRESENT = 1 << 5
_BUFFER_FULL = 1 << 8
_SKIP_LOCKFS = 1 << 10
_NOFLUSH = 1 << 11

_UDEV_HANDS_OFF = (0x0001 | 0x0002 | 0x0004 | 0x0008) << 16
"""``DM_UDEV_DISABLE_{DM,SUBSYSTEM,DISK,OTHER}_RULES_FLAG``, where udev's rules look for them: above the cookie.
Source: libdevmapper.h; the rules are 10-dm.rules and 13-dm-disk.rules."""

_ROOM = 16 << 10
"""Bytes of the first buffer; an answer that does not fit is asked for again with a larger one."""


@attrs.frozen
class Device:
    """What the kernel says about a device."""

    name: str
    number: int
    """As ``st_rdev`` has it."""
    open_count: int
    """How often it is open: a mounted file system counts once, in whatever namespace; so does a device on top."""
    is_suspended: bool
    has_table: bool

    @property
    def label(self) -> str:
        """Its number as the tables of other devices name it."""
        return f"{os.major(self.number)}:{os.minor(self.number)}"


def version() -> tuple[int, int, int]:
    """Give the version of the kernel's interface.

    Raises:
        SyscallError: there is no device mapper (``ENOENT``, ``ENODEV``, ``ENXIO``), or it is not for this process.
    """
    header, _ = _call(_VERSION_COMMAND)
    return header[0], header[1], header[2]


def target_version(target: str) -> tuple[int, int, int] | None:
    """Give the version of a kind of mapping, its module loaded if need be; ``None`` where the kernel lacks it.

    Source: ``DM_GET_TARGET_VERSION``, Linux 5.1.
    """
    try:
        _, answer = _call(_GET_TARGET_VERSION, target)
    except OSError as error:
        if error.errno in {errno.EINVAL, errno.ENXIO}:
            return None
        raise
    major, minor, patch = struct.unpack_from("=3I", answer, 4)
    return major, minor, patch


def names() -> list[str]:
    """Give the names of all devices of this machine."""
    _, answer = _call(_LIST_DEVICES)
    found: list[str] = []
    offset = 0
    while offset + 12 <= len(answer):
        number, following = struct.unpack_from("=Q I", answer, offset)
        if number:
            end = answer.index(b"\0", offset + 12)
            found.append(os.fsdecode(answer[offset + 12 : end]))
        if not following:
            break
        offset += following
    return found


def status(name: str) -> Device | None:
    """Look at a device; ``None`` where there is none of this name."""
    try:
        header, _ = _call(_DEV_STATUS, name)
    except OSError as error:
        if error.errno == errno.ENXIO:
            return None
        raise
    return _device(name, header)


def create(name: str, sectors: int, target: str, parameters: str) -> Device:
    """Make a device with a table of one line, and start it.

    Raises:
        SyscallError: ``EBUSY`` where the name is taken; what the kind of mapping
            says otherwise. Nothing is left then.
    """
    _call(_DEV_CREATE, name)
    try:
        _call(_TABLE_LOAD, name, _table(sectors, target, parameters), target_count=1)
        resume(name)
    except BaseException:
        with contextlib.suppress(OSError):
            remove(name)
        raise
    found = status(name)
    if found is None:
        raise SyscallError(errno.ENXIO, "DM_DEV_CREATE", name)
    return found


def remove(name: str) -> bool:
    """Take a device away; false where there was none. What it maps stays as it is.

    Raises:
        SyscallError: ``EBUSY``, it is open.
    """
    try:
        _call(_DEV_REMOVE, name, event=_UDEV_HANDS_OFF)
    except OSError as error:
        if error.errno == errno.ENXIO:
            return False
        raise
    return True


def suspend(name: str) -> None:
    """Let what was sent to a device be done and hold back the rest; a file system on it is frozen, that is, written."""
    _call(_DEV_SUSPEND, name, flags=_SUSPEND)


def resume(name: str) -> None:
    """Go on, with the new table if one was loaded. Idempotent."""
    _call(_DEV_SUSPEND, name, event=_UDEV_HANDS_OFF)


def reload(name: str, sectors: int, target: str, parameters: str) -> None:
    """Give a device another table of one line, without its file system being asked to write first."""
    _call(_TABLE_LOAD, name, _table(sectors, target, parameters), target_count=1)
    _call(_DEV_SUSPEND, name, flags=_SUSPEND | _SKIP_LOCKFS)
    resume(name)


def table_status(name: str, *, exact: bool = True) -> str:
    """Give the line that the (only) mapping of a device says about itself; ``exact`` makes a pool commit first."""
    _, answer = _call(_TABLE_STATUS, name, flags=0 if exact else _NOFLUSH)
    return _text(answer[_TARGET.size :])


def table(name: str) -> str:
    """Give the parameters of the (only) line of a device's table."""
    _, answer = _call(_TABLE_STATUS, name, flags=_STATUS_TABLE | _NOFLUSH)
    return _text(answer[_TARGET.size :])


def message(name: str, text: str) -> None:
    """Send a message to the mapping of a device.

    Raises:
        SyscallError: what it answers; ``text`` is in it.
    """
    _call(_TARGET_MSG, name, struct.pack("=Q", 0) + text.encode("ascii") + b"\0", what=text)


def node(device: Device) -> str:
    """Give the path of a device's node in this ``/dev``, made where it is missing or another's. Idempotent."""
    path = os.path.join(FOLDER, device.name)
    for _ in range(3):
        with contextlib.suppress(FileNotFoundError):
            found = os.stat(path, follow_symlinks=False)
            if stat.S_ISBLK(found.st_mode) and found.st_rdev == device.number:
                return path
            os.unlink(path)
        with contextlib.suppress(FileExistsError):
            os.mknod(path, stat.S_IFBLK | 0o600, device.number)
    return path


def forget_node(name: str) -> None:
    """Delete the node of a device, so that a path that is remembered somewhere leads to no other one. Idempotent."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(os.path.join(FOLDER, name))


def decoded(encoded: int) -> int:
    """Read a device number as the kernel gives it to programs. Source: ``huge_encode_dev``, linux/kdev_t.h."""
    return os.makedev((encoded & 0xFFF00) >> 8, (encoded & 0xFF) | ((encoded >> 12) & 0xFFF00))


def _table(sectors: int, target: str, parameters: str) -> bytes:
    text = parameters.encode("ascii") + b"\0"
    text += b"\0" * (-len(text) % 8)
    return _TARGET.pack(0, sectors, 0, _TARGET.size + len(text), target.encode("ascii")) + text


def _call(
    command: int,
    name: str = "",
    payload: bytes = b"",
    *,
    flags: int = 0,
    event: int = 0,
    target_count: int = 0,
    what: str = "",
) -> tuple[tuple[int, ...], bytes]:
    """Make one call; give the fields before the name, and what comes behind the header."""
    room = max(_ROOM, len(payload))
    control = os.open(CONTROL, os.O_RDWR | os.O_CLOEXEC)
    try:
        while True:
            size = _HEADER.size + room
            fields = (*_VERSION, size, _HEADER.size, target_count, 0, flags, event, 0, 0, name.encode("ascii"), b"")
            buffer = bytearray(_HEADER.pack(*fields) + payload.ljust(room, b"\0"))
            try:
                fcntl.ioctl(control, _IOCTL + command, buffer)
            except OSError as error:
                raise SyscallError(error.errno or 0, _NAMES[command], what or name, name if what else None) from None
            header = _HEADER.unpack_from(buffer)
            if not header[7] & _BUFFER_FULL:
                return header[:11], bytes(buffer[header[4] : header[3]])
            room *= 4
    finally:
        os.close(control)


def _device(name: str, header: tuple[int, ...]) -> Device:
    flags = header[7]
    return Device(name, decoded(header[10]), header[6], bool(flags & _SUSPEND), bool(flags & _ACTIVE_PRESENT))


def _text(answer: bytes) -> str:
    return answer.partition(b"\0")[0].decode("ascii", "replace")
