"""Project quotas on real file systems: numbers of directories, what they take, limits that hold."""

import errno
import os
import pathlib
import subprocess

import pytest
from linuxtools import fail_with

from graphdrivers.errors import SyscallError
from graphdrivers.linux import quota
from graphdrivers.linux.quota import Project, Quota

MIB = 1 << 20
NUMBER = 4711


def made(place: pathlib.Path, name: str = "tree", number: int = NUMBER) -> str:
    """Make a directory of a project."""
    (place / name).mkdir()
    quota.set_project(str(place / name), Project(number, inherited=True))
    return str(place / name)


def write(path: str, size: int) -> None:
    """Write a file through the mount's own rules, as a process that may not pass limits."""
    code = f"import sys; open(sys.argv[1], 'wb').write(bytes({size}))"
    without = ["setpriv", "--bounding-set", "-sys_resource", "--inh-caps", "-sys_resource"]
    done = subprocess.run([*without, "python3", "-c", code, path], check=False, capture_output=True, text=True)
    if done.returncode:
        assert "Disk quota exceeded" in done.stderr or "No space left on device" in done.stderr, done.stderr
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT), path)


def test_limits_are_enforced_here(limited: pathlib.Path) -> None:
    """It is told that a file system is mounted with project quotas."""
    assert quota.is_enforced(str(limited))


def test_limits_are_not_enforced_elsewhere(tmp_path: pathlib.Path, root: None) -> None:
    """A file system without quotas is told apart, and one that is no disk at all."""
    del root
    assert not quota.is_enforced("/proc")
    place = tmp_path / "place"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "none", place], check=True)
    try:
        assert not quota.is_enforced(str(place))
    finally:
        subprocess.run(["umount", place], check=True)


def test_a_directory_without_project(limited: pathlib.Path) -> None:
    """A new file system's directories belong to no project, and nothing was ever used by another one."""
    assert quota.project_of(str(limited)) == Project(0, inherited=False)
    assert quota.quota_of(str(limited), NUMBER) == Quota()


def test_what_is_made_in_a_project_belongs_to_it(limited: pathlib.Path) -> None:
    """A number is handed down to directories and counted; without ``inherited`` it is the directory's alone."""
    tree = made(limited)
    os.mkdir(os.path.join(tree, "inside"))
    alone = limited / "alone"
    alone.mkdir()
    quota.set_project(str(alone), Project(NUMBER + 1))
    (alone / "inside").mkdir()

    assert quota.project_of(os.path.join(tree, "inside")) == Project(NUMBER, inherited=True)
    assert quota.quota_of(str(limited), NUMBER).inodes == 2
    assert quota.project_of(str(alone)) == Project(NUMBER + 1, inherited=False)
    assert quota.project_of(str(alone / "inside")) == Project()
    assert quota.quota_of(str(limited), NUMBER + 1).inodes == 1


def test_a_limit_holds(limited: pathlib.Path) -> None:
    """What is set is read back; less fits, more does not; a larger limit and none take effect at once."""
    tree = made(limited)
    quota.set_limit(tree, NUMBER, 8 * MIB)

    assert quota.quota_of(tree, NUMBER).limit == 8 * MIB
    write(os.path.join(tree, "fits"), 4 * MIB)
    assert 4 * MIB <= quota.quota_of(tree, NUMBER).used <= 8 * MIB
    with pytest.raises(OSError, match="quota"):
        write(os.path.join(tree, "does not"), 8 * MIB)
    quota.set_limit(tree, NUMBER, 40 * MIB)
    write(os.path.join(tree, "does not"), 8 * MIB)
    quota.set_limit(tree, NUMBER, 0)
    write(os.path.join(tree, "more"), 60 * MIB)


def test_limits_of_projects_are_apart(limited: pathlib.Path) -> None:
    """One project's limit binds no other's."""
    full, free = made(limited, "full"), made(limited, "free", NUMBER + 1)
    quota.set_limit(full, NUMBER, 4 * MIB)
    write(os.path.join(free, "file"), 8 * MIB)
    with pytest.raises(OSError, match="quota"):
        write(os.path.join(full, "file"), 8 * MIB)


@pytest.mark.parametrize("size", [1, 511, 513, 100_001, 1 << 70])
def test_odd_sizes(limited: pathlib.Path, size: int) -> None:
    """A limit is never less than what was asked for, and a large one is no error."""
    tree = made(limited)
    quota.set_limit(tree, NUMBER, size)

    found = quota.quota_of(tree, NUMBER).limit
    assert min(size, 1 << 60) <= found
    assert size > 1 << 60 or found < size + 4096


def test_nothing_moves_into_another_project(limited: pathlib.Path) -> None:
    """Links and renames into a directory that hands another number down are refused; out of it a rename works."""
    tree = made(limited)
    (limited / "file").touch()
    for move in (os.link, os.rename):
        with pytest.raises(OSError, match="cross-device") as caught:
            move(limited / "file", os.path.join(tree, "file"))
        assert caught.value.errno == errno.EXDEV
    os.mkdir(os.path.join(tree, "out"))
    os.rename(os.path.join(tree, "out"), limited / "out")

    assert quota.project_of(str(limited / "out")).number == NUMBER


def test_before_linux_5_14(limited: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without ``quotactl_fd`` the device is found in the mount table."""
    monkeypatch.setattr(quota, "_quotactl_fd", fail_with(errno.ENOSYS))
    tree = made(limited)
    quota.set_limit(tree, NUMBER, MIB)

    assert quota.is_enforced(tree)
    assert quota.quota_of(tree, NUMBER).limit == MIB


def test_without_the_device(limited: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the mount table leads to no device, as in a container, one is made for the occasion and leaves nothing."""
    monkeypatch.setattr(quota, "_quotactl_fd", fail_with(errno.ENOSYS))
    monkeypatch.setattr(quota.mountinfo, "read", list)
    tree = made(limited)
    quota.set_limit(tree, NUMBER, MIB)

    assert quota.quota_of(tree, NUMBER).limit == MIB
    assert os.listdir(tree) == []


def test_without_quotas_and_without_the_call(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On an older kernel a file system that is on no device enforces nothing."""
    monkeypatch.setattr(quota, "_quotactl_fd", fail_with(errno.ENOSYS))
    assert not quota.is_enforced("/proc")
    del tmp_path


def test_errors_name_the_call(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A refusal that is not about missing quotas is passed on, with the call and the directory."""
    monkeypatch.setattr(quota, "_quotactl_fd", fail_with(errno.EPERM))
    for call in (quota.is_enforced, lambda path: quota.quota_of(path, 1), lambda path: quota.set_limit(path, 1, 1)):
        with pytest.raises(SyscallError, match="quotactl_fd") as caught:
            call(str(tmp_path))
        assert caught.value.errno == errno.EPERM
