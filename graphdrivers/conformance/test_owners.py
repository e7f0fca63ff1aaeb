"""Owners in layer tars: kept for real, or recorded where the process cannot give files away, or counted as lost."""

import io
import os
import pathlib
import stat
import tarfile

import attrs
import pytest

from graphdrivers import errors
from graphdrivers.archive.owners import XATTR
from graphdrivers.conformance.workbench import Member, Workbench, directory, layer_tar, names_in, whiteout
from graphdrivers.edits import Chmod, Create, Link, Rename, Utime

_OWNED = [
    attrs.evolve(directory("./", 0o751), owner=(3, 4)),
    attrs.evolve(directory("dir", 0o2750), owner=(0, 8)),
    Member("dir/file", b"1", owner=(1, 2)),
    attrs.evolve(directory("locked", 0), owner=(65_534, 65_534)),
    Member("locked/file", b"2", mode=0o600, owner=(0, 0)),
    Member("readonly", b"3", mode=0o444, owner=(0, 65_534), xattrs={"user.note": b"kept"}),
    Member("secret", b"4", mode=0, owner=(0, 42)),
    Member("setgid", b"5", mode=0o2755, owner=(1, 65_534)),
    Member("setuid", b"6", mode=0o4755, owner=(65_534, 1)),
]


def _needs_owners(bench: Workbench) -> None:
    if not (bench.can.ownership or bench.can.recorded_owners):
        pytest.skip(f"gated: {bench.driver.name} claims neither ownership nor recorded_owners")


def _read(tar: bytes) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
        return {member.name: member for member in archive}


def _owners(tar: bytes) -> dict[str, tuple[int, int, int]]:
    """Give user, group and mode of each member."""
    return {name: (member.uid, member.gid, member.mode) for name, member in _read(tar).items()}


def _owned(bench: Workbench, *more: Member, seal: bool = True) -> bytes:
    """Make a layer named "owned" of files of many owners; give its diff."""
    members = [attrs.evolve(one, xattrs=one.xattrs if bench.can.user_xattrs else {}) for one in (*_OWNED, *more)]
    bench.applied("owned", None, layer_tar(members), seal=seal)
    return bench.diff("owned")


def _mine(mode: int) -> tuple[int, int, int]:
    return os.geteuid(), os.getegid(), mode


def test_owners_are_kept_in_one_way(bench: Workbench) -> None:
    """A driver does not claim to keep owners for real and to record them."""
    assert not (bench.can.ownership and bench.can.recorded_owners)


def test_the_diff_gives_owners_back(bench: Workbench) -> None:
    """Owner, mode and content of each file in a tar are in the diff, also of those that the caller could not read."""
    _needs_owners(bench)
    diff = _owned(bench)

    assert _owners(diff) == {os.path.normpath(one.name): (*(one.owner or ()), one.mode) for one in _OWNED}
    with tarfile.open(fileobj=io.BytesIO(diff)) as archive:
        secret = archive.extractfile("secret")
        assert secret is not None
        assert secret.read() == b"4"


def test_owners_make_the_round_trip(bench: Workbench) -> None:
    """The diff of a layer, applied to another one, gives the same diff to the byte."""
    _needs_owners(bench)
    diff = _owned(bench)
    bench.applied("again", None, diff)

    assert bench.diff("again") == diff


def test_owners_are_described_anew(bench: Workbench) -> None:
    """A later tar replaces owners of directories and files, and nothing of the old ones stays."""
    _needs_owners(bench)
    _owned(bench)
    later = [
        attrs.evolve(directory("dir", 0o700), owner=(9, 9)),
        directory("locked", 0o755),
        Member("setuid", b"new", mode=0o755),
    ]
    bench.applied("later", "owned", layer_tar(later))

    found = _owners(bench.diff("later"))
    assert (found["dir"], found["locked"], found["setuid"]) == ((9, 9, 0o700), _mine(0o755), _mine(0o755))


