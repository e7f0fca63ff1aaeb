"""Diffs: tars that give the layer back anywhere, equal bytes from every driver."""

import contextlib
import hashlib
import io
import os
from typing import BinaryIO

import pytest

from graphdrivers import errors, naivediff
from graphdrivers.conformance.observe import assert_same
from graphdrivers.conformance.randomly import random_edits
from graphdrivers.conformance.workbench import Member, Workbench, directory, layer_tar, names_in
from graphdrivers.edits import (
    Chmod,
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
    Write,
)
from graphdrivers.model import ChangeKind, Limits, Profile

_BASE: list[Edit] = [
    Mkdir("dir", 0o1771),
    Create("dir/a", b"1"),
    Create("dir/b", b"2" * 5000),
    Mkdir("dir/sub"),
    Create("dir/sub/file", b"3"),
    Symlink("link", "dir/a"),
    Create("two", b"linked"),
    Link("two", "names"),
    Mknod("fifo"),
]

_CHANGES: list[Edit] = [
    Write("dir/a", b"changed"),
    Remove("dir/sub"),
    Mkdir("dir/sub"),
    Create("dir/sub/other", b"4"),
    Remove("link"),
    Symlink("link", "elsewhere"),
    Rename("dir/b", "b"),
    Chmod("fifo", 0o600),
    Punch("sparse"),
    Create("new", b"5"),
    Link("new", "dir/newer"),
    Create("x" * 255, b"6"),
    Create("line\nbreak\udcff", b"7"),
]


def _stack(bench: Workbench) -> tuple[str, str]:
    return bench.layer("base", None, _BASE), bench.layer("child", "base", _CHANGES)


def test_a_diff_gives_the_layer_back(bench: Workbench) -> None:
    """A diff applied to another child of the same parent gives the same tree, the same changes, the same diff."""
    base, child = _stack(bench)
    for layer, parent in ((base, None), (child, base)):
        tar = bench.diff(layer)
        copy = bench.applied(f"{layer} again", parent, tar)

        assert_same(bench.tree(layer), bench.tree(copy))
        assert bench.changes(layer) == bench.changes(copy)
        assert bench.diff(copy) == tar


def test_a_diff_is_reproducible(bench: Workbench) -> None:
    """The same layer gives the same bytes again, and so do the same edits made in another layer."""
    _, child = _stack(bench)
    bench.layer("twin", "base", _CHANGES)

    assert bench.diff(child) == bench.diff(child) == bench.diff("twin")


@pytest.mark.parametrize("profile", list(Profile))
def test_native_and_naive_diffs_agree(bench: Workbench, profile: Profile) -> None:
    """Walking both merged trees gives byte for byte what the driver's own way gives."""
    for layer in _stack(bench):
        with contextlib.closing(bench.driver.diff(layer, profile=profile)) as stream:
            own = _read(stream)
        with contextlib.closing(naivediff.diff(bench.driver, layer, profile=profile)) as stream:
            assert _read(stream) == own
        assert list(naivediff.changes(bench.driver, layer)) == list(bench.driver.changes(layer))


def test_all_drivers_agree(bench: Workbench, other_benches: list[Workbench]) -> None:
    """Every driver that works here shows the same tree for the same tars, and gives the same diffs back."""
    stack = _stack(bench)
    tars = [bench.diff(layer) for layer in stack]
    for other in other_benches:
        parent = None
        for layer, tar in zip(stack, tars, strict=True):
            parent = other.applied(layer, parent, tar)

            assert_same(bench.tree(layer), other.tree(layer))
            assert other.diff(layer) == tar, other.driver.name


def test_names_in_a_diff(bench: Workbench) -> None:
    """Members are sorted by path bytes with parents first and deletions before their neighbours."""
    base: list[Edit] = [Mkdir("dir"), Create("dir/gone"), Create("dir/kept"), Mkdir("dir/tree"), Create("dir/tree/x")]
    changes: list[Edit] = [Remove("dir/gone"), Remove("dir/tree"), Create("dir/a"), Create("z"), Mkdir("dir-b")]
    bench.layer("base", None, base)
    bench.layer("child", "base", changes)
    expected = ["./", "dir/", "dir/.wh.gone", "dir/.wh.tree", "dir/a", "dir-b/", "z"]

    assert names_in(bench.diff("child")) == expected


