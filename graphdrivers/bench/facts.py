"""The machine that a measurement was taken on, as far as it changes the numbers."""

import importlib.metadata
import os
import platform

from graphdrivers.linux import filesystems, namespaces, probe

_LIBRARIES = ("graphdrivers", "isal", "zstandard", "stevedore")
"""Distributions whose version may change the numbers."""


def machine(folder: str) -> dict[str, object]:
    """Describe the machine, and the file system that ``folder`` lies on, in values that JSON can hold."""
    return {
        "kernel": probe.kernel_release(),
        "architecture": platform.machine(),
        "cpu": _cpu_model(),
        "cpus": len(os.sched_getaffinity(0)),
        "memory": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        "filesystem": filesystems.fs_type(folder),
        "user": namespaces.describe(),
        "load": os.getloadavg()[0],
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "versions": {name: importlib.metadata.version(name) for name in _LIBRARIES},
    }


def _cpu_model() -> str:
    """Name the processor as the kernel does; the architecture where it does not."""
    with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as lines:
        for line in lines:
            key, _colon, value = line.partition(":")
            if key.strip() in {"model name", "Model", "cpu model"}:
                return value.strip()
    return platform.machine()
