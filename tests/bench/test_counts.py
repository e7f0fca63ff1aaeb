"""What people read of system calls: numbers, names, changes."""

from collections.abc import Mapping
from typing import Any

import pytest
from benchdocuments import a_document, cell, workload

from graphdrivers.bench import comparison, counts, document, layout, page
from graphdrivers.bench.calls import Calls
from graphdrivers.bench.results import Results
from graphdrivers.bench.workload import Row

EIGHT = ["aufs", "btrfs", "devicemapper", "example", "fuse-overlayfs", "overlay", "vfs", "zfs"]


def counted(*drivers: str, operations: int = 1, **names: int) -> dict[str, Any]:
    """Make a document with a time and a size, of which the time was counted for each of some drivers."""
    what = workload("ci", Row("row", "the row", "what a row means"), Row("disk", "disk", "bytes", "B"))
    cells = [cell(what, driver, 1.0, row=row.name) for driver in drivers for row in what.rows]
    for one in cells:
        if one.row.unit == "s":
            one.calls = Calls(operations, names)
    made = a_document(Results(cells), *drivers)
    made["results"] = [document.result(one, counted=True) for one in cells]
    return made


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (41.0, "41"),
        (2.0625, "2.06"),
        (1.0001, "1"),
        (26.5, "26.5"),
        (999.4, "999"),
        (999.9, "1.00k"),
        (12_345.0, "12.3k"),
        (22_997.0, "23.0k"),
        (1_234_567.0, "1.23M"),
        (0.0, "0"),
    ],
)
def test_numbers_are_short(count: float, text: str) -> None:
    """Five characters at most, whole ones without a point."""
    assert counts.number(count) == text


def test_the_most_frequent_are_told() -> None:
    """And how many others there are."""
    assert counts.told({"openat": 8.0, "close": 6.0, "read": 2.0, "stat": 0.5}, 2) == [
        "openat 8",
        "close 6",
        "others 2.50",
    ]
    assert counts.told({"openat": 8.0}) == ["openat 8"]


def test_the_table_fits_80_columns_for_eight_drivers() -> None:
    """With times only, since sizes make no calls."""
    found = layout.calls(counted(*EIGHT, operations=2, openat=2_469_134))

    assert sum(found.widths()) + len(EIGHT) <= 80
    ((title, rows),) = found.groups
    assert title == "ci: the ci"
    assert [(name, cells[0].text) for name, cells in rows] == [("the row", "1.23M")]


def test_what_was_not_counted_has_a_reason() -> None:
    """A dash among counts; where there are none at all one reason, and no table; nothing where nobody asked."""
    found = counted("a", "b", openat=1)
    for one in found["results"]:
        if one["driver"] == "b" and "calls" in one:
            one["calls"] = {"operation": None, "operations": 0, "names": {}, "reason": "it may not"}
    sections = counts.sections(found)
    assert layout.reasons(sections) == [("ci (row) on b", "it may not")]
    assert counts.missing(found) == ""

    found["results"] = [one for one in found["results"] if one["driver"] == "b"]
    assert (counts.sections(found), counts.missing(found)) == ([], "it may not")
    never = a_document(Results([cell(workload(), "a", 1.0)]), "a")
    assert (counts.sections(never), counts.missing(never)) == ([], "")


def test_the_page_tells_them() -> None:
    """Folded below the times, with the most frequent names; and not where nobody asked."""
    found = counted("a", operations=2, openat=16, close=12, read=4, fsync=1)
    found["facts"] = {"cpu": "x"}
    text = page.page(found)

    assert "<details><summary>System calls of one operation</summary>" in text
    assert (
        "<td>16.5<small>openat 8</small><small>close 6</small><small>read 2</small><small>others 0.50</small>" in text
    )
    for one in found["results"]:
        one.pop("calls", None)
    assert "<details>" not in page.page(found)


@pytest.mark.parametrize(
    ("now", "verdict", "names"),
    [
        ({"openat": 8, "fsync": 3}, "more", {"fsync": 2.0}),
        ({"openat": 7, "fsync": 1}, "fewer", {"openat": -1.0}),
        ({"openat": 8, "fsync": 1}, "same", {}),
        ({"openat": 8, "read": 1}, "same", {"fsync": -1.0, "read": 1.0}),
    ],
)
def test_changes_are_told_by_name(now: Mapping[str, int], verdict: str, names: Mapping[str, float]) -> None:
    """More or fewer in all, and of which; however many more, it is no regression."""
    (change,) = [
        one for one in comparison.compare([counted("a", openat=8, fsync=1)], counted("a", **now), 0.0) if one.calls
    ]

    assert change.calls is not None
    assert (change.calls.verdict, change.calls.names) == (verdict, names)
    assert (change.calls.before, change.calls.now) == (9, sum(now.values()))
    assert change.regressed is False


def test_a_thousandth_is_the_same() -> None:
    """When a thread ends differs from run to run."""
    before = counted("a", openat=10_000)

    def verdict(count: int) -> str:
        (change,) = [one for one in comparison.compare([before], counted("a", openat=count), 0.1) if one.calls]
        assert change.calls is not None
        return change.calls.verdict

    assert [verdict(count) for count in (10_009, 10_011, 9_991, 9_989)] == ["same", "more", "same", "fewer"]


def test_documents_without_calls_are_compared_by_time_alone() -> None:
    """Those from before they were counted, and several of which one has them."""
    old, new = counted("a", openat=1), counted("a", openat=2)
    for one in old["results"]:
        one.pop("calls", None)

    assert [one.calls for one in comparison.compare([old], new, 0.1)] == [None, None]
    assert [one.calls for one in comparison.compare([new], old, 0.1)] == [None, None]
    (change,) = [one for one in comparison.compare([old, counted("a", openat=1)], new, 0.1) if one.calls]
    assert change.calls is not None
    assert (change.calls.before, change.calls.verdict) == (1, "more")
