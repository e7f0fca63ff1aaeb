"""What was measured: the samples of every row and driver, and what is made of them."""

import math
import statistics
from collections.abc import Iterable, Sequence

import attrs

from graphdrivers.bench.calls import Calls
from graphdrivers.bench.readings import Reading
from graphdrivers.bench.workload import Row, Workload

ENOUGH = 6
"""Samples from which on the interval holds the median in 95 % of cases."""


@attrs.frozen
class Summary:
    """The middle of some samples, and how sure that is."""

    median: float
    low: float
    high: float

    @property
    def spread(self) -> float:
        """Half the width of the interval, as a part of the median."""
        return (self.high - self.low) / 2 / self.median if self.median else 0.0


def summarise(samples: Sequence[float]) -> Summary:
    """Give the median with its interval: the order statistics that hold it in 95 % of cases, however values spread.

    Below six samples these are the least and the greatest, and hold it less often.
    Source: Le Boudec, Performance Evaluation of Computer and Communication Systems (2010), theorem 2.1.
    """
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


def can_differ(count: int, other: int) -> bool:
    """Say whether two rows of samples are long enough for one lying wholly above the other to mean something.

    If both were alike, that would come about by chance in one of ``C(count + other, count)`` cases; it must be
    less than 5 %. So three against three will do, and a single sample never does against a few.
    """
    return min(count, other) > 0 and math.comb(count + other, count) >= 20


@attrs.define
class Cell:
    """One row on one driver: its samples, or why there are none."""

    workload: Workload
    row: Row
    driver: str
    samples: list[float] = attrs.Factory(list)
    """In the row's unit, in the order taken, the warm-up left out."""
    operations: list[int] = attrs.Factory(list)
    """How many operations each sample is the mean of."""
    disturbed: int = 0
    """Samples that were taken while something else was running."""
    warm: bool = True
    """False where there was no time for more than the warm-up, which is then the one sample."""
    reason: str = ""
    calls: Calls | None = None
    """Of a sample of their own, where they were counted."""
    uncounted: str = ""
    """Why they were not."""
    _first: Reading | None = None

    def add(self, reading: Reading, *, warm_up: bool, disturbed: bool) -> None:
        """Take in a figure; the warm-up's counts only as long as there is no other."""
        if warm_up:
            self._first = reading
            return
        self.samples.append(reading.value)
        self.operations.append(reading.operations)
        self.disturbed += disturbed
        self.reason = ""

    def finish(self, *, warmed_up: bool = True) -> None:
        """Make do with the warm-up where nothing came after it."""
        if not self.samples and self._first is not None and not self.reason:
            self.samples.append(self._first.value)
            self.operations.append(self._first.operations)
            self.warm = not warmed_up or self.row.unit != "s"

    def refuse(self, reason: str) -> None:
        """Say that there is no figure, and why."""
        if not self.samples:
            self.reason = reason

    def summary(self) -> Summary | None:
        """Give the middle of the samples, if there are any."""
        return summarise(self.samples) if self.samples else None

    def is_narrow(self, precision: float) -> bool:
        """Say whether more samples would tell nothing new: 95 % sure of the median to within ``precision`` (a part)."""
        if self.reason or self.row.unit != "s":
            return True
        return len(self.samples) >= ENOUGH and summarise(self.samples).spread <= precision


@attrs.define
class Results:
    """What was measured so far; complete or not."""

    cells: list[Cell] = attrs.Factory(list)
    complete: bool = False

    def cell(self, workload: str, row: str, driver: str) -> Cell | None:
        """Find a cell; ``None`` if it was not reached."""
        wanted = (workload, row, driver)
        return next((cell for cell in self.cells if (cell.workload.name, cell.row.name, cell.driver) == wanted), None)

    def of(self, workload: Workload, driver: str) -> list[Cell]:
        """Give the cells of a workload on a driver."""
        return [cell for cell in self.cells if cell.workload is workload and cell.driver == driver]

    def begin(self, workload: Workload, drivers: Iterable[str]) -> None:
        """Make the cells of a workload."""
        drivers = list(drivers)
        self.cells += [Cell(workload, row, driver) for row in workload.rows for driver in drivers]

    def workloads(self) -> list[Workload]:
        """Give the workloads that were reached, in order."""
        return list({cell.workload.name: cell.workload for cell in self.cells}.values())
