"""How many layers of an image are worth being made at a time."""

import os
import sys
from collections.abc import Sequence

from graphdrivers.driver import AppliesAhead, Driver
from graphdrivers.store.incoming import Source

JOBS_MAX = 4
"""Layers at a time where nobody asked for more."""

DOWNLOADS = 3
"""Layers at a time that come over a network, where nobody asked for more: the number that Docker has, too."""

PROCESSORS = 2
"""That one layer at a time keeps busy, with what is decompressed and hashed beside it."""

WORTH = 8 << 20
"""Bytes, most often compressed, that are worth a process of their own: starting one takes as long as to unpack them."""


def count(driver: Driver, sources: Sequence[Source], jobs: int | None) -> int:
    """Say how many processes are worth being started beside this one to make layers.

    Args:
        driver: which can do several at once, or not.
        sources: what is to be made.
        jobs: layers at a time; ``None`` for what the processors or the network are likely to allow.
    """
    able = driver.support.capabilities.apply_ahead and isinstance(driver, AppliesAhead)
    if not able or not _is_python() or len(sources) < 2:
        return 0
    if jobs is None:
        jobs = max(1, min(len(os.sched_getaffinity(0)) // PROCESSORS, JOBS_MAX))
        if any(source.distant for source in sources):
            jobs = max(jobs, DOWNLOADS)
        sizes = [WORTH if source.size is None else source.size for source in sources]
        jobs = min(jobs, 1 + (sum(sizes) - max(sizes)) // WORTH)
    return max(0, min(jobs, len(sources)) - 1)


def _is_python() -> bool:
    """Say whether the program that runs is one that runs Python code: one that was frozen would start itself again."""
    return bool(sys.executable) and not getattr(sys, "frozen", False)
