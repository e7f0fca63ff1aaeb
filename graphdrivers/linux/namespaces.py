"""Which privileges the process has: user namespace, capabilities, mapped owners; and mount namespaces."""

import contextlib
import ctypes
import errno
import fcntl
import os
import struct
import sys

from graphdrivers.linux.libc import system_call

_CAPABILITIES = {
    "CAP_CHOWN": 0,
    "CAP_DAC_OVERRIDE": 1,
    "CAP_DAC_READ_SEARCH": 2,
    "CAP_FOWNER": 3,
    "CAP_FSETID": 4,
    "CAP_SETGID": 6,
    "CAP_SETUID": 7,
    "CAP_SETPCAP": 8,
    "CAP_LINUX_IMMUTABLE": 9,
    "CAP_SYS_MODULE": 16,
    "CAP_SYS_CHROOT": 18,
    "CAP_SYS_ADMIN": 21,
    "CAP_SYS_RESOURCE": 24,
    "CAP_MKNOD": 27,
    "CAP_SETFCAP": 31,
}
"""Bit numbers of ``include/uapi/linux/capability.h``, those that file systems care about."""

_ALL_IDS = 2**32 - 1

_INITIAL_USER_NAMESPACE = 0xEFFFFFFD
"""Inode number (``PROC_USER_INIT_INO`` of Linux ``include/linux/proc_ns.h``); an identity map alone proves nothing."""

_GET_MNTNS_ID = 0x8008B705
"""``NS_GET_MNTNS_ID`` of Linux ``include/uapi/linux/nsfs.h`` (Linux 6.10)."""

_LISTMOUNT = 458
_REQUEST = struct.Struct("=IIQQQ")
"""``struct mnt_id_req`` of Linux ``include/uapi/linux/mount.h``: size, 0, mount, last mount, mount namespace."""

_ROOT = (1 << 64) - 1
"""``LSMT_ROOT``."""

_listmount = system_call(ctypes.c_char_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_uint)


def mount_namespace(pid: int | str = "self") -> str:
    """Give what tells a process's mount namespace from others: its number that is never used again, where there is one.

    Before Linux 6.10 it is the inode number, which a later namespace may get.

    Raises:
        OSError: there is no such process, or it is not to be looked at.
    """
    path = f"/proc/{pid}/ns/mnt"
    opened = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return f"mnt:{int.from_bytes(fcntl.ioctl(opened, _GET_MNTNS_ID, bytes(8)), sys.byteorder)}"
    except OSError as error:
        if error.errno != errno.ENOTTY:
            raise
        return os.readlink(path)
    finally:
        os.close(opened)


def lives(namespace: str) -> bool:
    """Say whether a mount namespace (see `mount_namespace`) is there still, as far as we can tell.

    The kernel tells it of any (listmount(2), Linux 6.11) to who may administer it. Others, and older kernels, know of
    those that processes are in which they can see: not of those of another PID namespace beside their own.
    """
    number = str(namespace).removeprefix("mnt:")
    if number.isdecimal() and len(number) < 20:  # what was read from a disk may be anything
        request = _REQUEST.pack(_REQUEST.size, 0, _ROOT, 0, int(number))
        if _listmount(_LISTMOUNT, request, ctypes.create_string_buffer(8), 1, 0) >= 0:
            return True
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError):
                if mount_namespace(name) == namespace:
                    return True
    return False


def has_capability(name: str) -> bool:
    """Tell whether the capability (``CAP_SYS_ADMIN``) is effective; inside a user namespace, there.

    Raises:
        KeyError: a name that is not in the table above.
    """
    bit = _CAPABILITIES[name]
    with open("/proc/thread-self/status", "rb") as status:
        for line in status:
            if line.startswith(b"CapEff:"):
                return bool(int(line.split()[1], 16) >> bit & 1)
    return False


def in_initial_user_namespace() -> bool:
    """Tell whether the process is in the initial user namespace; true also in kernels that know no others."""
    try:
        return os.stat("/proc/self/ns/user").st_ino == _INITIAL_USER_NAMESPACE
    except FileNotFoundError:
        return True


def maps_owner(uid: int, gid: int) -> bool:
    """Tell whether a file can belong to ``uid`` and ``gid`` here; ``chown`` to an unmapped one is ``EINVAL``."""
    return _maps("uid_map", uid) and _maps("gid_map", gid)


def describe() -> str:
    """Say for people who we are (``uid 0, initial user namespace``)."""
    uid = os.geteuid()
    if in_initial_user_namespace():
        return f"uid {uid}, initial user namespace"
    count = sum(length for _inside, _outside, length in _read_map("uid_map"))
    return f"uid {uid}, user namespace with {count} uids"


def _maps(file: str, number: int) -> bool:
    return any(inside <= number < inside + length for inside, _outside, length in _read_map(file))


def _read_map(file: str) -> list[tuple[int, int, int]]:
    """Read an id map as (first inside, first outside, length); a kernel without user namespaces maps all."""
    try:
        with open(f"/proc/self/{file}", "rb") as lines:
            rows = [tuple(int(field) for field in line.split()) for line in lines]
    except FileNotFoundError:
        return [(0, 0, _ALL_IDS)]
    return [(inside, outside, length) for inside, outside, length in rows]
