"""Stacks of many layers: deletions and re-creations at every height, in every legal order of their removal."""

import io
import itertools
import os
from collections.abc import Sequence

import pytest

from graphdrivers import errors, loading
from graphdrivers.conformance.observe import assert_same
from graphdrivers.conformance.workbench import Member, Workbench, directory, layer_tar, opaque, whiteout
from graphdrivers.edits import Chmod, Create, Edit, Link, Mkdir, Remove, Symlink, Write
from graphdrivers.model import Profile

_ODD_HOMES = ["co:lon", "com,ma", "bl ank", "new\nline", "back\\slash", "equals=", "-dash", "\udcff", "x" * 255, "%2e#"]

_TREE: list[Edit] = [Mkdir("d"), Create("d/old", b"1"), Mkdir("d/sub"), Create("d/sub/old", b"2")]


def _checked(bench: Workbench, *rounds: Sequence[Edit]) -> None:
    """Make a stack, one layer per round; each must show what a flat directory shows, from a tar of its diff too."""
    parent = copy = None
    for number, changes in enumerate(rounds):
        parent = bench.layer(f"layer{number}", parent, changes)
        copy = bench.applied(f"copy{number}", copy, bench.diff(parent))
        expected = bench.flat_tree(bench.flat(*rounds[: number + 1]))
        assert_same(expected, bench.tree(parent))
        assert_same(expected, bench.tree(copy))


def test_a_deletion_at_every_level(bench: Workbench) -> None:
    """In a stack of 126 layers each deletes a file, of the bottom or of the layer below, and adds one (moby's aufs)."""
    depth = min(126, bench.can.max_depth or 126)
    shown = {f"file{number:03}" for number in range(0, depth, 6)}
    parent = bench.layer("layer000", None, [Create(name) for name in sorted(shown)])
    expected = {parent: sorted(shown)}
    for number in range(1, depth):
        gone = f"file{number:03}" if number % 6 == 0 else f"new{number - 1:03}"
        changes = [Remove(gone)] if gone in shown else []
        parent = bench.layer(f"layer{number:03}", parent, [*changes, Create(f"new{number:03}")])
        shown = shown - {gone} | {f"new{number:03}"}
        expected[parent] = sorted(shown)

    for layer in ("layer001", f"layer{depth // 2:03}", parent):
        assert sorted(bench.contents(layer)) == expected[layer]


def test_long_names_in_a_deep_stack(bench: Workbench) -> None:
    """Sixty layers with names of 200 bytes are mounted: no page and no option string cuts the list."""
    depth = min(60, bench.can.max_depth or 60)
    parent = None
    for number in range(depth):
        parent = bench.layer(f"{number:03}{'n' * 197}", parent, [Create(f"file{number:03}", str(number).encode())])
    assert parent is not None

    assert bench.contents(parent) == {f"file{number:03}": str(number) for number in range(depth)}


def test_many_files_travel(bench: Workbench) -> None:
    """A layer that rewrites a hundred files and deletes a file and a directory is applied whole (moby's DiffApply)."""
    names = [f"dir/file{number}" for number in range(100)]
    base: list[Edit] = [Mkdir("dir"), *(Create(name, b"old" * 99) for name in names), Create("one"), Mkdir("var")]
    base += [Mkdir("var/lib"), Create("var/lib/file")]
    bench.layer("base", None, base)
    bench.layer("upper", "base", [*(Write(name, b"new") for name in names), Remove("one"), Remove("var/lib")])
    bench.driver.create("copy", "base")
    applied = bench.driver.apply("copy", io.BytesIO(bench.diff("upper")))
    bench.driver.seal("copy")

    assert_same(bench.tree("upper"), bench.tree("copy"))
    assert applied.size == 100 * len("new")
    if bench.can.copy_on_write:
        assert bench.driver.usage("copy").bytes == applied.size == bench.driver.usage("upper").bytes


