# ruff: noqa: INP001, S101 -- pytest asserts, and a folder of tests is no package
"""Power cuts: what was acknowledged is there, pool and records agree, nothing is left over.

``GRAPHDRIVERS_POWER_CUTS`` is how many (3 here); every other one with the pool on files in the home, every other two on
xfs. A guest that works is killed; the next one opens the home.
"""

import contextlib
import json
import os
import pathlib
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import attrs
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[3]
INSIDE = pathlib.Path(__file__).resolve().parent / "inside"
SHARED = pathlib.Path("/dev/shm")  # noqa: S108 - only a folder with a random name is made in it
CUTS = int(os.environ.get("GRAPHDRIVERS_POWER_CUTS", "3"))
SIZES = {"home": 1 << 30, "data": 1 << 30, "metadata": 16 << 20}
OPTIONS = ("--modules", "dm-thin-pool,loop", "--memory", "320M", "--disk", "64M", "--timeout", "900")


@attrs.frozen
class Case:
    """One cut: where the pool is, and whether what makes records durable is left out."""

    where: str
    fs: str
    seed: int
    broken: str = ""

    def __str__(self) -> str:
        """Name the test."""
        return "-".join(word for word in (self.where, self.fs, self.broken, str(self.seed)) if word)


CASES = [Case(("devices", "files")[seed % 2], ("ext4", "xfs")[seed // 2 % 2], seed) for seed in range(CUTS)]
BROKEN = [Case("devices", "ext4", 0, "syncfs")]
Running = dict[Case, Future[tuple[int, list[str]]]]


@contextlib.contextmanager
def disks() -> Iterator[dict[str, pathlib.Path]]:
    """Give the files of three disks: with an ext4 for the home, and two empty ones."""
    with tempfile.TemporaryDirectory(dir=SHARED if SHARED.is_dir() else None) as folder:
        found = {name: pathlib.Path(folder, name) for name in SIZES}
        for name, path in found.items():
            path.touch()
            os.truncate(path, SIZES[name])
        lazy = ["-E", "lazy_itable_init=0,lazy_journal_init=0"]
        path = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
        subprocess.run(["env", f"PATH={path}", "mkfs.ext4", "-q", *lazy, found["home"]], check=True)
        yield found


def command(found: dict[str, pathlib.Path], script: str, *arguments: str) -> list[str]:
    """Give the command line of a guest with the disks as ``/dev/ubdb``, ``c`` and ``d``."""
    attached = [word for name in SIZES for word in ("--attach", str(found[name]))]
    second_kernel = [sys.executable, str(ROOT / "scripts" / "second-kernel"), *OPTIONS, *attached]
    return [*second_kernel, "--", sys.executable, str(INSIDE / script), "/dev/ubdb", *arguments]


def outcome_of(case: Case) -> tuple[int, list[str]]:
    """Let a guest work, cut its power, let another one look; give how much was acknowledged, and what is wrong."""
    chance = random.Random(f"cut {case}")  # noqa: S311 - it has to come again
    options = ("data=/dev/ubdc", "metadata=/dev/ubdd") if case.where == "devices" else ("data_size=768M",)
    with disks() as found:
        made = (f"fs={case.fs}", "size=512M", *options)
        line = command(found, "power_work.py", str(case.seed), case.broken, *made)
        lines = cut(line, chance.randrange(1, 40), chance.uniform(0, 0.3))
        done = sum(words[0] == "done" for words in lines)
        metadata = "/dev/ubdd" if case.where == "devices" else "HOME/pool/metadata"
        check = command(found, "power_check.py", str(case.seed), str(done), metadata)
        looked = subprocess.run(check, check=False, capture_output=True, text=True, cwd=ROOT)
        assert looked.returncode == 0, f"{looked.stdout}{looked.stderr}"
        complaints: list[str] = json.loads(looked.stdout)
        return done, complaints


def cut(line: list[str], steps: int, pause: float) -> list[list[object]]:
    """Kill a guest a while after so many steps; give what it had said."""
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT) as guest:
        assert guest.stdout
        assert guest.stderr
        lines: list[str] = []
        try:
            while sum(one.startswith('["done"') for one in lines) < steps:
                lines.append(guest.stdout.readline())
                assert lines[-1], f"the guest ended: {guest.stderr.read()}"
            time.sleep(pause)
        finally:
            guest.terminate()  # the program, which kills the guest
        lines += guest.stdout.readlines()
    return [json.loads(one) for one in lines if one.endswith("\n")]


@pytest.fixture(scope="module")
def running() -> Iterator[Running]:
    """All guests, as many at once as there are processors."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        yield {case: pool.submit(outcome_of, case) for case in (*CASES, *BROKEN)}


@pytest.mark.parametrize("case", CASES, ids=str)
def test_what_was_acknowledged_is_there(running: Running, case: Case) -> None:
    """Every layer has its content, none is back, ``thin_check`` finds no fault, and each device is a layer's."""
    done, complaints = running[case].result()

    assert done >= 1
    assert complaints == []


@pytest.mark.parametrize("case", BROKEN, ids=str)
def test_the_loss_is_noticed(running: Running, case: Case) -> None:
    """A caller who does not sync the home is found out."""
    _, complaints = running[case].result()

    assert [one for one in complaints if "lost" in one]
