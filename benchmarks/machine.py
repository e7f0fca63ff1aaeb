"""The machine that a run was taken on, in general words, and how much else it did meanwhile."""

import datetime as dt
import os
import time

import attrs

import tools
from graphdrivers.bench import facts

BUSY = 0.1
"""Processors' worth of work by others from which on a run counts as disturbed."""


def described(folder: str) -> dict[str, object]:
    """Describe the machine, the file system of ``folder`` and every program's version, as JSON can hold it."""
    return (
        facts.machine()
        | facts.place(folder)
        | {
            "date": dt.datetime.now(dt.UTC).date().isoformat(),
            "tools": tools.versions(),
        }
    )


@attrs.frozen
class Watch:
    """A moment from which on the work of others is counted."""

    ticks: int
    """Of all processors at work, since boot."""
    own: float
    """Seconds of this process and the processes that it waited for."""
    at: float

    @classmethod
    def begin(cls) -> "Watch":
        """Look at the clocks."""
        return cls(_busy_ticks(), sum(os.times()[:4]), time.monotonic())

    def others(self) -> float:
        """Give how many processors others kept busy since, the kernel's own work included."""
        now = Watch.begin()
        worked = (now.ticks - self.ticks) / os.sysconf("SC_CLK_TCK") - (now.own - self.own)
        return max(worked, 0.0) / max(now.at - self.at, 1e-9)


def _busy_ticks() -> int:
    """Sum up what the processors did but idle and wait. Source: proc_stat(5)."""
    with open("/proc/stat", encoding="ascii") as lines:
        fields = [int(field) for field in lines.readline().split()[1:]]
    return sum(fields[:8]) - fields[3] - fields[4]
