"""The merged tree: what a stack shows is what a flat directory shows after the same edits."""

import errno
import os
import pathlib
import stat

import pytest

from graphdrivers import errors
from graphdrivers.conformance.observe import assert_same
from graphdrivers.conformance.randomly import random_edits
from graphdrivers.conformance.workbench import Workbench
from graphdrivers.edits import (
    Chmod,
    Chown,
    Create,
    Edit,
    Link,
    Mkdir,
    Mknod,
    Punch,
    Remove,
    Rename,
    SetXattr,
    Symlink,
    Utime,
    Write,
)
from graphdrivers.linux import mounts, namespaces

_ODD = [
    "new\nline",
    "co:lon",
    "com,ma",
    "back\\slash",
    "-dash",
    " blank ",
    "\udcff\udc80",
    "é",
    "x" * 255,
    ".WH.x",
    "%s",
]

_BASE: list[Edit] = [
    Mkdir("a subdir", 0o1705),
    Create("a file", b"some content", 0o4222),
    Mkdir("dir"),
    Mkdir("dir/deep", 0o700),
    Create("dir/deep/file", b"deep"),
    Symlink("dir/link", "../a file"),
    Symlink("dangling", "/no/where"),
    Mknod("fifo"),
    Mknod("socket", stat.S_IFSOCK | 0o755),
    Create("two names", b"linked"),
    Link("two names", "dir/second name"),
    Punch("sparse"),
]


def _check(bench: Workbench, *rounds: list[Edit]) -> None:
    """Make a stack, one layer per round, and compare it with the flat directory after each."""
    parent = None
    for number, changes in enumerate(rounds):
        parent = bench.layer(f"layer{number}", parent, changes)
        assert_same(bench.flat_tree(bench.flat(*rounds[: number + 1])), bench.tree(parent))


def test_an_empty_layer(bench: Workbench) -> None:
    """A layer without parent begins with nothing but a root, 0755, 0:0, times 0."""
    (root,) = bench.tree(bench.layer("empty")).values()

    assert (root.kind, root.mode, root.mtime) == (stat.S_IFDIR, 0o755, 0)
    assert (root.uid, root.gid) == ((0, 0) if bench.can.ownership else (os.geteuid(), os.getegid()))
    assert root.xattrs == {}


def test_a_layer_keeps_what_is_put_into_it(bench: Workbench) -> None:
    """Kinds, contents, modes, times, links and holes are read back as they were written."""
    _check(bench, _BASE)


def test_a_child_shows_its_parent(bench: Workbench) -> None:
    """An untouched child shows exactly what its parent shows, hard links included."""
    _check(bench, _BASE, [], [])


@pytest.mark.parametrize("mode", [0o700, 0o1777, 0o2755])
def test_the_root_keeps_its_attributes(bench: Workbench, mode: int) -> None:
    """Mode and times of the root are inherited by each child."""
    _check(bench, [Chmod("", mode), Utime("", 86_400_000_000_001)], [], [])


def test_children_do_not_change_their_parent(bench: Workbench) -> None:
    """Whatever is done in a child, the parent and its other children stay as they were."""
    bench.layer("base", None, _BASE)
    before = bench.tree("base")
    bench.layer("sibling", "base")
    bench.layer("child", "base", [Remove("dir"), Write("a file", b"other"), Chmod("a subdir", 0), Create("new")])

    assert_same(before, bench.tree("base"))
    assert_same(before, bench.tree("sibling"))


def test_a_file_rewritten_in_every_layer(bench: Workbench) -> None:
    """The newest content shows, five layers in a row (moby#21555), and in a child that has none of its own."""
    rewrites: list[list[Edit]] = [[Write("file", str(number).encode() * number)] for number in range(1, 6)]
    _check(bench, [Create("file", b"0")], *rewrites, [])


def test_a_directory_removed_and_made_again(bench: Workbench) -> None:
    """A directory that was removed and made again is empty (moby#25244)."""
    base: list[Edit] = [Mkdir("dir"), Create("dir/old"), Mkdir("dir/sub"), Create("dir/sub/old")]
    _check(bench, base, [Remove("dir"), Mkdir("dir"), Create("dir/new")], [Create("dir/old", b"2")])


def test_a_directory_removed_in_one_layer_and_made_in_the_next(bench: Workbench) -> None:
    """The deletion of one layer still counts when another makes the directory again."""
    base: list[Edit] = [Mkdir("dir"), Create("dir/old")]
    _check(bench, base, [Remove("dir")], [Mkdir("dir", 0o711)], [Create("dir/new")])


