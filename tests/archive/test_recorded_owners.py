"""Owners recorded in an xattr: what a record is, when it counts, and that trees show it."""

import io
import os
import pathlib
import stat
import tarfile

import attrs
import pytest

from graphdrivers import errors, model
from graphdrivers.archive import apply as applying
from graphdrivers.archive import owners
from graphdrivers.archive.owners import XATTR, Record
from graphdrivers.archive.plain import PlainTree
from graphdrivers.archive.union import Branch, Union
from graphdrivers.archive.whiteouts import AUFS, OVERLAY_USER, PLAIN, PLAIN_RECORDED

FILE, DIRECTORY = stat.S_IFREG, stat.S_IFDIR
RECORDED_AUFS = attrs.evolve(AUFS, records_owners=True)


@pytest.mark.parametrize(
    ("value", "kind", "record"),
    [
        (b"0:0:0755:dir", DIRECTORY, Record(0, 0, 0o755)),
        (b"1000:1001:4755:file", FILE, Record(1000, 1001, 0o4755)),
        (b"1:2:644", FILE, Record(1, 2, 0o644)),
        (b"0:0:0100755", FILE, Record(0, 0, 0o755)),
        (b"4294967294:4294967294:0000:file", FILE, Record(2**32 - 2, 2**32 - 2, 0)),
    ],
)
def test_records_are_read(value: bytes, kind: int, record: Record) -> None:
    """The forms that other tools write are understood; the type may be left out."""
    assert owners.parse(value, kind) == record


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"0:0",
        b"0:0:0755:dir",
        b"0:0:0755:char-1-3",
        b"0:0:0755:file:more",
        b"0:0:0855:file",
        b"-1:0:0755:file",
        b"4294967295:0:0755:file",
        b"0:99999999999:0755:file",
        b"0:0:0755:file\n",
        b" 0:0:0755:file",
        "٣:0:0755:file".encode(),
    ],
)
def test_what_is_no_record_has_no_effect(value: bytes, tmp_path: pathlib.Path) -> None:
    """A malformed record, or one about another type of file, changes nothing of what is shown."""
    assert owners.parse(value, FILE) is None
    file = tmp_path / "file"
    file.touch()
    assert owners.shown(file.lstat(), value) == file.lstat()


def test_what_is_written_is_read() -> None:
    """A record survives being written down, four octal digits as other tools have them."""
    for kind in (FILE, DIRECTORY):
        record = Record(7, 8, 0o4755)
        assert owners.parse(record.value(kind), kind) == record
    assert Record(7, 8, 0o55).value(DIRECTORY) == b"7:8:0055:dir"


def test_a_record_changes_owner_and_mode_only(tmp_path: pathlib.Path) -> None:
    """Size, times to the nanosecond, inode, blocks: all the rest of the status is the file's."""
    file = tmp_path / "file"
    file.write_bytes(b"content")
    os.utime(file, ns=(1, 1_700_000_000_123_456_789))
    file.chmod(0o755)
    real = file.lstat()
    shown = owners.shown(real, b"7:8:4755:file")

    assert (shown.st_uid, shown.st_gid, shown.st_mode) == (7, 8, stat.S_IFREG | 0o4755)
    kept = [name for name in dir(real) if name.startswith("st_") and name not in {"st_uid", "st_gid", "st_mode"}]
    assert {name: getattr(shown, name) for name in kept} == {name: getattr(real, name) for name in kept}


@pytest.mark.parametrize(
    ("recorded", "real", "shown"),
    [
        (0o644, 0o644, 0o644),
        (0o4755, 0o755, 0o4755),
        (0o000, 0o400, 0o000),
        (0o000, 0o000, 0o000),
        (0o040, 0o440, 0o040),
        (0o4755, 0o700, 0o700),
        (0o644, 0o4644, 0o4644),
        (0o000, 0o644, 0o644),
    ],
)
def test_a_later_chmod_wins(recorded: int, real: int, shown: int, tmp_path: pathlib.Path) -> None:
    """The recorded mode is shown while the file has the mode that goes with it; the owner always."""
    file = tmp_path / "file"
    file.touch()
    file.chmod(real)
    status = owners.shown(file.lstat(), Record(1, 2, recorded).value(FILE))

    assert (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid) == (shown, 1, 2)


