"""Layer tars: what whiteouts, links and odd members mean, on every driver the same (OCI image-spec, layer.md)."""

import io
import stat
import tarfile
from collections.abc import Sequence
from typing import Any

import pytest

from graphdrivers import errors
from graphdrivers.conformance.workbench import Member, Workbench, directory, layer_tar, opaque, whiteout

_LINK = tarfile.SYMTYPE
_HARD = tarfile.LNKTYPE


def _stacked(bench: Workbench, *tars: Sequence[Any]) -> dict[str, str]:
    """Apply tars as a stack and give what the top shows."""
    parent = None
    for number, members in enumerate(tars):
        parent = bench.applied(f"layer{number}", parent, layer_tar(members))
    assert parent is not None
    return bench.contents(parent)


def _refused(bench: Workbench, error: type[errors.ArchiveError], *members: Member | str) -> errors.ArchiveError:
    """Apply a tar that must be refused over a parent that must stay as it is."""
    bench.applied("parent", None, layer_tar(["etc/", "etc/passwd", "hello"]))
    before = bench.tree("parent")
    bench.driver.create("layer", "parent")
    with pytest.raises(error) as caught:
        bench.applied("bad", "parent", layer_tar(members))
    bench.driver.remove("bad")
    assert bench.tree("parent") == before
    return caught.value


_KINDS: dict[str, list[Member | str]] = {
    "file": [Member("f", b"1")],
    "tree": [directory("f"), "f/a", directory("f/b"), "f/b/c"],
    "symlink": [Member("f", kind=_LINK, target="kept")],
    "fifo": [Member("f", kind=tarfile.FIFOTYPE)],
}


@pytest.mark.parametrize("kind", sorted(_KINDS))
def test_w1_a_whiteout_deletes(bench: Workbench, kind: str) -> None:
    """A whiteout removes a lower file, tree, link or fifo; what a link points to stays."""
    assert _stacked(bench, [*_KINDS[kind], "kept"], [whiteout("f")]) == {"kept": "kept"}


@pytest.mark.parametrize("kind", ["file", "hardlink", "symlink", "directory", "content"])
def test_w15_a_whiteout_is_known_by_its_name(bench: Workbench, kind: str) -> None:
    """The type and content of a whiteout member mean nothing; its link is never resolved."""
    marks = {
        "file": Member(".wh.f"),
        "hardlink": Member(".wh.f", kind=_HARD, target=".wh..wh.aufs"),
        "symlink": Member(".wh.f", kind=_LINK, target="kept"),
        "directory": directory(".wh.f"),
        "content": Member(".wh.f", b"payload that is skipped"),
    }
    assert _stacked(bench, ["f", "kept"], [marks[kind], "new"]) == {"kept": "kept", "new": "new"}


@pytest.mark.parametrize("first", ["marker", "file"])
def test_w2_a_whiteout_beside_its_own_file(bench: Workbench, first: str) -> None:
    """A layer's own file shows although it also deletes that name, in both orders."""
    members = [whiteout("f"), Member("f", b"upper")]
    order = members if first == "marker" else members[::-1]

    assert _stacked(bench, [Member("f", b"lower")], order) == {"f": "upper"}


@pytest.mark.parametrize("first", ["marker", "directory"])
def test_w3_a_whiteout_beside_its_own_directory(bench: Workbench, first: str) -> None:
    """Then the directory has only what this layer puts into it, in both orders."""
    inside: list[Member | str] = ["d/", "d/new"]
    order = [whiteout("d"), *inside] if first == "marker" else [*inside, whiteout("d")]

    assert _stacked(bench, ["d/", "d/old", "d/s/", "d/s/old"], order) == {"d": "/", "d/new": "d/new"}


