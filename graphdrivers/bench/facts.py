"""The machine that a measurement was taken on, as far as it changes the numbers."""

import glob
import importlib.metadata
import os
import platform

from graphdrivers.linux import filesystems, mountinfo, namespaces, probe

_LIBRARIES = ("graphdrivers", "isal", "zstandard", "stevedore")
"""Distributions whose version may change the numbers."""

_GOVERNORS = "/sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_governor"


def machine() -> dict[str, object]:
    """Describe the machine in values that JSON can hold."""
    return {
        "kernel": probe.kernel_release(),
        "architecture": platform.machine(),
        "cpu": _cpu_model(),
        "cpus": len(os.sched_getaffinity(0)),
        "governor": governor(),
        "memory": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        "user": namespaces.describe(),
        "load": os.getloadavg()[0],
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "versions": {name: importlib.metadata.version(name) for name in _LIBRARIES},
    }


def place(folder: str) -> dict[str, object]:
    """Describe the file system that a directory lies on: its type, what is mounted there and how."""
    real = os.path.realpath(folder)
    around = [mount for mount in mountinfo.read() if real == mount.target or real.startswith(_below(mount.target))]
    mount = max(around, key=lambda mount: len(mount.target), default=None)
    options = [key if value is None else f"{key}={value}" for key, value in mount.super_options] if mount else []
    return {
        "filesystem": filesystems.fs_type(folder),
        "source": mount.source if mount else "",
        "options": sorted({*mount.options, *options}) if mount else [],
    }


def governor() -> str:
    """Name what sets the processors' frequency; empty where the kernel does not say."""
    found = set()
    for path in glob.glob(_GOVERNORS):
        with open(path, encoding="ascii") as file:
            found.add(file.read().strip())
    return ", ".join(sorted(found))


def _below(target: str) -> str:
    return target.rstrip("/") + "/"


def _cpu_model() -> str:
    """Name the processor as the kernel does; the architecture where it does not."""
    with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as lines:
        for line in lines:
            key, _colon, value = line.partition(":")
            if key.strip() in {"model name", "Model", "cpu model"}:
                return value.strip()
    return platform.machine()
