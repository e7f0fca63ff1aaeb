"""Locks between threads and processes."""

import os
import pathlib
import subprocess
import sys
import threading
import time

import pytest

from graphdrivers import errors
from graphdrivers.linux.locks import FileLock

HOLD = """
import sys, time
from graphdrivers.linux.locks import FileLock
FileLock(sys.argv[1], shared=sys.argv[2] == "shared").acquire()
print("held", flush=True)
time.sleep(60)
"""


@pytest.fixture
def path(tmp_path: pathlib.Path) -> str:
    """Where the lock is."""
    return str(tmp_path / "lock")


def test_processes_exclude_each_other(path: str) -> None:
    """Another process holds it: we time out; it is killed: we have it."""
    with subprocess.Popen([sys.executable, "-c", HOLD, path, "exclusive"], stdout=subprocess.PIPE) as holder:
        assert holder.stdout
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(errors.LockTimeout) as caught:
            FileLock(path, timeout=0.02).acquire()

        assert caught.value.root == path

        holder.kill()
    with FileLock(path, timeout=10):
        pass


def test_shared_holders(path: str) -> None:
    """Shared holders let each other in, and keep an exclusive one out."""
    with FileLock(path, shared=True), FileLock(path, shared=True, timeout=0), pytest.raises(errors.LockTimeout):
        FileLock(path, timeout=0).acquire()
    with FileLock(path, timeout=0), pytest.raises(errors.LockTimeout):
        FileLock(path, shared=True, timeout=0).acquire()


@pytest.mark.parametrize("one_object", [True, False])
@pytest.mark.parametrize("timeout", [None, 30])
def test_threads_exclude_each_other(path: str, timeout: float | None, *, one_object: bool) -> None:
    """Threads take turns, with a lock object of their own or with one for all."""
    common, inside, worst = FileLock(path, timeout=timeout), [0], [0]

    def work() -> None:
        for _ in range(20):
            with common if one_object else FileLock(path, timeout=timeout):
                inside[0] += 1
                worst[0] = max(worst[0], inside[0])
                time.sleep(0)
                inside[0] -= 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert worst == [1]


def test_unrelated_close_keeps_it(path: str) -> None:
    """Closing another descriptor of the file does not drop the lock, as it would with classic POSIX locks."""
    with FileLock(path):
        with open(path, "rb"):
            pass
        with pytest.raises(errors.LockTimeout):
            FileLock(path, timeout=0).acquire()


def test_failed_attempt_leaks_nothing(path: str) -> None:
    """Giving up closes what was opened."""
    with FileLock(path):
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(5):
            with pytest.raises(errors.LockTimeout):
                FileLock(path, timeout=0).acquire()

        assert len(os.listdir("/proc/self/fd")) == before


def test_file_is_private_and_stays(path: str) -> None:
    """Others cannot open the lock file, and releasing does not remove it."""
    with FileLock(path):
        pass

    assert os.stat(path).st_mode & 0o777 == 0o600


def test_symbolic_link_is_refused(path: str) -> None:
    """A planted symbolic link is not followed."""
    os.symlink("elsewhere", path)
    with pytest.raises(OSError, match="symbolic"):
        FileLock(path).acquire()


def test_release_without_acquire(path: str) -> None:
    """Letting go of what is not held is a mistake that shows."""
    with pytest.raises(IndexError):
        FileLock(path).release()


def test_places_of_one_file(path: str) -> None:
    """Locks of different places of a file do not meet; those of one place do, and that of the whole file all."""
    with FileLock(path, slot=7), FileLock(path, slot=2**62 - 1, timeout=0):
        with pytest.raises(errors.LockTimeout):
            FileLock(path, slot=7, timeout=0).acquire()
        with pytest.raises(errors.LockTimeout):
            FileLock(path, timeout=0).acquire()
    assert os.path.getsize(path) == 0


def test_asking_takes_nothing(path: str) -> None:
    """Whether a lock is free can be asked without taking it, of a shared one for both kinds."""
    assert FileLock(path, slot=3).is_free()
    with FileLock(path, shared=True, slot=3):
        assert not FileLock(path, slot=3).is_free()
        assert FileLock(path, shared=True, slot=3).is_free()
        assert FileLock(path, slot=4).is_free()
    with FileLock(path, slot=3, timeout=0):
        assert not FileLock(path, shared=True, slot=3).is_free()
