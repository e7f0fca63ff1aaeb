# ruff: noqa: INP001, S101 -- pytest asserts, and a folder of tests is no package
"""What the tests of the btrfs driver share."""

import contextlib
import os
import pathlib
import subprocess
import tempfile
from collections.abc import Iterator

from graphdrivers_btrfs import ioctls
from graphdrivers_btrfs.driver import BtrfsDriver

from graphdrivers import naivediff
from graphdrivers.archive.compare import every_pair
from graphdrivers.conformance.workbench import Workbench
from graphdrivers.driver import Driver
from graphdrivers.kit import layerdirs
from graphdrivers.linux import filesystems

_PATH = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"


def program(*command: str) -> str:
    """Run a program of the administrator's, and give what it prints."""
    environment = {**os.environ, "PATH": _PATH}
    return subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout


def driver_of(bench: Workbench) -> BtrfsDriver:
    """Give the driver as what it is."""
    assert isinstance(bench.driver, BtrfsDriver)
    return bench.driver


def tree_of(driver: Driver, layer: str) -> str:
    """Give the root of a layer's subvolume."""
    return os.path.join(driver.home, "layers", layer, "tree")


def subvolumes_below(folder: str) -> list[str]:
    """Give the paths of all subvolumes below a folder, found by looking at everything."""
    found = []
    for above, names, _ in os.walk(folder):
        for name in names:
            path = os.path.join(above, name)
            if os.lstat(path).st_ino == ioctls.FIRST_INODE:
                found.append(os.path.relpath(path, folder))
    return sorted(found)


def make_subvolume(path: str | pathlib.Path) -> str:
    """Make an empty subvolume, as a container does."""
    folder, name = os.path.split(path)
    with layerdirs.directory(folder) as opened:
        ioctls.make_subvolume(opened, os.fsencode(name))
    return str(path)


def agree(bench: Workbench, layer: str) -> list[tuple[str, str]]:
    """Check that the changes, the diff and the size of a layer are what the naive walk finds; give the changes."""
    driver = driver_of(bench)
    assert bench.can.native_diff == (driver.pairs(layer) is not every_pair), "no search was made"
    slow = naivediff.differences(driver, driver.record(layer))
    assert driver.usage(layer) == naivediff.used(slow)
    with contextlib.closing(naivediff.diff(driver, layer)) as stream:
        assert bench.diff(layer) == stream.read(1 << 30) + b"".join(iter(lambda: stream.read(1 << 20), b""))
    wanted = [(change.kind.letter, change.path) for change in naivediff.changes(driver, layer)]
    assert bench.changes(layer) == wanted
    return wanted


@contextlib.contextmanager
def small_btrfs(size: int, *options: str, make: tuple[str, ...] = ()) -> Iterator[str]:
    """Give a fresh btrfs file system of ``size`` bytes, to be mounted in the mount namespace of ``with-btrfs``."""
    in_memory = os.path.isdir("/dev/shm")  # noqa: S108 - a file without a name soon
    with tempfile.TemporaryDirectory(dir="/dev/shm" if in_memory else None) as folder:  # noqa: S108
        image, place = os.path.join(folder, "image"), os.path.join(folder, "place")
        os.mkdir(place)
        pathlib.Path(image).touch()
        os.truncate(image, size)
        program("mkfs.btrfs", "-q", *make, image)
        program("mount", "-o", ",".join(("loop", *options)), image, place)
        os.unlink(image)
        try:
            assert filesystems.fs_type(place) == "btrfs"
            yield place
        finally:
            program("umount", place)
