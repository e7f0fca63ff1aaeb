# ruff: noqa: INP001, S101 -- pytest asserts, and a folder of tests is no package
"""Changes found by a search are those that a walk of both trees finds, and cost what the changes are."""

import contextlib
import os
import random
from collections.abc import Iterator, Sequence

import pytest
from btrfstools import agree, driver_of, make_subvolume, tree_of
from graphdrivers_btrfs import ioctls

from graphdrivers import naivediff
from graphdrivers.archive.compare import every_pair
from graphdrivers.conformance.randomly import edit_randomly
from graphdrivers.conformance.workbench import Workbench
from graphdrivers.edits import (
    Chmod,
    Create,
    Edit,
    Link,
    Mkdir,
    Remove,
    Rename,
    SetXattr,
    Utime,
    Write,
    replay,
)
from graphdrivers.kit import layerdirs
from graphdrivers.linux import trees

BELOW: tuple[Edit, ...] = (
    *(edit for name in ("a", "a/b", "a/b/c", "d", "e") for edit in (Mkdir(name), Create(f"{name}/file", b"1"))),
    Create("a/one", b"linked"),
    Link("a/one", "d/other"),
    Link("a/one", "e/third"),
    Create("top", b"2"),
    SetXattr("top", "user.note", b"1"),
)

CASES: dict[str, Sequence[Edit]] = {
    "nothing": (),
    "a file": (Write("a/b/c/file", b"2"),),
    "an equal file": (Write("top", b"2"),),
    "an attribute": (SetXattr("top", "user.note", b"2"),),
    "the times of a directory": (Utime("a/b", 5),),
    "the mode of the root": (Chmod(".", 0o700),),
    "a new name": (Link("a/one", "new"),),
    "one name less": (Remove("d/other"),),
    "all names": (Write("a/one", b"longer"),),
    "a directory moved": (Rename("d", "moved"),),
    "a directory moved, further down": (Rename("d", "a/b/c/moved"),),
    "a directory moved above": (Rename("a/b/c", "up"),),
    "a directory replaced": (Rename("d", "moved"), Mkdir("d"), Create("d/file", b"1")),
    "two directories swapped": (Rename("d", "x"), Rename("e", "d"), Rename("x", "e")),
    "a directory deleted": (Remove("a"),),
    "a directory made anew": (Remove("a/b"), Mkdir("a/b"), Create("a/b/file", b"1")),
    "a file for a directory": (Remove("d"), Create("d", b"1")),
    "a directory for a file": (Remove("top"), Mkdir("top"), Create("top/new", b"1")),
    "a file moved there and back": (Rename("top", "x"), Rename("x", "top")),
    "a directory with a new one above": (Mkdir("new"), Rename("a", "new/a"), Write("new/a/b/file", b"3")),
}


@pytest.mark.parametrize("case", CASES)
def test_each_kind_of_change(bench: Workbench, case: str) -> None:
    """Contents, attributes, names, links and moved directories are found, in a writable layer and in a sealed one."""
    bench.layer("base", None, BELOW)
    bench.layer("child", "base", CASES[case], seal=False)
    found = agree(bench, "child")
    bench.driver.seal("child")

    assert agree(bench, "child") == found


@pytest.mark.parametrize("seed", range(25))
def test_random_changes(bench: Workbench, seed: int) -> None:
    """Whatever was done, the search finds what the walk finds, in each layer of a stack."""
    dice = random.Random(seed)  # noqa: S311 - repeatable, not secret
    flat = bench.flat()
    bench.layer("layer0", None, edit_randomly(bench, flat, dice, 60))
    for number in range(1, 4):
        bench.layer(f"layer{number}", f"layer{number - 1}", edit_randomly(bench, flat, dice, dice.choice([1, 5, 25])))
        agree(bench, f"layer{number}")


def test_many_names_of_one_file(bench: Workbench) -> None:
    """A file with more names than one item of the tree holds keeps all of them in the diff."""
    names = [f"{'n' * 200}{number}" for number in range(400)]
    bench.layer("base", None, [Create("first"), *(Link("first", name) for name in names)])
    bench.layer("child", "base", [Link("first", "last")])

    assert agree(bench, "child") == [("A", "/last")]


