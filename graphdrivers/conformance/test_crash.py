"""A process killed in the middle of a verb: the next one finds whole layers, and the home without leftovers."""

import contextlib
import io
import os
import tarfile
from collections.abc import Callable, Iterator

import pytest

from graphdrivers import errors, loading
from graphdrivers.conformance.observe import assert_same
from graphdrivers.conformance.processes import at_once, killed_at, some_of, steps_of
from graphdrivers.conformance.workbench import Member, Workbench, directory, layer_tar, opaque, whiteout
from graphdrivers.driver import AppliesAhead, Driver
from graphdrivers.edits import Create, Edit, Link, Mkdir, Remove, Symlink, replay
from graphdrivers.linux import mounts

_POINTS = 14
"""In how many places each verb is cut."""

_BASE: list[Edit] = [
    Mkdir("dir"),
    *(Create(f"dir/file{number}", b"content" * 300) for number in range(6)),
    Create("a", b"1"),
    Link("a", "b"),
    Symlink("link", "a"),
    Mkdir("dir/sub", 0o711),
    Create("dir/sub/x"),
]

_TAR = layer_tar(
    [
        directory("dir", 0o750),
        whiteout("dir/file1"),
        whiteout("dir/file2"),
        directory("dir/sub"),
        opaque("dir/sub"),
        "dir/sub/new",
        *(f"new{number}" for number in range(5)),
        Member("linked", kind=tarfile.LNKTYPE, target="new1"),
        Member("dir/way", kind=tarfile.SYMTYPE, target="sub"),
        whiteout("a"),
    ]
)


class _Scene:
    """A home with a base layer, and what must be true of it after every crash."""

    def __init__(self, bench: Workbench, options: dict[str, str]) -> None:
        self.bench = bench
        self.options = options
        bench.layer("base", None, _BASE)
        self.tree = bench.tree("base")
        self._live_once()
        bench.layer("other", "base", [Remove("dir/sub"), Create("other")], seal=False)
        self.files = self._files()
        self.kills = 0

    def _live_once(self) -> None:
        """Go through a layer's life, after which the home has what a driver makes only once."""
        driver = self.bench.driver
        self.bench.layer("layer", "base", [Create("written"), Remove("a")], seal=False)
        driver.apply("layer", io.BytesIO(_TAR))
        driver.seal("layer")
        self.bench.tree("layer")
        driver.remove("layer")
        driver.create("layer", "base")
        at_once(1, lambda _: len(driver.mounts("layer")))  # in a process that is gone when the layer is settled
        reopened = self.reopened()
        reopened.settle("layer")
        reopened.remove("layer")
        reopened.close()

    def _files(self) -> list[str]:
        """Name everything in the home; below a layer's own tree there is much, and all of it counts."""
        home = self.bench.driver.home
        return sorted(
            os.path.relpath(os.path.join(folder, name), home)
            for folder, directories, names in os.walk(home)
            for name in (*directories, *names)
        )

    def reopened(self) -> Driver:
        """Open the home as the next process does."""
        driver = loading.load_driver(self.bench.driver.name, self.bench.driver.home, self.options)
        driver.settle()
        return driver

    def crashes(self, verb: Callable[[Driver], object], before: Callable[[Driver], object]) -> Iterator[int]:
        """Give the steps of the verb to kill it at; once through, the verb must have been cut, and more than once."""
        before(self.bench.driver)
        steps = list(some_of(steps_of(lambda: self.bound(verb)), _POINTS))
        self.bench.driver.remove("layer")
        yield from steps
        assert self.kills > len(steps) // 2

    def crash(self, verb: Callable[[Driver], object], step: int) -> Driver:
        """Kill a process in the middle of a verb; give the driver as it is opened next, the rest unharmed."""
        self.kills += killed_at(step, lambda: self.bound(verb))
        driver = self.reopened()
        records = {record.name: record for record in driver.layers()}
        assert set(records) - {"layer"} == {"base", "other"}
        assert (records["base"].sealed, records["other"].sealed) == (True, False)
        assert_same(self.tree, self.bench.tree("base"))
        return driver

    def bound(self, verb: Callable[[Driver], object]) -> Callable[[], object]:
        """Open the home, and give the verb to do there."""
        driver = loading.load_driver(self.bench.driver.name, self.bench.driver.home, self.options)
        return lambda: verb(driver)

    def cleared(self, driver: Driver) -> None:
        """Remove the layer; the home then has nothing that it had not before."""
        driver.remove("layer")
        driver.settle()
        assert self._files() == self.files
        driver.close()


@pytest.fixture
def scene(bench: Workbench, driver_options: dict[str, str]) -> _Scene:
    """A home where crashes happen."""
    return _Scene(bench, driver_options)


def _exists(driver: Driver) -> bool:
    return any(record.name == "layer" for record in driver.layers())


def _nothing(driver: Driver) -> None:
    del driver


def test_killed_while_creating(scene: _Scene) -> None:
    """A layer whose creation was cut does not exist, or is whole; its name can be used."""

    def create(driver: Driver) -> None:
        driver.create("layer", "base")

    for step in scene.crashes(create, _nothing):
        driver = scene.crash(create, step)
        if not _exists(driver):
            driver.create("layer", "base")
        driver.seal("layer")
        assert_same(scene.tree, scene.bench.tree("layer"))
        scene.cleared(driver)


