"""What is made of samples: intervals, ratios, dashes with reasons."""

import math

import pytest

from graphdrivers.bench import report
from graphdrivers.bench.runner import Cell, Results
from graphdrivers.bench.workloads import WORKLOADS, Workload


def workload(name: str, unit: str = "s") -> Workload:
    """Make a workload that nobody runs."""
    return Workload(name, f"the {name}", lambda _bed: 0.0, unit)


def test_interval_holds_the_median_in_95_of_100_cases() -> None:
    """The order statistics are those of the binomial distribution: all of six samples, 2nd to 9th of ten."""
    assert report.summarise([3.0, 1.0, 2.0]) == report.Summary(2.0, 1.0, 3.0)
    assert report.summarise(list(range(1, 7))) == report.Summary(3.5, 1, 6)
    assert report.summarise(list(range(1, 11))) == report.Summary(5.5, 2, 9)
    assert report.summarise([7.0]) == report.Summary(7.0, 7.0, 7.0)


@pytest.mark.parametrize("count", range(6, 60))
def test_interval_is_the_narrowest_that_is_wide_enough(count: int) -> None:
    """One sample less on each side would fall below 95 %."""
    summary = report.summarise(list(range(1, count + 1)))
    skipped = int(summary.low) - 1

    def coverage(skip: int) -> float:
        outside: int = 2 * sum(math.comb(count, k) for k in range(skip + 1))
        return 1 - outside / (1 << count)

    assert coverage(skipped) >= 0.95
    assert coverage(skipped + 1) < 0.95


def test_rows_mark_the_best() -> None:
    """The least median is the best; the others show their ratio to it."""
    create = workload("create")
    results = Results([Cell(create, "a", [0.001, 0.001]), Cell(create, "b", [0.25])])

    ((title, cells),) = report.rows(results, ["a", "b"])
    assert title == "the create"
    assert [cell.best for cell in cells] == [True, False]
    assert [cell.text for cell in cells] == ["1.00 ms ±0%  best", "250 ms  250x"]


def test_dashes_have_reasons() -> None:
    """A driver that cannot, and one that was not reached, are dashes; only the first needs a reason."""
    deep = workload("stack-100")
    results = Results([Cell(deep, "a", [], "too deep"), Cell(deep, "b", [1.0])])

    ((_title, cells),) = report.rows(results, ["a", "b", "c"])
    assert [cell.text for cell in cells] == ["-", "1.00 s", "-"]
    assert report.reasons(results) == ["stack-100 on a: too deep"]


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (12.345, "s", "12.3 s"),
        (0.000123, "s", "123 us"),
        (0.0000001, "s", "0.10 us"),
        (0.0, "s", "0.00 us"),
        (999.0, "B", "999 B"),
        (164_000_000.0, "B", "164 MB"),
        (5e12, "B", "5000 GB"),
    ],
)
def test_quantities(value: float, unit: str, text: str) -> None:
    """Three figures and a unit."""
    assert report.quantity(value, unit) == text


def test_results_have_the_documented_shape() -> None:
    """Every key is there whether measured or not."""
    assert set(report.__doc__ or "") != set()
    measured = report.as_result(Cell(workload("x"), "a", [1.0, 3.0]))
    refused = report.as_result(Cell(workload("x"), "a", [], "why"))

    assert measured == {
        "workload": "x",
        "title": "the x",
        "driver": "a",
        "unit": "s",
        "samples": [1.0, 3.0],
        "median": 2.0,
        "low": 1.0,
        "high": 3.0,
        "reason": None,
    }
    assert refused["median"] is None
    assert refused["reason"] == "why"
    assert set(refused) == set(measured)


def test_workloads_are_told_apart() -> None:
    """Names are unique and short enough for a command line; titles fit an 80-column table of two drivers."""
    assert len({one.name for one in WORKLOADS}) == len(WORKLOADS)
    assert max(len(one.title) for one in WORKLOADS) <= 32
