"""The clean-up that always happens."""

import os
import pathlib
import signal
import subprocess

import pytest

from graphdrivers.bench import cleaning


def test_scratch_is_removed_whatever_happens(tmp_path: pathlib.Path) -> None:
    """Files, folders without permissions: all gone, also after Ctrl-C."""

    def interrupted() -> None:
        with cleaning.scratch(str(tmp_path)) as folder:
            os.makedirs(os.path.join(folder, "a", "b"))
            os.chmod(os.path.join(folder, "a"), 0)
            assert str(os.getpid()) in os.path.basename(folder)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert os.listdir(tmp_path) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
def test_scratch_unmounts(tmp_path: pathlib.Path) -> None:
    """Mounts in it, stacked ones too, are undone, and what they showed is left alone."""
    keep = tmp_path / "keep"
    keep.mkdir()
    (keep / "file").touch()
    with cleaning.scratch(str(tmp_path)) as folder:
        target = os.path.join(folder, "target")
        os.mkdir(target)
        for _ in range(2):
            subprocess.run(["mount", "--bind", str(keep), target], check=True)
    assert os.listdir(tmp_path) == ["keep"]
    assert os.listdir(keep) == ["file"]


def test_clean_up_is_not_interrupted() -> None:
    """Signals wait until the block has ended."""
    reached: list[str] = []

    def interrupted() -> None:
        with cleaning.uninterrupted():
            os.kill(os.getpid(), signal.SIGINT)
            reached.append("the end of the block")
        reached.append("what comes after it")

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert reached == ["the end of the block"]


def test_a_lost_interrupt_comes_again() -> None:
    """What a signal raised and a failing clean-up replaced is raised once more; afterwards signals are as before."""
    ordinary = signal.getsignal(signal.SIGINT)

    def interrupted() -> None:
        try:
            os.kill(os.getpid(), signal.SIGINT)
            signal.sigtimedwait([], 5)  # the handler runs before this ends
        finally:
            raise OSError("busy")

    def work() -> None:
        with cleaning.interruptible() as look:
            look()
            with pytest.raises(OSError, match="busy"):
                interrupted()
            look()

    with pytest.raises(KeyboardInterrupt):
        work()
    assert signal.getsignal(signal.SIGINT) is ordinary
