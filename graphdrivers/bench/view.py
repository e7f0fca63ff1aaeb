"""A document looked at row by row: who is best, by how much, and whether that is sure."""

from collections.abc import Iterator, Sequence
from typing import Any

import attrs

from graphdrivers.bench.document import Document
from graphdrivers.bench.results import can_differ


@attrs.frozen
class Figure:
    """One cell."""

    driver: str
    median: float | None
    low: float
    high: float
    samples: int
    warm: bool
    reason: str
    ratio: float | None = None
    """To the best of the row; ``None`` without a figure, or where the best is nothing."""
    best: bool = False
    """The least median of at least two."""
    unsure: bool = False
    """Not the best, but perhaps as good: the intervals overlap."""
    few: bool = False
    """The intervals are apart, but of so few samples that this may be chance."""

    @property
    def mark(self) -> str:
        """Give what stands before the ratio: ``~`` for perhaps as good, ``?`` for too few samples to be sure."""
        return "~" if self.unsure else "?" if self.few and self.warm else ""

    @property
    def spread(self) -> float:
        """Half the width of the interval as a part of the median."""
        return (self.high - self.low) / 2 / self.median if self.median else 0.0


@attrs.frozen
class Line:
    """One row of a workload on all drivers."""

    workload: str
    row: str
    title: str
    meaning: str
    unit: str
    figures: tuple[Figure, ...]

    def measured(self) -> list[Figure]:
        """Give the figures that are there, the best first."""
        return sorted((one for one in self.figures if one.median is not None), key=lambda one: one.median or 0.0)


@attrs.frozen
class Section:
    """A workload with its lines."""

    name: str
    title: str
    purpose: str
    models: str
    headline: str
    lines: tuple[Line, ...]

    def speaker(self) -> Line:
        """Give the line that speaks for all: the headline, or the first with figures where it has none."""
        ordered = sorted(self.lines, key=lambda line: line.row != self.headline)
        return next((line for line in ordered if line.measured()), ordered[0])


def drivers(document: Document) -> list[str]:
    """Name the drivers that were measured, in order."""
    return [one["name"] for one in document["drivers"]]


def sections(document: Document) -> list[Section]:
    """Give the workloads with their lines, in the order of the report."""
    cells = {(one["workload"], one["row"], one["driver"]): one for one in document["results"]}
    return [
        Section(
            name=workload["name"],
            title=workload["title"],
            purpose=workload["purpose"],
            models=workload["models"],
            headline=workload["headline"],
            lines=tuple(_lines(workload, cells, drivers(document))),
        )
        for workload in document["workloads"]
    ]


def _lines(workload: Any, cells: Any, names: Sequence[str]) -> Iterator[Line]:
    for row in workload["rows"]:
        figures = [_figure(name, cells.get((workload["name"], row["name"], name))) for name in names]
        yield Line(
            workload["name"],
            row["name"],
            row["title"],
            row["meaning"],
            row["unit"],
            tuple(_ranked(figures, row["unit"])),
        )


def _figure(driver: str, result: Any) -> Figure:
    if result is None or result["median"] is None:
        return Figure(driver, None, 0.0, 0.0, 0, True, "it was not reached" if result is None else result["reason"])
    return Figure(driver, result["median"], result["low"], result["high"], len(result["samples"]), result["warm"], "")


def _ranked(figures: Sequence[Figure], unit: str) -> Iterator[Figure]:
    """Compare each figure with the best."""
    there = [one for one in figures if one.median is not None]
    best = min(there, key=lambda one: one.median or 0.0, default=None)
    for one in figures:
        if best is None or best.median is None or one.median is None or len(there) < 2:
            yield one
        elif one is best:
            yield attrs.evolve(one, best=True, ratio=1.0)
        else:
            ratio = one.median / best.median if best.median else None
            apart = one.low > best.high
            few = apart and unit == "s" and not can_differ(one.samples, best.samples)
            yield attrs.evolve(one, ratio=ratio, unsure=not apart, few=few)
