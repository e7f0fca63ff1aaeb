"""The samples that system calls are counted in: after the timed ones, each with the same work whatever the time."""

import contextlib
from collections.abc import Callable, Iterator, Sequence

import attrs

from graphdrivers import errors
from graphdrivers.bench.bed import Bed
from graphdrivers.bench.calls import Calls, Counter
from graphdrivers.bench.database import Engine
from graphdrivers.bench.readings import Mark, Readings
from graphdrivers.bench.results import Cell, Results
from graphdrivers.bench.workload import SECONDS, Workload

_TURNS = 4
"""How often is done what a workload does many times. It is the same for all, as turns differ: the first of some does
less. Four threads at once have one each."""


def count(
    counter: Counter,
    workloads: Sequence[Workload],
    beds: Sequence[Bed],
    results: Results,
    observe: Callable[[str, str, float], None],
) -> None:
    """Count what one operation of each row that has a time calls, one sample each."""
    turns = [(workload, bed) for workload in workloads for bed in beds]
    for number, (workload, bed) in enumerate(turns):
        cells = [cell for cell in results.of(workload, bed.name) if cell.row.unit == SECONDS]
        if not any(cell.samples for cell in cells) or counter.reason:
            for cell in cells:
                cell.uncounted = counter.reason or cell.reason
            continue
        observe(workload.name, bed.name, number / len(turns))
        _sample(counter, workload, bed, cells)


def _sample(counter: Counter, workload: Workload, bed: Bed, cells: Sequence[Cell]) -> None:
    try:
        with counter.counting() as trace, _counted(bed, trace.mark) as readings:
            workload.take(bed)
    except (errors.GraphDriverError, OSError) as error:
        for cell in cells:
            cell.uncounted = str(error)
        return
    for cell in cells:
        row = cell.row.name
        if row in trace.rows and readings.operations.get(row):
            cell.calls = Calls(readings.operations[row], trace.rows[row])
        else:
            cell.uncounted = readings.refused.get(row, "it was not counted")


@contextlib.contextmanager
def _counted(bed: Bed, mark: Mark) -> Iterator[Readings]:
    """Have samples of the bed do what does not depend on time, nor on other programs that are installed."""
    before = bed.turns, bed.patience, bed.instruments
    bed.turns, bed.patience = _TURNS, 0.0
    bed.instruments = attrs.evolve(bed.instruments, database=Engine("python"))
    readings = Readings(mark=mark)
    bed.begin(readings)
    try:
        yield readings
    finally:
        bed.turns, bed.patience, bed.instruments = before