def test_a_subvolume_that_a_container_made(bench: Workbench) -> None:
    """What is in a subvolume of the layer, while that is mounted, and in one that it moved, is in the diff."""
    bench.layer("base", None, BELOW)
    bench.driver.create("child", "base")
    root = tree_of(bench.driver, "child")
    bench.driver.mounts("child")
    for path in ("a/sub", "d/sub"):
        make_subvolume(os.path.join(root, path))
        replay([Create("file", b"1"), Mkdir("dir"), Create("dir/file", b"2")], os.path.join(root, path))
    os.rename(os.path.join(root, "d"), os.path.join(root, "moved"))

    found = agree(bench, "child")
    assert ("A", "/a/sub/dir/file") in found
    assert ("A", "/moved/sub/dir/file") in found


def test_a_file_that_was_only_read(bench: Workbench) -> None:
    """Reading changes the time of the last access, which is nothing."""
    bench.layer("base", None, [Create("file", b"1"), Mkdir("dir"), Create("dir/file", b"1")])
    bench.driver.create("child", "base")
    with bench.writing("child") as root:
        status = os.stat(os.path.join(root, "file"))
        os.utime(os.path.join(root, "file"), ns=(status.st_atime_ns + 1, status.st_mtime_ns))
        replay([Utime("dir/file", 7)], root)

    assert agree(bench, "child") == [("C", "/dir"), ("C", "/dir/file")]


def test_a_parent_that_was_tampered_with(bench: Workbench) -> None:
    """Where the parent is no more what the snapshot was made of, both trees are walked."""
    bench.layer("base", None, BELOW)
    bench.layer("child", "base", [Write("top", b"3")])
    tree = tree_of(bench.driver, "base")
    with layerdirs.directory(tree) as root:
        ioctls.set_readonly(root, False)
        replay([Write("a/file", b"tampered")], tree)
        ioctls.set_readonly(root, True)

    assert driver_of(bench).pairs("child") is every_pair
    assert bench.changes("child") == [("C", "/a"), ("C", "/a/file"), ("C", "/top")]


def test_a_layer_that_was_copied(bench: Workbench) -> None:
    """Where a layer's subvolume is another one than was made, both trees are walked."""
    bench.layer("base", None, BELOW)
    bench.layer("child", "base", [Write("top", b"3")])
    folder = os.path.dirname(tree_of(bench.driver, "child"))
    with layerdirs.directory(folder) as place, layerdirs.directory(tree_of(bench.driver, "child")) as root:
        ioctls.make_snapshot(root, place, b"copy", readonly=True)
        ioctls.destroy(place, b"tree")
        os.rename("copy", "tree", src_dir_fd=place, dst_dir_fd=place)

    assert driver_of(bench).pairs("child") is every_pair
    assert bench.changes("child") == [("C", "/top")]


def test_the_cost_is_that_of_the_changes(bench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a large tree only the directories above a change are opened; the walk would open all."""
    bench.layer("base", None, [edit for n in range(300) for edit in (Mkdir(f"dir{n}"), Create(f"dir{n}/file"))])
    bench.layer("child", "base", [Write("dir7/file", b"1")])
    opened: list[object] = []
    real = os.open

    def counting(path: object, *args: object, **more: object) -> int:
        opened.append(path)
        return real(path, *args, **more)  # type: ignore[call-overload, no-any-return]

    monkeypatch.setattr(os, "open", counting)
    assert bench.changes("child") == [("C", "/dir7"), ("C", "/dir7/file")]
    searched = len(opened)
    assert len(list(naivediff.changes(bench.driver, "child"))) == 2

    assert searched < 40
    assert len(opened) - searched > 600


def test_a_way_longer_than_a_path(bench: Workbench) -> None:
    """A change below more directories than a path can name is found."""
    bench.layer("base", None, [Create("file", b"1")])
    bench.driver.create("middle", "base")
    _deepen(bench, "middle", 60)
    bench.driver.seal("middle")
    bench.driver.create("child", "middle")
    with bench.writing("child") as root, _entered(root, 60) as stack:
        os.close(os.open(b"new", os.O_WRONLY | os.O_CREAT, dir_fd=stack.fd))
    found = agree(bench, "child")

    assert found[-1] == ("A", "/" + "/".join(["d" * 100] * 60) + "/new")


def _deepen(bench: Workbench, layer: str, depth: int) -> None:
    with bench.writing(layer) as root, _entered(root, 0) as stack:
        for _ in range(depth):
            os.mkdir(b"d" * 100, dir_fd=stack.fd)
            stack.enter(b"d" * 100)


@contextlib.contextmanager
def _entered(root: str, depth: int) -> Iterator[trees.DirStack]:
    start = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with trees.DirStack(start) as stack:
            for _ in range(depth):
                stack.enter(b"d" * 100)
            yield stack
    finally:
        os.close(start)
