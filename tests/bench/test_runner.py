"""Rounds in turns, the budget, reasons, and the clean-up that always happens."""

import os
import pathlib
import signal
import subprocess
from typing import Any, cast

import attrs
import pytest

from graphdrivers import errors
from graphdrivers.bench import runner
from graphdrivers.bench.bed import Bed
from graphdrivers.bench.workloads import Workload


@attrs.define
class FakeBed:
    """As much of a bed as the runner looks at."""

    name: str
    elapsed: float = 0.0


def beds(*names: str) -> list[Bed]:
    """Make fake beds."""
    return [cast("Bed", FakeBed(name)) for name in names]


def measure(workload: Workload, *names: str, **plan: Any) -> runner.Results:
    """Run one workload on fake beds."""
    results = runner.Results()
    runner.run(runner.Plan(workloads=[workload], **plan), beds(*names), results, lambda *_progress: None)
    return results


def test_drivers_take_turns_and_the_first_round_warms_up() -> None:
    """A B A B A B, of which the first A B is thrown away."""
    order: list[str] = []

    def run(bed: Bed) -> float:
        order.append(bed.name)
        return float(len(order))

    results = measure(Workload("x", "x", run), "a", "b", repeats=2)
    assert order == ["a", "b"] * 3
    assert [cell.samples for cell in results.cells] == [[3.0, 5.0], [4.0, 6.0]]
    assert results.complete


def test_without_budget_there_is_still_one_sample() -> None:
    """The warm-up and one sample of each driver, whatever it costs."""
    results = measure(Workload("x", "x", lambda _bed: 1.0), "a", "b", repeats=9, budget=0.0)

    assert [len(cell.samples) for cell in results.cells] == [1, 1]


def test_sizes_are_measured_once() -> None:
    """Bytes do not vary and need no warm-up."""
    calls: list[str] = []

    def run(bed: Bed) -> float:
        calls.append(bed.name)
        return 4096.0

    assert measure(Workload("disk", "disk", run, "B"), "a").cells[0].samples == [4096.0]
    assert calls == ["a"]


@pytest.mark.parametrize("error", [errors.ChainTooDeep("x", 3, 2), OSError(28, "No space left on device")])
def test_a_driver_that_cannot_keeps_its_reason(error: Exception) -> None:
    """The others go on; the one that failed is not asked again."""
    calls: list[str] = []

    def run(bed: Bed) -> float:
        calls.append(bed.name)
        if bed.name == "a" and calls.count("a") == 2:
            raise error
        return 1.0

    results = measure(Workload("x", "x", run), "a", "b", repeats=3)
    assert calls == ["a", "b", "a", "b", "b", "b"]
    assert results.cells[0].samples == []
    assert results.cells[0].reason == str(error)
    assert len(results.cells[1].samples) == 3


def test_bugs_are_not_reasons() -> None:
    """An error that is no deliberate one propagates."""

    def run(_bed: Bed) -> float:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        measure(Workload("x", "x", run), "a")


def test_interrupted_results_are_usable() -> None:
    """What was measured before Ctrl-C is there, and not called complete."""
    results = runner.Results()

    def run(_bed: Bed) -> float:
        if results.cells and len(results.cells[0].samples) == 2:
            raise KeyboardInterrupt
        return 1.0

    with pytest.raises(KeyboardInterrupt):
        runner.run(
            runner.Plan(workloads=[Workload("x", "x", run)], repeats=5), beds("a"), results, lambda *_progress: None
        )
    assert results.cells[0].samples == [1.0, 1.0]
    assert not results.complete


def test_scratch_is_removed_whatever_happens(tmp_path: pathlib.Path) -> None:
    """Files, folders without permissions: all gone, also after Ctrl-C."""

    def interrupted() -> None:
        with runner.scratch(str(tmp_path)) as folder:
            os.makedirs(os.path.join(folder, "a", "b"))
            os.chmod(os.path.join(folder, "a"), 0)
            assert str(os.getpid()) in os.path.basename(folder)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert os.listdir(tmp_path) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
def test_scratch_unmounts(tmp_path: pathlib.Path) -> None:
    """Mounts in it, stacked ones too, are undone, and what they showed is left alone."""
    keep = tmp_path / "keep"
    keep.mkdir()
    (keep / "file").touch()
    with runner.scratch(str(tmp_path)) as folder:
        target = os.path.join(folder, "target")
        os.mkdir(target)
        for _ in range(2):
            subprocess.run(["mount", "--bind", str(keep), target], check=True)
    assert os.listdir(tmp_path) == ["keep"]
    assert os.listdir(keep) == ["file"]


def test_clean_up_is_not_interrupted() -> None:
    """Signals wait until the block has ended."""
    reached: list[str] = []

    def interrupted() -> None:
        with runner._uninterrupted():
            os.kill(os.getpid(), signal.SIGINT)
            reached.append("the end of the block")
        reached.append("what comes after it")

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert reached == ["the end of the block"]