def test_a_diff_of_nothing(bench: Workbench) -> None:
    """An untouched layer's diff is an empty archive: two zero blocks, perhaps padded."""
    bench.layer("base", None, _BASE)
    tar = bench.diff(bench.layer("child", "base"))

    assert tar == bytes(len(tar))
    assert 1024 <= len(tar) <= 10240


def test_a_diff_can_be_closed_early(bench: Workbench) -> None:
    """Whoever stops reading closes the stream, at any point; nothing stays open and the driver works on."""
    _, child = _stack(bench)
    opened = []
    for read in (0, 1, 3000):
        stream = bench.driver.diff(child)
        stream.read(read)
        stream.close()
        opened.append(len(os.listdir("/proc/self/fd")))

    assert opened[-1] <= opened[0]
    assert bench.diff(child)


def test_a_diff_holds_no_marks_of_the_engine(bench: Workbench) -> None:
    """Private marks of a union file system never leave the layer."""
    _, child = _stack(bench)
    tar = bench.diff(child)

    assert b"overlay." not in tar
    assert b".wh..wh.plnk" not in tar


def test_applied_is_reported(bench: Workbench) -> None:
    """Applying tells the DiffID of every byte, trailing garbage too, the size and the members."""
    tar = layer_tar([directory("dir"), "dir/file", "other"]) + b"trailing"
    bench.driver.create("layer")
    progress: list[int] = []
    applied = bench.driver.apply("layer", io.BytesIO(tar), progress=progress.append)
    usage = bench.driver.usage("layer")

    assert (applied.size, applied.entries) == (len("dir/file") + len("other"), 3)
    assert applied.diff_id == f"sha256:{hashlib.sha256(tar).hexdigest()}"
    assert progress[-1] == len(tar)
    assert (usage.bytes, usage.inodes) == (applied.size, 3)


def test_progress_can_cancel(bench: Workbench) -> None:
    """What the progress callback raises ends the unpacking and comes out; the layer can be removed and made again."""
    tar = layer_tar([f"file{number}" for number in range(600)])
    bench.driver.create("layer")
    with pytest.raises(_Cancelled):
        bench.driver.apply("layer", io.BytesIO(tar), progress=_cancel)
    bench.driver.remove("layer")

    assert len(bench.contents(bench.applied("layer", None, tar))) == 600