def test_four_layers_of_whiteouts(bench: Workbench) -> None:
    """Plain and opaque deletions over four layers, siblings before and after the marker (go-archive's ApplyLayer)."""
    stack: list[list[Member | str]] = [
        [".baz", "bar/", "bar/bax", "bar/bay/", "baz", "foo/", "foo/.abc", "foo/.bcd/", "foo/.bcd/a", "foo/cde/"],
        [whiteout("baz"), "foo/", opaque("foo"), "foo/.bcd/", "foo/.bcd/b", "foo/.abc", "foo/cde/", "foo/cde/efg"],
        [whiteout(".baz"), whiteout("foobar"), "foo/", whiteout("foo/cde"), "foo/new"],
        [opaque(""), "last"],
    ]
    shown = []
    parent = None
    for number, members in enumerate(stack):
        parent = bench.applied(f"layer{number}", parent, layer_tar(members))
        shown.append(sorted(bench.contents(parent)))
    bar = ["bar", "bar/bax", "bar/bay"]

    assert shown[0] == [".baz", *bar, "baz", "foo", "foo/.abc", "foo/.bcd", "foo/.bcd/a", "foo/cde"]
    assert shown[1] == [".baz", *bar, "foo", "foo/.abc", "foo/.bcd", "foo/.bcd/b", "foo/cde", "foo/cde/efg"]
    assert shown[2] == [*bar, "foo", "foo/.abc", "foo/.bcd", "foo/.bcd/b", "foo/new"]
    assert shown[3] == ["last"]


_MARKERS: dict[str, tuple[list[list[Member | str]], dict[str, str]]] = {
    "opaque in two layers": (
        [["c/", "c/low"], ["c/", opaque("c"), "c/f"], ["c/", opaque("c"), "c/top"]],
        {"c": "/", "c/top": "c/top"},
    ),
    "a file between two directories": (
        [["d/", "d/old"], [Member("d", b"file")], ["d/", "d/x"]],
        {"d": "/", "d/x": "d/x"},
    ),
    "an opaque root in the middle": (
        [["old", "d/", "d/old"], [opaque(""), "d/", "d/middle"], ["d/", "d/new"]],
        {"d": "/", "d/middle": "d/middle", "d/new": "d/new"},
    ),
    "opaque over a deletion": (
        [["d/", "d/old"], [whiteout("d")], ["d/", opaque("d"), "d/x"], ["d/", "d/y"]],
        {"d": "/", "d/x": "d/x", "d/y": "d/y"},
    ),
    "a deletion inside an opaque directory": (
        [["d/", "d/a", "d/b"], ["d/", opaque("d"), whiteout("d/a"), whiteout("d/none"), "d/c"], [whiteout("d/c")]],
        {"d": "/"},
    ),
    "a deletion of what opaque hides": (
        [["d/", "d/a"], ["d/", opaque("d")], ["d/", whiteout("d/a")], ["d/", "d/a"]],
        {"d": "/", "d/a": "d/a"},
    ),
    "deleted, made and deleted": (
        [["f"], [whiteout("f")], ["f/", "f/in"], [whiteout("f")], [Member("f", b"last")]],
        {"f": "last"},
    ),
    "deeper and deeper": (
        [["a/", "a/b/", "a/b/c/", "a/b/c/f"], [whiteout("a/b/c")], [whiteout("a/b")], ["a/b/", "a/b/n"]],
        {"a": "/", "a/b": "/", "a/b/n": "a/b/n"},
    ),
}


@pytest.mark.parametrize("case", _MARKERS)
def test_markers_in_several_layers(bench: Workbench, case: str) -> None:
    """What several layers delete in one place is hidden by the nearest of them, at rest and in a child's mount."""
    stack, expected = _MARKERS[case]
    parent = None
    for number, members in enumerate(stack):
        parent = bench.applied(f"layer{number}", parent, layer_tar(members))
    assert parent is not None

    assert bench.contents(parent) == expected
    assert bench.contents(bench.layer("child", parent, [Create("mine", b"m")])) == {**expected, "mine": "m"}
    assert bench.contents(bench.applied("copy", "layer0", bench.diff("layer1"))) == bench.contents("layer1")


