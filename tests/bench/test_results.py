"""What is made of samples: medians and their intervals."""

import math

import pytest
from benchdocuments import cell, workload

from graphdrivers.bench import results
from graphdrivers.bench.readings import Reading, Readings
from graphdrivers.bench.results import Cell, Summary, summarise
from graphdrivers.bench.workload import Row


def test_interval_holds_the_median_in_95_of_100_cases() -> None:
    """The order statistics are those of the binomial distribution: all of six samples, 2nd to 9th of ten."""
    assert summarise([3.0, 1.0, 2.0]) == Summary(2.0, 1.0, 3.0)
    assert summarise(list(range(1, 7))) == Summary(3.5, 1, 6)
    assert summarise(list(range(1, 11))) == Summary(5.5, 2, 9)
    assert summarise([7.0]) == Summary(7.0, 7.0, 7.0)


@pytest.mark.parametrize("count", range(6, 60))
def test_interval_is_the_narrowest_that_is_wide_enough(count: int) -> None:
    """One sample less on each side would fall below 95 %."""
    skipped = int(summarise(list(range(1, count + 1))).low) - 1

    def coverage(skip: int) -> float:
        outside: int = 2 * sum(math.comb(count, k) for k in range(skip + 1))
        return 1 - outside / (1 << count)

    assert coverage(skipped) >= 0.95
    assert coverage(skipped + 1) < 0.95


def test_narrow_is_sure() -> None:
    """Fewer than six samples are never enough; six are where they agree; a size is measured once."""
    what = workload()

    assert not cell(what, "a", *[1.0] * 5).is_narrow(0.03)
    assert cell(what, "a", *[1.0] * results.ENOUGH).is_narrow(0.03)
    assert not cell(what, "a", 1.0, 1.0, 1.0, 1.0, 1.0, 1.2).is_narrow(0.03)
    assert cell(workload("y", Row("disk", "disk", "bytes", "B")), "a", 4096.0).is_narrow(0.03)
    assert cell(what, "a", reason="it cannot").is_narrow(0.03)


def test_the_warm_up_counts_only_where_nothing_else_does() -> None:
    """And then the cell says so."""
    what = workload()
    alone, followed = Cell(what, what.rows[0], "a"), Cell(what, what.rows[0], "b")
    for one in (alone, followed):
        one.add(Reading(9.0, 3), warm_up=True, disturbed=False)
    followed.add(Reading(1.0, 2), warm_up=False, disturbed=True)
    for one in (alone, followed):
        one.finish()

    assert (alone.samples, alone.operations, alone.warm, alone.disturbed) == ([9.0], [3], False, 0)
    assert (followed.samples, followed.operations, followed.warm, followed.disturbed) == ([1.0], [2], True, 1)


def test_a_reason_goes_when_there_is_a_figure() -> None:
    """A row that had no time in one round and got it in the next is measured; not the other way round."""
    what = workload()
    one = Cell(what, what.rows[0], "a")
    one.refuse("no time")
    one.add(Reading(1.0), warm_up=False, disturbed=False)
    one.refuse("no time")

    assert (one.reason, one.samples) == ("", [1.0])


def test_times_are_per_operation() -> None:
    """Blocks of one row add up; a block that fails, and a row that says it cannot, give nothing."""
    readings = Readings()
    readings.add("x", 2.0, 4)
    readings.add("x", 1.0, 2)
    readings.note("size", 4096)
    with readings.clock("cold"):
        pass
    readings.cannot("cold", "always in memory")
    with pytest.raises(ZeroDivisionError), readings.clock("bad"):
        raise ZeroDivisionError

    assert readings.taken() == {"x": Reading(0.5, 6), "size": Reading(4096)}
    assert readings.refused == {"cold": "always in memory"}