def test_a_refused_tar_leaves_a_removable_layer(bench: Workbench) -> None:
    """After a tar that is cut short the layer can be removed and made again."""
    tar = bench.diff(_stack(bench)[1])
    for length in (100, 700, len(tar) // 2):
        bench.driver.create("layer", "base")
        with pytest.raises(errors.ArchiveError):
            bench.driver.apply("layer", io.BytesIO(tar[:length]))
        bench.driver.remove("layer")
    bench.applied("layer", "base", tar)

    assert_same(bench.tree("child"), bench.tree("layer"))


def test_applying_to_a_layer_that_was_written_to(bench: Workbench) -> None:
    """A tar can be unpacked over what a writable layer holds; its deletions act on what the parents have."""
    bench.layer("base", None, [Create("old", b"1"), Create("kept", b"2")])
    bench.layer("layer", "base", [Create("mine", b"3"), Write("old", b"4")], seal=False)
    bench.driver.apply("layer", io.BytesIO(layer_tar(["mine", "theirs", ".wh.kept"])))
    bench.driver.seal("layer")

    assert bench.contents("layer") == {"mine": "mine", "old": "4", "theirs": "theirs"}


def test_usage_counts_each_inode_once(bench: Workbench) -> None:
    """Hard links count once, holes count as bytes but not on disk, deletions and parents count nothing."""
    size = 8 << 20
    bench.layer("base", None, [Create("a", b"x" * 1000), Link("a", "b"), Punch("sparse", size), Mkdir("dir")])
    usage = bench.driver.usage("base")
    bench.layer("child", "base", [Remove("b"), Create("new", b"12345")])
    child = bench.driver.usage("child")

    assert (usage.bytes, usage.inodes) == (size + 1000, 3)
    assert 0 < usage.disk < size
    assert (child.bytes, child.inodes) == (5, 1)


def test_holes_take_no_room(bench: Workbench) -> None:
    """The holes of a file stay holes in a child, when the child copies the file, and in what is made of its diff."""
    size = 8 << 20
    bench.layer("base", None, [Punch("sparse", size)])
    bench.layer("child", "base", [Chmod("sparse", 0o600)])
    bench.applied("copy", "base", bench.diff("child"))
    for layer in ("base", "child", "copy"):
        with bench.viewing(layer) as root:
            assert os.stat(os.path.join(root, "sparse")).st_blocks * 512 < size, layer


@pytest.mark.parametrize("limits", [Limits(members=2), Limits(size=2)], ids=["members", "size"])
def test_limits_hold(bench: Workbench, limits: Limits) -> None:
    """A tar that asks for more than it may is refused, naming the limit; one that asks for just as much is not."""
    bench.driver.create("over")
    with pytest.raises(errors.LimitExceeded) as caught:
        bench.driver.apply("over", io.BytesIO(layer_tar(["a", "b", "c"])), limits=limits)
    bench.driver.create("within")
    bench.driver.apply("within", io.BytesIO(layer_tar(["a", "b"])), limits=limits)

    assert getattr(limits, caught.value.limit) == 2


def test_a_record_gives_the_tar_back(bench: Workbench) -> None:
    """With the record of its headers and its own files a layer is the identical tar again, trailing bytes too."""
    tar = layer_tar(["dir/", "dir/file", Member("dir/file", b"twice"), "other", ".wh.gone"]) + b"trailing"
    record = io.BytesIO()
    bench.driver.create("layer")
    bench.driver.apply("layer", io.BytesIO(tar), headers=record)
    bench.driver.seal("layer")

    assert bench.tar_back("layer", record) == tar


def test_random_stacks_round_trip(bench: Workbench) -> None:
    """Diffs of random stacks give the same stacks when they are applied, and the same diffs again."""
    for seed in range(6):
        parent = copy = None
        flat = bench.flat()
        for number, changes in enumerate(random_edits(bench, flat, 100 + seed, layers=3, count=25)):
            parent = bench.layer(f"{seed}-{number}", parent, changes.edits)
            tar = bench.diff(parent)
            copy = bench.applied(f"{seed}-{number} again", copy, tar)

            assert_same(changes.expected, bench.tree(copy))
            assert bench.diff(copy) == tar
            assert _read(naivediff.diff(bench.driver, parent)) == tar
            assert list(naivediff.changes(bench.driver, parent)) == list(bench.driver.changes(parent))


def test_changes_and_diff_tell_the_same(bench: Workbench) -> None:
    """Every deletion of the changes is a whiteout in the diff, and no other member is one."""
    _, child = _stack(bench)
    deleted = [change.path for change in bench.driver.changes(child) if change.kind is ChangeKind.DELETED]
    names = ["/" + name for name in names_in(bench.diff(child))]
    whiteouts = [name.replace("/.wh.", "/") for name in names if "/.wh." in name]

    assert sorted(whiteouts) == sorted(deleted)


def test_xattrs_travel(bench: Workbench) -> None:
    """Xattrs of files, directories and the root are in a full diff and come back."""
    bench.needs("user_xattrs")
    marked = [SetXattr(path, "user.note", b"\x00\n=\xff" * 20) for path in ("file", "dir", "")]
    bench.layer("base", None, [Create("file"), Mkdir("dir"), *marked])
    bench.applied("copy", None, bench.diff("base"))

    assert_same(bench.tree("base"), bench.tree("copy"))


class _Cancelled(Exception):
    """Somebody has lost interest."""


def _cancel(consumed: int) -> None:
    raise _Cancelled(consumed)


def _read(stream: BinaryIO) -> bytes:
    return b"".join(iter(lambda: stream.read(1 << 20), b""))
