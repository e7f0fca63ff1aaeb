"""Directories that are parked and come back: never too many open, never another one in its place."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from graphdrivers.archive.handles import Handle, Handles
from graphdrivers.linux import trees


def _open_count() -> int:
    return len(os.listdir("/proc/self/fd"))


def _inode(handle: Handle) -> int:
    return os.fstat(handle.fd()).st_ino


@pytest.fixture
def deep(tmp_path: Path) -> Iterator[list[int]]:
    """Make 4,200 nested directories ``deep/d/d/...``; gives their inodes, outermost first."""
    inodes = []
    (tmp_path / "deep").mkdir()
    fd = os.open(tmp_path / "deep", os.O_RDONLY)
    for _ in range(4200):
        os.mkdir("d", dir_fd=fd)
        inner = os.open("d", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = inner
        inodes.append(os.fstat(fd).st_ino)
    os.close(fd)
    yield inodes
    fd = os.open(tmp_path, os.O_RDONLY)
    trees.remove_tree(fd, b"deep")
    os.close(fd)


def test_depth_costs_no_descriptors(deep: list[int], tmp_path: Path) -> None:
    """A walk down and up again keeps a handful open and finds each directory again."""
    handles = Handles(limit=4)
    before = _open_count()
    way = [handles.root(os.fsencode(tmp_path / "deep"))]
    for _ in deep:
        way.append(way[-1].child(b"d"))
        assert _open_count() <= before + 8
    for handle, inode in reversed(list(zip(way[1:], deep, strict=True))):
        assert _inode(handle) == inode
        handle.close()
    handles.close()

    assert _open_count() == before


def test_any_parked_directory_can_be_used_at_any_time(deep: list[int], tmp_path: Path) -> None:
    """Jumping about reopens what is needed, from the nearest open directory above."""
    handles = Handles(limit=8)
    way = [handles.root(os.fsencode(tmp_path / "deep"))]
    for _ in deep:
        way.append(way[-1].child(b"d"))
    for depth in (4199, 1, 4150, 2500, 4199, 3, 4097, 4095):
        assert _inode(way[depth]) == deep[depth - 1]
        assert _open_count() < 60
    handles.close()


def test_a_directory_need_not_be_opened_to_look_a_name_up(deep: list[int], tmp_path: Path) -> None:
    """Names are found through directories that were never opened, below paths of any length."""
    handles = Handles(limit=4)
    handle = handles.root(os.fsencode(tmp_path / "deep"))
    for inode in deep[:1500]:
        status = handle.lstat(b"d")
        assert status is not None
        assert status.st_ino == inode
        assert handle.lstat(b"missing") is None
        assert handle.lstat(b"n" * 256) is None
        handle = handle.later(b"d")
    handles.close()


def test_a_replaced_directory_is_an_error(tmp_path: Path) -> None:
    """A parked directory whose name leads to another one by now is not mistaken for it."""
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "c/d").mkdir(parents=True)
    handles = Handles(limit=2)
    root = handles.root(os.fsencode(tmp_path))
    parked = root.child(b"a")
    _others = [root.child(b"c"), root.child(b"c")]
    os.rename(tmp_path / "a", tmp_path / "gone")
    (tmp_path / "a").mkdir()
    with pytest.raises(OSError, match="was replaced"):
        parked.fd()
    handles.close()


def test_a_moved_child_does_not_bring_a_wrong_parent_back(tmp_path: Path) -> None:
    """Going up through ``..`` is checked: a directory moved elsewhere meanwhile leads to the parent by its own name."""
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "other").mkdir()
    handles = Handles(limit=2)
    parent = handles.root(os.fsencode(tmp_path)).child(b"a")
    inode = _inode(parent)
    child = parent.child(b"b")
    _other = child.handles.root(os.fsencode(tmp_path)).child(b"other")
    assert parent.number == -1
    os.rename(tmp_path / "a/b", tmp_path / "other/b")
    child.close()

    assert _inode(parent) == inode
    handles.close()


@pytest.mark.parametrize("how", ["child", "later"])
def test_symbolic_links_are_not_entered(how: str, tmp_path: Path) -> None:
    """A link in the place of a directory is refused when it is opened."""
    os.symlink("/etc", tmp_path / "link")
    handles = Handles()
    root = handles.root(os.fsencode(tmp_path))
    with pytest.raises(OSError, match="link") as caught:
        getattr(root, how)(b"link").fd()
    assert caught.value.errno in {errno.ENOTDIR, errno.ELOOP}
    handles.close()
