"""A full disk: an error that says so, layers that can be removed, and others untouched."""

import contextlib
import errno
import io
import os
from collections.abc import Callable, Iterator
from functools import partial

import attrs
import pytest

from graphdrivers import errors, loading
from graphdrivers.conformance.observe import Item, assert_same
from graphdrivers.conformance.workbench import Member, Workbench, layer_tar
from graphdrivers.edits import Create, Edit, Mkdir, Remove, Write
from graphdrivers.linux import mounts
from graphdrivers.model import Mount

_BASE: list[Edit] = [Mkdir("dir"), *(Create(f"dir/file{number}", b"x" * 9000) for number in range(8)), Create("top")]

_FULL = (errno.ENOSPC, errno.EDQUOT)


@attrs.frozen
class _Disk:
    """A small file system with a driver's home on it."""

    root: str
    bench: Workbench
    before: dict[str, Item]
    """What the layer ``base`` shows."""

    def fill(self) -> None:
        """Leave no byte."""
        with open(os.path.join(self.root, "ballast"), "wb", buffering=0) as file:
            for size in (1 << 16, 1 << 12, 1):
                _until_full(partial(file.write, bytes(size)))

    def fill_inodes(self) -> None:
        """Leave no inode."""
        folder = os.path.join(self.root, "many")
        os.mkdir(folder)
        names = iter(range(1 << 20))
        _until_full(lambda: os.mknod(os.path.join(folder, str(next(names)))))

    def free(self) -> None:
        """Make room again."""
        folder = os.path.join(self.root, "many")
        if os.path.isdir(folder):
            for name in os.listdir(folder):
                os.unlink(os.path.join(folder, name))
            os.rmdir(folder)
        if os.path.exists(os.path.join(self.root, "ballast")):
            os.unlink(os.path.join(self.root, "ballast"))

    def check_rest(self, *layers: str) -> None:
        """Check that these layers and the base are there, the base as it was, and that all can go on."""
        self.bench.driver.settle()
        assert sorted(record.name for record in self.bench.driver.layers()) == sorted([*layers, "base"])
        assert_same(self.before, self.bench.tree("base"))
        self.bench.layer("afterwards", "base", [Remove("top"), Create("dir/new", b"n" * 5000)])
        assert "top" not in self.bench.contents("afterwards")


def _if_there_is_room(step: Callable[[], object]) -> bool:
    """Do something; false where the disk is full, any other failure is passed on."""
    try:
        step()
    except OSError as error:
        if error.errno not in _FULL:
            raise
        return False
    return True


def _until_full(step: Callable[[], object]) -> None:
    while _if_there_is_room(step):
        pass


@pytest.fixture
def disk(bench: Workbench, fresh_root: str, driver_options: dict[str, str]) -> Iterator[_Disk]:
    """The driver on a file system of 8 MiB and 600 inodes."""
    root = os.path.join(fresh_root, "disk")
    os.mkdir(root)
    try:
        mounts.attach((Mount("tmpfs", "tmpfs", (("size", "8m"), ("nr_inodes", "600"))),), root)
    except PermissionError:
        pytest.skip("gated: this user may not mount a small file system")
    try:
        yield from _opened(bench.driver.name, root, driver_options)
    finally:
        mounts.detach(root)


def _opened(name: str, root: str, options: dict[str, str]) -> Iterator[_Disk]:
    try:
        driver = loading.load_driver(name, os.path.join(root, "home"), options)
    except errors.DriverUnavailable as error:
        pytest.skip(f"gated: {name} does not work on tmpfs here: {error}")
    scratch = os.path.join(root, "flat")
    os.mkdir(scratch)
    bench = Workbench(driver, scratch)
    bench.layer("base", None, _BASE)
    disk = _Disk(root, bench, bench.tree("base"))
    yield disk
    disk.free()
    bench.forget()


def _refused(attempt: Callable[[], object]) -> None:
    """Check that something fails for want of room, clearly."""
    with contextlib.suppress(errors.LimitExceeded):  # a driver may also see beforehand that there is no room
        assert not _if_there_is_room(attempt)


