"""Run workloads on several drivers in turn, and always clean up.

Samples are taken in rounds, one driver after the other (A B A B), so that a
machine that gets slower or faster meanwhile does it to all of them. The first
round of each workload warms up and is thrown away.
"""

import contextlib
import os
import signal
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

import attrs

from graphdrivers import errors
from graphdrivers.archive import compression
from graphdrivers.bench.bed import Bed, Tar
from graphdrivers.bench.workloads import Workload
from graphdrivers.images.image import Image
from graphdrivers.linux import mountinfo, mounts, trees
from graphdrivers.model import Limits

_CHUNK = 1 << 20
"""Bytes copied at a time."""

SCRATCH_PREFIX = "graphdriver-bench-"
"""In front of the process number, in the names of scratch folders."""

Observer = Callable[[str, str, float], None]
"""Called before each sample with the workload's and driver's names, and how much is done (0 to 1)."""


@attrs.define
class Cell:
    """The samples of one workload on one driver, or why there are none."""

    workload: Workload
    driver: str
    samples: list[float] = attrs.Factory(list)
    """In the workload's unit, in the order taken, the warm-up left out."""
    reason: str = ""


@attrs.define
class Results:
    """What was measured so far; complete or not."""

    cells: list[Cell] = attrs.Factory(list)
    complete: bool = False

    def cell(self, workload: str, driver: str) -> Cell | None:
        """Find a cell; ``None`` if it was not reached."""
        return next((cell for cell in self.cells if (cell.workload.name, cell.driver) == (workload, driver)), None)


@attrs.frozen(kw_only=True)
class Plan:
    """What to measure, and for how long."""

    workloads: Sequence[Workload]
    repeats: int = 5
    """Samples per workload and driver after the warm-up, budget permitting."""
    budget: float = 60.0
    """Seconds for everything; once it is used up, each workload left gets one sample."""


def run(plan: Plan, beds: Sequence[Bed], results: Results, observe: Observer) -> None:
    """Measure everything into ``results``, which is usable at any moment (after Ctrl-C too).

    A driver that cannot do a workload, for one of the deliberate errors or a
    failed system call, keeps the reason in its cell and is left out of that row.
    """
    start = time.monotonic()
    for index, workload in enumerate(plan.workloads):
        spent = time.monotonic() - start
        share = max(plan.budget - spent, 0.0) / (len(plan.workloads) - index)
        rounds = 1 if workload.unit == "B" else plan.repeats + 1
        row = [Cell(workload, bed.name) for bed in beds]
        results.cells += row
        _run_row(list(zip(beds, row, strict=True)), rounds, share, _part(observe, index, len(plan.workloads)))
    results.complete = True


def _part(observe: Observer, index: int, count: int) -> Observer:
    """Scale the progress of one workload to that of all."""
    return lambda workload, driver, done: observe(workload, driver, (index + done) / count)


def _run_row(row: Sequence[tuple[Bed, Cell]], rounds: int, share: float, observe: Observer) -> None:
    """Take the samples of one workload: at least one of each driver, more for ``share`` seconds.

    With a single round (sizes do not vary) there is no warm-up.
    """
    deadline = time.monotonic() + share
    for number in range(rounds):
        for position, (bed, cell) in enumerate(row):
            if not cell.reason:
                observe(cell.workload.name, bed.name, (number + position / len(row)) / rounds)
                _sample(bed, cell, keep=number > 0 or rounds == 1)
        if number > 0 and time.monotonic() > deadline:
            break


def _sample(bed: Bed, cell: Cell, *, keep: bool) -> None:
    bed.elapsed = 0.0
    try:
        value = cell.workload.run(bed)
    except (errors.GraphDriverError, OSError) as error:
        cell.reason = str(error)
        cell.samples.clear()
        return
    if keep:
        cell.samples.append(value)


@contextlib.contextmanager
def scratch(parent: str) -> Iterator[str]:
    """Give a new private folder in ``parent``; at exit all mounts in it are undone and it is removed.

    The clean-up cannot be interrupted by signals.

    Raises:
        OSError: what could not be cleaned up, named.
    """
    folder = tempfile.mkdtemp(prefix=f"{SCRATCH_PREFIX}{os.getpid()}-", dir=parent)
    try:
        yield folder
    finally:
        with _uninterrupted():
            for mount in reversed(mountinfo.mounted_below(folder)):
                mounts.detach(mount.target, lazy=True)
            parent_fd = os.open(parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                trees.remove_tree(parent_fd, os.fsencode(os.path.basename(folder)))
            finally:
                os.close(parent_fd)


@contextlib.contextmanager
def _uninterrupted() -> Iterator[None]:
    """Hold back Ctrl-C and SIGTERM until the block has ended."""
    held = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM, signal.SIGHUP))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, held)


@contextlib.contextmanager
def beds(
    names: Sequence[str], folder: str, image: Sequence[Tar], files: int, options: Mapping[str, str]
) -> Iterator[tuple[list[Bed], dict[str, errors.GraphDriverError]]]:
    """Open one bed per driver below ``folder``; give those that opened, and why the others did not."""
    opened: list[Bed] = []
    refused: dict[str, errors.GraphDriverError] = {}
    with contextlib.ExitStack() as stack:
        for name in names:
            place = os.path.join(folder, name)
            os.mkdir(place, 0o700)
            try:
                bed = Bed(name, place, image, files, options)
            except (errors.DriverUnavailable, errors.DriverNotFound, errors.DriverConflict) as error:
                refused[name] = error
                continue
            stack.callback(bed.close)
            opened.append(bed)
        yield opened, refused


def unpacked(image: Image, folder: str) -> list[Tar]:
    """Decompress the layers of an image into ``folder``, for every driver to read the same bytes.

    Raises:
        DigestMismatch, ArchiveError: the image is damaged.
    """
    tars = []
    for number, layer in enumerate(image.layers):
        path = os.path.join(folder, f"layer-{number}.tar")
        with (
            image.open_layer(layer) as stored,
            contextlib.closing(compression.open_plain(stored, Limits())) as plain,
            open(path, "wb", buffering=0) as file,
        ):
            while chunk := plain.read(_CHUNK):
                file.write(chunk)
        tars.append(Tar(path, layer.diff_id, os.path.getsize(path)))
    return tars
