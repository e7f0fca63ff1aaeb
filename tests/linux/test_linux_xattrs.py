"""Extended attributes."""

import errno
import os
import pathlib
import struct

import pytest

from graphdrivers.linux import xattrs

SOME = {"user.empty": b"", "user.text": b"value", "user.long": b"\0\xff" * 1000, "user.n\udce9me": b"1"}
SOME["user.eight"] = struct.pack("=II", errno.ERANGE, 0)  # what zfs-fuse would mean by it is looked into


@pytest.fixture
def directory(tmp_path: pathlib.Path) -> int:
    """An open directory; the process is short-lived."""
    return os.open(tmp_path, os.O_RDONLY)


def test_round_trip_by_path_and_descriptor(tmp_path: pathlib.Path) -> None:
    """What was written by path is read by descriptor, and the other way round; values may hold any byte."""
    path = tmp_path / "file"
    with open(path, "wb") as file:
        xattrs.write_all(os.fsencode(path), SOME)

        assert xattrs.read_all(file.fileno()) == SOME

        xattrs.write_all(file.fileno(), {"user.text": b"other"})

        assert xattrs.read_all(os.fsencode(path)) == SOME | {"user.text": b"other"}


def test_names_of_any_bytes(tmp_path: pathlib.Path, directory: int) -> None:
    """A file whose name is no text is reached through its open directory."""
    name = b"\xff\n:,\\ x"
    (tmp_path / os.fsdecode(name)).touch()
    xattrs.write_all(xattrs.at(directory, name), SOME)

    assert xattrs.read_all(xattrs.at(directory, name)) == SOME


@pytest.mark.usefixtures("root")
def test_symbolic_links_are_not_followed(tmp_path: pathlib.Path, directory: int) -> None:
    """A symbolic link has attributes of its own, and so has a dangling one."""
    (tmp_path / "file").touch()
    for link in ("file", "missing"):
        (tmp_path / f"to-{link}").symlink_to(link)
        xattrs.write_all(xattrs.at(directory, b"to-%s" % link.encode()), {"trusted.mark": b"1"})

        assert xattrs.read_all(xattrs.at(directory, b"to-%s" % link.encode())) == {"trusted.mark": b"1"}

    assert xattrs.read_all(xattrs.at(directory, b"file")) == {}


def test_file_systems_without_attributes() -> None:
    """Where there are none, there are none."""
    assert xattrs.read_all(b"/proc/self/status") == {}


def test_missing_file() -> None:
    """A missing file is an error, not an empty answer."""
    with pytest.raises(FileNotFoundError):
        xattrs.read_all(b"/nowhere/at/all")


def test_attribute_removed_meanwhile(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that vanishes between listing and reading is left out."""
    path = os.fsencode(tmp_path / "file")
    (tmp_path / "file").touch()
    xattrs.write_all(path, {"user.stays": b"1"})
    monkeypatch.setattr(os, "listxattr", lambda *_a, **_k: ["user.gone", "user.stays"])

    assert xattrs.read_all(path) == {"user.stays": b"1"}
