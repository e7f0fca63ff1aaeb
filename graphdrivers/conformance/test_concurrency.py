"""Several processes on one home: distinct layers in parallel, one winner for one name, nobody disturbed."""

import contextlib
import io
import pathlib
import time

import pytest

from graphdrivers import errors, loading
from graphdrivers.conformance.beside import attached
from graphdrivers.conformance.observe import assert_same
from graphdrivers.conformance.processes import at_once
from graphdrivers.conformance.workbench import Workbench, layer_tar, whiteout
from graphdrivers.driver import Driver
from graphdrivers.edits import Create, Edit, Mkdir, Remove, Write
from graphdrivers.linux import mountinfo

_PROCESSES = 5

_BASE: list[Edit] = [Mkdir("dir"), *(Create(f"dir/file{number}", b"base") for number in range(20)), Create("top")]

_REFUSALS = {
    "remove": lambda driver, name: driver.remove(name),
    "seal": lambda driver, name: driver.seal(name),
    "apply": lambda driver, name: driver.apply(name, io.BytesIO(layer_tar(["file"]))),
}


class _Home:
    """Opens one home in each process, as a stranger would."""

    def __init__(self, bench: Workbench, options: dict[str, str]) -> None:
        self.bench = bench
        self._options = options

    def opened(self) -> Driver:
        """Open it anew, which also cleans up."""
        driver = loading.load_driver(self.bench.driver.name, self.bench.driver.home, self._options)
        driver.settle()
        return driver

    def seat(self) -> Workbench:
        """Open it anew, with the short ways of a workbench."""
        return Workbench(self.opened(), "")


@pytest.fixture
def home(bench: Workbench, driver_options: dict[str, str]) -> _Home:
    """A home with a base layer."""
    bench.layer("base", None, _BASE)
    return _Home(bench, driver_options)


def test_whole_lives_in_parallel(home: _Home) -> None:
    """Processes that each import, run, commit and remove their own layers see their own, and only their own."""

    def live(number: int) -> list[str]:
        bench = home.seat()
        problems = []
        for turn in range(4):
            name = f"p{number}-{turn}"
            bench.applied(name, "base", layer_tar([f"of-{name}", whiteout("dir/file1")]))
            bench.layer(f"{name}-c", name, [Write("dir/file2", name.encode()), Remove("top"), Create("mine")])
            bench.applied(f"{name}-i", name, bench.diff(f"{name}-c"))
            shown = bench.contents(f"{name}-i")
            if (shown.pop("dir/file2"), shown.pop(f"of-{name}"), shown.pop("mine")) != (name, f"of-{name}", ""):
                problems.append(f"{name} shows other content")
            if len(shown) != 19:
                problems.append(f"{name} shows {sorted(shown)}")
            for layer in (f"{name}-i", f"{name}-c", name):
                bench.driver.remove(layer)
        return problems

    before = home.bench.tree("base")
    assert at_once(_PROCESSES, live) == [[]] * _PROCESSES
    assert [record.name for record in home.bench.driver.layers()] == ["base"]
    assert_same(before, home.bench.tree("base"))


def test_one_name_is_created_by_one_process(home: _Home) -> None:
    """Of processes that create the same names exactly one succeeds with each, and every layer is whole."""

    def create(_: int) -> list[str]:
        driver = home.opened()
        won = []
        for turn in range(10):
            with contextlib.suppress(errors.LayerExists):
                driver.create(f"layer{turn}", "base")
                won.append(f"layer{turn}")
        return won

    won = [name for names in at_once(_PROCESSES, create) for name in names]
    names = [f"layer{turn}" for turn in range(10)]

    assert sorted(won) == names
    for name in names:
        home.bench.driver.seal(name)
        assert_same(home.bench.tree("base"), home.bench.tree(name))


def test_opening_disturbs_nobody(home: _Home) -> None:
    """While some processes make and remove layers, others open the home and clean up: nothing is taken away."""

    def work(number: int) -> int:
        end = time.monotonic() + 1.2
        turns = 0
        while time.monotonic() < end:
            turns += 1
            bench = home.seat()
            if number % 2:
                bench.driver.settle()
                continue
            name = bench.applied(f"layer{number}", "base", layer_tar(["new", whiteout("top")]))
            bench.driver.settle()
            assert len(bench.contents(name)) == 22
            bench.driver.remove(name)
        return turns

    assert all(at_once(_PROCESSES, work))
    assert [record.name for record in home.bench.driver.layers()] == ["base"]