def test_a_child_has_the_owners_of_its_parent(bench: Workbench) -> None:
    """Nothing changes by making a child; what is edited there keeps its owner, what is new is the caller's."""
    _needs_owners(bench)
    _owned(bench)
    bench.layer("untouched", "owned")
    assert bench.changes("untouched") == []

    moment = 1_700_000_000_000_000_000
    edited = [Create("new"), Utime("dir/file", moment), Rename("setuid", "moved"), Chmod("readonly", 0o640)]
    bench.layer("child", "owned", edited)

    found = _owners(bench.diff("child"))
    assert found["dir/file"] == (1, 2, 0o644)
    assert found["moved"] == (65_534, 1, 0o4755)
    assert found["readonly"] == (0, 65_534, 0o640)
    assert found["new"] == _mine(0o644)
    assert found[".wh.setuid"] == (0, 0, 0)


def test_names_of_one_file_have_one_owner(bench: Workbench) -> None:
    """A hard link shows its file's owner, made by a tar and by somebody in the mount."""
    _needs_owners(bench)
    _owned(bench, Member("other name", kind=tarfile.LNKTYPE, target="dir/file"))
    bench.needs("hard_links_across_layers")
    bench.layer("child", "owned", [Link("dir/file", "third name")])

    found = _read(bench.diff("child"))
    assert {(one.uid, one.gid) for name, one in found.items() if "name" in name} == {(1, 2)}
    assert [one.islnk() for name, one in found.items() if "name" in name].count(True) == 2


def test_implied_directories_belong_to_root(bench: Workbench) -> None:
    """A directory that no member describes is 0:0, 0755, as the root of a base layer is, which no diff lists."""
    _needs_owners(bench)
    bench.applied("implied", None, layer_tar([Member("a/b/file")]))

    found = _owners(bench.diff("implied"))
    assert (found["a"], found["a/b"]) == ((0, 0, 0o755), (0, 0, 0o755))
    assert names_in(bench.diff(bench.layer("empty"))) == []


def test_records_are_no_content(bench: Workbench) -> None:
    """No diff carries the xattr in which owners are recorded."""
    bench.needs("recorded_owners")

    assert XATTR.encode() not in _owned(bench)


def test_recorded_files_grant_nothing(bench: Workbench) -> None:
    """In the mounted tree recorded files are the caller's, and none of them runs with the rights of its owner."""
    bench.needs("recorded_owners")
    _owned(bench)
    with bench.viewing("owned") as root:
        for name in ("setuid", "setgid", "dir/file"):
            status = pathlib.Path(root, name).lstat()
            assert (status.st_uid, status.st_gid) == (os.geteuid(), os.getegid())
            assert not status.st_mode & (stat.S_ISUID | stat.S_ISGID)


@pytest.mark.parametrize("kind", [tarfile.REGTYPE, tarfile.DIRTYPE])
def test_a_record_in_a_tar_is_refused(bench: Workbench, kind: bytes) -> None:
    """Where owners are recorded a tar cannot bring a record of its own: the member is refused by name."""
    bench.needs("recorded_owners")
    bench.driver.create("layer")
    forged = Member("forged", kind=kind, mode=0o755, xattrs={XATTR: b"0:0:4755:file"})
    with pytest.raises(errors.UnsupportedEntry) as caught:
        bench.driver.apply("layer", io.BytesIO(layer_tar(["first", forged])))

    assert caught.value.member.rstrip("/") == "forged"


def test_a_record_in_a_tar_is_content_elsewhere(bench: Workbench) -> None:
    """Where owners are not recorded the xattr is one like all others: kept, and without effect."""
    bench.lacks("recorded_owners")
    bench.needs("user_xattrs")
    marks = {XATTR: b"7:8:4755:file"}
    bench.applied("layer", None, layer_tar([Member("file", xattrs=marks)]))

    (found,) = (one for name, one in _read(bench.diff("layer")).items() if name == "file")
    assert (found.uid, found.gid, found.mode) == _mine(0o644)
    assert bench.tree("layer")["file"].xattrs == marks


def test_lost_owners_are_counted(bench: Workbench) -> None:
    """Owners that are neither kept nor recorded are in the notes, with their number; the others are not."""
    bench.lacks("ownership")
    links = [Member(f"link{n}", kind=tarfile.SYMTYPE, target="x", mode=0o777, owner=(1, 2)) for n in range(3)]
    files = [Member(f"file{n}", owner=(1, 2)) for n in range(2)]
    bench.driver.create("layer")
    applied = bench.driver.apply("layer", io.BytesIO(layer_tar([*links, *files, whiteout("nothing")])))

    (note,) = (note for note in applied.notes if "owner" in note)
    assert note.startswith("3 x " if bench.can.recorded_owners else "5 x ")
