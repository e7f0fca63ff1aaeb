"""Layer tars from differences: what is in them, in which order, and that they are never wrong."""

import errno
import io
import os
import shutil
import socket
import stat
import subprocess
import tarfile
from pathlib import Path

import pytest
from difftrees import NS, TIME, fill, layer, members, names, same_time

from graphdrivers import errors
from graphdrivers.archive.entries import Difference
from graphdrivers.archive.produce import produce
from graphdrivers.model import ChangeKind, Profile


@pytest.fixture
def upper(tmp_path: Path) -> Path:
    """A new tree."""
    (tmp_path / "upper").mkdir()
    return tmp_path / "upper"


@pytest.fixture
def lower(tmp_path: Path) -> Path:
    """An old tree."""
    (tmp_path / "lower").mkdir()
    return tmp_path / "lower"


@pytest.fixture
def pair(lower: Path, upper: Path) -> tuple[Path, Path]:
    """Two equal trees."""
    for tree in (lower, upper):
        fill(tree, "etc/hosts", "etc/profile", "etc/conf.d/a", "root/", "var/log/x")
    same_time(lower, upper)
    return lower, upper


def test_no_difference_is_an_empty_archive(pair: tuple[Path, Path]) -> None:
    """Nothing changed: two blocks of zeros (containerd ``EmptyDiff``)."""
    assert layer(pair[1], pair[0]) == bytes(1024)


def test_new_file_brings_its_parents(pair: tuple[Path, Path]) -> None:
    """An addition is preceded by its directories, changed or not (``ParentInclusion``)."""
    fill(pair[1], "etc/conf.d/new", "var/log/new/")
    same_time(*pair)

    assert names(layer(pair[1], pair[0])) == [
        "etc/",
        "etc/conf.d/",
        "etc/conf.d/new",
        "var/",
        "var/log/",
        "var/log/new/",
    ]


def test_new_hard_link_brings_the_file_along(pair: tuple[Path, Path]) -> None:
    """A second name of an old file comes with the file, the data first (``HardlinkParentInclusion``)."""
    os.link(pair[1] / "etc/hosts", pair[1] / "var/log/hosts")
    os.link(pair[1] / "etc/profile", pair[1] / "aaa")
    same_time(*pair)

    assert names(layer(pair[1], pair[0])) == [
        "aaa",
        "etc/",
        "etc/hosts",
        "etc/profile=aaa",
        "var/",
        "var/log/",
        "var/log/hosts=etc/hosts",
    ]


def test_changed_directory_permission_alone(pair: tuple[Path, Path]) -> None:
    """A directory whose mode changed comes without what is in it (``UpdateDirectoryPermission``)."""
    (pair[1] / "etc").chmod(0o700)

    (member,) = members(layer(pair[1], pair[0]))
    assert (member.name, member.mode) == ("etc", 0o700)


def test_write_through_one_of_two_links(lower: Path, upper: Path) -> None:
    """When the file behind two names changed, both names come (``HardlinkUpdatedParent``)."""
    for tree in (lower, upper):
        fill(tree, "d1/f", "d2/")
        os.link(tree / "d1/f", tree / "d2/f")
    (upper / "d1/f").write_bytes(b"changed")
    same_time(lower, upper)

    assert names(layer(upper, lower)) == ["d1/", "d1/f", "d2/", "d2/f=d1/f"]


def test_deletions_are_whiteouts_before_the_entries(pair: tuple[Path, Path]) -> None:
    """Whiteouts have no attributes of their own, and parents in front (``WhiteoutIncludesParents``)."""
    (pair[1] / "etc/profile").unlink()
    (pair[1] / "etc/hosts").unlink()
    shutil.rmtree(pair[1] / "var")
    fill(pair[1], "etc/a")
    same_time(*pair)
    tar = layer(pair[1], pair[0])

    assert names(tar) == [".wh.var", "etc/", "etc/.wh.hosts", "etc/.wh.profile", "etc/a"]
    for member in members(tar):
        if ".wh." in member.name:
            assert (member.isreg(), member.size, member.mode, member.mtime, member.uid) == (True, 0, 0, 0, 0)


def test_directory_replaced_by_a_file_needs_no_whiteout(pair: tuple[Path, Path]) -> None:
    """The new entry itself hides what was there (``WhiteoutParentRemoval`` in explicit form)."""
    shutil.rmtree(pair[1] / "etc")
    fill(pair[1], "etc")
    same_time(*pair)

    assert names(layer(pair[1], pair[0])) == ["etc"]


def test_whiteout_of_the_longest_name(lower: Path, upper: Path) -> None:
    """A name of 255 bytes is deleted by a longer one, which a tar can hold."""
    fill(lower, "n" * 255)
    same_time(lower, upper)

    assert names(layer(upper, lower)) == [".wh." + "n" * 255]


