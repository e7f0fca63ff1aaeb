"""Plans of FUSE file systems: the program that serves them, and what becomes of it; with both ways to mount."""

import errno
import os
import pathlib
import shutil

import attrs
import pytest
from linuxtools import mounts_from, overlay

from graphdrivers.errors import SyscallError
from graphdrivers.linux import fuse_mount, locks, mountinfo, mounts
from graphdrivers.model import Mount

pytestmark = pytest.mark.usefixtures("api")

ODD = "od,d:\\ \\, '\"=\n\udcff%/layer,-{}"


@pytest.fixture(autouse=True)
def program() -> None:
    """Need fuse-overlayfs."""
    if shutil.which("fuse-overlayfs"):
        return
    if os.environ.get("GRAPHDRIVERS_OPTIONAL_TOOLS") == "1":
        pytest.skip("fuse-overlayfs is not installed and GRAPHDRIVERS_OPTIONAL_TOOLS is set")
    pytest.fail("fuse-overlayfs is not installed (GRAPHDRIVERS_OPTIONAL_TOOLS=1 skips what needs it)")


def union(base: pathlib.Path, names: str = "layer-{}", *, upper: bool = True, **more: str) -> Mount:
    """Plan a union of three directories with a file each, with more options."""
    plan = overlay(base, 3, names, upper=upper)
    return attrs.evolve(plan, type="fuse.fuse-overlayfs", options=(*plan.options, *more.items()))


@pytest.mark.parametrize("names", ["layer-{}", ODD, "n" * 200 + "/" + "m" * 90 + "-{}"])
@pytest.mark.parametrize("upper", [True, False])
def test_a_program_serves(target: str, tmp_path: pathlib.Path, names: str, *, upper: bool) -> None:
    """Directories of any name and length become one tree, which the mount table names, and which can be unmounted."""
    plan = union(tmp_path, names, upper=upper)
    mounts.attach((plan,), target)
    found = mountinfo.mounted_at(target)

    assert sorted(os.listdir(target)) == ["file-0", "file-1", "file-2"]
    assert found is not None
    assert (found.fs_type, found.source) == ("fuse.fuse-overlayfs", "test")
    if upper:
        pathlib.Path(target, "new").touch()
        assert "new" in os.listdir(dict(plan.options)["upperdir"] or "")
    mounts.detach(target)
    assert os.listdir(target) == []


def test_a_colon_that_cannot_be_had(target: str, tmp_path: pathlib.Path) -> None:
    """An upper directory whose own name has one is refused: the program would take it for two."""
    with pytest.raises(SyscallError, match="takes an upper directory apart at colons") as caught:
        mounts.attach((union(tmp_path, "a:{}"),), target)

    assert caught.value.errno == errno.EINVAL


def test_many_directories(target: str, tmp_path: pathlib.Path) -> None:
    """As many as overlay takes, far beyond what one argument of a program may have, are named in another way."""
    plan = overlay(tmp_path, 500, "n" * 200 + "/" + "m" * 90 + "-{}")
    mounts.attach((attrs.evolve(plan, type="fuse.fuse-overlayfs"),), target)

    assert len(os.listdir(target)) == 500


def test_nothing_is_left_open(target: str, tmp_path: pathlib.Path) -> None:
    """What was opened for the program is closed, when it started and when it did not."""
    before = os.listdir("/proc/self/fd")
    mounts.attach((union(tmp_path / "good", ODD),), target)
    mounts.detach(target)
    with pytest.raises(SyscallError):
        mounts.attach((union(tmp_path / "bad", ODD, uidmapping="nonsense", lowerdir="/nowhere"),), target)

    assert os.listdir("/proc/self/fd") == before
    assert mountinfo.mounted_at(target) is None


def test_a_program_that_fails_says_why(target: str, tmp_path: pathlib.Path) -> None:
    """Its last line is the reason, and nothing is mounted."""
    plan = union(tmp_path)
    os.rename(tmp_path / "layer-1", tmp_path / "gone")
    with pytest.raises(SyscallError, match="cannot read lower dirs") as caught:
        mounts.attach((plan,), target)

    assert caught.value.errno == errno.EIO
    assert mountinfo.mounted_at(target) is None


def test_a_program_that_is_missing(target: str) -> None:
    """It is named, and nothing is mounted; so is one that was chosen."""
    for plan in (
        Mount("fuse.no-such-program", "x"),
        Mount("fuse.fuse-overlayfs", "x", (("program", "/no/such/program"),)),
    ):
        with pytest.raises(SyscallError, match=r"no.such.program.*there is no such program") as caught:
            mounts.attach((plan,), target)
        assert caught.value.errno == errno.ENOENT
    assert mountinfo.mounted_at(target) is None


def test_the_caller_decides_no_program(target: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program of that name on the caller's PATH is not started."""
    trap = tmp_path / "bin" / "fuse-overlayfs"
    trap.parent.mkdir()
    trap.write_text(f"#!/bin/sh\ntouch {tmp_path}/caught\nexit 1\n")
    trap.chmod(0o755)
    monkeypatch.setenv("PATH", f"{trap.parent}:{os.environ['PATH']}")
    mounts.attach((union(tmp_path),), target)

    assert not (tmp_path / "caught").exists()


def test_opened(tmp_path: pathlib.Path) -> None:
    """A private mount is in no mount table, and its program ends with it."""
    lock = tmp_path / "lock"
    with mounts.opened((union(tmp_path, lock=str(lock)),)) as root:
        assert sorted(os.listdir(root)) == ["file-0", "file-1", "file-2"]
        assert mounts_from(tmp_path) == []
        assert not locks.FileLock(str(lock), timeout=0).is_free()
    with locks.FileLock(str(lock), timeout=30):
        pass


def test_read_only(target: str, tmp_path: pathlib.Path) -> None:
    """Nothing can be written through a read-only mount, also where the program would."""
    mounts.attach((attrs.evolve(union(tmp_path), readonly=True),), target)

    with pytest.raises(OSError, match="Read-only"):
        pathlib.Path(target, "new").touch()


def test_one_writer_and_many_readers(target: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While one program writes to directories no second one is started to; to read them they are."""
    monkeypatch.setattr(fuse_mount, "_PATIENCE", 0.1)
    plan = union(tmp_path, lock=str(tmp_path / "lock"))
    view = attrs.evolve(
        plan, readonly=True, options=tuple(one for one in plan.options if one[0] in {"lowerdir+", "lock"})
    )
    mounts.attach((plan,), target)
    with mounts.opened((view,)) as one, mounts.opened((view,)) as two:
        assert os.listdir(one) == os.listdir(two)
    with pytest.raises(SyscallError) as caught, mounts.opened((plan,)):
        pass
    assert caught.value.errno == errno.EBUSY
    mounts.detach(target)
    monkeypatch.undo()
    with mounts.opened((plan,)):
        pass


def test_who_mounts_waits_for_the_last_writer(tmp_path: pathlib.Path) -> None:
    """A writer that is about to end is waited for: mounting again at once always works."""
    plan = union(tmp_path, lock=str(tmp_path / "lock"))
    for number in range(5):
        with mounts.opened((plan,)) as root:
            os.mkdir(f"new{number}", dir_fd=root)

    assert len([name for name in os.listdir(tmp_path / "layer-upperdir") if name.startswith("new")]) == 5
