"""What only mount(2) needs."""

import errno
import os
import pathlib
import subprocess
import sys

import pytest
from linuxtools import overlay

from graphdrivers.errors import SyscallError
from graphdrivers.linux import legacy_mount, mountapi, mountinfo, mounts
from graphdrivers.model import Mount

pytestmark = pytest.mark.usefixtures("legacy")

LIMIT = os.sysconf("SC_PAGE_SIZE") - 1


def lowers(base: pathlib.Path, length: int) -> tuple[tuple[str, str | None], ...]:
    """Make lower directories whose options take ``length`` bytes."""
    left = length - len("lowerdir=")
    usual = len(str(base)) + 60
    names = []
    while left > 2 * usual:
        names.append(f"{len(names):03}".ljust(usual - len(str(base)) - 1, "x"))
        left -= usual + 1
    names.append("y" * (left - len(str(base)) - 1))
    for name in names:
        (base / name).mkdir(parents=True)
    return tuple(("lowerdir+", str(base / name)) for name in names)


@pytest.mark.parametrize("length", [LIMIT - 1, LIMIT, LIMIT + 1])
def test_options_around_one_page(target: str, tmp_path: pathlib.Path, length: int) -> None:
    """Options that just fit are passed as they are; one byte more and the directories get short names."""
    options = lowers(tmp_path / "layers", length)
    for number, (_, directory) in enumerate(options):
        pathlib.Path(directory or "", str(number)).touch()
    text, where = legacy_mount.overlay_options(options), os.getcwd()
    assert len(text) == length
    mounts.attach((Mount("overlay", "x", options),), target)
    found = mountinfo.mounted_at(target)

    assert found is not None
    assert (found.option("lowerdir") == os.fsdecode(text)[len("lowerdir=") :]) == (length <= LIMIT)
    assert len(os.listdir(target)) == len(options)
    assert os.getcwd() == where


def test_options_that_cannot_fit(target: str, tmp_path: pathlib.Path) -> None:
    """Options beyond a page are refused by us: the kernel would silently cut them."""
    deep = "/".join(["d" * 200] * 11)
    for mount in (overlay(tmp_path, 2, deep + "-{}"), Mount("tmpfs", "x", (("size", "0" * 5000),))):
        with pytest.raises(SyscallError) as caught:
            mounts.attach((mount,), target)

        assert caught.value.errno == errno.E2BIG
        assert mountinfo.mounted_at(target) is None


def test_escapes() -> None:
    """Each character that separates options or directories is escaped."""
    options = (("lowerdir+", "/a:b"), ("lowerdir+", "/c\\,"), ("upperdir", "/u,\udcff"), ("userxattr", None))

    assert legacy_mount.overlay_options(options) == rb"lowerdir=/a\:b:/c\\\,,upperdir=/u\," + b"\xff,userxattr"


def test_failed_remount_undoes_the_bind(target: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bind that cannot be made read-only does not stay writable."""
    real = mountapi.mount

    def refuse_remount(*arguments: object) -> None:
        if arguments[3] & mountapi.MS_REMOUNT:  # type: ignore[operator] # flags
            raise SyscallError(errno.EPERM, "mount")
        real(*arguments)  # type: ignore[arg-type] # passed on

    monkeypatch.setattr(mountapi, "mount", refuse_remount)
    with pytest.raises(SyscallError):
        mounts.attach((Mount("bind", str(tmp_path), readonly=True),), target)

    assert mountinfo.mounted_at(target) is None


IN_NAMESPACE = """
import sys
from graphdrivers.linux import mountinfo, mounts, probe
from graphdrivers.model import Mount
probe.has_new_mount_api = lambda: False
mounts.attach((Mount("bind", sys.argv[1] + "/from", readonly=True),), sys.argv[1] + "/to")
assert {"ro", "nosuid", "nodev"} <= set(mountinfo.mounted_at(sys.argv[1] + "/to").options)
"""


def test_locked_flags(target: str) -> None:
    """A read-only bind keeps the flags that a user namespace may not clear, without which it would be refused."""
    mounts.attach((Mount("tmpfs", "x", (("nosuid", None), ("nodev", None), ("mode", "0777"))),), target)
    for name in ("from", "to"):
        os.mkdir(f"{target}/{name}")
    subprocess.run(["unshare", "-Urm", sys.executable, "-c", IN_NAMESPACE, target], check=True)
