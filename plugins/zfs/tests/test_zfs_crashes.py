# ruff: noqa: INP001, S101 -- pytest asserts, and a folder of tests is no package
"""A driver killed at each of its calls of zfs: records and datasets agree again once the home is settled."""

import os
import pathlib
import time

import attrs
import pytest
import zfspools

from graphdrivers import loading
from graphdrivers.conformance.workbench import Workbench
from graphdrivers.driver import Driver, Snapshots
from graphdrivers.edits import Create


def snapshot(driver: Driver) -> None:
    """Make a snapshot of the layer ``live``."""
    assert isinstance(driver, Snapshots)
    driver.snapshot("live", "layer")


def nothing(_driver: Driver) -> None:
    """Leave the home as it is."""


def create(driver: Driver) -> None:
    """Create the layer."""
    driver.create("layer", "base")


def create_and_seal(driver: Driver) -> None:
    """Create the layer and seal it."""
    create(driver)
    driver.seal("layer")


def create_live(driver: Driver) -> None:
    """Create a layer to make snapshots of."""
    driver.create("live", "base")


def create_and_snapshot(driver: Driver) -> None:
    """Create a layer and make a snapshot of it."""
    create_live(driver)
    snapshot(driver)


@attrs.frozen
class Case:
    """A verb, what has to be there before it, and how often it calls zfs, as the documentation has it."""

    before: zfspools.Verb
    verb: zfspools.Verb
    calls: int

    @property
    def is_live(self) -> bool:
        """Whether there is a layer ``live``."""
        return self.before in {create_live, create_and_snapshot}


CASES = {
    "create": Case(nothing, create, 1),
    "create a base": Case(nothing, lambda driver: driver.create("layer"), 2),
    "seal": Case(create, lambda driver: driver.seal("layer"), 1),
    "mounts": Case(create, lambda driver: driver.mounts("layer"), 1),
    "remove": Case(create, lambda driver: driver.remove("layer"), 2),
    "remove a sealed one": Case(create_and_seal, lambda driver: driver.remove("layer"), 3),
    "snapshot": Case(create_live, snapshot, 3),
    "remove a snapshot": Case(create_and_snapshot, lambda driver: driver.remove("layer"), 8),
    "settle": Case(nothing, lambda driver: driver.settle(), 1),
}


@pytest.fixture
def base(bench: Workbench) -> Workbench:
    """A sealed layer with a file, and another layer over it."""
    bench.layer("base", None, [Create("file", b"1")])
    bench.driver.create("other", "base")
    return bench


@pytest.mark.parametrize("name", CASES)
def test_a_verb_calls_as_often_as_documented(base: Workbench, tmp_path: pathlib.Path, name: str) -> None:
    """The calls of each verb, which are what it costs, are no more than those that its documentation gives."""
    case, shim = CASES[name], zfspools.Shim(tmp_path)
    case.before(base.driver)
    shim.run(base.driver.home, case.verb)

    assert len(shim.calls.read_text().splitlines()) == case.calls


@pytest.mark.parametrize("moment", ["before", "behind", "after"])
@pytest.mark.parametrize("name", CASES)
def test_killed_at_each_call(base: Workbench, tmp_path: pathlib.Path, name: str, moment: str) -> None:
    """Killed at a call, the layer is whole or not there, all others are whole, and no dataset is without a record."""
    case, shim = CASES[name], zfspools.Shim(tmp_path)
    for call in range(1, case.calls + 1):
        case.before(base.driver)
        assert shim.run(base.driver.home, case.verb, call, moment)
        if moment == "behind":
            time.sleep(0.5)  # until the call that outlived its caller is done
        check(base, live=case.is_live)
        for layer in ("layer", "live"):
            base.driver.remove(layer)
        base.driver.settle()
        assert count() == len(["base", "base@sealed", "other"])


def check(bench: Workbench, *, live: bool) -> None:
    """Open the home as the next process does, and check that all in it is whole."""
    driver = loading.load_driver("zfs", bench.driver.home)
    driver.settle()
    records = {record.name: record for record in driver.layers()}
    assert set(records) - {"layer"} == ({"base", "other", "live"} if live else {"base", "other"})
    rests = count() - len(records) - sum(record.sealed for record in records.values())
    # The snapshot of a seal or fork that was cut is found when it is needed again, or when its layer goes.
    assert rests in {0, 1}
    if "layer" in records and not records["layer"].sealed:
        driver.seal("layer")
    if "layer" in records:
        assert bench.contents("layer") == ({} if records["layer"].parent is None else {"file": "1"})
        driver.create("child", "layer")
        driver.remove("child")
    if live:
        with bench.writing("live") as root:
            Create("more").perform(root)
            assert sorted(os.listdir(root)) == ["file", "more"]
    assert bench.contents("base") == {"file": "1"}


def count() -> int:
    """Count the datasets and snapshots that are below the pool's own dataset."""
    return len(zfspools.listed()) - 1
