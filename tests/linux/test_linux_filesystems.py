"""File systems: names, room and abilities."""

import contextlib
import errno
import os
import pathlib
import sys
from collections.abc import Callable, Iterator

import pytest

from graphdrivers.linux import filesystems, mountinfo, mounts
from graphdrivers.model import Mount

Run = Callable[[int, Callable[[], object]], None]


@pytest.fixture
def directory(tmp_path: pathlib.Path) -> Iterator[int]:
    """An open directory."""
    opened = os.open(tmp_path, os.O_RDONLY)
    yield opened
    os.close(opened)


def test_names_agree_with_the_mount_table() -> None:
    """For every mount of a type that we name, we name it as the kernel does."""
    named = set(filesystems._MAGIC.values())
    checked = 0
    for mount in mountinfo.read():
        if mount.fs_type in named and mountinfo.mounted_at(mount.target) == mount:
            with contextlib.suppress(FileNotFoundError):  # others unmount theirs, and delete where it was, meanwhile
                told = filesystems.fs_type(mount.target)
                if mountinfo.mounted_at(mount.target) == mount:
                    assert told == mount.fs_type
                    checked += 1

    assert checked


@pytest.mark.usefixtures("root")
def test_descriptor_and_path(target: str) -> None:
    """A descriptor, a str path and a bytes path give the same answer."""
    mounts.attach((Mount("tmpfs", "test"),), target)
    opened = os.open(target, os.O_PATH)

    assert {"tmpfs"} == {filesystems.fs_type(one) for one in (opened, target, os.fsencode(target))}

    os.close(opened)


def test_unknown_type(monkeypatch: pytest.MonkeyPatch) -> None:
    """A type that we do not know is given by its number."""
    monkeypatch.setattr(filesystems, "_MAGIC", {})

    assert filesystems.fs_type("/proc") == "0x9fa0"


def test_missing_path() -> None:
    """A missing path is an error."""
    with pytest.raises(FileNotFoundError):
        filesystems.fs_type("/nowhere/at/all")


def test_free_bytes(directory: int) -> None:
    """Free room is what statvfs says is available to us."""
    usage = os.fstatvfs(directory)

    assert 0 < filesystems.free_bytes(directory) <= usage.f_blocks * usage.f_frsize


def test_free_bytes_where_nobody_counts() -> None:
    """A file system that does not count blocks (ramfs, as procfs) has room: it is not taken for a full one."""
    uncounted = os.open("/proc", os.O_RDONLY)
    assert os.fstatvfs(uncounted).f_blocks == 0
    assert filesystems.free_bytes(uncounted) == sys.maxsize
    os.close(uncounted)


def test_xattr_support(directory: int, run_as: Run, tmp_path: pathlib.Path) -> None:
    """Root can set trusted attributes, others only their own; probing leaves nothing behind."""
    tmp_path.chmod(0o777)

    assert filesystems.supports_xattr(directory, "user")
    run_as(65534, lambda: _assert_only_user(directory))
    assert filesystems.supports_xattr(directory, "trusted")
    assert os.listdir(tmp_path) == []


def _assert_only_user(directory: int) -> None:
    assert filesystems.supports_xattr(directory, "user")
    assert not filesystems.supports_xattr(directory, "trusted")


def test_xattr_error_is_not_a_no(directory: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that is full or broken is reported, not taken for a missing ability."""

    def full(*_arguments: object) -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "setxattr", full)
    with pytest.raises(OSError, match="full"):
        filesystems.supports_xattr(directory, "user")


@pytest.mark.usefixtures("root")
def test_no_reflink_on_tmpfs(target: str) -> None:
    """Tmpfs cannot share blocks, and the probe leaves nothing behind."""
    mounts.attach((Mount("tmpfs", "test"),), target)
    opened = os.open(target, os.O_RDONLY)

    assert filesystems.supports_reflink(opened) is False
    assert os.listdir(opened) == []

    os.close(opened)
