"""Capabilities, both ways: what is claimed holds, and what is not claimed is refused, or at least told."""

import contextlib
import errno
import io
import os
import stat
import tarfile

import pytest

from graphdrivers import errors
from graphdrivers.conformance.processes import steps_of
from graphdrivers.conformance.workbench import Member, Workbench, layer_tar
from graphdrivers.edits import Create, Edit, Mkdir, Mknod, Remove, replay
from graphdrivers.linux import mounts
from graphdrivers.model import Applied

_MANY = 200
"""Files of a parent: far more than a driver that copies nothing makes for a child."""

_ACL = bytes.fromhex("0200000001000600ffffffff020004000000000004000400ffffffff10000400ffffffff20000400ffffffff")
_FILE_CAPABILITY = bytes.fromhex("0100000201000000000000000000000000000000")


def _applied(bench: Workbench, *members: Member | str) -> Applied:
    bench.driver.create("layer")
    return bench.driver.apply("layer", io.BytesIO(layer_tar(members)))


def test_a_mount_free_layer_is_a_plain_directory(bench: Workbench) -> None:
    """With the capability the plan of any writable layer is one directory; what is written there is the layer."""
    bench.needs("mount_free")
    bench.layer("base", None, [Create("below", b"1")])
    bench.driver.create("child", "base")
    directory = mounts.plain_directory(bench.driver.mounts("child"))
    assert directory is not None
    replay([Create("above", b"2")], directory)
    bench.driver.settle("child")
    bench.driver.seal("child")

    assert bench.contents("child") == {"above": "2", "below": "1"}


def test_a_layer_that_takes_mounts_is_no_plain_directory(bench: Workbench) -> None:
    """Without the capability nobody takes the plan of a child for a directory that could simply be used."""
    bench.lacks("mount_free")
    bench.layer("base", None, [Create("below", b"1")])
    bench.driver.create("child", "base")

    assert mounts.plain_directory(bench.driver.mounts("child")) is None


def test_owners_that_are_not_kept_are_not_lost_in_silence(bench: Workbench) -> None:
    """Without the capability all files belong to the caller; the diff still has the tar's owners, or a note counts."""
    bench.lacks("ownership")
    stranger = (os.geteuid() + 1, os.getegid())
    applied = _applied(bench, Member("ours"), Member("one", owner=stranger), Member("two", owner=stranger))
    bench.driver.seal("layer")
    with tarfile.open(fileobj=io.BytesIO(bench.diff("layer"))) as diff:
        kept = [member.name for member in diff if (member.uid, member.gid) == stranger]

    assert {item.uid for item in bench.tree("layer").values()} == {os.geteuid()}
    assert kept == ["one", "two"] or [note for note in applied.notes if "owner" in note and "2" in note.split()]


def test_devices_are_refused_where_they_are_not_claimed(bench: Workbench) -> None:
    """Without the capability a device node refuses the tar, naming the member, and a mount lets nobody make one."""
    bench.lacks("devices")
    with pytest.raises(errors.UnsupportedEntry) as caught:
        _applied(bench, Member("null", kind=tarfile.CHRTYPE, device=(1, 3)))
    bench.driver.create("mounted")
    with bench.writing("mounted") as root, pytest.raises(PermissionError):
        os.mknod(os.path.join(root, "null"), stat.S_IFCHR | 0o600, os.makedev(1, 3))

    assert caught.value.member == "null"


def test_a_device_0_0_that_is_claimed_is_content(bench: Workbench) -> None:
    """With the capability a character device 0:0 made in a mount is a file like others, and deletes nothing."""
    bench.needs("char_0_0")
    bench.layer("base", None, [Create("file", b"1"), Mkdir("dir"), Create("dir/file", b"2")])
    device = stat.S_IFCHR | 0o600
    bench.layer("child", "base", [Remove("file"), Mknod("file", device), Mknod("dir/new", device)])
    bench.layer("above", "child")
    tree = bench.tree("above")

    assert [(stat.S_IFMT(tree[path].kind), tree[path].device) for path in ("file", "dir/new")] == [
        (stat.S_IFCHR, 0)
    ] * 2
    assert bench.changes("child") == [("C", "/dir"), ("A", "/dir/new"), ("C", "/file")]


def test_a_device_0_0_that_is_not_claimed_is_refused(bench: Workbench) -> None:
    """Without the capability it refuses a tar, naming the member; made in a mount it hides nothing.

    In a user namespace the kernel makes this one device (Linux 5.8) and no other: a driver need not claim it then.
    """
    bench.lacks("char_0_0")
    bench.layer("base", None, [Create("file", b"1")])
    with pytest.raises(errors.UnsupportedEntry) as caught:
        _applied(bench, Member("file", kind=tarfile.CHRTYPE))
    bench.driver.create("child", "base")
    with bench.writing("child") as root, contextlib.suppress(PermissionError):
        os.mknod(os.path.join(root, "new"), stat.S_IFCHR | 0o600, os.makedev(0, 0))
    bench.driver.seal("child")

    assert caught.value.member == "file"
    assert bench.contents("child")["file"] == "1"


