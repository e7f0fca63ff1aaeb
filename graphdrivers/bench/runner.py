"""Run workloads on several drivers in turn.

Samples are taken in rounds: every workload once, on one driver after the other
(A B C A B C), so that a machine that gets slower or faster meanwhile does it to
all of them. The first round warms up and does not count. Rounds go on until
every median is sure enough or the budget is used up.
"""

import math
import time
from collections.abc import Callable, Sequence

import attrs

from graphdrivers import errors
from graphdrivers.bench import counting
from graphdrivers.bench.bed import Bed
from graphdrivers.bench.calls import Counter
from graphdrivers.bench.disturbance import Watch
from graphdrivers.bench.results import Results
from graphdrivers.bench.workload import Workload

Observer = Callable[[str, str, float], None]
"""Called before each sample with the workload's and driver's names, and how much is done (0 to 1)."""


_FIRST_ROUND = 1.5
"""How many times the budget the first round may take."""

_SHARE = 4
"""A sample takes about so many times what it repeats things for: it makes its ground, and cleans up."""

_LEAST_PATIENCE = 0.02
"""Seconds."""

_LEAST = 30.0
"""Seconds that the first round may take in any case."""

_TIMED = 0.8
"""Part of a run that is taken for timed, where system calls are counted after it."""


@attrs.frozen(kw_only=True)
class Plan:
    """What to measure, how sure to be, and for how long."""

    workloads: Sequence[Workload]
    repeats: int = 25
    """Samples per workload and driver after the warm-up, at most."""
    precision: float = 0.03
    """Half the width of a median's interval, as a part of it, that is narrow enough."""
    budget: float = 60.0
    """Seconds for everything; the first round may take half as much again, and 30 s at least."""
    whatever: bool = False
    """The first round is made whole, whatever it takes."""
    counter: Counter | None = None
    """What counts system calls when everything is timed, beyond the budget; ``None`` where they are not asked for."""


@attrs.define
class _Clock:
    """How far a run is: the first round counts samples, after it the budget counts."""

    plan: Plan
    first_round: int
    """Samples of the first round."""
    start: float = attrs.Factory(time.monotonic)
    taken: int = 0
    lasted: dict[str, float] = attrs.Factory(dict)
    """Seconds of each workload's latest turn on all drivers."""

    def spent(self) -> float:
        return time.monotonic() - self.start

    def has_time_for(self, workload: Workload) -> bool:
        return self.spent() + self.lasted.get(workload.name, 0.0) < self.plan.budget

    def is_hopeless(self) -> bool:
        limit = max(self.plan.budget * _FIRST_ROUND, _LEAST)
        return self.spent() > limit and not self.plan.whatever

    def patience(self, workloads: int) -> float:
        """Give the seconds that a sample of the first round may repeat things for, with so many workloads to come."""
        samples = max(self.first_round * workloads // len(self.plan.workloads), 1)
        return max((self.plan.budget - self.spent()) / samples / _SHARE, _LEAST_PATIENCE)

    def done(self) -> float:
        """Give the part that is done, 0 to 1."""
        if not self.taken:
            return 0.0
        timed = 1.0 if self.plan.counter is None else _TIMED
        whole = max(self.plan.budget, self.spent() * self.first_round / min(self.taken, self.first_round))
        return min(self.spent() / whole, 1.0) * timed if whole else timed


@attrs.frozen
class Course:
    """What a run works with, and where what it finds goes."""

    beds: Sequence[Bed]
    results: Results
    watch: Watch
    observe: Observer

    def hurry(self, patience: float) -> None:
        """Let samples repeat things for so long at most."""
        for bed in self.beds:
            bed.patience = min(bed.sizes.patience, patience) if bed.sizes.patience != math.inf else math.inf


def run(plan: Plan, course: Course) -> None:
    """Measure everything into the results, which are usable at any moment (after Ctrl-C too).

    A driver that cannot do a workload, for one of the deliberate errors or a
    failed system call, keeps the reason in its cells and is left out of them.
    """
    clock = _Clock(plan, len(plan.workloads) * len(course.beds))
    cells = course.results.cells
    try:
        for number in range(plan.repeats + 1):
            if not _round(number, clock, course):
                break
            course.hurry(math.inf)
    finally:
        for cell in cells:
            cell.finish(warmed_up=not cell.workload.once)
    if plan.counter is not None:
        counting.count(plan.counter, plan.workloads, course.beds, course.results, _after(course.observe))
    course.results.complete = True


def _after(observe: Observer) -> Observer:
    """Give what is told how far the counting is."""
    return lambda workload, driver, done: observe(f"calls of {workload}", driver, _TIMED + done * (1 - _TIMED))


def _round(number: int, clock: _Clock, course: Course) -> bool:
    """Take a sample of all that needs one; say whether any was taken."""
    before = clock.taken
    for index, workload in enumerate(clock.plan.workloads):
        if not number:
            course.results.begin(workload, [bed.name for bed in course.beds])
            course.hurry(clock.patience(len(clock.plan.workloads) - index))
        elif workload.once or not clock.has_time_for(workload):
            continue
        start = clock.spent()
        for bed in course.beds:
            cells = course.results.of(workload, bed.name)
            if number and all(cell.is_narrow(clock.plan.precision) for cell in cells):
                continue
            if clock.is_hopeless():
                for cell in cells:
                    cell.refuse("there was no time left: give it more with --budget")
                continue
            course.observe(workload.name, bed.name, clock.done())
            _sample(workload, bed, course, warm_up=not number)
            clock.taken += 1
        clock.lasted[workload.name] = clock.spent() - start
    return clock.taken > before


def _sample(workload: Workload, bed: Bed, course: Course, *, warm_up: bool) -> None:
    cells = course.results.of(workload, bed.name)
    disturbed = course.watch.look()
    bed.begin()
    try:
        workload.take(bed)
    except (errors.GraphDriverError, OSError) as error:
        for cell in cells:
            cell.refuse(str(error))
        return
    taken = bed.readings.taken()
    for cell in cells:
        reading = taken.get(cell.row.name)
        if reading is not None:
            cell.add(reading, warm_up=warm_up, disturbed=disturbed)
        else:
            cell.refuse(bed.readings.refused.get(cell.row.name, "it was not measured"))
