"""What can be said of the kernel's aufs without one: when it is refused, which stacks it gets, how it is called."""

import os
import pathlib

import pytest

from graphdrivers import errors
from graphdrivers.archive.union import Branch, Union
from graphdrivers.archive.whiteouts import AUFS
from graphdrivers.backends.aufs.driver import AufsDriver
from graphdrivers.backends.aufs.native import unfit
from graphdrivers.linux import aufs_mount, filesystems


def make(root: pathlib.Path, *names: str) -> str:
    """Make files, and directories where the name ends in a slash."""
    for name in names:
        place = root / name.rstrip("/")
        (place if name.endswith("/") else place.parent).mkdir(parents=True, exist_ok=True)
        if not name.endswith("/"):
            place.write_bytes(b"")
    root.mkdir(exist_ok=True)
    return str(root)


@pytest.mark.skipif(os.geteuid() != 0, reason="the kernel is asked last, by root")
def test_a_kernel_without_aufs_is_named(tmp_path: pathlib.Path) -> None:
    """Asked for by name it is refused with what to do; in automatic choice a note says why it is not used."""
    if filesystems.is_known("aufs"):
        assert AufsDriver.probe(str(tmp_path / "home"), {"engine": "aufs"}).engine.startswith("aufs")
        return
    with pytest.raises(errors.NotSupported, match="no aufs") as caught:
        AufsDriver.probe(str(tmp_path / "home"), {"engine": "aufs"})

    assert "overlay-shadow" in caught.value.advice
    notes = AufsDriver.probe(str(tmp_path / "home"), {}).notes
    assert "engine aufs is not used: this kernel has no aufs" in notes


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        (["f", "d/x", "d/.wh.old"], ""),
        (["d/.wh..wh..opq", "d/x", ".wh.f"], ""),
        ([".wh..wh.plnk/1.2", ".wh..wh.aufs", "f"], ""),
        (["f", ".wh.f"], "holds a name and its whiteout"),
        (["d/x", ".wh.d"], "holds a name and its whiteout"),
        (["d/.wh..wh..opq", "d/.wh.x"], "opaque and holds whiteouts"),
        (["file/x"], "replaces a file without being opaque"),
        (["file/.wh..wh..opq", "file/x"], ""),
        (["n" * 243], "more than 242 bytes"),
        (["n" * 242], ""),
        ([".wh..wh.long-" + "0" * 64], "more than 242 bytes"),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_stacks_that_aufs_shows_wrong(tmp_path: pathlib.Path, names: list[str], reason: str) -> None:
    """A marker beside its name, a directory over a file, and names that are too long go to another engine."""
    lower = make(tmp_path / "lower", "file", "d/old", "f")
    with Union([Branch(lower, AUFS)]) as union:
        found, _ = unfit(make(tmp_path / "upper", *names), union)

    assert reason in found
    assert bool(found) == bool(reason)


def test_opaque_directories_are_told(tmp_path: pathlib.Path) -> None:
    """All opaque directories of a layer are given, for the check that no two layers have the same."""
    top = make(tmp_path / "top", "a/.wh..wh..opq", "a/b/c/.wh..wh..opq", "d/x")

    assert unfit(top, None) == ("", {b"a", b"a/b/c"})


def test_few_branches_take_one_call() -> None:
    """Branches come top first, other options behind them."""
    settings = [("br", "/u=rw"), ("br", "/l=ro+wh"), ("xino", "/x"), ("dirperm1", None)]

    assert aufs_mount.option_strings(settings, 4095) == [b"br:/u=rw:/l=ro+wh,xino=/x,dirperm1"]


@pytest.mark.parametrize("length", [10, 97, 200])
def test_many_branches_are_appended(length: int) -> None:
    """All branches come, in order, at most forty in a call and never more than a page."""
    branches = [f"/{number:0{length}}=ro+wh" for number in range(126)]
    calls = aufs_mount.option_strings([*(("br", branch) for branch in branches), ("xino", "/x")], 4095)
    first, *appended = calls
    found = first.partition(b",")[0].removeprefix(b"br:").decode().split(":")
    for call in appended:
        found += [part.removeprefix("append:") for part in call.decode().split(",")]

    assert found == branches
    assert max(len(call) for call in calls) <= 4095
    assert max(call.count(b"=ro+wh") for call in calls) <= 40
    assert all(part.startswith(b"append:") for call in appended for part in call.split(b","))


def test_a_branch_that_fits_nowhere() -> None:
    """A path longer than a page is refused, and so is a mount of nothing."""
    with pytest.raises(ValueError, match="too long"):
        aufs_mount.option_strings([("br", "/" + "x" * 4095)], 4095)
    with pytest.raises(ValueError, match="needs a branch"):
        aufs_mount.option_strings([("xino", "/x")], 4095)


@pytest.mark.parametrize("path", ["/a:b", "/a,b", "/a=b"])
def test_separators_cannot_be_in_branches(path: str) -> None:
    """A path with one of aufs' separators is no branch; there is no way to write it."""
    assert not aufs_mount.can_be_branch(path)
    assert aufs_mount.can_be_branch("/a b\\c")