def test_deleted_files(bench: Workbench) -> None:
    """Deletions hold through further layers, and the parent still has the files."""
    base: list[Edit] = [Mkdir("dir"), *(Create(f"dir/{n}") for n in range(8)), Create("top")]
    _check(bench, base, [Remove("dir/3"), Remove("top")], [Remove("dir/5")], [Create("dir/3", b"again")])


@pytest.mark.parametrize("before", ["file", "directory", "symlink", "fifo"])
@pytest.mark.parametrize("after", ["file", "directory", "symlink", "fifo"])
def test_one_kind_replaces_another(bench: Workbench, before: str, after: str) -> None:
    """A path can become anything else, and nothing of its former content shows."""
    kinds: dict[str, list[Edit]] = {
        "file": [Create("path", b"content")],
        "directory": [Mkdir("path"), Create("path/inside"), Mkdir("path/sub"), Create("path/sub/x")],
        "symlink": [Symlink("path", "elsewhere"), Mkdir("elsewhere"), Create("elsewhere/kept")],
        "fifo": [Mknod("path")],
    }
    former = [*kinds[before], *([Create("path/former")] if before == "directory" else [])]
    again = [edit for edit in kinds[after] if not edit.path.startswith("elsewhere") or before != "symlink"]
    _check(bench, former, [Remove("path"), *again], [])


def test_owners(bench: Workbench) -> None:
    """Owners of files, directories and links are kept, changed in a child, and large (moby#20240, #28391)."""
    bench.needs("ownership")
    base: list[Edit] = [*_BASE, Chown("a file", 1, 2), Chown("dir", 65_534, 3), Chown("dir/link", 4, 5)]
    large = (4_294_967_294, 4_294_967_293)
    child: list[Edit] = [
        Chown("a file", *(large if namespaces.maps_owner(*large) else (65_533, 65_532))),
        Chown("dir/deep", 7, 8),
        Chown("dangling", 9, 9),
    ]
    _check(bench, base, child, [Chown("", 11, 12)], [])


def test_modes_of_directories_survive(bench: Workbench) -> None:
    """A directory's mode and owner hold when only something below it changes (moby#27298)."""
    base: list[Edit] = [Mkdir("a", 0o711), Mkdir("a/b", 0o770), Mkdir("a/b/c", 0o3777), Create("a/b/c/file")]
    _check(bench, base, [Write("a/b/c/file", b"new")], [Create("a/b/c/other")], [Remove("a/b/c/file")])


def test_files_move(bench: Workbench) -> None:
    """Files of a parent can be renamed, over others too, across directories (moby#25409)."""
    base: list[Edit] = [Mkdir("a"), Mkdir("b"), Create("a/one", b"1"), Create("b/two", b"2"), Symlink("a/link", "one")]
    _check(bench, base, [Rename("a/one", "b/moved"), Rename("a/link", "b/two")], [Rename("b/moved", "a/one")])


def test_directories_move_where_it_is_claimed(bench: Workbench) -> None:
    """With the capability a parent's directory can be renamed and keeps its content."""
    bench.needs("rename_directories")
    base: list[Edit] = [Mkdir("a"), Mkdir("a/sub"), Create("a/sub/file", b"1"), Create("a/x"), Mkdir("b")]
    _check(bench, base, [Rename("a", "b/moved")], [Write("b/moved/sub/file", b"2")], [Rename("b/moved/sub", "a")], [])


def test_directories_do_not_move_where_it_is_not_claimed(bench: Workbench) -> None:
    """Without the capability renaming a parent's directory is ``EXDEV``, which tools answer with a copy."""
    bench.lacks("rename_directories")
    bench.layer("base", None, [Mkdir("dir"), Create("dir/file")])
    bench.driver.create("child", "base")
    with bench.writing("child") as root, pytest.raises(OSError, match="cross-device") as caught:
        os.rename(os.path.join(root, "dir"), os.path.join(root, "moved"))

    assert caught.value.errno == errno.EXDEV


def test_new_directories_move_everywhere(bench: Workbench) -> None:
    """A directory that the layer itself made can be renamed, onto a deleted name of the parent too."""
    base: list[Edit] = [Mkdir("old"), Create("old/file")]
    _check(bench, base, [Remove("old"), Mkdir("new"), Create("new/mine"), Rename("new", "old")], [])


def test_hard_links_hold_where_it_is_claimed(bench: Workbench) -> None:
    """With the capability a write through one name of a parent's file shows under the other."""
    bench.needs("hard_links_across_layers")
    _check(bench, [Create("a", b"1"), Link("a", "b")], [Write("a", b"22")], [Chmod("b", 0o600)])


