"""What a database does to a large file: random writes that are durable, then all of it in sequence.

``fio`` does it where it is installed, else this process; what did is told with
the result, because the two are not compared with each other.
"""

import json
import os
import random
import shutil
import subprocess
import time

import attrs

from graphdrivers.bench.contents import content

BLOCK = 4096
"""Bytes of one write."""

_CHUNK = 1 << 20
"""Bytes read at a time."""


@attrs.frozen
class Engine:
    """Who reads and writes."""

    name: str
    """With its version."""
    fio: str | None = None
    """The program, where it is fio."""


def engine() -> Engine:
    """Find out who reads and writes here."""
    fio = shutil.which("fio")
    if fio is None:
        return Engine("python")
    told = subprocess.run([fio, "--version"], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    return Engine(told.stdout.strip(), fio) if told.returncode == 0 else Engine("python")


def random_writes(engine: Engine, path: str, count: int) -> float:
    """Overwrite ``count`` blocks of a file at random places, each made durable before the next; give the seconds.

    Raises:
        OSError: fio failed; the text says how.
    """
    if engine.fio is not None:
        job = ["--rw=randwrite", f"--bs={BLOCK}", "--fsync=1", f"--number_ios={count}", "--norandommap"]
        return _fio(engine.fio, path, job, "write")
    return _written(path, count)


def sequential_read(engine: Engine, path: str) -> float:
    """Read a file from its first byte to its last; give the seconds.

    Raises:
        OSError: fio failed; the text says how.
    """
    if engine.fio is not None:
        return _fio(engine.fio, path, ["--rw=read", f"--bs={_CHUNK}"], "read")
    return _read(path)


def _fio(program: str, path: str, job: list[str], direction: str) -> float:
    """Run one job on a file that exists; give the time of its input and output in seconds."""
    fixed = ["--name=bench", "--ioengine=psync", "--invalidate=0", "--allow_file_create=0", "--randseed=1"]
    told = subprocess.run(
        [program, "--output-format=json", f"--filename={path}", f"--size={os.path.getsize(path)}", *fixed, *job],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
    )
    if told.returncode:
        raise OSError(f"fio failed: {' '.join((told.stderr or told.stdout).split())[-200:]}")
    found = json.loads(told.stdout[told.stdout.index("{") :])["jobs"][0]
    # The sums of the latencies (ns): the run time of a job is in whole ms, which is too coarse.
    parts = [found[direction]["lat_ns"], found.get("sync", {}).get("lat_ns", {})]
    return float(sum(part.get("mean", 0.0) * part.get("N", 0) for part in parts) / 1e9)


def _written(path: str, count: int) -> float:
    places = random.Random(1)  # noqa: S311 - the same places every time are what is wanted
    blocks = max(os.path.getsize(path) // BLOCK, 1)
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        start = time.perf_counter()
        for number in range(count):
            os.pwrite(descriptor, content(BLOCK, number), places.randrange(blocks) * BLOCK)
            os.fsync(descriptor)
        return time.perf_counter() - start
    finally:
        os.close(descriptor)


def _read(path: str) -> float:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        start = time.perf_counter()
        while os.read(descriptor, _CHUNK):
            pass
        return time.perf_counter() - start
    finally:
        os.close(descriptor)
