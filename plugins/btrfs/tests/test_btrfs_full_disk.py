# ruff: noqa: INP001, S101 -- pytest asserts, and a folder of tests is no package
"""A full btrfs: an error that says so, layers that can be removed, others untouched. The suite's disk is a tmpfs."""

import errno
import io
import os
from collections.abc import Callable, Iterator

import pytest
from btrfstools import driver_of, small_btrfs, subvolumes_below, tree_of

from graphdrivers import errors, loading
from graphdrivers.conformance.observe import Item, assert_same
from graphdrivers.conformance.workbench import Member, Workbench, layer_tar
from graphdrivers.edits import Create, Remove, replay
from graphdrivers.linux import mounts

FULL = (errno.ENOSPC, errno.EDQUOT)
BASE = [Create(f"file{number}", b"x" * 9000) for number in range(8)]


class Disk:
    """A small file system with a driver's home on it."""

    def __init__(self, root: str) -> None:
        self.root = root
        os.mkdir(f"{root}/flat")
        os.mkdir(f"{root}/many")
        self.bench = Workbench(loading.load_driver("btrfs", f"{root}/home"), f"{root}/flat")
        self.bench.layer("base", None, BASE)
        self.before: dict[str, Item] = self.bench.tree("base")

    def fill(self, what: str) -> None:
        """Leave no byte for contents, or for metadata either."""
        with open(f"{self.root}/ballast", "wb", buffering=0) as file:
            for size in (1 << 20, 1 << 16, 1 << 12):
                until_full(lambda size=size: file.write(os.urandom(size)))
        if what == "metadata":
            names = iter(range(1 << 30))
            until_full(lambda: self._small(next(names)))
        os.sync()

    def _small(self, number: int) -> None:
        with open(f"{self.root}/many/{number:0200}", "wb", buffering=0) as file:
            file.write(b"i" * 1500)  # in the tree itself

    def free(self) -> None:
        """Make room again."""
        os.unlink(f"{self.root}/ballast")  # to cut it off would take more room
        for entry in os.scandir(f"{self.root}/many"):
            os.unlink(entry.path)
        os.sync()


def until_full(step: Callable[[], object]) -> None:
    """Repeat a step until there is no room for it."""
    while fits(step):
        pass


def fits(step: Callable[[], object]) -> bool:
    """Do a step; false where there is no room for it."""
    try:
        step()
    except OSError as error:
        if error.errno not in FULL:
            raise
        return False
    return True


@pytest.fixture(params=["separate", "mixed"])
def disk(request: pytest.FixtureRequest) -> Iterator[Disk]:
    """A file system of 128 MiB; contents and metadata lie apart, or together."""
    with small_btrfs(128 << 20, make=("--mixed",) if request.param == "mixed" else ()) as place:
        yield Disk(place)


def check_rest(disk: Disk, *layers: str) -> None:
    """Check that these layers and the base are there, that nothing else is, and that all can go on."""
    disk.bench.driver.settle()
    home = disk.bench.driver.home
    assert sorted(record.name for record in disk.bench.driver.layers()) == sorted([*layers, "base"])
    assert subvolumes_below(home) == sorted(f"layers/{layer}/tree" for layer in (*layers, "base"))
    assert os.listdir(os.path.join(home, "tmp")) == []
    assert_same(disk.before, disk.bench.tree("base"))
    disk.bench.layer("afterwards", "base", [Remove("file1")])
    assert "file1" not in disk.bench.contents("afterwards")


def test_a_tar_that_does_not_fit(disk: Disk) -> None:
    """A tar larger than the disk is an error; the layer can be removed, and its room is free again."""
    disk.bench.driver.create("layer", "base")
    large = layer_tar(Member(f"large{number}", os.urandom(1 << 20)) for number in range(160))
    with pytest.raises((OSError, errors.LimitExceeded), match=r"space|limit"):
        disk.bench.driver.apply("layer", io.BytesIO(large))
    disk.bench.driver.remove("layer")

    check_rest(disk)


@pytest.mark.parametrize("what", ["contents", "metadata"])
def test_verbs_on_a_full_disk(disk: Disk, what: str) -> None:
    """Each verb works or says that there is no room; what was written is kept, and nothing half is made."""
    driver = disk.bench.driver
    driver.create("written", "base")
    with mounts.opened(driver.mounts("written")) as root:
        replay([Remove("file0"), Create("mine", b"m" * 100)], f"/proc/self/fd/{root}")
    disk.fill(what)
    made = [name for name in ("one", "two") if fits(lambda name=name: driver.create(name, "base"))]
    made += ["branch"] if fits(lambda: driver_of(disk.bench).snapshot("written", "branch")) else []
    for verb in (driver.settle, driver.seal):
        fits(lambda verb=verb: verb("written"))
    assert sorted(record.name for record in driver.layers()) == sorted([*made, "written", "base"])
    disk.free()
    driver.settle("written")
    driver.seal("written")

    assert disk.bench.changes("written") == [("D", "/file0"), ("A", "/mine")]
    check_rest(disk, "written", *made)


@pytest.mark.parametrize("what", ["contents", "metadata"])
def test_reading_and_removing_on_a_full_disk(disk: Disk, what: str) -> None:
    """Views, changes and diffs need no room, and neither does removing, after which there is some; a home opens."""
    disk.bench.layer("layer", "base", [Remove("file0"), Create("large", os.urandom(8 << 20))])
    wanted = disk.bench.changes("layer"), disk.bench.tree("layer"), disk.bench.diff("layer")
    disk.fill(what)
    assert (disk.bench.changes("layer"), disk.bench.tree("layer"), disk.bench.diff("layer")) == wanted
    reopened = loading.load_driver("btrfs", disk.bench.driver.home)
    reopened.settle()
    reopened.remove("layer")
    os.sync()

    assert not os.path.exists(tree_of(reopened, "layer"))
    disk.free()
    check_rest(disk)