def test_killed_while_applying(scene: _Scene) -> None:
    """A layer whose tar was cut is still there to be removed, and can be made again, whole."""

    def before(driver: Driver) -> None:
        driver.create("layer", "base")

    def apply(driver: Driver) -> None:
        driver.apply("layer", io.BytesIO(_TAR))

    wanted = scene.bench.tree(scene.bench.applied("wanted", "base", _TAR))
    scene.bench.driver.remove("wanted")
    for step in scene.crashes(apply, before):
        before(scene.bench.driver)
        driver = scene.crash(apply, step)
        (record,) = [record for record in driver.layers() if record.name == "layer"]
        assert (record.parent, record.sealed) == ("base", False)
        driver.remove("layer")
        assert_same(wanted, scene.bench.tree(scene.bench.applied("layer", "base", _TAR)))
        scene.cleared(driver)


def test_killed_while_applying_ahead(scene: _Scene) -> None:
    """A layer that is made at once with its content is there as a whole, or is not there."""
    scene.bench.needs("apply_ahead")

    def apply(driver: Driver) -> None:
        assert isinstance(driver, AppliesAhead)
        driver.apply_ahead("layer", "base", io.BytesIO(_TAR), ready=lambda: None)

    wanted = scene.bench.tree(scene.bench.applied("wanted", "base", _TAR))
    scene.bench.driver.remove("wanted")
    for step in scene.crashes(apply, _nothing):
        driver = scene.crash(apply, step)
        if not _exists(driver):
            apply(driver)
        driver.seal("layer")
        assert_same(wanted, scene.bench.tree("layer"))
        scene.cleared(driver)


def test_killed_while_sealing(scene: _Scene) -> None:
    """A layer is sealed or it is not; either way it keeps its content."""

    def before(driver: Driver) -> None:
        driver.create("layer", "base")
        driver.apply("layer", io.BytesIO(_TAR))

    wanted = scene.bench.tree(scene.bench.applied("wanted", "base", _TAR))
    scene.bench.driver.remove("wanted")
    for step in scene.crashes(lambda driver: driver.seal("layer"), before):
        before(scene.bench.driver)
        driver = scene.crash(lambda driver: driver.seal("layer"), step)
        driver.seal("layer")
        assert_same(wanted, scene.bench.tree("layer"))
        scene.cleared(driver)


def test_killed_while_settling(scene: _Scene) -> None:
    """Bringing a written layer to rest can be cut anywhere: what was written stays, reserved names delete nothing."""
    shown = {"a": "1", "link": "-> a", "dir": "/", "dir/sub": "/", "dir/sub/new": "new"}
    shown |= {f"dir/file{number}": "content" * 300 for number in (0, 2, 3, 4, 5)}
    for step in scene.crashes(_settle, _write):
        _write(scene.bench.driver)
        driver = scene.crash(_settle, step)
        _settle(driver)
        driver.seal("layer")
        assert scene.bench.contents("layer") == shown
        scene.cleared(driver)


def _write(driver: Driver) -> None:
    """Leave a layer that is not at rest, with names that mean deletions where the engine lets somebody make them."""
    driver.create("layer", "base")
    with mounts.opened(driver.mounts("layer")) as root:
        place = f"/proc/self/fd/{root}"
        replay([Remove("dir/file1"), Remove("b"), Remove("dir/sub"), Mkdir("dir/sub")], place)
        replay([Create("dir/sub/new", b"new")], place)
        for name in (".wh.a", "dir/.wh.file0", "dir/.wh..wh..opq"):
            with contextlib.suppress(PermissionError):
                Create(name).perform(place)


def _settle(driver: Driver) -> None:
    """Settle until nothing is put aside any more."""
    for _ in range(2):
        with contextlib.suppress(errors.ReservedNameError):
            driver.settle("layer")


def test_killed_while_removing(scene: _Scene) -> None:
    """A layer whose removal was cut is whole, or gone; removing again is no error."""

    def before(driver: Driver) -> None:
        driver.create("layer", "base")
        driver.apply("layer", io.BytesIO(_TAR))
        driver.seal("layer")

    wanted = scene.bench.tree(scene.bench.applied("wanted", "base", _TAR))
    scene.bench.driver.remove("wanted")
    for step in scene.crashes(lambda driver: driver.remove("layer"), before):
        before(scene.bench.driver)
        driver = scene.crash(lambda driver: driver.remove("layer"), step)
        if _exists(driver):
            assert_same(wanted, scene.bench.tree("layer"))
        scene.cleared(driver)


def test_killed_while_planning_a_mount(scene: _Scene) -> None:
    """A process that dies between its plan and its mount leaves a layer that can be mounted and removed."""

    def before(driver: Driver) -> None:
        driver.create("layer", "base")

    def plan(driver: Driver) -> None:
        driver.mounts("layer")

    for step in scene.crashes(plan, before):
        before(scene.bench.driver)
        driver = scene.crash(plan, step)
        with scene.bench.writing("layer") as root:
            Create("written").perform(root)
        scene.cleared(driver)


def test_killed_while_opening(scene: _Scene) -> None:
    """A process that dies while it opens the home, trying what works there, leaves nothing in it."""

    def before(driver: Driver) -> None:
        driver.create("layer")

    def open_again(driver: Driver) -> None:
        loading.load_driver(driver.name, driver.home, scene.options).settle()

    for step in scene.crashes(open_again, before):
        scene.cleared(scene.crash(open_again, step))


def test_killed_while_cleaning_up(scene: _Scene) -> None:
    """The cleaning after a crash can itself be cut, again and again, and is finished by the next."""
    scene.bench.driver.create("layer", "base")

    def remove(driver: Driver) -> None:
        driver.remove("layer")

    steps = steps_of(lambda: scene.bound(remove))
    scene.bench.driver.create("layer", "base")
    killed_at(steps // 2, lambda: scene.bound(remove))
    for step in range(0, 40, 5):
        killed_at(step, lambda: scene.bound(lambda driver: driver.settle()))
    scene.cleared(scene.reopened())