def test_sockets_are_left_out(upper: Path) -> None:
    """Also under several names (``IgnoreSockets``)."""
    fill(upper, "a", "z")
    with socket.socket(socket.AF_UNIX) as server:
        fd = os.open(upper, os.O_RDONLY)
        server.bind(f"/proc/self/fd/{fd}/socket")
        os.close(fd)
    os.link(upper / "socket", upper / "tube")

    assert names(layer(upper)) == ["./", "a", "z"]


def test_first_name_carries_the_content(upper: Path) -> None:
    """In the order of the archive, not of creation (``TestHardLinkOrder``)."""
    fill(upper, "m")
    os.link(upper / "m", upper / "a")
    os.link(upper / "m", upper / "z")
    os.symlink("nowhere", upper / "s1")
    os.link(upper / "s1", upper / "s2", follow_symlinks=False)
    os.mkfifo(upper / "p1")
    os.link(upper / "p1", upper / "p2")
    tar = layer(upper)

    assert names(tar) == ["./", "a", "m=a", "p1", "p2=p1", "s1", "s2=s1", "z=a"]
    assert [member.size for member in members(tar) if member.name in "amz"] == [1, 0, 0]


def test_root_comes_first_when_it_changed(pair: tuple[Path, Path]) -> None:
    """As ``./``, the only name with a dot."""
    pair[1].chmod(0o711)
    tar = layer(pair[1], pair[0])

    assert [(member.name, member.mode) for member in members(tar)] == [(".", 0o711)]


def test_profiles(upper: Path) -> None:
    """``full`` has ns times, all xattrs and holes; ``oci`` whole seconds and no holes."""
    fill(upper, "f")
    (upper / "sparse").write_bytes(bytes(1 << 20) + b"x")
    if os.geteuid() == 0:
        os.setxattr(upper / "f", "user.note", b"n")
    full, oci = (layer(upper, profile=profile) for profile in (Profile.FULL, Profile.OCI))

    assert b"mtime=1700000000.123456789\n" in full
    assert b"GNU.sparse" in full
    assert len(full) < 100_000
    assert b"mtime" not in oci
    assert b"SCHILY" not in oci
    assert b"GNU.sparse" not in oci
    assert {member.name: member.mtime for member in members(oci)}["f"] == TIME // NS


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may set file capabilities")
@pytest.mark.parametrize("size", [0, 5, 100_000])
def test_xattrs_by_profile(upper: Path, size: int) -> None:
    """Capabilities are in both profiles, everything else only in ``full``; whatever the file's size."""
    capability = bytes.fromhex("0100000200040000000000000000000000000000")
    (upper / "f").write_bytes(b"x" * size)
    for name, value in (("security.capability", capability), ("user.note", b"n"), ("trusted.t", b"")):
        os.setxattr(upper / "f", name, value)
    os.setxattr(upper, "user.directory", b"d")
    full, oci = (layer(upper, profile=profile) for profile in (Profile.FULL, Profile.OCI))

    record = b"SCHILY.xattr.security.capability=" + capability + b"\n"
    assert record in full
    assert record in oci
    assert oci.count(b"SCHILY") == 1
    for text in (b"SCHILY.xattr.user.note=n\n", b"SCHILY.xattr.trusted.t=\n", b"SCHILY.xattr.user.directory=d\n"):
        assert text in full


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may make devices and give files away")
def test_devices_and_owners(upper: Path) -> None:
    """Kinds, numbers, all mode bits and owners."""
    os.mknod(upper / "char", stat.S_IFCHR | 0o620, os.makedev(5, 70_000))
    os.mknod(upper / "block", stat.S_IFBLK | 0o660, os.makedev(8, 1))
    fill(upper, "file")
    os.chown(upper / "file", 70_000, 3_000_000_000)
    (upper / "file").chmod(0o6755)
    found = {member.name: member for member in members(layer(upper))}

    assert (found["char"].type, found["char"].devmajor, found["char"].devminor) == (b"3", 5, 70_000)
    assert (found["block"].type, found["block"].devmajor, found["block"].devminor) == (b"4", 8, 1)
    assert (found["file"].mode, found["file"].uid, found["file"].gid) == (0o6755, 70_000, 3_000_000_000)


def test_source_date_epoch(upper: Path, lower: Path) -> None:
    """Later times become it, earlier ones stay, whiteouts never get later; thirty repeats are one digest."""
    fill(upper, "new", "old")
    os.utime(upper / "old", ns=(5 * NS, 5 * NS))
    fill(lower, "gone")
    os.utime(lower, ns=(1, 1))
    tars = {layer(upper, lower, source_date_epoch=1000) for _ in range(30)}

    (tar,) = tars
    times = {member.name: member.mtime for member in members(tar)}
    assert times == {".": 1000, ".wh.gone": 0, "new": 1000, "old": 5}


