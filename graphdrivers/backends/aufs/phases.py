"""In which form a layer's ``diff`` is at the moment, remembered across crashes.

A layer at rest has no entry in ``phase``: its ``diff`` is in the ``.wh.``
dialect. Any other layer is in one of two steps, of the engine that is named:

``live``
    It may be mounted. What ``diff`` (or the copy of the tree) holds is the
    engine's, and a ``.wh.`` name in it was made by a user.
``moving``
    It is on its way between the two forms and not mounted. Every ``.wh.`` name
    is a marker. Whoever finds it so finishes the way to rest.

A new layer is born ``live``: empty, it is in every form at once, so its first
mount need not wait for the disk. Each other step is durable before what it
announces. An entry is a symbolic link whose target is the text: it appears,
changes and survives a power cut whole or not at all, without a sync.
"""

import errno
import functools
import os
from typing import Literal

import attrs

from graphdrivers import errors
from graphdrivers.kit import layerdirs
from graphdrivers.linux.boot import boot_id
from graphdrivers.model import NAME_MAX

Step = Literal["live", "moving"]

TEMPORARY = "-" * (NAME_MAX + 1)
"""Name of an entry in the making: no layer's, for it is too long."""

_BOOT_DIGITS = 13
"""Of the boot id: so the text stays below 60 bytes, which file systems keep in the inode."""


@attrs.frozen
class Phase:
    """What an entry says."""

    engine: str
    step: Step
    boot: str = ""
    """Which boot of the machine a mount was last planned in; empty for none yet."""
    pid: int = 0
    """The process that planned it, or that moves the layer."""
    start: int = 0
    """When that process started, in clock ticks since boot: tells it from a later one with its pid."""


def read(folder: str, layer: str) -> Phase | None:
    """Read the phase of a layer; ``None`` at rest.

    Raises:
        StoreCorrupt: the entry cannot be understood.
    """
    try:
        text = os.readlink(os.path.join(folder, layer))
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        text = ""
    engine, step, boot, pid, start = (*text.split(":"), "", "", "", "", "")[:5]
    if step == "live" and pid.isdecimal() and start.isdecimal():
        return Phase(engine, "live", boot, int(pid), int(start))
    if step == "moving" and pid.isdecimal() and start.isdecimal():
        return Phase(engine, "moving", boot, int(pid), int(start))
    raise errors.StoreCorrupt(folder, f"the phase of layer {layer!r} cannot be understood")


def write(folder: str, layer: str, phase: Phase, *, lasting: bool) -> None:
    """Write a phase; atomic, and durable once this returns where it is to be ``lasting``.

    One writer at a time: the caller holds the lock of the home.
    """
    place = os.path.join(folder, TEMPORARY)
    text = f"{phase.engine}:{phase.step}:{phase.boot}:{phase.pid}:{phase.start}"
    try:
        os.symlink(text, place)
    except FileExistsError:  # of a writer that was killed
        os.unlink(place)
        os.symlink(text, place)
    os.rename(place, os.path.join(folder, layer))
    if lasting:
        with layerdirs.directory(folder) as opened:
            os.fsync(opened)


def now(engine: str, step: Step) -> Phase:
    """Give the phase of a layer that this process takes now."""
    return Phase(engine, step, *_identity(os.getpid()))


def is_held(phase: Phase) -> bool:
    """Say whether the process that planned the last mount, or moves the layer, still lives.

    Processes of other pid namespaces are not seen.
    """
    return phase.boot == _boot() and _start_time(phase.pid) == phase.start


def is_of_this_boot(phase: Phase) -> bool:
    """Say whether the machine still runs as it did then; if not, no mount of that time is left."""
    return phase.boot == _boot()


@functools.lru_cache(maxsize=1)
def _identity(pid: int) -> tuple[str, int, int]:
    """Give what tells this process from all others, ever: boot, pid, start; it cannot change."""
    return _boot(), pid, _start_time(pid)


def _boot() -> str:
    """Give the beginning of the boot id."""
    return boot_id()[:_BOOT_DIGITS]


def _start_time(pid: int) -> int:
    """Give the start time of a process; -1 where there is none.

    Source: proc_pid_stat(5), field 22; the name in field 2 may hold anything.
    """
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            text = file.read()
    except (FileNotFoundError, ProcessLookupError):
        return -1
    return int(text.rpartition(b")")[2].split()[19])
