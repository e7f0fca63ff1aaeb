"""Runs the conformance suite, or some of its checks, on one driver in a process of its own."""

import os
import pathlib
import subprocess
import sys
from collections.abc import Iterable

import attrs
import discovery
import verdicts

from graphdrivers.driver import Driver

HERE = os.path.dirname(__file__)
_HANGS = 600
"""Seconds after which a run is taken to hang; each takes a few."""


@attrs.frozen
class Run:
    """One finished run."""

    code: int
    """pytest's."""
    output: str
    found: list[verdicts.Verdict]

    def of(self, check: str) -> list[verdicts.Verdict]:
        """Give what became of a check, every parameter of it where the name has none."""
        return [one for one in self.found if check in {one.check, discovery.function(one.check)}]


def conform(folder: pathlib.Path, driver: type[Driver], checks: Iterable[str], *arguments: str) -> Run:
    """Run checks of the suite, given as ``FILE`` or ``FILE::FUNCTION``, on ``driver``.

    It is offered by an installed distribution, as any other is, and is the only
    one beside those that really are installed.

    Args:
        folder: an empty or missing folder for everything that is written.
        driver: a class that a process with this folder on its path can import.
        checks: what to run.
        arguments: more of pytest's.
    """
    site = folder / "site"
    _offer(site, driver)
    written = folder / "verdicts"
    command = [sys.executable, "-m", "pytest", "-q", "-rfs", "-p", "no:cacheprovider", "-p", "verdicts"]
    command += ["-p", "graphdrivers.conformance.plugin", "--graphdriver", driver.name, *arguments]
    command += ["--verdicts", str(written), "--basetemp", str(folder / "checks")]
    command += [str(discovery.SUITE / check) for check in checks]
    path = os.pathsep.join([str(site), HERE])
    environment = {**os.environ, "PYTHONPATH": path, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    done = subprocess.run(
        command, check=False, capture_output=True, text=True, cwd=folder, env=environment, timeout=_HANGS
    )
    return Run(done.returncode, done.stdout + done.stderr, verdicts.read(written))


def _offer(site: pathlib.Path, driver: type[Driver]) -> None:
    """Make a distribution with one entry point."""
    info = site / f"{driver.name.replace('-', '_')}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {driver.name}\nVersion: 1.0\n")
    point = f"{driver.name} = {driver.__module__}:{driver.__name__}"
    (info / "entry_points.txt").write_text(f"[graphdrivers.drivers]\n{point}\n")
