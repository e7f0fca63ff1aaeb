"""What only the new mount API does."""

import errno
import os
import pathlib

import pytest
from linuxtools import overlay

from graphdrivers.errors import SyscallError
from graphdrivers.linux import mountapi, mountinfo, mounts, probe
from graphdrivers.model import Mount


def test_the_kernel_says_why(target: str, tmp_path: pathlib.Path) -> None:
    """The reason that the kernel wrote into the context is part of the error."""
    with pytest.raises(SyscallError, match="tmpfs: Unknown parameter 'bogus'") as caught:
        mounts.attach((Mount("tmpfs", "x", (("bogus", "1"),)),), target)

    assert caught.value.errno == errno.EINVAL
    if not probe.has_lowerdir_append():
        pytest.skip("overlay itself needs Linux 6.5 for that")
    with pytest.raises(SyscallError, match="overlay: Unknown parameter 'bogus'"):
        mounts.attach((Mount("overlay", "x", (("bogus", "1"),)),), target)
    with pytest.raises(FileNotFoundError, match="missing"):
        mounts.attach((Mount("overlay", "x", (("lowerdir+", str(tmp_path / "missing")),)),), target)


def test_kernel_without_layers_by_descriptor(
    target: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Linux 6.5 to 6.12 take strings only: long paths are named through /proc."""

    def refuse(*_arguments: object) -> None:
        raise SyscallError(errno.EINVAL, "fsconfig")

    monkeypatch.setattr(mountapi, "fsconfig_set_fd", refuse)
    for number, names in enumerate(("n" * 200 + "/" + "m" * 90 + "-{}", "od,d:\\ {}\udcff")):
        mounts.attach((overlay(tmp_path / str(number), 3, names),), target)

        assert len(os.listdir(target)) == 3

        mounts.detach(target)


def test_lookup_happens_once(target: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A directory swapped for a link after the plan was begun is not followed."""
    (tmp_path / "source").mkdir()
    (tmp_path / "victim").mkdir()
    real = mountapi.move_mount

    def swap_then_move(*arguments: object, **keywords: object) -> None:
        os.rename(target, tmp_path / "moved")
        os.symlink(tmp_path / "victim", target)
        real(*arguments, **keywords)  # type: ignore[arg-type] # passed on

    monkeypatch.setattr(mountapi, "move_mount", swap_then_move)
    mounts.attach((Mount("bind", str(tmp_path / "source")),), target)

    assert mountinfo.mounted_at(str(tmp_path / "victim")) is None
    assert mountinfo.mounted_at(str(tmp_path / "moved"))
    mounts.detach(str(tmp_path / "moved"))
    os.unlink(target)
    os.rename(tmp_path / "moved", target)