@pytest.mark.parametrize("bound", [True, False])
@pytest.mark.parametrize("mode", [0, 0o200, 0o444, 0o755, 0o4755, 0o2755, 0o7777])
@pytest.mark.parametrize("owner", [None, (1, 2)])
def test_what_is_given_is_shown(
    tmp_path: pathlib.Path, *, mode: int, owner: tuple[int, int] | None, bound: bool
) -> None:
    """Whatever owner and mode a file or directory is given, also for the second time, a look shows just that."""
    if owners.is_bound() and not bound:
        pytest.skip("permissions bind this process, whatever is said")
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    parent = os.open(tmp_path, os.O_RDONLY)
    for name in (b"file", b"folder"):
        fd = os.open(name, os.O_RDONLY, dir_fd=parent)
        uid, gid = owner or (os.geteuid(), os.getegid())
        for _ in range(2):
            owners.give(fd, 5, 5, 0o711, bound=bound)
            owners.give(fd, uid, gid, mode, bound=bound)
        real = os.fstat(fd)
        status = owners.look(parent, name, real)

        assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (uid, gid, mode)
        assert (real.st_uid, real.st_gid) == (os.geteuid(), os.getegid())
        needed = owners.needed_bits(stat.S_IFMT(real.st_mode)) if bound else 0
        assert real.st_mode & needed == needed
        plain = owner is None and mode & needed == needed
        assert os.listxattr(fd) == ([] if plain else [XATTR])
        assert plain or not real.st_mode & (stat.S_ISUID | stat.S_ISGID)
        os.close(fd)
    os.close(parent)


def test_dialects() -> None:
    """The record is private where a dialect says so, plain content elsewhere."""
    stored = {XATTR: b"0:0:0755:dir", "user.note": b"1"}
    for dialect in (PLAIN, AUFS, OVERLAY_USER):
        assert dialect.visible(stored) == stored
        assert not dialect.is_private(XATTR)
    for dialect in (PLAIN_RECORDED, RECORDED_AUFS, attrs.evolve(OVERLAY_USER, records_owners=True)):
        assert dialect.visible(stored) == {"user.note": b"1"}
        assert dialect.is_private(XATTR)
        assert not dialect.is_private("user.note")


def recorded(root: pathlib.Path) -> pathlib.Path:
    """Make a tree of recorded owners: a root, a folder, a file, and a link without."""
    (root / "folder").mkdir(parents=True)
    (root / "folder" / "file").write_bytes(b"content")
    (root / "link").symlink_to("folder")
    for path, uid in ((root, 3), (root / "folder", 4), (root / "folder" / "file", 5)):
        kind = stat.S_IFMT(path.lstat().st_mode)
        os.setxattr(path, XATTR, Record(uid, uid, stat.S_IMODE(path.lstat().st_mode)).value(kind))
        os.setxattr(path, "user.note", b"1")
    return root


def test_trees_show_records(tmp_path: pathlib.Path) -> None:
    """A plain tree and a union show recorded owners, by listing and by name, and no record among the xattrs."""
    root = os.open(recorded(tmp_path / "tree"), os.O_RDONLY)
    mine = os.geteuid()
    for tree in (PlainTree(root, recorded=True), Union([Branch(root, RECORDED_AUFS)])):
        with tree, tree.root() as top:
            folder, link = top.scan()
            assert (top.node.stat.st_uid, folder.stat.st_uid, link.stat.st_uid) == (3, 4, mine)
            found = top.lookup(b"folder")
            assert found is not None
            assert (found.stat.st_gid, found.xattrs()) == (4, {"user.note": b"1"})
            with top.enter(found) as inner:
                (file,) = inner.scan()
                assert (inner.node.stat.st_uid, file.stat.st_uid) == (4, 5)
                fd = file.open()
                assert os.read(fd, 10) == b"content"
                os.close(fd)
                assert file.xattrs() == {"user.note": b"1"}
    os.close(root)


