"""Rounds in turns, the budget, reasons."""

from typing import Any

import attrs
import pytest
from benchbeds import Opening
from benchdocuments import workload

from graphdrivers import errors
from graphdrivers.bench import runner
from graphdrivers.bench.bed import Bed
from graphdrivers.bench.disturbance import Watch
from graphdrivers.bench.results import Results
from graphdrivers.bench.workload import Row, Workload


@attrs.define
class Diary:
    """A workload's act that writes down who it was asked of, and gives the samples it was told."""

    values: dict[str, list[float]] = attrs.Factory(dict)
    asked: list[str] = attrs.Factory(list)

    def take(self, bed: Bed) -> None:
        """Give the next value of this driver, the last one again and again."""
        self.asked.append(bed.name)
        mine = self.values.get(bed.name, [1.0])
        bed.readings.add("row", mine[min(self.asked.count(bed.name), len(mine)) - 1])


def measure(beds: list[Bed], *workloads: Workload, **plan: Any) -> Results:
    """Run workloads on beds."""
    results = Results()
    course = runner.Course(beds, results, Watch(), lambda *_progress: None)
    runner.run(runner.Plan(workloads=workloads, **plan), course)
    return results


def test_drivers_take_turns_and_the_first_round_warms_up(opening: Opening) -> None:
    """A B A B A B, of which the first A B does not count."""
    diary = Diary({"aufs": [9.0, 1.0, 2.0], "vfs": [9.0, 3.0, 4.0]})
    results = measure(opening("aufs", "vfs"), workload(take=diary.take), repeats=2)

    assert diary.asked == ["aufs", "vfs"] * 3
    assert [cell.samples for cell in results.cells] == [[1.0, 2.0], [3.0, 4.0]]
    assert results.complete


def test_rounds_go_through_all_workloads(opening: Opening) -> None:
    """So that a slow minute hits all of them."""
    diary = Diary()
    order: list[str] = []

    def noting(name: str) -> Workload:
        def take(bed: Bed) -> None:
            order.append(name)
            diary.take(bed)

        return workload(name, take=take)

    measure(opening("vfs"), noting("one"), noting("two"), repeats=1)
    assert order == ["one", "two"] * 2


def test_a_driver_that_is_sure_rests(opening: Opening) -> None:
    """Six equal samples are enough for one; the other, whose samples differ, goes on."""
    diary = Diary({"aufs": [1.0], "vfs": [float(n) for n in range(1, 20)]})
    results = measure(opening("aufs", "vfs"), workload(take=diary.take), repeats=10)

    assert [len(cell.samples) for cell in results.cells] == [6, 10]


def test_without_budget_there_is_still_one_sample(opening: Opening) -> None:
    """The warm-up itself, which says what it is."""
    results = measure(opening("vfs"), workload(take=Diary().take), budget=0.0)

    assert [(cell.samples, cell.warm) for cell in results.cells] == [([1.0], False)]


def test_what_is_measured_once(opening: Opening) -> None:
    """Needs no warm-up."""
    diary = Diary()
    results = measure(opening("vfs"), workload(take=diary.take, once=True))

    assert diary.asked == ["vfs"]
    assert [(cell.samples, cell.warm) for cell in results.cells] == [([1.0], True)]


@pytest.mark.parametrize("error", [errors.ChainTooDeep("x", 3, 2), OSError(28, "No space left on device")])
def test_a_driver_that_cannot_keeps_its_reason(opening: Opening, error: Exception) -> None:
    """The others go on; the one that failed is not asked again."""
    diary = Diary()

    def take(bed: Bed) -> None:
        diary.take(bed)
        if bed.name == "aufs":
            raise error

    results = measure(opening("aufs", "vfs"), workload(take=take), repeats=2)
    assert diary.asked == ["aufs", "vfs", "vfs", "vfs"]
    assert (results.cells[0].samples, results.cells[0].reason) == ([], str(error))
    assert len(results.cells[1].samples) == 2


def test_bugs_are_not_reasons(opening: Opening) -> None:
    """An error that is no deliberate one propagates."""

    def take(_bed: Bed) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        measure(opening("vfs"), workload(take=take))


def test_a_row_that_was_left_out_says_so(opening: Opening) -> None:
    """A workload need not give every row: one is a figure, one has a reason."""

    def take(bed: Bed) -> None:
        bed.readings.note("there", 4096)
        bed.readings.cannot("missing", "this file system has none")

    rows = [Row(name, name, name, "B") for name in ("there", "missing")]
    there, missing = measure(opening("vfs"), workload("x", *rows, take=take)).cells
    assert (there.samples, there.reason) == ([4096], "")
    assert (missing.samples, missing.reason) == ([], "this file system has none")


def test_interrupted_results_are_usable(opening: Opening) -> None:
    """What was measured before Ctrl-C is there, and not called complete."""
    results = Results()

    def take(bed: Bed) -> None:
        if results.cells[0].samples:
            raise KeyboardInterrupt
        bed.readings.add("row", 1.0)

    course = runner.Course(opening("vfs"), results, Watch(), lambda *_progress: None)
    with pytest.raises(KeyboardInterrupt):
        runner.run(runner.Plan(workloads=[workload(take=take)]), course)
    assert results.cells[0].samples == [1.0]
    assert not results.complete


def test_progress_goes_up(opening: Opening) -> None:
    """From nothing, never beyond all of it, never back in the first round."""
    seen: list[float] = []
    course = runner.Course(opening("aufs", "vfs"), Results(), Watch(), lambda *told: seen.append(told[2]))
    runner.run(runner.Plan(workloads=[workload(take=Diary().take)], repeats=1, budget=0.0), course)

    assert seen[0] == 0.0
    assert sorted(seen) == seen
    assert seen[-1] <= 1.0
