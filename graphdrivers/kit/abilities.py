"""What a directory of this file system can hold for this process, found out by trying."""

import contextlib
import errno
import functools
import os
import stat
import struct
from collections.abc import Callable, Iterator

from graphdrivers import errors
from graphdrivers.archive import owners
from graphdrivers.linux import copying, durable, mounts
from graphdrivers.model import Capabilities, Mount

_STRANGERS = (0, 65534)
"""Users and groups: a process is at most one of them."""

_ACL = struct.pack(
    "<IHHIHHIHHIHHIHHI", 2, 1, 6, 0xFFFFFFFF, 2, 4, 0, 4, 4, 0xFFFFFFFF, 16, 4, 0xFFFFFFFF, 32, 4, 0xFFFFFFFF
)
"""An ACL with one named user. Source: kernel, include/uapi/linux/posix_acl_xattr.h."""

_CAPABILITY = struct.pack("<IIIII", 0x02000001, 1, 0, 0, 0)
"""A file capability (``cap_chown``, version 2). Source: kernel, include/uapi/linux/capability.h."""

_FINE_TIME = 1_000_000_123_456_789
"""A time in ns with digits down to one; a coarser file system rounds it."""

_CANNOT = frozenset({errno.EPERM, errno.EACCES, errno.ENOTSUP, errno.EINVAL, errno.ENOSYS, errno.ENOENT})
"""What is answered where something cannot be; ``ENOENT`` by a union that takes what was just made for a whiteout."""


@contextlib.contextmanager
def scratch(driver: str, home: str) -> Iterator[str]:
    """Give a folder on the file system of ``home``, which may not exist yet; it is gone at the end.

    Raises:
        PrerequisiteMissing: nothing can be made there.
    """
    places = (os.path.join(home, "tmp"), home)
    parent = next((place for place in places if os.path.isdir(place)), os.path.dirname(home))
    try:
        # Locked, so that a driver opening the same home meanwhile does not take it for a leftover.
        staging = durable.Staging(parent)
    except OSError as error:
        reason = f"cannot make a folder in {parent!r}: {os.strerror(error.errno or 0)}"
        raise errors.PrerequisiteMissing(driver, reason, "choose a --root that this user can write to") from error
    with staging:
        yield staging.path


def tried(folder: str) -> Capabilities:
    """Find out what files in ``folder``, which is empty, can be and carry; leaves files in it.

    Filled are the fields about single files; those about layers stay at "cannot".
    """
    file = os.path.join(folder, "file")
    fd = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.write(fd, b"x")
        devices = _allowed(lambda: _make_device(folder, "null", 1, 3))
        return Capabilities(
            user_xattrs=_allowed(lambda: os.setxattr(fd, "user.graphdrivers", b"")),
            trusted_xattrs=_allowed(lambda: os.setxattr(fd, "trusted.graphdrivers", b"")),
            posix_acls=_allowed(lambda: os.setxattr(fd, "system.posix_acl_access", _ACL)),
            security_xattrs=_allowed(lambda: os.setxattr(fd, "security.capability", _CAPABILITY)),
            time_resolution=_time_resolution(fd),
            ownership=all(_allowed(functools.partial(os.fchown, fd, owner, owner)) for owner in _STRANGERS),
            devices=devices,
            # In a user namespace the kernel makes this one device node and no other; images need all or none.
            char_0_0=devices and _allowed(lambda: _make_device(folder, "zero", 0, 0)),
            reflink=_can_clone(fd, os.path.join(folder, "clone")),
            name_max=os.pathconf(folder, "PC_NAME_MAX"),
        )
    finally:
        os.close(fd)


def notes_on_owners(can: Capabilities) -> list[str]:
    """Say for people what becomes of owners that this process cannot give to files."""
    if can.recorded_owners:
        return [f"all files belong to the caller; {owners.XATTR} records the owners of files and directories"]
    return [] if can.ownership else ["all files belong to the caller: giving them away needs root"]


def views_are_readonly(folder: str) -> bool:
    """Say whether a read-only view of a plain directory keeps this process from writing to it."""
    with mounts.opened((Mount("bind", folder, readonly=True),)) as view:
        try:
            os.mkdir("written", dir_fd=view)
        except OSError as error:
            if error.errno != errno.EROFS:
                raise
            return True
        return False


def _allowed(attempt: Callable[[], object]) -> bool:
    """Run ``attempt``; false where the file system or the user cannot, any other failure is passed on."""
    try:
        attempt()
    except OSError as error:
        if error.errno not in _CANNOT:
            raise
        return False
    return True


def _make_device(folder: str, name: str, major: int, minor: int) -> None:
    os.mknod(os.path.join(folder, name), stat.S_IFCHR | 0o600, os.makedev(major, minor))


def _can_clone(fd: int, target: str) -> bool:
    clone = os.open(target, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        return copying.clone(fd, clone)
    finally:
        os.close(clone)


def _time_resolution(fd: int) -> int:
    """Give the granularity of modification times in ns, as a power of ten."""
    os.utime(fd, ns=(_FINE_TIME, _FINE_TIME))
    kept = os.fstat(fd).st_mtime_ns
    resolution = 1
    while kept != _FINE_TIME // resolution * resolution and resolution < 10**9:
        resolution *= 10
    return resolution