def test_hard_links_break_where_it_is_not_claimed(bench: Workbench) -> None:
    """Without the capability the other name keeps the old content whole."""
    bench.lacks("hard_links_across_layers")
    bench.layer("base", None, [Create("a", b"1"), Link("a", "b")])

    assert bench.contents(bench.layer("child", "base", [Write("a", b"22")])) == {"a": "22", "b": "1"}


def test_hard_links_of_one_layer(bench: Workbench) -> None:
    """Names linked in a layer stay one file, and removing one keeps the others."""
    links: list[Edit] = [Create("a", b"1"), Link("a", "b"), Mkdir("dir"), Link("b", "dir/c")]
    _check(bench, links, [Remove("a")], [Create("a", b"not the link")])


@pytest.mark.parametrize("name", _ODD, ids=ascii)
def test_odd_names(bench: Workbench, name: str) -> None:
    """Any byte but NUL and the slash is legal in names, link targets and deletions."""
    base: list[Edit] = [Mkdir(name), Create(f"{name}/{name}", b"1"), Symlink("link", name)]
    _check(bench, base, [Remove(f"{name}/{name}"), Create(f"{name}/new")], [Remove(name)])


def test_times_are_kept(bench: Workbench) -> None:
    """Modification times are kept as finely as claimed, before 1970 and after 2038 too."""
    moments = [-1, 0, 1, 999_999_999, -86_400_000_000_007, 4_294_967_296_123_456_789]
    base: list[Edit] = []
    for number, moment in enumerate(moments):
        base += [Create(f"file{number}"), Utime(f"file{number}", moment)]
    _check(bench, [*base, Mkdir("dir"), Utime("dir", 1)], [Utime("file0", 5), Utime("dir", -5)])


@pytest.mark.parametrize(
    ("capability", "name", "value"),
    [
        ("user_xattrs", "user.note", b"\x00\xff binary = value\n"),
        ("user_xattrs", "user.empty", b""),
        ("user_xattrs", "user.long", b"x" * 2000),
        ("trusted_xattrs", "trusted.note", b"value"),
        ("security_xattrs", "security.capability", bytes.fromhex("0100000201000000000000000000000000000000")),
        (
            "posix_acls",
            "system.posix_acl_access",
            bytes.fromhex("0200000001000600ffffffff020004000000000004000400ffffffff10000400ffffffff20000400ffffffff"),
        ),
    ],
    ids=["user", "empty", "long", "trusted", "capability", "acl"],
)
def test_xattrs(bench: Workbench, capability: str, name: str, value: bytes) -> None:
    """Claimed kinds of xattrs are kept, inherited, replaced and copied up."""
    bench.needs(capability)
    base: list[Edit] = [Create("file", b"1"), SetXattr("file", name, value), Create("plain")]
    _check(bench, base, [Chmod("plain", 0o600)], [SetXattr("plain", name, value)], [Utime("file", 7)])


def test_xattrs_of_directories(bench: Workbench) -> None:
    """A directory's xattrs, the root's too, are inherited."""
    bench.needs("user_xattrs")
    base: list[Edit] = [SetXattr("", "user.root", b"r"), Mkdir("dir"), SetXattr("dir", "user.dir", b"d")]
    _check(bench, base, [Create("dir/new")], [SetXattr("dir", "user.second", b"2")], [])


def test_devices(bench: Workbench) -> None:
    """Device nodes are kept, renamed and deleted like files."""
    bench.needs("devices")
    base: list[Edit] = [Mknod("null", stat.S_IFCHR | 0o666, (1, 3)), Mknod("loop", stat.S_IFBLK | 0o660, (7, 1))]
    _check(bench, base, [Rename("null", "moved")], [Remove("loop")], [Chmod("moved", 0o600)])


def test_a_view_refuses_writes(bench: Workbench) -> None:
    """With the capability every kind of write through a view is ``EROFS``, for a base layer and for a stack."""
    bench.needs("readonly_views")
    bench.layer("base", None, _BASE)
    bench.layer("child", "base", [Create("mine")])
    attempts: list[Edit] = [Create("new"), Write("a file"), Remove("dir"), Chmod("dir", 0o700), Utime("a file", 1)]
    for layer in ("base", "child"):
        for attempt in attempts:
            with bench.viewing(layer) as root, pytest.raises(OSError, match="Read-only") as caught:
                attempt.perform(root)
            assert caught.value.errno == errno.EROFS


