"""What every benchmark here shares: contenders in turns, medians with intervals, ratios round by round.

A benchmark is a function that takes a `Bench` and gives `Result` values. Each
module that has one can be run alone::

    python benchmarks/NAME.py [--directory DIR] [--rounds N] [--image LAYOUT] [--quick]

as root; ``benchmarks/peers.py`` runs all of them. Every round runs each contender
once (A B C A B C), so that a drifting machine hits all alike; the first round
warms up and is not counted. What is read lies in the page cache, for it was just
written or read by the round before; what was written is handed to the disk
(``syncfs``) before the next contender begins. Nothing else is made durable, unless
a contender's name says so.
"""

import argparse
import functools
import gc
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping

import attrs

from graphdrivers.bench.quantities import quantity
from graphdrivers.bench.results import Summary, summarise
from graphdrivers.errors import GraphDriverError
from graphdrivers.linux import durable

Contender = Callable[[], float]
"""Does its work once; gives the seconds (or bytes) of the part that counts."""

CANNOT = (GraphDriverError, OSError, subprocess.CalledProcessError)
"""What a contender fails with where it cannot do the work here."""

QUICK = 2
"""Rounds of a quick try."""


@attrs.frozen
class Result:
    """One work and what each contender took for it, in the order in which they ran."""

    work: str
    """Its name; unique in a run."""
    title: str
    """What is done, for people."""
    samples: Mapping[str, tuple[float, ...]]
    """By contender; those of one round have the same index."""
    absent: Mapping[str, str]
    """Contenders that cannot do it, and why."""
    floor: str = ""
    """The contender that the others are measured against."""
    unit: str = "s"

    def summary(self, contender: str) -> Summary | None:
        """Give the median of a contender with its interval."""
        taken = self.samples.get(contender)
        return summarise(taken) if taken else None

    def ratio(self, contender: str, to: str) -> Summary | None:
        """Give the median of the ratios that each round has by itself, with its interval."""
        ours, theirs = self.samples.get(contender), self.samples.get(to)
        return summarise([a / b for a, b in zip(ours, theirs, strict=True)]) if ours and theirs else None