@pytest.mark.parametrize("members", ["one large file", "many small files", "too many names"])
def test_a_tar_that_does_not_fit(disk: _Disk, members: str) -> None:
    """A tar larger than the disk, in bytes or names, is an error; the layer can be removed, and all else is whole."""
    tars: dict[str, list[Member | str]] = {
        "one large file": ["first", Member("large", bytes(9 << 20))],
        "many small files": [Member(f"small{number}", b"s" * 30_000) for number in range(300)],
        "too many names": [f"dir{number}/" for number in range(700)],
    }
    tar = layer_tar(tars[members])
    disk.bench.driver.create("layer", "base")
    _refused(lambda: disk.bench.driver.apply("layer", io.BytesIO(tar)))
    disk.bench.driver.remove("layer")

    disk.check_rest()


def test_a_layer_that_is_written_full(disk: _Disk) -> None:
    """A container that fills the disk learns it from its own write, keeps what fitted, and comes to rest."""
    disk.bench.driver.create("layer", "base")
    with disk.bench.writing("layer") as root:
        Create("fits", b"f" * 1000).perform(root)
        with open(os.path.join(root, "large"), "wb", buffering=0) as file:
            _until_full(lambda: file.write(bytes(1 << 16)))
        Remove("large").perform(root)
        Write("top", b"t" * 1000).perform(root)
    disk.bench.driver.seal("layer")
    shown = disk.bench.contents("layer")

    assert (shown["fits"], shown["top"]) == ("f" * 1000, "t" * 1000)
    disk.check_rest("layer")


@pytest.mark.parametrize("what", ["bytes", "inodes"])
def test_creating_on_a_full_disk(disk: _Disk, what: str) -> None:
    """A layer that there is no room for is not created; with room its name is free."""
    disk.fill() if what == "bytes" else disk.fill_inodes()
    made = _if_there_is_room(lambda: disk.bench.driver.create("layer", "base"))
    assert [record.name for record in disk.bench.driver.layers()] == (["layer", "base"] if made else ["base"])
    disk.free()
    if not made:
        disk.bench.driver.create("layer", "base")
    disk.bench.driver.seal("layer")

    assert_same(disk.before, disk.bench.tree("layer"))
    disk.check_rest("layer")


@pytest.mark.parametrize("what", ["bytes", "inodes"])
def test_removing_on_a_full_disk(disk: _Disk, what: str) -> None:
    """A full disk can be emptied: removing a layer needs no room."""
    disk.bench.layer("layer", "base", [Create("large", bytes(1 << 20)), *(Create(f"n{n}") for n in range(20))])
    disk.fill() if what == "bytes" else disk.fill_inodes()
    disk.bench.driver.remove("layer")

    assert [record.name for record in disk.bench.driver.layers()] == ["base"]
    room = os.statvfs(disk.root)
    assert room.f_bavail * room.f_frsize >= 1 << 20 if what == "bytes" else room.f_ffree >= 20
    disk.free()
    disk.check_rest()


@pytest.mark.parametrize("what", ["bytes", "inodes"])
def test_settling_and_sealing_on_a_full_disk(disk: _Disk, what: str) -> None:
    """What was written before the disk was full is there afterwards, whether or not there was room to come to rest."""
    disk.bench.driver.create("layer", "base")
    with mounts.opened(disk.bench.driver.mounts("layer")) as root:
        Remove("dir/file0").perform(f"/proc/self/fd/{root}")
        Create("mine", b"m" * 100).perform(f"/proc/self/fd/{root}")
    disk.fill() if what == "bytes" else disk.fill_inodes()
    for verb in (disk.bench.driver.settle, disk.bench.driver.seal):
        _if_there_is_room(partial(verb, "layer"))
    disk.free()
    disk.bench.driver.settle("layer")
    disk.bench.driver.seal("layer")
    shown = disk.bench.contents("layer")

    assert shown["mine"] == "m" * 100
    assert "dir/file0" not in shown
    disk.check_rest("layer")


@pytest.mark.parametrize("what", ["bytes", "inodes"])
def test_reading_from_a_full_disk(disk: _Disk, what: str) -> None:
    """Views, changes, diffs and sizes of layers need no room."""
    disk.bench.layer("layer", "base", [Remove("top"), Create("mine", b"m")])
    wanted = disk.bench.diff("layer"), disk.bench.changes("layer"), disk.bench.tree("layer")
    disk.fill() if what == "bytes" else disk.fill_inodes()

    assert (disk.bench.diff("layer"), disk.bench.changes("layer"), disk.bench.tree("layer")) == wanted
    assert disk.bench.driver.usage("layer").bytes > 0