@pytest.mark.parametrize("time", [-1, -NS, -1_500_000_000])
def test_times_before_the_epoch(upper: Path, time: int) -> None:
    """They survive in ``full`` and are rounded down in ``oci``."""
    fill(upper, "f")
    os.utime(upper / "f", ns=(time, time))

    full, oci = ({m.name: m.mtime for m in members(layer(upper, profile=p))} for p in (Profile.FULL, Profile.OCI))
    assert full["f"] == time / NS
    assert oci["f"] == time // NS


@pytest.mark.parametrize("name", [".wh.x", "d/.wh.x", ".wh..wh..opq", ".wh.d/x"])
def test_names_that_mean_deletions_are_refused(upper: Path, name: str) -> None:
    """Written as they are, they would delete something where the tar is unpacked."""
    fill(upper, name)

    with pytest.raises(errors.UnsupportedEntry, match="deletion"):
        layer(upper)


def test_names_that_only_look_like_markers(upper: Path) -> None:
    """``.wh.`` in the middle of a name means nothing."""
    fill(upper, "a.wh.b", ".whx", ".WH.x", "d/x.wh.")

    assert names(layer(upper)) == ["./", ".WH.x", ".whx", "a.wh.b", "d/", "d/x.wh."]


@pytest.mark.parametrize("size", [0, 1, 511, 512, 513, 65_535, 65_536, 524_288, 1_200_000])
@pytest.mark.parametrize("profile", list(Profile))
def test_contents_of_every_size(upper: Path, size: int, profile: Profile) -> None:
    """Around every boundary of block, read and chunk."""
    content = os.urandom(size)
    for name in ("a", "b"):
        (upper / name).write_bytes(content)
    tar = layer(upper, profile=profile)

    assert len(tar) % 512 == 0
    with tarfile.open(fileobj=io.BytesIO(tar)) as reader:
        for name in ("a", "b"):
            extracted = reader.extractfile(name)
            assert extracted is not None
            assert extracted.read() == content


def test_thousands_of_files(upper: Path) -> None:
    """Several chunks of small files with large ones between them are one sound archive."""
    for number in range(2000):
        (upper / f"{number:04}").write_bytes(b"%d" % number * 100 if number % 500 else bytes([1]) * 700_000)
    with tarfile.open(fileobj=io.BytesIO(layer(upper))) as reader:
        for member in reader.getmembers()[1:]:
            number = int(member.name)
            extracted = reader.extractfile(member)
            assert extracted is not None
            assert extracted.read() == (b"%d" % number * 100 if number % 500 else bytes([1]) * 700_000)


def test_file_systems_without_xattrs(upper: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They refuse the question; there are none."""

    def refuse(*_: object, **__: object) -> list[str]:
        raise OSError(errno.ENOTSUP, "no xattrs here")

    fill(upper, "a", "d/b")
    whole = layer(upper)
    monkeypatch.setattr(os, "listxattr", refuse)

    assert layer(upper) == whole


def test_errors_of_xattrs_are_not_hidden(upper: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Any other refusal could hide attributes."""

    def fail(*_: object, **__: object) -> list[str]:
        raise OSError(errno.EIO, "disk failed")

    fill(upper, "a")
    monkeypatch.setattr(os, "listxattr", fail)

    with pytest.raises(OSError, match="disk failed"):
        layer(upper)


def test_content_of_another_inode_than_the_attributes(tmp_path: Path) -> None:
    """In an overlay with metacopy the opened file is not the one whose xattrs count: the node is asked."""
    (tmp_path / "data").write_bytes(b"abc")

    class Metacopy:
        name = b"f"
        stat = os.stat_result((stat.S_IFREG | 0o644, 1, 1, 1, 0, 0, 3, 0, 0, 0), {"st_mtime_ns": 0})

        def xattrs(self) -> dict[str, bytes]:
            return {"user.upper": b"u"}

        def open(self) -> int:
            return os.open(tmp_path / "data", os.O_RDONLY)

    difference = Difference(b"f", ChangeKind.ADDED, Metacopy(), None)  # type: ignore[arg-type]
    assert b"SCHILY.xattr.user.upper=u\n" in produce([difference]).read()


def test_readers_see_the_names(upper: Path) -> None:
    """GNU tar lists names as written, without complaint."""
    fill(upper, "etc/motd", "dir/", "x" * 120 + "/" + "y" * 200)
    listed = subprocess.run(["tar", "-tf", "-"], input=layer(upper), check=True, capture_output=True)

    assert listed.stderr == b""
    assert listed.stdout.decode().splitlines() == [
        "./",
        "dir/",
        "etc/",
        "etc/motd",
        "x" * 120 + "/",
        "x" * 120 + "/" + "y" * 200,
    ]
