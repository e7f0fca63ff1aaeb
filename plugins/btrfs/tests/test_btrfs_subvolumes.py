# ruff: noqa: INP001, S101 -- pytest asserts, and a folder of tests is no package
"""Subvolumes inside of layers, which containers make: part of the layer's content, and gone with it."""

import os
import pathlib
from collections.abc import Callable, Sequence

import pytest
from btrfstools import agree, driver_of, make_subvolume, subvolumes_below, tree_of
from graphdrivers_btrfs import ioctls, subvolumes

from graphdrivers import errors, loading
from graphdrivers.conformance.observe import Item, assert_same
from graphdrivers.conformance.workbench import Workbench
from graphdrivers.edits import Chmod, Create, Edit, Mkdir, Utime, replay
from graphdrivers.kit import layerdirs
from graphdrivers.linux import mounts, trees
from graphdrivers.model import Mount

CONTENT: Sequence[Edit] = (
    Mkdir("dir", 0o711),
    Create("dir/file", b"f" * 9000, 0o600),
    Create("empty"),
    Utime("dir", 3),
)


INSIDE = ("var/machines", "var/machines/one", "var/machines/one/inner", "top")


def fill(root: str, make: Callable[[str], object]) -> None:
    """Make a tree in which some directories are made as told."""
    replay([Mkdir("var"), Create("var/own", b"1")], root)
    for number, path in enumerate(INSIDE):
        make(os.path.join(root, path))
        replay([*CONTENT, Chmod(".", 0o1755)], os.path.join(root, path))
        os.utime(os.path.join(root, path), ns=(0, number))
    for path in (*reversed(INSIDE), "var", "."):
        os.utime(os.path.join(root, path), ns=(0, len(path)))


def with_subvolumes(bench: Workbench, layer: str, parent: str | None = None) -> str:
    """Make a layer with a subvolume that has others in it, one of them read-only; give the root of its tree."""
    bench.driver.create(layer, parent)
    (plan,) = bench.driver.mounts(layer)
    fill(plan.source, make_subvolume)
    for path in ("var/machines/one/inner", "var/machines/one"):
        with layerdirs.directory(os.path.join(plan.source, path)) as opened:
            ioctls.set_readonly(opened, True)
    return plan.source


def filled(bench: Workbench) -> dict[str, Item]:
    """Give what such a layer is to show."""
    root = bench.flat()
    fill(root, os.mkdir)
    return bench.flat_tree(root)


def test_they_are_removed_with_their_layer(bench: Workbench) -> None:
    """A layer with subvolumes in it, of a container that is still to be settled, goes with all of them."""
    with_subvolumes(bench, "layer")
    bench.driver.remove("layer")

    assert list(bench.driver.layers()) == []
    assert subvolumes_below(bench.driver.home) == []
    assert os.listdir(os.path.join(bench.driver.home, "tmp")) == []


def test_they_become_directories(bench: Workbench) -> None:
    """A layer that came to rest shows what they held, attributes and times too, and so do its children and its diff."""
    root = with_subvolumes(bench, "layer")
    bench.driver.settle("layer")

    assert subvolumes_below(root) == []
    assert_same(filled(bench), bench.look(root))
    bench.driver.seal("layer")
    bench.driver.create("child", "layer")
    bench.driver.seal("child")
    assert_same(filled(bench), bench.tree("child"))
    assert_same(filled(bench), bench.tree(bench.applied("twin", None, bench.diff("layer"))))


def test_a_seal_makes_them_directories(bench: Workbench) -> None:
    """A layer that is sealed without ever being settled loses nothing either."""
    bench.layer("base")
    with_subvolumes(bench, "layer", "base")
    bench.driver.seal("layer")

    assert_same(filled(bench), bench.tree("layer"))
    assert ("A", "/var/machines/one/inner/dir/file") in agree(bench, "layer")


def test_a_snapshot_has_what_they_hold(bench: Workbench) -> None:
    """A snapshot of a layer that is in use has their content in directories; the layer keeps its subvolumes."""
    root = with_subvolumes(bench, "layer")
    driver_of(bench).snapshot("layer", "branch")

    assert_same(filled(bench), bench.tree("branch"))
    assert subvolumes_below(root) == ["top", "var/machines", "var/machines/one", "var/machines/one/inner"]
    assert subvolumes_below(tree_of(bench.driver, "branch")) == []
    with pytest.raises(OSError, match="Read-only"):
        Create("new").perform(tree_of(bench.driver, "branch"))


