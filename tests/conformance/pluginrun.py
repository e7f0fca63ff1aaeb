"""How tests start the conformance suite as a stranger would: in a process of its own, with drivers from a site."""

import os
import pathlib
import subprocess
import sys
from collections.abc import Iterable

import plugin_drivers

from graphdrivers.backends.vfs import VfsDriver

HERE = os.path.dirname(__file__)
PLUGIN = ("-p", "graphdrivers.conformance.plugin", "--pyargs", "graphdrivers.conformance")


def make_site(folder: pathlib.Path, drivers: Iterable[type[VfsDriver]] = plugin_drivers.DRIVERS) -> str:
    """Make a distribution that offers drivers of `plugin_drivers`."""
    info = folder / "plugin_drivers-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: plugin-drivers\nVersion: 1.0\n")
    lines = "".join(f"{one.name} = plugin_drivers:{one.__name__}\n" for one in drivers)
    (info / "entry_points.txt").write_text(f"[graphdrivers.drivers]\n{lines}")
    return str(folder)


def environment(site: str) -> dict[str, str]:
    """Give the environment in which the site is installed; pytest's own settings are not ours to pass on."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "GRAPHDRIVER_"))}
    return {**kept, "PYTHONPATH": os.pathsep.join([site, HERE])}


def run(site: str, folder: pathlib.Path, *arguments: str, module: str = "pytest") -> subprocess.CompletedProcess[str]:
    """Run pytest, or another module, in ``folder``."""
    command = [sys.executable, "-m", module, *arguments]
    return subprocess.run(command, check=False, capture_output=True, text=True, cwd=folder, env=environment(site))
