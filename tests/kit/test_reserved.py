"""Names that mean deletions: moved out of a tree, nothing else touched."""

import os
import pathlib
import resource

import pytest

from graphdrivers.kit import reserved
from graphdrivers.kit.layerdirs import delete


def test_everything_reserved_is_moved_and_nothing_else(tmp_path: pathlib.Path) -> None:
    """Files, directories and links whose names begin with the prefix leave the tree whole."""
    tree, shelf = tmp_path / "tree", tmp_path / "shelf"
    (tree / "dir" / ".wh.sub").mkdir(parents=True)
    (tree / "dir" / ".wh.sub" / ".wh.inner").write_text("kept")
    (tree / ".wh.file").write_text("content")
    (tree / ".wh..wh..opq").symlink_to("anywhere")
    (tree / ".WH.other").touch()
    (tree / ".whx").touch()
    os.utime(tree, ns=(5, 7))

    paths = reserved.put_aside(str(tree), str(shelf))

    assert sorted(paths) == ["/.wh..wh..opq", "/.wh.file", "/dir/.wh.sub"]
    assert sorted(path.name for path in tree.rglob("*")) == [".WH.other", ".whx", "dir"]
    assert sorted(path.name for path in shelf.glob("*/*")) == [".wh..wh..opq", ".wh.file", ".wh.sub"]
    assert next(shelf.glob("*/.wh.sub/.wh.inner")).read_text() == "kept"
    assert tree.stat().st_mtime_ns == 7


def test_a_clean_tree_gets_no_shelf(tmp_path: pathlib.Path) -> None:
    """Without such names nothing is made."""
    (tmp_path / "tree" / "dir").mkdir(parents=True)

    assert reserved.put_aside(str(tmp_path / "tree"), str(tmp_path / "shelf")) == ()
    assert not (tmp_path / "shelf").exists()


def test_names_pile_up(tmp_path: pathlib.Path) -> None:
    """The same name put aside twice is kept twice."""
    for number in range(2):
        (tmp_path / "tree").mkdir(exist_ok=True)
        (tmp_path / "tree" / ".wh.x").write_text(str(number))
        reserved.put_aside(str(tmp_path / "tree"), str(tmp_path / "shelf"))

    assert sorted(path.read_text() for path in (tmp_path / "shelf").glob("*/.wh.x")) == ["0", "1"]


@pytest.mark.parametrize("depth", [3000])
def test_depth_costs_no_descriptors(tmp_path: pathlib.Path, depth: int) -> None:
    """A tree deeper than there are descriptors is searched to its end."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, limits[1]))
    here = os.open(tmp_path, os.O_RDONLY)
    try:
        os.mkdir("tree", dir_fd=here)
        current = os.open("tree", os.O_RDONLY, dir_fd=here)
        for _ in range(depth):
            os.mkdir("d", dir_fd=current)
            deeper = os.open("d", os.O_RDONLY, dir_fd=current)
            os.close(current)
            current = deeper
        os.mkdir(".wh.bottom", dir_fd=current)
        os.close(current)

        assert reserved.put_aside(str(tmp_path / "tree"), str(tmp_path / "shelf")) == ("/d" * depth + "/.wh.bottom",)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        os.close(here)
        delete(str(tmp_path), "tree")