def test_one_below_a_way_longer_than_a_path(bench: Workbench) -> None:
    """A subvolume that no path leads to is made a directory, and is removed, like any other."""
    for layer in ("layer", "other"):
        bench.driver.create(layer)
        (plan,) = bench.driver.mounts(layer)
        start = os.open(plan.source, os.O_RDONLY | os.O_DIRECTORY)
        with trees.DirStack(start) as stack:
            for _ in range(45):
                os.mkdir(b"d" * 100, dir_fd=stack.fd)
                stack.enter(b"d" * 100)
            ioctls.make_subvolume(stack.fd, b"deep")
            place = os.open("deep", os.O_RDONLY | os.O_DIRECTORY, dir_fd=stack.fd)
            os.close(os.open("file", os.O_WRONLY | os.O_CREAT, dir_fd=place))
            os.close(place)
        os.close(start)
    bench.driver.settle("layer")

    with layerdirs.directory(tree_of(bench.driver, "layer")) as root:
        assert subvolumes.paths_inside(root) == []
    assert bench.changes("layer")[-1] == ("A", "/" + "/".join(["d" * 100] * 45) + "/deep/file")
    for layer in ("layer", "other"):
        bench.driver.remove(layer)
    assert os.listdir(os.path.join(bench.driver.home, "tmp")) == []


@pytest.mark.parametrize("readonly", [False, True], ids=["writable", "read-only"])
@pytest.mark.parametrize("place", ["new-1/layer", "old-1", "new-1"])
def test_leftovers_are_swept(bench: Workbench, place: str, readonly: bool) -> None:  # noqa: FBT001 - a parameter of a test
    """What a killed process left in tmp, with subvolumes in subvolumes, goes when the home is opened."""
    root = with_subvolumes(bench, "layer")
    with layerdirs.directory(root) as opened:
        ioctls.set_readonly(opened, readonly)
    folder = os.path.join(bench.driver.home, "tmp", place)
    pathlib.Path(folder).parent.mkdir(exist_ok=True)
    os.rename(os.path.dirname(root), folder)
    loading.load_driver("btrfs", bench.driver.home).settle()

    assert os.listdir(os.path.join(bench.driver.home, "tmp")) == []
    assert subvolumes_below(bench.driver.home) == []


def test_a_mounted_subvolume_keeps_its_layer(bench: Workbench, tmp_path: pathlib.Path) -> None:
    """A layer is in use, and is not touched, while something is mounted inside of it."""
    root = with_subvolumes(bench, "layer")
    try:
        mounts.attach((Mount("bind", str(tmp_path)),), os.path.join(root, "top"))
    except PermissionError:
        pytest.skip("gated: this user may not mount")
    try:
        for verb in (bench.driver.remove, bench.driver.seal):
            with pytest.raises(errors.LayerInUse):
                verb("layer")
    finally:
        mounts.detach(os.path.join(root, "top"))

    assert subvolumes_below(root) == ["top", "var/machines", "var/machines/one", "var/machines/one/inner"]


def test_an_unfinished_directory_is_no_content(bench: Workbench) -> None:
    """A conversion that was killed leaves a copy, which is deleted; the subvolume is then made a directory."""
    root = with_subvolumes(bench, "layer")
    unfinished = os.path.join(root, "var", os.fsdecode(subvolumes.UNFINISHED) + "1")
    os.mkdir(unfinished)
    replay(CONTENT, unfinished)
    os.utime(os.path.join(root, "var"), ns=(0, len("var")))
    bench.driver.settle("layer")

    assert_same(filled(bench), bench.look(root))
    assert not os.path.exists(os.path.join(os.path.dirname(root), "reserved"))


def test_a_reserved_name_is_put_aside_out_of_the_subvolume(bench: Workbench) -> None:
    """What would mean a deletion is found, whole, in the layer's folder; the tree keeps its times."""
    bench.driver.create("layer")
    (plan,) = bench.driver.mounts("layer")
    replay([Mkdir("dir"), Mkdir("dir/.wh.d"), Create("dir/.wh.d/file", b"1"), Create(".wh.f", b"2")], plan.source)
    os.utime(plan.source, ns=(6, 6))
    with pytest.raises(errors.ReservedNameError):
        bench.driver.settle("layer")

    shelf = pathlib.Path(plan.source).parent / "reserved"
    assert sorted(path.read_bytes() for path in shelf.rglob("*") if path.is_file()) == [b"1", b"2"]
    assert os.listdir(plan.source) == ["dir"]
    assert os.stat(plan.source).st_mtime_ns == 6