def test_trees_without_records_show_the_file(tmp_path: pathlib.Path) -> None:
    """Where owners are not recorded the same xattr is content without effect."""
    root = os.open(recorded(tmp_path / "tree"), os.O_RDONLY)
    for tree in (PlainTree(root), Union([Branch(root, AUFS)])):
        with tree, tree.root() as top:
            assert top.node.stat.st_uid == os.geteuid()
            assert XATTR in top.node.xattrs()
    os.close(root)


def pack(name: str, kind: bytes, **fields: object) -> io.BytesIO:
    """Write a tar of one member."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        member = tarfile.TarInfo(name)
        member.type = kind
        for field, value in fields.items():
            setattr(member, field, value)
        tar.addfile(member)
    buffer.seek(0)
    return buffer


@pytest.mark.parametrize("kind", [tarfile.REGTYPE, tarfile.DIRTYPE])
def test_a_record_in_a_tar_never_acts(tmp_path: pathlib.Path, kind: bytes) -> None:
    """It is refused by name where owners are recorded, and what was made by then is not left open."""
    root = os.open(tmp_path, os.O_RDONLY)
    tar = pack("forged", kind, mode=0o755, pax_headers={f"SCHILY.xattr.{XATTR}": "0:0:4755:file"})
    target = applying.Target(root, PLAIN_RECORDED, None, model.Capabilities(recorded_owners=True, user_xattrs=True))
    before = os.listdir("/proc/self/fd")
    with pytest.raises(errors.UnsupportedEntry, match=XATTR) as caught:
        applying.apply(tar, target)
    assert os.listdir("/proc/self/fd") == before
    os.close(root)

    assert caught.value.member.rstrip("/") == "forged"


def test_a_record_in_a_lower_directory_never_acts(tmp_path: pathlib.Path) -> None:
    """Where none are recorded below, a directory that is implied cannot be copied up; its copy is not left open."""
    (tmp_path / "lower" / "folder").mkdir(parents=True)
    os.setxattr(tmp_path / "lower" / "folder", XATTR, b"0:0:4755:dir")
    (tmp_path / "upper").mkdir()
    root = os.open(tmp_path / "upper", os.O_RDONLY)
    capabilities = model.Capabilities(recorded_owners=True, user_xattrs=True)
    before = os.listdir("/proc/self/fd")
    with Union([Branch(str(tmp_path / "lower"), AUFS)]) as below:
        tar = pack("folder/new", tarfile.REGTYPE, mode=0o644)
        with pytest.raises(errors.UnsupportedEntry, match=XATTR):
            applying.apply(tar, applying.Target(root, RECORDED_AUFS, below, capabilities))
    assert os.listdir("/proc/self/fd") == before
    os.close(root)


def test_copies_of_lower_directories_keep_recorded_owners(tmp_path: pathlib.Path) -> None:
    """A directory that is implied by a member gets the owner recorded below, as a record of its own."""
    lower = recorded(tmp_path / "lower")
    upper = tmp_path / "upper"
    upper.mkdir()
    root = os.open(upper, os.O_RDONLY)
    capabilities = model.Capabilities(recorded_owners=True, user_xattrs=True)
    with Union([Branch(str(lower), RECORDED_AUFS)]) as below:
        tar = pack("folder/new", tarfile.REGTYPE, uid=6, gid=6, mode=0o644)
        applied = applying.apply(tar, applying.Target(root, RECORDED_AUFS, below, capabilities))
    os.close(root)

    assert applied.notes == ()
    assert os.getxattr(upper / "folder", XATTR) == os.getxattr(lower / "folder", XATTR)
    assert os.getxattr(upper / "folder", "user.note") == b"1"
    assert os.getxattr(upper / "folder" / "new", XATTR) == b"6:6:0644:file"