@pytest.mark.parametrize("depth", [0, 4, 9])
def test_echo_travels(bench: Workbench, depth: int) -> None:
    """A chain of directories that goes at some depth and comes back a layer later, in mounts and through tars."""
    chain = ["/".join(f"d{level}" for level in range(length)) for length in range(1, 11)]
    base: list[Edit] = [edit for path in chain for edit in (Mkdir(path), Create(f"{path}/file"))]
    again: list[Edit] = [Mkdir(path, 0o711) for path in chain[depth:]]

    _checked(bench, base, [Remove(chain[depth])], again, [Create(f"{chain[-1]}/file", b"again")])


def test_a_directory_goes_and_comes_six_times(bench: Workbench) -> None:
    """However often a directory is removed and made again, in one layer or two, only the newest content shows."""
    again: list[Edit] = [Mkdir("d"), Create("d/new", b"3")]
    other: list[Edit] = [Remove("d"), Mkdir("d"), Create("d/other")]

    _checked(bench, _TREE, [Remove("d")], again, other, [Create("d/new", b"4")], [Remove("d"), *_TREE])


def test_a_name_changes_its_kind_in_every_layer(bench: Workbench) -> None:
    """A name that is a directory, a file, a link and a directory again shows nothing of what it was."""
    file: list[Edit] = [Remove("d"), Create("d", b"file")]
    link: list[Edit] = [Remove("d"), Symlink("d", "e"), Mkdir("e"), Create("e/kept")]

    _checked(bench, _TREE, file, [Remove("d"), *_TREE], link, [], [Remove("d"), Mkdir("d"), Create("d/last")])


def test_attributes_through_a_stack(bench: Workbench) -> None:
    """Modes of directories hold when only something below changes, and a new mode holds over the old content."""
    _checked(bench, _TREE, [Chmod("d", 0o711)], [Write("d/sub/old", b"x")], [Chmod("", 0o750), Chmod("d/sub", 0o1777)])


def test_links_through_a_stack(bench: Workbench) -> None:
    """Names linked in one layer are removed, replaced and linked anew in others."""
    base: list[Edit] = [Create("a", b"1"), Link("a", "b"), Mkdir("d"), Link("a", "d/c")]

    again: list[Edit] = [Remove("d/c"), Remove("d/e"), Link("a", "d/c")]

    _checked(bench, base, [Remove("a")], [Create("a", b"2"), Link("a", "d/e")], again)


def test_siblings_are_isolated(bench: Workbench) -> None:
    """Ten children of one parent that all change the same paths each show their own."""
    bench.layer("base", None, [*_TREE, Create("file", b"base")])
    before = bench.tree("base")
    for number in range(10):
        changes: list[Edit] = [Write("file", str(number).encode()), Create(f"own{number}")]
        bench.layer(f"child{number}", "base", [*changes, Remove("d" if number % 2 else "d/old")])

    for number in range(10):
        shown = bench.contents(f"child{number}")
        assert shown["file"] == str(number)
        assert [path for path in shown if path.startswith("own")] == [f"own{number}"]
        assert ("d" in shown, "d/old" in shown) == (number % 2 == 0, False)
    assert_same(before, bench.tree("base"))


_FAMILY = {"a": None, "b": "a", "c": "a", "d": "b"}

_ORDERS = [
    order
    for order in itertools.permutations(_FAMILY)
    if all(parent is None or order.index(child) < order.index(parent) for child, parent in _FAMILY.items())
]
"""Every order in which a layer goes before its parent."""


@pytest.mark.parametrize("order", _ORDERS, ids="".join)
def test_layers_go_in_any_legal_order(bench: Workbench, order: tuple[str, ...]) -> None:
    """Whatever is removed, children before parents, the others show what they showed."""
    for name, parent in _FAMILY.items():
        bench.layer(name, parent, [Create(f"of {name}"), *([Remove("of a")] if name == "d" else [])])
    trees = {name: bench.tree(name) for name in _FAMILY}
    for number, name in enumerate(order):
        bench.driver.remove(name)
        assert {record.name for record in bench.driver.layers()} == set(order[number + 1 :])
        for other in order[number + 1 :]:
            assert_same(trees[other], bench.tree(other))