def test_w4_a_whiteout_of_nothing(bench: Workbench) -> None:
    """Deleting what is not there is no error and leaves no trace: the directory can be removed."""
    members = [whiteout("ghost"), "new/", whiteout("new/ghost"), "file/", whiteout("file/ghost"), whiteout("no/such")]
    shown = _stacked(bench, ["file"], members, [whiteout("new")])

    assert {path: shown[path] for path in shown if path != "no"} == {"file": "/"}


@pytest.mark.parametrize("place", [0, 1, 2, 3])
def test_w5_an_opaque_directory(bench: Workbench, place: int) -> None:
    """An opaque directory shows only its own layer's content, nested directories too, wherever the marker stands."""
    members: list[Member | str] = ["d/", "d/new", "d/s/", "d/s/t", whiteout("d/old")]
    members.insert(1 + place, opaque("d"))
    shown = _stacked(bench, ["d/", "d/old", "d/s/", "d/s/u"], members)

    assert shown == {"d": "/", "d/new": "d/new", "d/s": "/", "d/s/t": "d/s/t"}


def test_w6_opaque_where_nothing_is_below(bench: Workbench) -> None:
    """An opaque marker in a new directory is a no-op; at the root it hides every lower layer."""
    assert _stacked(bench, ["a"], ["d/", opaque("d"), "d/x"]) == {"a": "a", "d": "/", "d/x": "d/x"}
    tar = layer_tar([opaque(""), "only"])
    assert bench.contents(bench.applied("root", "layer1", tar)) == {"only": "only"}


@pytest.mark.parametrize("lower", ["file", "symlink"])
def test_w7_an_opaque_directory_over_a_file(bench: Workbench, lower: str) -> None:
    """The directory replaces a lower file or link."""
    base = [Member("d", b"1") if lower == "file" else Member("d", kind=_LINK, target="t"), directory("t"), "t/kept"]

    assert _stacked(bench, base, ["d/", opaque("d"), "d/x"]) == {"d": "/", "d/x": "d/x", "t": "/", "t/kept": "t/kept"}


def test_w8_kinds_replace_each_other(bench: Workbench) -> None:
    """A file over a directory and a directory over a file or link win whole, and no link is followed."""
    base = ["f", "d/", "d/old", "t/", "t/kept", Member("l", kind=_LINK, target="t")]
    shown = _stacked(bench, base, ["f/", "f/x", Member("d", b"file"), directory("l"), "l/y"])

    assert shown == {"f": "/", "f/x": "f/x", "d": "file", "l": "/", "l/y": "l/y", "t": "/", "t/kept": "t/kept"}


def test_w9_deletions_across_several_layers(bench: Workbench) -> None:
    """What one layer deletes and a later one makes again holds only the new, at every height of the stack."""
    stack: list[list[Member | str]] = [["d/", "d/x"], [whiteout("d")], ["d/", "d/y"], [whiteout("d/y")]]
    assert _stacked(bench, *stack) == {"d": "/"}
    assert [bench.contents(f"layer{n}") for n in range(3)] == [
        {"d": "/", "d/x": "d/x"},
        {},
        {"d": "/", "d/y": "d/y"},
    ]


def test_w10_a_whiteout_below_a_deleted_directory(bench: Workbench) -> None:
    """Deleting a directory, something in it, and putting something new into it leaves the new."""
    members = [whiteout("d"), whiteout("d/x"), "d/n"]
    assert _stacked(bench, ["d/", "d/x", "d/y"], members) == {"d": "/", "d/n": "d/n"}


def test_w11_a_directory_over_a_directory(bench: Workbench) -> None:
    """The upper directory's attributes replace the lower's, xattrs too; the contents merge."""
    marks = {"user.lower": b"1"} if bench.can.user_xattrs else {}
    lower = Member("d", kind=tarfile.DIRTYPE, mode=0o700, xattrs=marks)
    assert _stacked(bench, [lower, "d/a"], [directory("d", 0o751), "d/b"]) == {"d": "/", "d/a": "d/a", "d/b": "d/b"}
    item = bench.tree("layer1")["d"]

    assert (item.mode, item.xattrs) == (0o751, {})


