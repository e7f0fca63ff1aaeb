"""What zfs-fuse does not do as file systems of the kernel do, found out by trying, and declared as deviations.

OpenZFS has none of these. Each is the file system's own and would be the same
without this driver; none of them loses content in silence, but see the README.
"""

import contextlib
import errno
import os
from collections.abc import Callable, Iterator

import attrs

from graphdrivers.model import Deviation

_SOURCE = "https://github.com/zfs-fuse/zfs-fuse/blob/master/src/zfs-fuse/zfs_operations.c"

_BEYOND = 1 << 31
"""The first number, and second, that does not fit into 31 bits."""


@attrs.frozen
class Quirk:
    """One thing that may be other than elsewhere."""

    there: Callable[[str, bool], bool]
    """Tries it in a folder; it is also told whether the file system is FUSE's."""
    reason: str
    checks: tuple[str, ...]
    link: str = _SOURCE
    sometimes: bool = False


def found(folder: str, *, fuse: bool) -> tuple[Deviation, ...]:
    """Try all of them in a folder, where files are left."""
    return tuple(
        Deviation(check, quirk.reason, quirk.link, quirk.sometimes)
        for quirk in _QUIRKS
        if quirk.there(folder, fuse)
        for check in quirk.checks
    )


def _no_large_owners(folder: str, _fuse: bool) -> bool:  # noqa: FBT001 - one signature for all
    with _file(folder) as path:
        return _fails(lambda: os.chown(path, _BEYOND, -1), errno.EINVAL)


def _no_far_times(folder: str, _fuse: bool) -> bool:  # noqa: FBT001
    with _file(folder) as path:
        return _fails(lambda: os.utime(path, (_BEYOND, _BEYOND)), errno.EOVERFLOW)


def _no_xattr_flags(folder: str, _fuse: bool) -> bool:  # noqa: FBT001
    with _file(folder) as path:
        return not _fails(lambda: os.setxattr(path, "user.absent", b"", os.XATTR_REPLACE), errno.ENODATA)


def _removed_is_gone(folder: str, _fuse: bool) -> bool:  # noqa: FBT001
    path = os.path.join(folder, "removed")
    os.mkdir(path)
    opened = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)  # as a working directory: not open for reading
    try:
        os.rmdir(path)
        return _fails(lambda: os.close(os.open(".", os.O_RDONLY | os.O_CLOEXEC, dir_fd=opened)), errno.ENOENT)
    finally:
        os.close(opened)


def _replaced_is_gone(folder: str, _fuse: bool) -> bool:  # noqa: FBT001
    with _file(folder) as path:
        opened = os.open(path, os.O_PATH | os.O_CLOEXEC)  # looked up only
    try:
        return _fails(lambda: os.close(os.open(f"/proc/self/fd/{opened}", os.O_RDONLY | os.O_CLOEXEC)), errno.ENOENT)
    finally:
        os.close(opened)


def _is_fuse(_folder: str, fuse: bool) -> bool:  # noqa: FBT001
    return fuse


_QUIRKS = (
    Quirk(
        _no_large_owners,
        "zfs-fuse takes users and groups from 2147483648 on for those of another system, and refuses them (EINVAL)",
        ("test_fidelity.py::test_owners_of_any_size", "test_trees.py::test_owners"),
    ),
    Quirk(
        _no_far_times,
        "zfs-fuse refuses times that 32 bits do not hold, before 1901 and after January 2038 (EOVERFLOW)",
        ("test_fidelity.py::test_times_of_any_size", "test_trees.py::test_times_are_kept"),
    ),
    Quirk(
        _no_xattr_flags,
        "zfs-fuse disregards XATTR_CREATE and XATTR_REPLACE: an xattr is set whether or not it was there",
        ("test_mounted_trees.py::test_extended_attributes*XATTR_*",),
    ),
    Quirk(
        _removed_is_gone,
        "on zfs-fuse a directory that was removed cannot be opened any more by who is in it (ENOENT)",
        ("test_mounted_trees.py::test_a_removed_working_directory",),
    ),
    Quirk(
        _is_fuse,
        "FUSE's protocol has renameat2(2) with RENAME_EXCHANGE, and zfs-fuse does not answer it (EINVAL)",
        ("test_mounted_trees.py::test_names_move*EXCHANGE of*",),
    ),
    Quirk(
        _is_fuse,
        "zfs-fuse refuses a stranger's write to a set-user-ID file (EPERM), where others let it pass and clear the bit",
        ("test_mounted_files.py::test_setuid_falls_with_a_strangers_write",),
    ),
    Quirk(
        _replaced_is_gone,
        "zfs-fuse opens no file that was replaced between its lookup and its open: there seems to be none (ENOENT)",
        ("test_stress.py::test_a_storm_of_readers",),
        sometimes=True,
    ),
)


@contextlib.contextmanager
def _file(folder: str) -> Iterator[str]:
    path = os.path.join(folder, "quirk")
    with open(path, "xb"):
        pass
    try:
        yield path
    finally:
        os.unlink(path)


def _fails(attempt: Callable[[], object], code: int) -> bool:
    """Say whether it fails with this error; others are passed on."""
    try:
        attempt()
    except OSError as error:
        if error.errno != code:
            raise
        return True
    return False
