# ruff: noqa: INP001, S101 -- pytest asserts, and a folder of tests is no package
"""A driver killed at each of its calls of zfs: records and datasets agree again once the home is settled."""

import os
import pathlib

import attrs
import pools
import pytest

from graphdrivers import loading
from graphdrivers.conformance.workbench import Workbench
from graphdrivers.edits import Create

OPEN = 6
"""At most so many calls come from opening the home: its probe makes, mounts and destroys a dataset."""


@attrs.frozen
class Verb:
    """A verb, what has to be there before it, and how often it calls zfs, as the documentation has it."""

    before: str
    verb: str
    calls: int


VERBS = {
    "create": Verb("", "driver.create('layer', 'base')", 1),
    "create a base": Verb("", "driver.create('layer')", 2),
    "seal": Verb("driver.create('layer', 'base')", "driver.seal('layer')", 1),
    "mounts": Verb("driver.create('layer', 'base')", "driver.mounts('layer')", 1),
    "remove": Verb("driver.create('layer', 'base')", "driver.remove('layer')", 2),
    "remove a sealed one": Verb("driver.create('layer', 'base'); driver.seal('layer')", "driver.remove('layer')", 3),
    "snapshot": Verb("driver.create('live', 'base')", "driver.snapshot('live', 'layer')", 3),
    "remove a snapshot": Verb(
        "driver.create('live', 'base'); driver.snapshot('live', 'layer')", "driver.remove('layer')", 8
    ),
    "settle": Verb("", "driver.settle()", 1),
}


@pytest.fixture
def base(bench: Workbench) -> Workbench:
    """A sealed layer with a file, and another layer over it."""
    bench.layer("base", None, [Create("file", b"1")])
    bench.driver.create("other", "base")
    return bench


def calls_of(folder: pathlib.Path, home: str, verb: str) -> tuple[int, int]:
    """Count the calls of opening a home, and those of a verb on it."""
    path, calls = pools.shimmed(folder)
    pools.run(path, home, "")
    opening = len(calls.read_text().splitlines())
    pools.run(path, home, verb)
    return opening, len(calls.read_text().splitlines()) - 2 * opening


@pytest.mark.parametrize("name", VERBS)
def test_a_verb_calls_as_often_as_documented(base: Workbench, tmp_path: pathlib.Path, name: str) -> None:
    """The calls of each verb, which are what it costs, are no more than those that its documentation gives."""
    verb = VERBS[name]
    home = base.driver.home
    pools.run(os.environ["PATH"], home, verb.before)
    opening, calls = calls_of(tmp_path, home, verb.verb)

    assert opening <= OPEN
    assert calls == verb.calls


@pytest.mark.parametrize("moment", ["before", "after", "behind"])
@pytest.mark.parametrize("name", VERBS)
def test_killed_at_each_call(base: Workbench, tmp_path: pathlib.Path, name: str, moment: str) -> None:
    """Killed at a call, the layer is whole or not there, all others are whole, and no dataset is without a record."""
    verb, home = VERBS[name], base.driver.home
    opening, _ = calls_of(tmp_path, home, "")
    for call in range(verb.calls):
        pools.run(os.environ["PATH"], home, verb.before)
        path, _ = pools.shimmed(tmp_path, moment, opening + call)
        assert pools.run(path, home, verb.verb)
        settled(base, "live" in verb.before)
        for layer in ("layer", "live"):
            base.driver.remove(layer)
        base.driver.settle()
        assert datasets(base) == 2 + 1  # two layers, and the snapshot of the base


def settled(bench: Workbench, live: bool) -> None:  # noqa: FBT001 - a fact of the scene
    """Open the home as the next process does, and check that all in it is whole."""
    driver = loading.load_driver("zfs", bench.driver.home)
    driver.settle()
    driver.settle()  # what a dying process's call did after the first time
    records = {record.name: record for record in driver.layers()}
    assert set(records) - {"layer"} == ({"base", "other", "live"} if live else {"base", "other"})
    assert datasets(bench) == len(records) + snapshots(records.values())
    if "layer" in records and not records["layer"].sealed:
        driver.seal("layer")
    if "layer" in records:
        parent = records["layer"].parent
        assert bench.contents("layer") == ({} if parent is None else {"file": "1"})
        driver.create("child", "layer")
        driver.remove("child")
    if live:
        with bench.writing("live") as root:
            Create("more").perform(root)
            assert sorted(os.listdir(root)) == ["file", "more"]
    assert bench.contents("base") == {"file": "1"}


def snapshots(records) -> int:  # noqa: ANN001 - a view of a dictionary
    """Count the snapshots that there have to be."""
    return sum(record.sealed for record in records)


def datasets(bench: Workbench) -> int:
    """Count the datasets and snapshots that are below the pool's own dataset."""
    assert bench.driver.name == "zfs"
    return len(pools.listed()) - 1