def test_layers_are_listed_while_they_come_and_go(home: _Home) -> None:
    """Whoever lists layers while others create and remove them gets whole records, and all that stayed."""

    def work(number: int) -> int:
        driver = home.opened()
        end = time.monotonic() + 1.2
        turns = 0
        while time.monotonic() < end:
            turns += 1
            if number == 0:
                records = list(driver.layers())
                assert [record.name for record in records][-1] == "base"
                assert all(record.parent == "base" for record in records[:-1])
                continue
            driver.create(f"layer{number}", "base")
            driver.seal(f"layer{number}")
            driver.remove(f"layer{number}")
        return turns

    assert all(at_once(_PROCESSES, work))


def test_two_processes_remove_one_layer(home: _Home) -> None:
    """Removing is idempotent among processes too: the layer is gone, nobody fails, its neighbours stay."""
    for turn in range(8):
        home.bench.layer(f"layer{turn}", "base", [Create("new")])
    home.bench.layer("neighbour", "base", [Create("new")])

    def remove(_: int) -> None:
        driver = home.opened()
        for turn in range(8):
            driver.remove(f"layer{turn}")

    at_once(_PROCESSES, remove)

    assert [record.name for record in home.bench.driver.layers()] == ["neighbour", "base"]
    assert home.bench.contents("neighbour")["new"] == ""


@pytest.mark.parametrize("verb", sorted(_REFUSALS))
def test_another_process_sees_the_mount(home: _Home, tmp_path: pathlib.Path, verb: str) -> None:
    """A layer that one process has mounted for writing is in use for every other one."""
    home.bench.layer("layer", "base", [Create("mine", b"1")], seal=False)

    def attempt(_: int) -> str:
        driver = home.opened()
        try:
            _REFUSALS[verb](driver, "layer")
        except errors.LayerInUse:
            return "in use"
        return "done"

    with attached(home.bench, "layer", tmp_path) as place:
        if mountinfo.mounted_at(place) is None:
            pytest.skip("gated: this user may not mount")
        assert at_once(2, attempt) == ["in use"] * 2
        assert pathlib.Path(place, "mine").read_bytes() == b"1"
        pathlib.Path(place, "late").write_bytes(b"2")
    home.bench.driver.settle("layer")
    home.bench.driver.seal("layer")

    assert {"mine", "late"} <= set(home.bench.contents("layer"))


def test_views_while_others_work(home: _Home) -> None:
    """A view and a half-read diff stay as they were while other processes branch off and remove layers."""
    home.bench.layer("child", "base", [Remove("dir/file3"), Create("new", b"n" * 200_000)])
    wanted, tree = home.bench.diff("child"), home.bench.tree("child")

    def work(number: int) -> None:
        bench = home.seat()
        for turn in range(3):
            name = bench.layer(f"layer{number}-{turn}", "child", [Remove("dir"), Write("new", b"other")])
            bench.diff(name)
            bench.driver.remove(name)

    with home.bench.viewing("child"), contextlib.closing(home.bench.driver.diff("child")) as stream:
        start = stream.read(5000)
        at_once(3, work)
        assert_same(tree, home.bench.tree("child"))
        assert start + b"".join(iter(lambda: stream.read(1 << 16), b"")) == wanted


def test_writers_of_different_layers_at_once(home: _Home) -> None:
    """Layers of one parent that are mounted for writing by several processes at once do not meet."""

    def write(number: int) -> list[str]:
        bench = home.seat()
        changes = [Write(f"dir/file{turn}", f"{number}".encode()) for turn in range(20)]
        name = bench.layer(f"layer{number}", "base", [*changes, Remove("top"), Create("top", str(number).encode())])
        return sorted(set(bench.contents(name).values()))

    assert at_once(_PROCESSES, write) == [sorted({"/", str(number)}) for number in range(_PROCESSES)]
    assert set(home.bench.contents("base").values()) == {"/", "base", ""}
