"""Durable writes, renames that replace nothing, and staging directories."""

import errno
import os
import pathlib
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest
from linuxtools import fail_with

from graphdrivers.errors import SyscallError
from graphdrivers.linux import durable, mountinfo, mounts, trees
from graphdrivers.model import Mount

STAGE = """
import sys, time
from graphdrivers.linux.durable import Staging
staging = Staging(sys.argv[1])
open(staging.path + "/file", "w").close()
print(staging.name, flush=True)
time.sleep(60)
"""


@pytest.fixture
def directory(tmp_path: pathlib.Path) -> Iterator[int]:
    """An open directory."""
    opened = os.open(tmp_path, os.O_RDONLY)
    yield opened
    os.close(opened)


@pytest.fixture(params=["renameat2", "checked"])
def renaming(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rename with the kernel's help, and as on a file system without it."""
    if request.param == "checked":
        monkeypatch.setattr(durable, "_renameat2", fail_with(errno.EINVAL))


def test_sync_calls(directory: int, tmp_path: pathlib.Path) -> None:
    """Files, directories and file systems can be synced, by path and by descriptor."""
    (tmp_path / "file").touch()
    durable.fsync_path(str(tmp_path / "file"))
    durable.fsync_directory(os.fsencode(tmp_path))
    durable.fsync_directory(directory)
    durable.syncfs(directory)


def test_sync_results_are_checked(directory: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sync that fails is never taken for one that worked."""
    with pytest.raises(NotADirectoryError):
        durable.fsync_directory("/proc/self/status")
    path_only = os.open(".", os.O_PATH, dir_fd=directory)
    with pytest.raises(SyscallError, match="syncfs") as caught:
        durable.syncfs(path_only)
    assert caught.value.errno == errno.EBADF
    os.close(path_only)

    monkeypatch.setattr(durable, "_syncfs", fail_with(errno.EIO))
    with pytest.raises(SyscallError) as caught:
        durable.syncfs(directory)
    assert caught.value.errno == errno.EIO


@pytest.mark.parametrize("content", [b"", b"new", b"x" * 3_000_000])
def test_write_atomic(directory: int, tmp_path: pathlib.Path, content: bytes) -> None:
    """The file has the new content and mode, whether it existed or not, and nothing else is left."""
    for sync in (True, False):
        durable.write_atomic(directory, "file", content, durable=sync)

        assert (tmp_path / "file").read_bytes() == content
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o600
    assert os.listdir(tmp_path) == ["file"]


def test_write_atomic_with_the_longest_name(directory: int) -> None:
    """The temporary name does not grow with the real one."""
    durable.write_atomic(directory, b"\xff" * 255, b"content")

    assert os.stat(b"\xff" * 255, dir_fd=directory).st_size == 7


@pytest.mark.parametrize("call", ["write", "fsync", "rename"])
def test_failed_write_changes_nothing(
    directory: int, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """When any step fails the old content stays and no temporary file is left."""
    (tmp_path / "file").write_text("old")

    def full(*_arguments: object, **_keywords: object) -> int:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, call, full)
    with pytest.raises(OSError, match="full"):
        durable.write_atomic(directory, "file", b"new")
    monkeypatch.undo()

    assert (tmp_path / "file").read_text() == "old"
    assert os.listdir(tmp_path) == ["file"]


def test_order_that_survives_a_power_cut(directory: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The content is synced before the rename, and the directory after it."""
    calls: list[str] = []
    for name in ("fsync", "rename"):
        real = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *a, _n=name, _r=real, **k: (calls.append(_n), _r(*a, **k))[1])
    durable.write_atomic(directory, "file", b"content")

    assert calls == ["fsync", "rename", "fsync"]


@pytest.mark.usefixtures("renaming")
def test_rename_noreplace(directory: int, tmp_path: pathlib.Path) -> None:
    """Files, links and directories move; whatever has the new name stays untouched."""
    (tmp_path / "dir").mkdir()
    (tmp_path / "dir" / "content").touch()
    (tmp_path / "file").write_text("file")
    (tmp_path / "link").symlink_to("nowhere")
    taken = tmp_path / "taken"
    for name in ("dir", "file", "link"):
        for kind in ("file", "dir", "full", "link"):
            if kind == "file":
                taken.touch()
            elif kind == "link":
                taken.symlink_to("nowhere")
            else:
                taken.mkdir()
            if kind == "full":
                (taken / "content").touch()
            inode = taken.lstat().st_ino
            with pytest.raises(FileExistsError):
                durable.rename_noreplace(directory, name, directory, b"taken")
            assert taken.lstat().st_ino == inode
            if kind == "full":
                (taken / "content").unlink()
            (taken.rmdir if kind in {"dir", "full"} else taken.unlink)()
        inode = (tmp_path / name).lstat().st_ino
        durable.rename_noreplace(directory, name, directory, "moved-" + name)

        assert (tmp_path / f"moved-{name}").lstat().st_ino == inode
        assert not (tmp_path / name).is_symlink()
        assert not (tmp_path / name).exists()


@pytest.mark.usefixtures("renaming")
def test_rename_of_nothing(directory: int) -> None:
    """A missing source is an error."""
    with pytest.raises(FileNotFoundError):
        durable.rename_noreplace(directory, "missing", directory, "new")


def test_rename_that_loses_a_race(directory: int, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the kernel's help, a directory that appears at the last moment is still not replaced."""
    monkeypatch.setattr(durable, "_renameat2", fail_with(errno.ENOSYS))
    (tmp_path / "dir").mkdir()
    real = os.rename

    def late(*arguments: object, **keywords: object) -> None:
        (tmp_path / "new").mkdir()
        (tmp_path / "new" / "content").touch()
        real(*arguments, **keywords)  # type: ignore[arg-type] # passed on

    monkeypatch.setattr(os, "rename", late)
    with pytest.raises(FileExistsError):
        durable.rename_noreplace(directory, "dir", directory, "new")

    assert (tmp_path / "dir").is_dir()


def test_staging_is_private_and_goes_away(tmp_path: pathlib.Path) -> None:
    """The directory is ours alone, whatever the umask, and is removed with its content at exit."""
    old = os.umask(0)
    try:
        with durable.Staging(str(tmp_path)) as staging:
            assert os.stat(staging.path).st_mode & 0o7777 == 0o700
            assert os.path.samestat(os.stat(staging.path), os.fstat(staging.fd))
            pathlib.Path(staging.path, "deep", "er").mkdir(parents=True)
    finally:
        os.umask(old)
    staging.close()

    assert os.listdir(tmp_path) == []


def test_staging_renamed_away_stays(tmp_path: pathlib.Path) -> None:
    """What was renamed to its place is not touched at exit."""
    (tmp_path / "tmp").mkdir()
    with durable.Staging(str(tmp_path / "tmp")) as staging:
        pathlib.Path(staging.path, "content").touch()
        os.rename(staging.path, tmp_path / "done")

    assert os.listdir(tmp_path / "done") == ["content"]
    assert os.listdir(tmp_path / "tmp") == []


def test_staging_on_error(tmp_path: pathlib.Path) -> None:
    """An error inside removes the directory and passes on."""
    with pytest.raises(KeyError), durable.Staging(str(tmp_path)):
        raise KeyError

    assert os.listdir(tmp_path) == []


def test_leftovers(tmp_path: pathlib.Path) -> None:
    """What a living maker holds is none; once it was killed, it is."""
    with subprocess.Popen([sys.executable, "-c", STAGE, str(tmp_path)], stdout=subprocess.PIPE) as maker:
        assert maker.stdout
        name = maker.stdout.readline().decode().strip()
        with durable.Staging(str(tmp_path)):
            assert list(durable.Staging.leftovers(str(tmp_path))) == []

        maker.send_signal(signal.SIGKILL)
    assert list(durable.Staging.leftovers(str(tmp_path))) == [name]


def test_leftovers_of_every_kind(tmp_path: pathlib.Path) -> None:
    """Stray files, links, pipes and sockets are left over too, and block nothing."""
    (tmp_path / "dir").mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("nowhere")
    os.mkfifo(tmp_path / "pipe")
    os.mknod(tmp_path / "socket", 0o140600)

    assert list(durable.Staging.leftovers(str(tmp_path))) == ["dir", "file", "link", "pipe", "socket"]


def test_cleaner_and_maker_never_share(tmp_path: pathlib.Path) -> None:
    """A cleaner that runs all the time never takes away a directory that a maker got."""
    stop = threading.Event()

    def clean() -> None:
        while not stop.is_set():
            for name in durable.Staging.leftovers(str(tmp_path)):
                os.rmdir(tmp_path / name)

    cleaner = threading.Thread(target=clean)
    cleaner.start()
    try:
        for _ in range(300):
            with durable.Staging(str(tmp_path)) as staging:
                assert os.path.samestat(os.stat(staging.path), os.fstat(staging.fd))
    finally:
        stop.set()
        cleaner.join()


@pytest.mark.usefixtures("root")
def test_staging_refuses_to_delete_a_mount(target: str, tmp_path: pathlib.Path) -> None:
    """Something mounted in the directory is not deleted through; the error names it."""
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").touch()
    staging = durable.Staging(target)
    pathlib.Path(staging.path, "mnt").mkdir()
    mounts.attach((Mount("bind", str(tmp_path / "precious")),), f"{staging.path}/mnt")
    with pytest.raises(SyscallError, match="mnt"):
        staging.close()
    mounts.detach(f"{staging.path}/mnt")

    assert (tmp_path / "precious" / "file").exists()
    assert mountinfo.mounted_below(target) == []


def discard(folder: pathlib.Path) -> None:
    """Discard ``gone``, by way of ``parent``; it is out of sight before it is deleted."""
    with durable.discarding(str(folder / "gone"), str(folder / "parent")):
        pass


def test_discarding_takes_no_name(tmp_path: pathlib.Path) -> None:
    """A discarded directory is gone from both places, and discarding it again is no error."""
    (tmp_path / "parent").mkdir()
    (tmp_path / "gone" / "deep").mkdir(parents=True)
    (tmp_path / "gone" / "deep" / "file").touch()
    for _ in range(2):
        discard(tmp_path)

    assert os.listdir(tmp_path) == ["parent"]
    assert os.listdir(tmp_path / "parent") == []


def test_discarding_beside_a_cleaner(tmp_path: pathlib.Path) -> None:
    """A cleaner that deletes leftovers meanwhile, and others that discard the same directory, are no trouble."""
    (tmp_path / "parent").mkdir()
    stop = threading.Event()

    def clean() -> None:
        while not stop.is_set():
            for name in durable.Staging.leftovers(str(tmp_path / "parent")):
                trees.remove_tree(cleaning, os.fsencode(name))

    cleaning = os.open(tmp_path / "parent", os.O_RDONLY | os.O_DIRECTORY)
    cleaner = threading.Thread(target=clean)
    cleaner.start()
    try:
        for _ in range(100):
            (tmp_path / "gone" / "deep").mkdir(parents=True)
            others = [threading.Thread(target=discard, args=(tmp_path,)) for _ in range(3)]
            for other in others:
                other.start()
            for other in others:
                other.join()
            assert not (tmp_path / "gone").exists()
    finally:
        stop.set()
        cleaner.join()
        os.close(cleaning)

    assert os.listdir(tmp_path / "parent") == []