def test_a_name_is_used_again(bench: Workbench) -> None:
    """A layer that takes a removed layer's name has nothing of it: not its content, not its parent, not its seal."""
    bench.layer("base", None, [Create("base")])
    bench.layer("layer", "base", [Create("old"), Remove("base")])
    bench.driver.remove("layer")
    bench.driver.create("layer")
    (record,) = [record for record in bench.driver.layers() if record.name == "layer"]
    assert (record.parent, record.sealed) == (None, False)
    bench.driver.seal("layer")

    assert bench.contents("layer") == {}
    assert bench.changes("layer") == []
    assert bench.contents(bench.layer("child", "base")) == {"base": ""}


def test_a_container_becomes_an_image(bench: Workbench) -> None:
    """What a container changed is committed as a tar and as a sealed layer; both outlive the container (#24309)."""
    bench.layer("base", None, [*_TREE, Create("file", b"1")])
    bench.layer("container", "base", [Remove("d/old"), Write("file", b"22"), Mkdir("new")], seal=False)
    bench.applied("committed", "base", bench.diff("container"))
    bench.driver.seal("container")
    tree = bench.tree("container")
    bench.layer("above", "committed", [Create("above")])
    bench.driver.remove("container")

    assert_same(tree, bench.tree("committed"))
    assert sorted(bench.contents("above")) == ["above", "d", "d/sub", "d/sub/old", "file", "new"]


@pytest.mark.parametrize("profile", list(Profile))
def test_profiles_agree_on_names(bench: Workbench, profile: Profile) -> None:
    """Whatever a diff's profile, applied it gives the same names and contents."""
    bench.layer("base", None, _TREE)
    bench.layer("child", "base", [Remove("d/sub"), Create("d/new", b"3"), Chmod("d/old", 0o600), Mkdir("d/sub")])
    with bench.driver.diff("child", profile=profile) as stream:
        tar = stream.read()

    assert bench.contents(bench.applied("copy", "base", tar)) == bench.contents("child")


def test_an_init_layer_between(bench: Workbench) -> None:
    """A container over an init layer over an image: its changes are counted from the init layer (moby's MountInit)."""
    bench.layer("image", None, [Mkdir("etc"), Create("etc/hosts", b"image", 0o600)])
    bench.layer("init", "image", [Write("etc/hosts", b"init"), Chmod("etc/hosts", 0o644), Create("etc/mtab")])
    bench.layer("container", "init", [Create("mine"), Remove("etc/mtab")])

    assert bench.contents("container") == {"etc": "/", "etc/hosts": "init", "mine": ""}
    assert bench.tree("container")["etc/hosts"].mode == 0o644
    assert bench.changes("container") == [("C", "/etc"), ("D", "/etc/mtab"), ("A", "/mine")]


@pytest.mark.parametrize("name", _ODD_HOMES, ids=ascii)
def test_a_home_with_an_odd_path(bench: Workbench, driver_options: dict[str, str], name: str) -> None:
    """A home may have any path: its bytes are no option, no separator and no escape."""
    folder = os.path.join(os.path.dirname(bench.driver.home), name)
    os.mkdir(folder)
    there = loading.load_driver(bench.driver.name, os.path.join(folder, "ho:m,e"), driver_options)
    scratch = os.path.join(folder, "flat")
    os.mkdir(scratch)
    other = Workbench(there, scratch)
    other.layer("a:b", None, _TREE)
    other.layer("c,d", "a:b", [Remove("d/old"), Create("d/new", b"3")])
    other.layer("e f", "c,d", [Remove("d/sub")])

    assert other.contents("e f") == {"d": "/", "d/new": "3"}
    other.driver.remove("e f")
    assert other.contents("c,d") == {"d": "/", "d/new": "3", "d/sub": "/", "d/sub/old": "2"}
    with pytest.raises(errors.LayerExists):
        other.driver.create("a:b")
    other.forget()


def test_a_layer_from_an_empty_tar(bench: Workbench) -> None:
    """An archive without members is a layer without changes, over a parent and alone."""
    bench.layer("base", None, _TREE)
    tar = layer_tar([])
    for name, parent in (("alone", None), ("child", "base")):
        bench.applied(name, parent, tar)
        assert bench.changes(name) == []

    assert bench.contents("alone") == {}
    assert_same(bench.tree("base"), bench.tree("child"))
    assert bench.contents(bench.applied("root", None, layer_tar([directory(".", 0o711)]))) == {}
