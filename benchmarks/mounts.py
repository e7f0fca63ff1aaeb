"""Compare mounting through ``graphdrivers.linux.mounts`` with the bare system calls.

Each round mounts and unmounts one overlay both ways, ten times each, in turns,
so that noise hits both. The goal is a ratio of at most 1.3 for 10 and for 100
lower directories. Needs root::

    python benchmarks/mounts.py [ROUNDS]
"""

import ctypes
import gc
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable

from graphdrivers.linux import mounts
from graphdrivers.model import Mount

LIBC = ctypes.CDLL(None, use_errno=True)
FSCONFIG, FSOPEN, FSMOUNT, MOVE_MOUNT = 431, 430, 432, 429
SET_STRING, CREATE = 1, 6


def bare(options: list[tuple[bytes, bytes]], target: bytes) -> None:
    """Mount with the system calls alone, everything encoded beforehand, and unmount."""
    call = LIBC.syscall
    context = call(FSOPEN, b"overlay", 1)
    for key, value in options:
        if call(FSCONFIG, context, SET_STRING, key, value, 0):
            raise OSError(ctypes.get_errno(), "fsconfig")
    call(FSCONFIG, context, CREATE, None, None, 0)
    mount_fd = call(FSMOUNT, context, 1, 0)
    if call(MOVE_MOUNT, mount_fd, b"", -100, target, 4):
        raise OSError(ctypes.get_errno(), "move_mount")
    os.close(mount_fd)
    os.close(context)
    if LIBC.umount2(target, 8):
        raise OSError(ctypes.get_errno(), "umount2")


def ours(plan: tuple[Mount, ...], target: str) -> None:
    """Mount and unmount as the library does."""
    mounts.attach(plan, target)
    mounts.detach(target)


def plan_for(base: str, lowers: int) -> tuple[Mount, ...]:
    """Plan a writable overlay over ``lowers`` directories with names as long as real ones."""
    directories = [f"{base}/layers/{number:064x}/diff" for number in range(lowers)]
    upper, work = f"{base}/upper", f"{base}/work"
    for directory in (*directories, upper, work):
        os.makedirs(directory, exist_ok=True)
    options = [("lowerdir+", directory) for directory in directories]
    return (Mount("overlay", "graphdrivers", (*options, ("upperdir", upper), ("workdir", work))),)


def clocked(action: Callable[..., None], *arguments: object) -> float:
    """Give the time of one call in seconds."""
    start = time.perf_counter()
    action(*arguments)
    return time.perf_counter() - start


def measure(base: str, lowers: int, rounds: int) -> str:
    """Time ``rounds`` turns; give one line of results."""
    plan = plan_for(base, lowers)
    target = f"{base}/merged"
    os.makedirs(target, exist_ok=True)
    encoded = [
        (key.encode(), os.fsencode(value or "")) for key, value in (("source", plan[0].source), *plan[0].options)
    ]
    times: tuple[list[float], list[float]] = ([], [])
    for turn in range(2 * rounds + 4):
        if turn % 2:
            times[0].append(clocked(bare, encoded, os.fsencode(target)))
        else:
            times[1].append(clocked(ours, plan, target))
    # An unmount waits for the kernel's RCU, often for milliseconds: the lower quartile shows the work alone.
    medians = [statistics.median(sample) * 1e6 for sample in times]
    quartiles = [statistics.quantiles(sample, n=4)[0] * 1e6 for sample in times]
    return (
        f"{lowers:4} lowers: medians bare {medians[0]:.0f} us, ours {medians[1]:.0f} us; "
        f"lower quartiles {quartiles[0]:.0f} us, {quartiles[1]:.0f} us, ratio {quartiles[1] / quartiles[0]:.2f}"
    )


def main() -> None:
    """Measure in a scratch folder and print."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 150
    gc.disable()
    with tempfile.TemporaryDirectory(dir="/dev/shm") as base:
        for lowers in (10, 100):
            print(measure(base, lowers, rounds))


if __name__ == "__main__":
    main()
