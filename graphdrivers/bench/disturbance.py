"""Whether something else was going on: looked for between the samples, when the drivers are at rest."""

import contextlib
import glob
from collections.abc import Iterator

import attrs

BUSY = 0.2
"""Part of the moments looked at, with something else running, from which on a run counts as disturbed."""

STOLEN = 0.01
"""Part of the time that the hypervisor gave to others, from which on it does."""


@attrs.frozen
class _Counters:
    """Counters of the kernel, all since boot."""

    total: int
    stolen: int
    """In ticks, of all processors."""
    swapped: int
    """Pages in and out."""
    throttled: int
    """Times that a processor was slowed down because it was hot."""


@attrs.define
class Watch:
    """What was seen of others during a run."""

    moments: int = 0
    """How often it was looked."""
    busy: int = 0
    """How often something else was running then."""
    _before: _Counters = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        """Remember where the counters are."""
        self._before = _counters()

    def look(self) -> bool:
        """Say whether something else is running at this moment, when nothing of ours should."""
        self.moments += 1
        running = _stat("procs_running") > 1
        self.busy += running
        return running

    def complaints(self) -> list[str]:
        """Say what disturbed the run so far; nothing where nothing did."""
        return list(self._complaints(_counters()))

    def _complaints(self, now: _Counters) -> Iterator[str]:
        before = self._before
        if self.moments and self.busy / self.moments > BUSY:
            yield f"other programs were running at {self.busy} of the {self.moments} moments looked at"
        stolen = (now.stolen - before.stolen) / max(now.total - before.total, 1)
        if stolen > STOLEN:
            yield f"the hypervisor gave {stolen:.0%} of the processors' time to others"
        if now.swapped > before.swapped:
            yield f"{now.swapped - before.swapped} pages were swapped"
        if now.throttled > before.throttled:
            yield f"the processors were too hot {now.throttled - before.throttled} times"


def _counters() -> _Counters:
    """Read the counters.

    Source: proc_stat(5), proc_vmstat(5), the kernel's ``arch/x86/kernel/cpu/mce/therm_throt.c``.
    """
    with open("/proc/stat", encoding="ascii") as lines:
        ticks = [int(field) for field in lines.readline().split()[1:]]
    with open("/proc/vmstat", encoding="ascii") as lines:
        swapped = sum(int(line.split()[1]) for line in lines if line.split()[0] in {"pswpin", "pswpout"})
    throttled = 0
    for path in glob.glob("/sys/devices/system/cpu/cpu[0-9]*/thermal_throttle/core_throttle_count"):
        with contextlib.suppress(OSError), open(path, encoding="ascii") as file:
            throttled += int(file.read())
    return _Counters(sum(ticks[:8]), ticks[7], swapped, throttled)


def _stat(key: str) -> int:
    with open("/proc/stat", encoding="ascii") as lines:
        return next(int(line.split()[1]) for line in lines if line.split()[0] == key)
