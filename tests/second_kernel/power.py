"""Power cuts: a guest that works on a store on a disk is killed, and another kernel looks at what is left."""

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

import attrs
from guests import ROOT, command_line, run

INSIDE = ROOT / "tests" / "second_kernel" / "inside"
GUEST = ("--memory", "320M", "--disk", "64M")
SHARED = pathlib.Path("/dev/shm")  # noqa: S108 - only a folder with a random name is made in it
SIZE = 512 << 20
PATH = f"PATH={os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
OPENING = 0.2
"""Seconds within which an opening is cut; it takes about so long."""


@attrs.frozen
class Case:
    """One power cut: on what, and when."""

    fs_type: str
    options: str
    driver: str
    durability: str
    seed: int
    broken: str = ""
    makes: bool = False
    """The cut is while the store is being made."""
    recovery_cuts: int = 0
    """How often the opening of the store is cut too, before it is looked at."""

    @property
    def is_broken(self) -> bool:
        """Say whether the store is meant to lose something."""
        return bool(self.broken) or self.durability == "none"

    def __str__(self) -> str:
        """Name the test."""
        made = "made" if self.makes else ""
        words = (self.fs_type, self.options, self.driver, self.durability, self.broken, made, str(self.seed))
        return "-".join(word for word in words if word)


@attrs.frozen
class Outcome:
    """What came of a cut."""

    acknowledged: int
    recoveries_cut: int
    complaints: list[str]


def outcome_of(case: Case) -> Outcome:
    """Make a disk, let a guest work on it, cut its power, look."""
    chance = random.Random(f"cut {case}")
    with disk_of(case.fs_type) as disk:
        steps, pause = (4, 0.0) if case.is_broken else (chance.randrange(2, 30), chance.uniform(0, 0.2))
        if case.makes:
            steps, pause = 0, chance.uniform(0, OPENING)
        journal = cut(case, disk, str(case.seed), steps, pause)
        openings = [cut(case, disk, "open", 0, chance.uniform(0, OPENING)) for _ in range(case.recovery_cuts)]
        text = disk.with_name("journal")
        lines = "".join(journal)
        text.write_text(lines + "\n" * (-len(lines) % 4096), encoding="ascii")  # a guest reads it as a disk
        done = sum('"done"' in line for line in journal)
        recovering = sum(not any('"opened"' in line for line in lines) for lines in openings)
        complaints = checked(case, disk) + looked_at(case.fs_type, disk, text) + checked(case, disk)
        return Outcome(done, recovering, complaints)


@contextlib.contextmanager
def disk_of(fs_type: str) -> Iterator[pathlib.Path]:
    """Give an empty file system in a file, in memory where there is room: what counts is what the guest has written."""
    in_memory = SHARED.is_dir() and os.statvfs(SHARED).f_bavail * os.statvfs(SHARED).f_frsize > 4 * SIZE
    with tempfile.TemporaryDirectory(dir=SHARED if in_memory else None) as folder:
        disk = pathlib.Path(folder, "disk")
        disk.touch()
        os.truncate(disk, SIZE)
        lazy = ["-E", "lazy_itable_init=0,lazy_journal_init=0"] if fs_type == "ext4" else []
        command = ["env", PATH, f"mkfs.{fs_type}", "-q", *lazy, str(disk)]
        subprocess.run(command, check=True, capture_output=True)
        yield disk


def cut(case: Case, disk: pathlib.Path, seed: str, steps: int, pause: float) -> list[str]:
    """Kill a guest ``pause`` seconds after so many steps (for 0: after it began to open the store).

    Gives the lines that it had printed. With ``open`` as seed it only opens the store.
    """
    words = (case.fs_type, case.options, case.driver, case.durability, seed, case.broken)
    work = (sys.executable, str(INSIDE / "power_work.py"), "/dev/ubdb", *words)
    line = command_line(*work, options=(*GUEST, "--attach", str(disk)))
    awaited = '"done"' if steps else '"opening"'
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT) as guest:
        assert guest.stdout
        assert guest.stderr
        lines: list[str] = []
        try:
            while sum(awaited in one for one in lines) < max(steps, 1):
                lines.append(guest.stdout.readline())
                assert lines[-1], f"the guest ended: {guest.stderr.read()}"
            time.sleep(pause)
        finally:
            guest.terminate()  # the program, which kills the guest
        lines += guest.stdout.readlines()
    return [one for one in lines if one.endswith("\n")]


def checked(case: Case, disk: pathlib.Path) -> list[str]:
    """Let ``btrfs check`` look at a file system of which the driver uses more than files; give what is wrong."""
    if case.driver != "btrfs":
        return []
    done = subprocess.run(["env", PATH, "btrfs", "check", str(disk)], check=False, capture_output=True, text=True)
    return [] if done.returncode == 0 else [f"btrfs check: {done.stdout}{done.stderr}"]


def looked_at(fs_type: str, disk: pathlib.Path, journal: pathlib.Path) -> list[str]:
    """Let this kernel, or where this user may not mount a second guest, open the store; give what is wrong."""
    look = (sys.executable, str(INSIDE / "power_check.py"))
    if os.geteuid() == 0 and os.path.exists("/dev/loop-control"):
        line = ["unshare", "--mount", *look, str(disk), fs_type, str(journal)]
        done = subprocess.run(line, check=False, capture_output=True, text=True)
    else:
        options = (*GUEST, "--attach", str(disk), "--attach", str(journal))
        done = run(*look, "/dev/ubdb", fs_type, "/dev/ubdc", options=options)
    assert done.returncode == 0, f"{done.stdout}{done.stderr}"
    found: list[str] = json.loads(done.stdout)
    return found
