"""Page-cache memory that reading takes: what a control group of its own is charged, else what the machine's grows by.

A group counts the pages that this process brings in and nobody else's. Memory
that a file system's daemon or the ARC of ZFS takes is charged elsewhere: for
those the figure is too low, and says so nowhere but here and in the manual.
"""

import contextlib
import os
from collections.abc import Callable

import attrs

from graphdrivers.linux import mountinfo


@attrs.frozen
class Meter:
    """How page-cache memory is measured here."""

    name: str
    folder: str = ""
    """Of the control groups that are used; empty for the whole machine's figure."""
    key: str = ""
    """In ``memory.stat``."""

    def taken(self, read: Callable[[], None]) -> float:
        """Give the bytes of page cache that ``read`` brought in, which nothing held before."""
        if not self.folder:
            before = _cached()
            read()
            return float(max(_cached() - before, 0))
        group = os.path.join(self.folder, f"graphdriver-bench-{os.getpid()}")
        home = os.path.join(self.folder, _own_group(self.folder).lstrip("/"))
        os.mkdir(group)
        try:
            _enter(group)
            try:
                before = self._charged(group)
                read()
                return float(self._charged(group) - before)
            finally:
                _enter(home)
        finally:
            os.rmdir(group)

    def _charged(self, group: str) -> int:
        with open(os.path.join(group, "memory.stat"), encoding="ascii") as lines:
            return int(next(line.split()[1] for line in lines if line.split()[0] == self.key))


def meter() -> Meter:
    """Find out how it can be measured here: by trying."""
    for mount in mountinfo.read():
        if mount.fs_type == "cgroup2":
            tried = Meter("control group (v2), file", mount.target, "file")
        elif mount.fs_type == "cgroup" and mount.option("memory") is None and ("memory", None) in mount.super_options:
            tried = Meter("control group (v1), cache", mount.target, "cache")
        else:
            continue
        with contextlib.suppress(OSError, StopIteration):
            tried.taken(lambda: None)
            return tried
    return Meter("growth of Cached and Buffers in /proc/meminfo, which others change too")


def _enter(group: str) -> None:
    with open(os.path.join(group, "cgroup.procs"), "w", encoding="ascii") as file:
        file.write(str(os.getpid()))


def _own_group(folder: str) -> str:
    """Give the group of this process in the hierarchy that is mounted at ``folder``. Source: cgroups(7)."""
    version_2 = os.path.exists(os.path.join(folder, "cgroup.controllers"))
    with open("/proc/self/cgroup", encoding="utf-8", errors="surrogateescape") as lines:
        for line in lines:
            number, controllers, path = line.rstrip("\n").split(":", 2)
            if (number == "0" and not controllers) if version_2 else "memory" in controllers.split(","):
                return path
    raise OSError("this process is in no control group")


def _cached() -> int:
    """Give the machine's page cache in bytes. Source: proc_meminfo(5)."""
    with open("/proc/meminfo", encoding="ascii") as lines:
        found = {line.split(":")[0]: int(line.split()[1]) for line in lines}
    return (found["Cached"] + found["Buffers"]) * 1024