@attrs.frozen
class Bench:
    """Where and how thoroughly to measure."""

    folder: str
    """Empty at first, and removed at the end; its file system is what is measured."""
    rounds: int = 7
    quick: bool = False
    """Small trees and few rounds, to see that it works."""
    image: str | None = None
    """An OCI layout of a real image, to measure with beside what is made here."""
    say: Callable[[str], None] = print

    def scaled(self, count: int) -> int:
        """Give a number of files or bytes: a twentieth in a quick try."""
        return max(count // 20, 20) if self.quick else count

    def path(self, *parts: str) -> str:
        """Name something in the folder."""
        return os.path.join(self.folder, *parts)

    def compare(
        self,
        work: str,
        title: str,
        contenders: Mapping[str, Contender],
        *,
        absent: Mapping[str, str] | None = None,
        floor: str = "",
        rounds: int | None = None,
        unit: str = "s",
    ) -> Result:
        """Run the contenders in turns and print what came out.

        Args:
            work: name of the work.
            title: what is done.
            contenders: by name; one that fails is left out, with its reason.
            absent: those that cannot do it.
            floor: the contender that the others are measured against.
            rounds: how many are counted; for short works many.
            unit: of what the contenders give, ``s`` or ``B``.
        """
        missing = {name: self._anywhere(reason) for name, reason in (absent or {}).items()}
        taken: dict[str, list[float]] = {name: [] for name in contenders}
        for turn in range((QUICK if self.quick else rounds or self.rounds) + 1):
            for name, contender in contenders.items():
                if name in missing:
                    continue
                self._settle()
                try:
                    sample = contender()
                except CANNOT as error:
                    missing[name] = self._anywhere(_reason(error))
                    del taken[name]
                    continue
                if turn:
                    taken[name].append(sample)
        result = Result(work, title, {name: tuple(found) for name, found in taken.items()}, missing, floor, unit)
        for line in lines(result):
            self.say(line)
        return result

    def _anywhere(self, reason: str) -> str:
        """Take the folder's name out of a reason: it is told to people who do not have it."""
        return re.sub(rf"(['\"]?){re.escape(self.folder)}(/[^\s'\",:;]*)?\1", "the folder", reason)

    def _settle(self) -> None:
        """Leave nothing to the next contender that the one before has to answer for."""
        gc.collect()
        folder = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            durable.syncfs(folder)
        finally:
            os.close(folder)


Measure = Callable[[Bench], Iterable[Result]]


def lines(result: Result) -> Iterable[str]:
    """Show a result as text."""
    yield f"{result.work}: {result.title}"
    for name in result.samples:
        summary, ratio = result.summary(name), result.ratio(name, result.floor)
        if summary:
            against = f"  {ratio.median:6.2f} x {result.floor}" if ratio and name != result.floor else ""
            yield f"  {name:32} {shown(summary, result.unit):>24}{against}"
    for name, reason in result.absent.items():
        yield f"  {name:32} {'-':>24}  {reason}"


def shown(summary: Summary, unit: str) -> str:
    """Show a median with its interval."""
    middle, low, high = (quantity(value, unit) for value in (summary.median, summary.low, summary.high))
    return f"{middle} ({low} to {high})"


def clocked(action: Callable[..., object], *arguments: object) -> float:
    """Give the seconds that one call takes."""
    start = time.perf_counter()
    action(*arguments)
    return time.perf_counter() - start


def fastest(times: int, action: Callable[[], float]) -> float:
    """Give the least of some samples: for what the kernel holds up at random, as an unmount that waits for its RCU."""
    return min(action() for _ in range(times))


def run(*command: str, cwd: str | None = None) -> str:
    """Run a program to its end; give what it printed.

    Raises:
        subprocess.CalledProcessError: it failed; its standard error is kept.
    """
    return subprocess.run(command, check=True, capture_output=True, text=True, cwd=cwd).stdout


def piped(writer: list[str], reader: list[str]) -> None:
    """Run ``writer | reader``.

    Raises:
        subprocess.CalledProcessError: one of them failed.
    """
    with subprocess.Popen(writer, stdout=subprocess.PIPE) as source:
        subprocess.run(reader, stdin=source.stdout, stdout=subprocess.DEVNULL, check=True)
    if source.returncode:
        raise subprocess.CalledProcessError(source.returncode, writer)


def alone(measure: Measure, text: str | None) -> None:
    """Be the program of one benchmark."""
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser)
    options = parser.parse_args()
    with_bench(options, measure)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what every benchmark can be told."""
    parser.add_argument("--directory", default=tempfile.gettempdir(), help="its file system is measured (%(default)s)")
    parser.add_argument("--rounds", type=int, default=7, help="counted rounds of long works (%(default)s)")
    parser.add_argument("--image", metavar="LAYOUT", help="a real image, of scripts/debian-image, to measure with too")
    parser.add_argument("--quick", action="store_true", help="small trees and few rounds, to see that it works")


def with_bench(options: argparse.Namespace, measure: Measure) -> list[Result]:
    """Measure in a new folder, and remove it."""
    # buildah makes an image's name of the path, so that it may hold few characters.
    folder = os.path.join(os.path.abspath(options.directory), f"graphdrivers-benchmark-{os.urandom(4).hex()}")
    os.mkdir(folder, 0o700)
    say = functools.partial(print, flush=True)
    gc.disable()
    try:
        return list(measure(Bench(folder, options.rounds, quick=options.quick, image=options.image, say=say)))
    finally:
        gc.enable()
        shutil.rmtree(folder, onerror=_complain)


def median(samples: Iterable[float]) -> float:
    """Give the middle."""
    return statistics.median(samples)


def _complain(_function: object, path: str, error: object) -> None:
    sys.stderr.write(f"could not be removed: {path}: {error}\n")


def _reason(error: BaseException) -> str:
    """Say in one line why a contender failed."""
    said = ""
    if isinstance(error, subprocess.CalledProcessError):
        told = [line.strip() for line in (error.stderr or "").splitlines() if line.strip()]
        # GNU tar's last line says only that there are others.
        said = next((line for line in reversed(told) if "previous errors" not in line), "")
        said = f"{error.cmd[0]} failed: {said or f'exit code {error.returncode}'}"
    return said or f"{type(error).__name__}: {error}"