@pytest.mark.parametrize("name", [".wh.", ".wh..", ".wh...", "etc/.wh.", "etc/.wh..", "etc/.wh..."])
def test_w12_w13_whiteouts_of_directories_themselves(bench: Workbench, name: str) -> None:
    """A whiteout that means nothing, ``.`` or ``..`` refuses the layer by name, and nothing is removed."""
    assert _refused(bench, errors.UnsafePath, Member(name)).member == name


def test_w14_names_that_look_like_marks(bench: Workbench) -> None:
    """Hidden files can be deleted; only the exact prefix is reserved."""
    base = [".hidden", ".opq", ".whx", ".WH.y", "a"]
    members = [whiteout(".hidden"), whiteout(".opq"), ".whz"]

    assert _stacked(bench, base, members) == {".whx": ".whx", ".WH.y": ".WH.y", ".whz": ".whz", "a": "a"}


def test_w16_bookkeeping_of_aufs_is_skipped(bench: Workbench) -> None:
    """Aufs' own files at the root of a layer are not content."""
    members = [Member(".wh..wh.aufs"), directory(".wh..wh.plnk"), Member(".wh..wh.plnk/1.2"), directory(".wh..wh.orph")]

    assert _stacked(bench, ["a"], [*members, "b"]) == {"a": "a", "b": "b"}


@pytest.mark.parametrize("how", ["first", "over", "again"])
@pytest.mark.parametrize("mark", ["opaque", "redirect", "metacopy", "whiteout", "origin"])
def test_w17_private_marks_are_content(bench: Workbench, mark: str, how: str) -> None:
    """Overlay's private xattrs in a tar are kept as content, or the layer is refused: they never act.

    That holds for a layer with a parent, for a base layer, and for a second tar.
    """
    namespace = "trusted" if bench.can.trusted_xattrs else "user"  # what overlay itself uses here
    bench.needs(f"{namespace}_xattrs")
    marks = {f"{namespace}.overlay.{mark}": b"y"}
    tar = layer_tar([Member("d", kind=tarfile.DIRTYPE, mode=0o755, xattrs=marks), Member("f", b"2", xattrs=marks)])
    if how != "first":
        bench.applied("base", None, layer_tar(["d/", "d/kept", "f"]), seal=how == "over")
    layer, parent = ("layer", "base") if how == "over" else ("base", None)
    try:
        if how == "again":
            bench.driver.apply(layer, io.BytesIO(tar))
            bench.driver.seal(layer)
        else:
            bench.applied(layer, parent, tar)
    except errors.UnsupportedEntry as error:
        if not error.member:
            raise
        return
    kept = {} if how == "first" else {"d/kept": "d/kept"}

    for look in (layer, bench.layer("above", layer)):
        assert bench.contents(look) == {"d": "/", "f": "2", **kept}
        assert bench.tree(look)["f"].xattrs == marks
        assert bench.tree(look)["d"].xattrs == marks


def test_w18_a_device_0_0_is_content(bench: Workbench) -> None:
    """A character device 0:0 in a tar is kept by who claims it, else refused by name: it never deletes."""
    member = Member("etc/passwd", kind=tarfile.CHRTYPE)
    if not bench.can.char_0_0:
        assert _refused(bench, errors.UnsupportedEntry, member).member == "etc/passwd"
        return
    _stacked(bench, ["etc/", "etc/passwd"], [member])
    item = bench.tree("layer1")["etc/passwd"]

    assert (item.kind, item.device) == (stat.S_IFCHR, 0)


def test_devices_need_their_capability(bench: Workbench) -> None:
    """Device nodes of a tar are kept where that is claimed, else the member is refused by name."""
    member = Member("null", kind=tarfile.CHRTYPE, device=(1, 3), mode=0o666)
    if not bench.can.devices:
        assert _refused(bench, errors.UnsupportedEntry, member).member == "null"
        return
    _stacked(bench, [member])

    assert bench.tree("layer0")["null"].device == 0x103


