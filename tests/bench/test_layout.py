"""What people read: ratios to the best, dashes with reasons, a table that fits."""

import pytest
from benchdocuments import a_document, cell, workload

from graphdrivers.bench import layout, view
from graphdrivers.bench.quantities import quantity, ratio, short_ratio
from graphdrivers.bench.results import Results
from graphdrivers.bench.workload import Row
from graphdrivers.bench.workloads import WORKLOADS

EIGHT = ["aufs", "btrfs", "devicemapper", "example", "fuse-overlayfs", "overlay", "vfs", "zfs"]


def test_the_best_is_marked_and_the_others_are_ratios_to_it() -> None:
    """One best; another whose interval overlaps says that it is not sure."""
    what = workload()
    results = Results([cell(what, "a", 1.0, 2.0, 3.0), cell(what, "b", 2.5, 3.0, 9.0), cell(what, "c", 8.0, 8.0, 8.0)])
    (section,) = view.sections(a_document(results, "a", "b", "c"))
    first, second, third = section.lines[0].figures

    assert (first.best, first.ratio) == (True, 1.0)
    assert (second.best, second.ratio, second.unsure) == (False, 1.5, True)
    assert (third.best, third.ratio, third.unsure) == (False, 4.0, False)
    assert [one.mark for one in (first, second, third)] == ["", "~", ""]


def test_one_driver_alone_is_not_the_best() -> None:
    """Nothing to be compared with: no mark, no ratio."""
    what = workload()
    document = a_document(Results([cell(what, "a", 1.0), cell(what, "b", reason="it cannot")]), "a", "b")
    figure, dash = view.sections(document)[0].lines[0].figures

    assert (figure.best, figure.ratio) == (False, None)
    assert (dash.median, dash.reason) == (None, "it cannot")


def test_wide_and_narrow_cells() -> None:
    """All there is to say where there is room; else the best's figure and ratios of a few characters."""
    what = workload()
    document = a_document(Results([cell(what, "a", 0.001, 0.001), cell(what, "b", 0.25, 0.25)]), "a", "b")
    wide, narrow = layout.layout(document, 80), layout.layout(document, 40)

    assert [one.text for one in wide.groups[0][1][0][1]] == ["1.00 ms ±0%   best", "250 ms ±0%  ?250x"]
    assert [one.text for one in narrow.groups[0][1][0][1]] == ["1.00ms*", "?250x"]
    assert [one.best for one in narrow.groups[0][1][0][1]] == [True, False]


def test_eight_drivers_fit_80_columns() -> None:
    """With the largest figures that there can be, and the real rows."""
    results = Results()
    for what in WORKLOADS:
        for row in what.rows:
            for number, driver in enumerate(EIGHT):
                base = 123e9 if row.unit == "B" else 0.0123
                results.cells.append(cell(what, driver, base * (1 + number * 99), row=row.name))
    found = layout.layout(a_document(results, *EIGHT), 80)

    assert sum(found.widths()) + len(EIGHT) <= 80
    assert [line[3] for line in found.heading_lines()] == ["", "devicem", "apper"]
    assert [line[5] for line in found.heading_lines()] == ["fuse-", "overlay", "fs"]


def test_dashes_have_reasons() -> None:
    """Rows and drivers with one reason are told together."""
    rows = (Row("a", "a", "a"), Row("b", "b", "b"))
    what = workload("deep", *rows)
    cells = [cell(what, driver, reason="too deep", row=row.name) for driver in ("x", "y") for row in rows]
    cells += [cell(what, "z", 1.0, row=row.name) for row in rows]

    assert layout.reasons(view.sections(a_document(Results(cells), "x", "y", "z"))) == [
        ("deep (a, b) on x, y", "too deep")
    ]


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (12.345, "s", "12.3 s"),
        (0.9999, "s", "1.00 s"),
        (0.000123, "s", "123 us"),
        (0.0000001, "s", "100 ns"),
        (0.0, "s", "0 s"),
        (999.0, "B", "999 B"),
        (164_000_000.0, "B", "164 MB"),
        (-4096.0, "B", "-4.10 kB"),
        (5e12, "B", "5000 GB"),
    ],
)
def test_quantities(value: float, unit: str, text: str) -> None:
    """Three figures and a unit."""
    assert quantity(value, unit) == text


@pytest.mark.parametrize(
    ("value", "text", "short"),
    [
        (1.0, "1.00x", "1.0x"),
        (9.96, "10x", "10x"),
        (123.4, "123x", "123x"),
        (12345.0, "1e+04x", "12kx"),
        (None, "", ""),
    ],
)
def test_ratios(value: float | None, text: str, short: str) -> None:
    """The short ones have five characters at most."""
    assert (ratio(value), short_ratio(value)) == (text, short)


def test_workloads_are_told_apart() -> None:
    """Names and rows are unique, titles fit, each has a row that speaks for it."""
    assert len({one.name for one in WORKLOADS}) == len(WORKLOADS)
    for one in WORKLOADS:
        assert len({row.name for row in one.rows}) == len(one.rows)
        assert max(len(row.title) for row in one.rows) <= 14
        assert one.row(one.headline)
