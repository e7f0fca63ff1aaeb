"""Random writes over mount cycles: after each cycle, seal and fork a layer shows what a flat directory does.

``GRAPHDRIVERS_AUFS_WRITES=50000 pytest -s tests/backends/test_aufs_writes.py`` makes that many writes with each engine.
"""

import itertools
import os
import pathlib
import subprocess

import pytest
from aufstools import Opener, merged, shown, visible

from graphdrivers import edits
from graphdrivers.backends.aufs.driver import AufsDriver
from graphdrivers.conformance import observe, randomly
from graphdrivers.conformance.workbench import Workbench
from graphdrivers.linux import mounts

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")

WRITES = int(os.environ.get("GRAPHDRIVERS_AUFS_WRITES", "600"))
"""Writes that are made with each engine; set the variable for more."""

PER_CYCLE = 18
CYCLES = 10
"""Mount cycles that one layer goes through before it is sealed."""


class Line:
    """One layer after the other, each the child of the one before, beside a flat directory that has it all."""

    def __init__(self, bench: Workbench, drivers: list[AufsDriver], flat: str, stack: tuple[str, ...] = ()) -> None:
        """Go on from ``stack``, nearest first, which shows what ``flat`` holds; ``drivers`` of one home take turns."""
        self.bench = bench
        self.drivers = drivers
        self.flat = flat
        self.stack = stack

    def grow(self, name: str, seed: int, cycles: int) -> None:
        """Write to a new layer over some mount cycles and seal it, comparing all the way."""
        expected = observe.snapshot(self.flat)
        self.drivers[0].create(name, self.stack[0] if self.stack else None)
        self.stack = (name, *self.stack)
        turns = itertools.cycle(self.drivers)
        for cycle in randomly.random_edits(self.bench, self.flat, seed, layers=cycles, count=PER_CYCLE):
            driver = next(turns)
            with mounts.opened(driver.mounts(name)) as root:
                self._compare(expected, observe.snapshot(root), "mounted again")
                edits.replay(cycle.edits, f"/proc/self/fd/{root}")
                expected = observe.snapshot(self.flat)
                self._compare(expected, observe.snapshot(root), "written to")
            driver.settle(name)
            raw = [os.path.join(driver.home, "diff", layer) for layer in self.stack]
            self._compare(expected, visible(merged(raw)), "at rest")
        self.drivers[0].seal(name)
        for driver in self.drivers:
            self._compare(expected, shown(driver, name), "sealed")

    def forked(self, flat: str) -> "Line":
        """Give a second line that goes on from here, with a copy of the flat directory."""
        subprocess.run(["cp", "-a", self.flat, flat], check=True)
        return Line(self.bench, self.drivers, flat, self.stack)

    def _compare(self, expected: dict[str, observe.Item], actual: dict[str, observe.Item], when: str) -> None:
        assert observe.differences(expected, actual) == [], f"{self.stack[0]} {when}"


@pytest.mark.parametrize("engines", [["overlay-shadow"], ["copy"], ["overlay-shadow", "copy"]], ids=", ".join)
def test_random_writes_over_mount_cycles(memory: pathlib.Path, opened: Opener, engines: list[str]) -> None:
    """Ten mount cycles, seal, fork, and again: mounted, at rest and sealed a layer shows what was written to it."""
    writes = cycles = 0
    for seed in itertools.count():
        drivers = [opened(memory / f"home{seed}", engine) for engine in engines]
        (memory / f"flat{seed}").mkdir()
        bench = Workbench(drivers[0], str(memory / f"flat{seed}"))
        line = Line(bench, drivers, bench.flat())
        line.grow("base", 1000 * seed, 2)
        line.grow("long", 1000 * seed + 1, CYCLES)
        fork = line.forked(str(memory / f"flat{seed}/fork"))
        line.grow("left", 1000 * seed + 2, 2)
        fork.grow("right", 1000 * seed + 3, 2)
        fork.grow("right2", 1000 * seed + 4, 1)
        bench.forget()
        cycles += CYCLES + 7
        writes = PER_CYCLE * cycles
        if writes >= WRITES:
            break
    print(f"\n{engines}: {writes} writes in {cycles} mount cycles of {seed + 1} stacks")  # noqa: T201