@pytest.mark.parametrize("length", [251, 252, 255])
def test_w20_long_names_are_deleted(bench: Workbench, length: int) -> None:
    """Names too long for a whiteout's prefix on disk are deleted all the same."""
    name = "n" * length
    assert _stacked(bench, [name, "kept"], [whiteout(name)]) == {"kept": "kept"}


def test_w21_a_deleted_name_of_a_linked_file(bench: Workbench) -> None:
    """Deleting one name of a file leaves its other name whole."""
    base = [Member("a", b"1"), Member("b", kind=_HARD, target="a")]

    assert _stacked(bench, base, [whiteout("a")]) == {"b": "1"}


def test_w21_a_link_to_a_lower_file(bench: Workbench) -> None:
    """A hard link to a name that only a lower layer has gives this layer its own copy."""
    members = [Member("d/b", kind=_HARD, target="a"), Member("c", kind=_HARD, target="/a")]

    assert _stacked(bench, ["a", "d/"], members) == {"a": "a", "c": "a", "d": "/", "d/b": "a"}


@pytest.mark.parametrize("target", ["missing", "etc", "../hello", "/../hello"])
def test_w22_links_to_what_cannot_be_linked(bench: Workbench, target: str) -> None:
    """A hard link to nothing, to a directory or above the root refuses the layer."""
    assert _refused(bench, errors.ArchiveError, Member("link", kind=_HARD, target=target)).member == "link"


def test_w22_a_link_before_its_target(bench: Workbench) -> None:
    """A hard link to a file that comes later in the tar is refused, never left dangling."""
    _refused(bench, errors.ArchiveError, Member("link", kind=_HARD, target="later"), "later")


def test_w23_implied_parents(bench: Workbench) -> None:
    """A parent that no member names keeps the stack's attributes, else it is 0755 of root."""
    bench.applied("base", None, layer_tar([directory("d", 0o1700), "d/x"]))
    bench.applied("layer", "base", layer_tar(["d/n", "new/deep/n", whiteout("d/x")]))
    tree = bench.tree("layer")

    assert (tree["d"].mode, tree["d"].mtime) == (0o1700, bench.tree("base")["d"].mtime)
    assert [tree[path].mode for path in ("new", "new/deep")] == [0o755, 0o755]
    assert sorted(tree) == [".", "d", "d/n", "new", "new/deep", "new/deep/n"]


def test_symlinked_parents_resolve_in_the_stack(bench: Workbench) -> None:
    """A member below a lower layer's link to a directory lands in that directory, absolute or not."""
    base = ["usr/", "usr/lib/", "usr/lib/a", Member("lib", kind=_LINK, target="usr/lib")]
    base += [Member("abs", kind=_LINK, target="/usr"), Member("up", kind=_LINK, target="../../../usr")]
    shown = _stacked(bench, base, ["lib/b", "abs/c", "up/d", whiteout("lib/a")])

    assert shown == {
        "usr": "/",
        "usr/lib": "/",
        "usr/lib/b": "lib/b",
        "usr/c": "abs/c",
        "usr/d": "up/d",
        "lib": "-> usr/lib",
        "abs": "-> /usr",
        "up": "-> ../../../usr",
    }


@pytest.mark.parametrize("name", ["../up", "a/../../up", "/../up", "etc/../../up", ".."])
def test_names_above_the_root(bench: Workbench, name: str) -> None:
    """A name that climbs above the root refuses the layer, naming the member."""
    assert _refused(bench, errors.UnsafePath, Member(name, b"1")).member == name


def test_w26_members_that_come_twice(bench: Workbench) -> None:
    """The last of several members of one name wins, whole."""
    members = ["x/", "x/a", Member("x", b"1"), Member("y", b"1"), directory("y"), "y/b", Member("z", b"1"), "z"]

    assert _stacked(bench, members) == {"x": "1", "y": "/", "y/b": "y/b", "z": "z"}
