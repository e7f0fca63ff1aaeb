"""Measurements as values for programs and as a table for people.

The document (``as_document``) is JSON with this shape; within one ``schema``
number fields are only ever added::

    {"schema": 1, "kind": "graphdrivers-bench", "complete": bool,
     "created": "2026-01-31T12:00:00Z",
     "facts":    {kernel, architecture, cpu, cpus, memory [B], filesystem, user, load, python, versions{}},
     "settings": {image, layers, image_size [B], files, repeats, budget [s]},
     "drivers":  [{name, engine, notes[], capabilities{}}],
     "refused":  [{name, reason, fix}],
     "results":  [{workload, title, driver, unit ("s" or "B"),
                   samples[], median, low, high, reason}],
     "comparison": [{workload, title, driver, unit, before, now, verdict}]}

``comparison`` is there with ``--compare`` only. ``median``, ``low`` and
``high`` are null, and ``reason`` is a text, where a driver could not be
measured. ``low`` and ``high`` bound the median with at least 95 % confidence
where there are samples enough (six), else they are the least and the greatest
sample.
"""

import math
import statistics
from collections.abc import Iterator, Sequence

import attrs

from graphdrivers.bench.runner import Cell, Results

SCHEMA = 1
"""Version of the document's shape."""

KIND = "graphdrivers-bench"


@attrs.frozen
class Summary:
    """The middle of some samples, and how sure that is."""

    median: float
    low: float
    high: float


def summarise(samples: Sequence[float]) -> Summary:
    """Give the median with its distribution-free interval: the order statistics that hold it in 95 % of cases."""
    ordered = sorted(samples)
    count = len(ordered)
    skip, outside = 0, 2 * 0.5**count
    # The median lies outside [x(k), x(n+1-k)] with probability 2 * P(Binomial(n, 1/2) < k).
    while skip + 1 < count / 2:
        outside += 2 * math.comb(count, skip + 1) * 0.5**count
        if outside > 0.05:
            break
        skip += 1
    return Summary(statistics.median(ordered), ordered[skip], ordered[count - 1 - skip])


def as_result(cell: Cell) -> dict[str, object]:
    """Give one row of the document's ``results``."""
    summary = summarise(cell.samples) if cell.samples else None
    return {
        "workload": cell.workload.name,
        "title": cell.workload.title,
        "driver": cell.driver,
        "unit": cell.workload.unit,
        "samples": list(cell.samples),
        "median": summary.median if summary else None,
        "low": summary.low if summary else None,
        "high": summary.high if summary else None,
        "reason": cell.reason or None,
    }


@attrs.frozen
class Shown:
    """One cell as people read it."""

    text: str
    best: bool = False


def rows(results: Results, drivers: Sequence[str]) -> Iterator[tuple[str, list[Shown]]]:
    """Give the table: per workload its title and one cell per driver, the best marked and the others' ratio to it."""
    seen = dict.fromkeys(cell.workload.name for cell in results.cells)
    for name in seen:
        cells = [results.cell(name, driver) for driver in drivers]
        medians = [statistics.median(cell.samples) for cell in cells if cell is not None and cell.samples]
        best = min(medians) if medians else 0.0
        title = next(cell.workload.title for cell in cells if cell is not None)
        yield title, [_shown(cell, best, alone=len(medians) < 2) for cell in cells]


def _shown(cell: Cell | None, best: float, *, alone: bool) -> Shown:
    if cell is None or not cell.samples:
        return Shown("-")
    summary = summarise(cell.samples)
    text = quantity(summary.median, cell.workload.unit)
    if len(cell.samples) > 1 and summary.median:
        spread = (summary.high - summary.low) / 2 / summary.median
        text += f" ±{min(spread * 100, 999):.0f}%"
    if alone:
        return Shown(text)
    if summary.median <= best:
        return Shown(f"{text}  best", best=True)
    return Shown(f"{text} {_ratio(summary.median, best):>5}")


def _ratio(value: float, best: float) -> str:
    if not best:
        return ""
    ratio = value / best
    return f"{ratio:.2f}x" if ratio < 10 else f"{ratio:.0f}x"


def quantity(value: float, unit: str) -> str:
    """Show a time or a size with three significant figures: ``1.23 ms``, ``45.6 MB``."""
    steps = (
        (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)) if unit == "s" else (("GB", 1e9), ("MB", 1e6), ("kB", 1e3), ("B", 1))
    )
    for name, size in steps:
        if value >= size:
            return f"{_figures(value / size)} {name}"
    name, size = steps[-1]
    return f"{_figures(value / size)} {name}"


def _figures(value: float) -> str:
    decimals = 2 if value < 10 else 1 if value < 100 else 0
    return f"{value:.{decimals}f}"


def reasons(results: Results) -> list[str]:
    """Explain every dash of the table, one line each: ``WORKLOAD on DRIVER: why``."""
    return [f"{cell.workload.name} on {cell.driver}: {cell.reason}" for cell in results.cells if cell.reason]