def test_views_are_unlimited(bench: Workbench) -> None:
    """A sealed layer can be viewed many times at once, and be a parent meanwhile."""
    bench.layer("base", None, [Create("file", b"1")])
    with bench.viewing("base") as one, bench.viewing("base") as two:
        bench.layer("child", "base", [Write("file", b"2")])
        assert [pathlib.Path(root, "file").read_bytes() for root in (one, two)] == [b"1", b"1"]


def test_a_layer_is_mounted_again_and_again(bench: Workbench) -> None:
    """What was written shows at the next mount, deletions and re-creations too."""
    base: list[Edit] = [Mkdir("dir"), Create("dir/a", b"1"), Create("b", b"1")]
    rounds: list[list[Edit]] = [[Remove("dir")], [Mkdir("dir"), Create("dir/new")], [Remove("b")], [Create("b", b"2")]]
    bench.layer("base", None, base)
    bench.driver.create("layer", "base")
    for changes in rounds:
        with bench.writing("layer") as root:
            for edit in changes:
                edit.perform(root)
    bench.driver.seal("layer")

    assert bench.contents("layer") == {"dir": "/", "dir/new": "", "b": "2"}


def test_reserved_names_delete_nothing(bench: Workbench) -> None:
    """Names that mean deletions in a tar, made inside a mount, never delete; they are put aside and named."""
    bench.layer("base", None, [Mkdir("dir"), Create("dir/kept", b"1"), Create("kept", b"1")])
    bench.driver.create("layer", "base")
    with mounts.opened(bench.driver.mounts("layer")) as root:
        place = f"/proc/self/fd/{root}"
        try:
            Create(".wh.kept").perform(place)
            Create("dir/.wh..wh..opq").perform(place)
        except PermissionError:
            pytest.skip("gated: the engine refuses these names at once")
    with pytest.raises(errors.ReservedNameError) as caught:
        bench.driver.settle("layer")

    assert sorted(caught.value.paths) == ["/.wh.kept", "/dir/.wh..wh..opq"]
    bench.driver.settle("layer")
    bench.driver.seal("layer")
    assert bench.contents("layer") == {"dir": "/", "dir/kept": "1", "kept": "1"}
    assert bench.changes("layer") in ([], [("C", "/dir")])


def test_a_deep_stack(bench: Workbench) -> None:
    """A stack of 128 layers shows the newest of what all wrote, and the bottom's own (moby's deep layer read)."""
    depth = min(128, bench.can.max_depth or 128)
    parent = bench.layer("layer0", None, [Create("top", b"0"), Create("bottom", b"0"), Create("gone")])
    for number in range(1, depth):
        changes: list[Edit] = [Write("top", str(number).encode()), Mkdir(f"dir{number}"), Create(f"dir{number}/id")]
        changes += [Remove("gone")] if number == 1 else [Remove(f"dir{number - 1}/id")]
        parent = bench.layer(f"layer{number}", parent, changes)
    shown = bench.contents(parent)

    assert (shown["top"], shown["bottom"]) == (str(depth - 1), "0")
    assert "gone" not in shown
    assert [path for path in shown if path.endswith("/id")] == [f"dir{depth - 1}/id"]


def test_the_depth_limit(bench: Workbench) -> None:
    """A stack as deep as claimed can be mounted and viewed; one more layer is refused when it is created."""
    bench.needs("max_depth")
    assert bench.can.max_depth is not None
    parent = bench.layer("layer1", None, [Create("bottom", b"1")])
    for number in range(2, bench.can.max_depth):
        bench.driver.create(f"layer{number}", parent)
        parent = f"layer{number}"
        bench.driver.seal(parent)
    last = bench.layer("last", parent, [Create("top", b"2")])

    assert bench.contents(last) == {"bottom": "1", "top": "2"}
    with pytest.raises(errors.ChainTooDeep) as caught:
        bench.driver.create("over", last)
    assert (caught.value.depth, caught.value.limit) == (bench.can.max_depth + 1, bench.can.max_depth)
    assert "over" not in {record.name for record in bench.driver.layers()}


@pytest.mark.parametrize("seed", range(12))
def test_random_edits(bench: Workbench, seed: int) -> None:
    """Stacks of random edits show what a flat directory shows, after each layer."""
    flat = bench.flat()
    parent = None
    for number, changes in enumerate(random_edits(bench, flat, seed, layers=4, count=25)):
        parent = bench.layer(f"layer{number}", parent, changes.edits)
        assert_same(changes.expected, bench.tree(parent))
