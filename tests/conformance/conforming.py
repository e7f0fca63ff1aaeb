"""Runs the conformance suite, or some of its checks, on one driver in a process of its own."""

import contextlib
import json
import os
import pathlib
import subprocess
import sys
from collections.abc import Iterable, Iterator
from typing import IO

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


@attrs.frozen
class Forks:
    """A program that runs pytest in forked processes, one after the other; see `pytest_forks`."""

    jobs: IO[str]
    codes: IO[str]

    def run(self, folder: pathlib.Path, path: list[str], options: list[str], output: pathlib.Path) -> int:
        """Run pytest, and give its exit code."""
        self.jobs.write(json.dumps([str(folder), path, options, str(output), _HANGS]) + "\n")
        self.jobs.flush()
        return int(self.codes.readline())


@contextlib.contextmanager
def forks() -> Iterator[Forks]:
    """Start the program: who has many runs spares each of them the start of Python and pytest, which takes longest."""
    command = [sys.executable, "-P", os.path.join(HERE, "pytest_forks.py")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as program:
        assert program.stdin
        assert program.stdout
        yield Forks(program.stdin, program.stdout)


def conform(folder: pathlib.Path, driver: type[Driver], checks: Iterable[str], *arguments: str) -> Run:
    """Do as `conform_in`, in a process that is started for it."""
    with forks() as started:
        return conform_in(started, folder, driver, checks, *arguments)


def conform_in(
    started: Forks, folder: pathlib.Path, driver: type[Driver], checks: Iterable[str], *arguments: str
) -> Run:
    """Run checks of the suite, given as ``FILE`` or ``FILE::FUNCTION``, on ``driver``.

    It is offered by an installed distribution, as any other is, and is the only
    one beside those that really are installed.

    Args:
        started: what forks the process of its own.
        folder: an empty or missing folder for everything that is written.
        driver: a class that a process with this folder on its path can import.
        checks: what to run.
        arguments: more of pytest's.
    """
    site = folder / "site"
    _offer(site, driver)
    written, output = folder / "verdicts", folder / "output"
    options = ["-q", "-rfs", "-p", "no:cacheprovider", "-p", "verdicts"]
    options += ["-p", "graphdrivers.conformance.plugin", "--graphdriver", driver.name, *arguments]
    options += ["--verdicts", str(written), "--basetemp", str(folder / "checks")]
    options += [str(discovery.SUITE / check) for check in checks]
    code = started.run(folder, [str(site), HERE], options, output)
    return Run(code, output.read_text(errors="replace"), verdicts.read(written))


def _offer(site: pathlib.Path, driver: type[Driver]) -> None:
    """Make a distribution with one entry point."""
    info = site / f"{driver.name.replace('-', '_')}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {driver.name}\nVersion: 1.0\n")
    point = f"{driver.name} = {driver.__module__}:{driver.__name__}"
    (info / "entry_points.txt").write_text(f"[graphdrivers.drivers]\n{point}\n")