@pytest.mark.parametrize(
    ("capability", "name", "value"),
    [
        ("user_xattrs", "user.note", b"value"),
        ("trusted_xattrs", "trusted.note", b"value"),
        ("security_xattrs", "security.capability", _FILE_CAPABILITY),
        ("posix_acls", "system.posix_acl_access", _ACL),
    ],
    ids=["user", "trusted", "security", "acl"],
)
def test_xattrs_that_are_not_claimed_are_not_lost_in_silence(
    bench: Workbench, capability: str, name: str, value: bytes
) -> None:
    """Without the capability a tar's xattr refuses the tar, naming the member, or is left out and told in the notes."""
    bench.lacks(capability)
    try:
        applied = _applied(bench, Member("file", xattrs={name: value}))
    except errors.UnsupportedEntry as error:
        assert error.member == "file"  # noqa: PT017 - it need not be raised
        return
    bench.driver.seal("layer")

    assert name not in bench.tree("layer")["file"].xattrs
    assert [note for note in applied.notes if name.partition(".")[0] in note]


def test_views_that_are_read_only_are_claimed(bench: Workbench) -> None:
    """Without the capability the kernel does not refuse writes through a view; else the driver should claim it."""
    bench.lacks("readonly_views")
    bench.layer("base")
    with bench.viewing("base") as root:
        try:
            os.mkdir(os.path.join(root, "written"))
        except OSError as error:
            assert error.errno != errno.EROFS  # noqa: PT017 - it need not be raised


def _inodes(bench: Workbench) -> int:
    return sum(len(folders) + len(files) for _, folders, files in os.walk(bench.driver.home))


def test_a_child_that_costs_nothing(bench: Workbench) -> None:
    """With copy_on_write making a child of a large parent takes hardly more calls than one of a small parent.

    What the child then shows of its parent may be seen in the home, so files there are not counted.
    """
    bench.needs("copy_on_write")
    bench.layer("small", None, [Create("file")])
    bench.layer("large", None, [Create(f"file{number}") for number in range(_MANY)])
    small, large = (_steps_of_a_child(bench, parent) for parent in ("small", "large"))

    assert large < small + _MANY // 4


def _steps_of_a_child(bench: Workbench, parent: str) -> int:
    return steps_of(lambda: lambda: bench.driver.create(f"child of {parent}", parent))


def test_a_child_that_is_a_copy(bench: Workbench) -> None:
    """Without copy_on_write a child does copy its parent; else the driver should claim it."""
    bench.lacks("copy_on_write")
    bench.layer("base", None, [Create(f"file{number}") for number in range(_MANY)])
    before = _inodes(bench)
    bench.driver.create("child", "base")

    assert _inodes(bench) >= before + _MANY


@pytest.mark.parametrize("depth", [1, 2])
def test_a_live_layer_is_not_sealed(bench: Workbench, fresh_root: str, depth: int) -> None:
    """A mounted layer is in use: it is not sealed, and can be written to and sealed afterwards."""
    parent = bench.layer("base") if depth == 2 else None
    bench.driver.create("layer", parent)
    with bench.attached("layer", fresh_root) as place:
        with pytest.raises(errors.LayerInUse):
            bench.driver.seal("layer")
        replay([Create("after", b"1")], place)
    bench.driver.settle("layer")
    bench.driver.seal("layer")

    assert bench.contents("layer") == {"after": "1"}


def test_a_stack_without_a_limit(bench: Workbench) -> None:
    """Where no limit of depth is claimed a stack grows past what other drivers can do."""
    bench.lacks("max_depth")
    parent = bench.layer("layer0", None, [Create("bottom", b"1")])
    for number in range(1, 140):
        bench.driver.create(f"layer{number}", parent)
        parent = f"layer{number}"
        bench.driver.seal(parent)

    assert bench.contents(bench.layer("top", parent, [Create("new", b"2")])) == {"bottom": "1", "new": "2"}


def test_names_are_as_long_as_claimed(bench: Workbench) -> None:
    """A name of ``name_max`` bytes is taken, is deleted in a child, and one byte more is refused by the kernel."""
    longest = "n" * bench.can.name_max
    made: list[Edit] = [Create(longest, b"1"), Mkdir("dir"), Create(f"dir/{longest}", b"2")]
    bench.layer("base", None, made)
    bench.layer("child", "base", [Remove(longest), Remove(f"dir/{longest}")])
    bench.driver.create("layer", "base")
    with bench.writing("layer") as root, pytest.raises(OSError, match="too long") as caught:
        Create(longest + "n").perform(root)

    assert caught.value.errno == errno.ENAMETOOLONG
    assert bench.contents("base") == {longest: "1", "dir": "/", f"dir/{longest}": "2"}
    assert bench.contents("child") == {"dir": "/"}
