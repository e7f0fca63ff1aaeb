"""The mount table."""

import os
import pathlib

import pytest
from linuxtools import overlay

from graphdrivers.linux import mountinfo, mounts
from graphdrivers.model import Mount

LINE = (
    rb"36 35 98:0 /mnt1\040a /mnt\0122\134 rw,noatime master:1 propagate_from:2 "
    rb"- ext3 /dev/ro\011ot rw,errors=continue,k=a\054b"
    b"\n"
)


def test_parse() -> None:
    """The example of proc(5), with every kind of escape: each field comes out as it went in."""
    assert mountinfo.parse([LINE, b"\n"]) == [
        mountinfo.MountPoint(
            mount_id=36,
            parent_id=35,
            device="98:0",
            root="/mnt1 a",
            target="/mnt\n2\\",
            options=("rw", "noatime"),
            fs_type="ext3",
            source="/dev/ro\tot",
            super_options=(("rw", None), ("errors", "continue"), ("k", "a,b")),
        )
    ]


def test_parse_without_source_and_tags() -> None:
    """The optional fields and the source may be absent."""
    (mount,) = mountinfo.parse([b"1 2 0:1 / /x\xff rw - overlay  rw,lowerdir=a:b"])

    assert (mount.source, mount.target, mount.option("lowerdir")) == ("", "/x\udcff", "a:b")
    assert mount.option("upperdir") is None


def test_parse_a_line_of_50_kilobytes() -> None:
    """A stack of 500 layers makes a line that long; nothing is cut."""
    layers = [f"/var/lib/layers/{number:064x}/diff" for number in range(500)]
    line = b"1 2 0:1 / /x rw - overlay o rw," + ",".join(f"lowerdir+={layer}" for layer in layers).encode()
    (mount,) = mountinfo.parse([line])

    assert [value for key, value in mount.super_options if key == "lowerdir+"] == layers


@pytest.mark.parametrize("line", [b"nonsense", b"1 2 0:1 / /x rw overlay o rw", b"x 2 0:1 / /x rw - overlay o rw"])
def test_parse_refuses(line: bytes) -> None:
    """A line that is none is an error."""
    with pytest.raises(ValueError, match=r"mountinfo|invalid literal"):
        mountinfo.parse([line])


def test_own_table() -> None:
    """Every line of this machine parses, and the root is there."""
    assert "/" in {mount.target for mount in mountinfo.read()}


@pytest.mark.usefixtures("root")
def test_mounted_at_and_below(target: str, tmp_path: pathlib.Path) -> None:
    """Exactly at a path, and strictly below it, are two questions; a path through a symbolic link is the same path."""
    assert mountinfo.mounted_at(target) is None
    mounts.attach((Mount("tmpfs", "one"),), target)
    odd = os.path.join(target, "sp ace\\\t\n#\udcff")
    os.mkdir(odd)
    mounts.attach((Mount("tmpfs", "two"),), odd)
    mounts.attach((Mount("tmpfs", "three"),), odd)

    assert [mount.source for mount in mountinfo.mounted_within(odd)] == ["two", "three"]

    os.symlink(odd, tmp_path / "link")
    for path in (odd, str(tmp_path / "link"), odd + "/"):
        found = mountinfo.mounted_at(path)
        assert found is not None
        assert found.source == "three"
        assert mountinfo.mounted_below(path) == []
    assert [mount.source for mount in mountinfo.mounted_below(str(tmp_path))] == ["one", "two", "three"]
    assert [mount.source for mount in mountinfo.mounted_below(target)] == ["two", "three"]
    for all_targets in (mountinfo.targets(), {mount.target for mount in mountinfo.read()}):
        assert {one for one in all_targets if one.startswith(target)} == {target, odd}
    assert mountinfo.mounted_below(str(tmp_path / "targ")) == []


@pytest.mark.parametrize("names", ["layer-{}", "od,d:\\ \n={}\udcff"])
def test_users_of_overlay_directories(target: str, tmp_path: pathlib.Path, api: str, names: str) -> None:
    """The upper and work directories of an overlay are in use, its lower ones are not; by any name they have."""
    del api
    mount = overlay(tmp_path / "layers", 2, names)
    mounts.attach((mount,), target)
    os.symlink(tmp_path / "layers", tmp_path / "alias")
    for key, directory in mount.options:
        assert directory is not None
        expected = [] if key == "lowerdir+" else [target]
        alias = tmp_path / "alias" / os.path.basename(directory)

        assert [user.target for user in mountinfo.users_of(directory)] == expected
        assert [user.target for user in mountinfo.users_of(str(alias))] == expected

    mounts.detach(target)

    assert mountinfo.users_of(str(directory)) == []


def test_users_of_what_was_mounted_through_a_link(target: str, tmp_path: pathlib.Path, api: str) -> None:
    """Directories that the mount was given by another name are recognised as the same ones."""
    del api
    (tmp_path / "real").mkdir()
    os.symlink("real", tmp_path / "alias")
    mount = overlay(tmp_path / "alias", 2)
    mounts.attach((mount,), target)

    assert [user.target for user in mountinfo.users_of(str(tmp_path / "real" / "layer-upperdir"))] == [target]
    assert mountinfo.users_of(str(tmp_path / "real" / "layer-0")) == []


def test_users_of_a_bind(target: str, tmp_path: pathlib.Path, api: str) -> None:
    """A bind of the directory itself is a user of it; its parent, child and the bind's own target are not."""
    del api
    (tmp_path / "a" / "b" / "c").mkdir(parents=True)
    mounts.attach((Mount("bind", str(tmp_path / "a" / "b")),), target)

    assert [user.target for user in mountinfo.users_of(str(tmp_path / "a" / "b"))] == [target]
    assert mountinfo.users_of(str(tmp_path / "a")) == []
    assert mountinfo.users_of(str(tmp_path / "a" / "b" / "c")) == []
    assert mountinfo.users_of(str(tmp_path)) == []


def test_users_of_a_mount_point(target: str) -> None:
    """The file system that is mounted on a directory is no user of itself."""
    mounts.attach((Mount("tmpfs", "one"),), target)

    assert mountinfo.users_of(target) == []


def test_users_of_a_missing_directory(tmp_path: pathlib.Path) -> None:
    """A missing directory is an error."""
    with pytest.raises(FileNotFoundError):
        mountinfo.users_of(str(tmp_path / "missing"))


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
def test_users_within_a_directory(tmp_path: pathlib.Path) -> None:
    """Binds of what is below a directory and overlays written to or read from there are found with its path."""
    for name in ("home/diff/a", "home/diff/b", "home/work/a", "one", "two", "three", "other"):
        (tmp_path / name).mkdir(parents=True)
    diff = tmp_path / "home" / "diff"
    lowers = (("lowerdir+", f"{diff}/b"), ("lowerdir+", f"{tmp_path}/other"))
    upper = (("upperdir", f"{diff}/a"), ("workdir", f"{tmp_path}/home/work/a"))
    plans = {
        "one": Mount("bind", f"{diff}/b"),
        "two": Mount("overlay", "label", (*lowers, *upper)),
        "three": Mount("overlay", "label", lowers, readonly=True),
    }
    try:
        for place in ("one", "two", "three"):
            mounts.attach((plans[place],), str(tmp_path / place))
        found = {os.path.basename(mount.target): path for mount, path in mountinfo.users_within(f"{tmp_path}/home")}
    finally:
        for place in ("one", "two", "three"):
            mounts.detach(str(tmp_path / place))

    assert found == {"one": "diff/b", "two": "diff/a", "three": "diff/b"}
    assert mountinfo.users_within(f"{tmp_path}/home") == []
