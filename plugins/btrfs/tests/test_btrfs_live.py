# ruff: noqa: INP001, S101 -- pytest asserts, and a folder of tests is no package
"""Snapshots of layers that are written to while they are made: of one moment, and at no cost."""

import os
import pathlib
import subprocess
import sys

from btrfstools import driver_of, tree_of

from graphdrivers.conformance.workbench import Workbench
from graphdrivers.edits import Create

_WRITER = """
import itertools, os, sys
os.chdir(sys.argv[1])

def write(name, mode, text):
    with open(name, mode) as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())

for number in itertools.count(1):
    for name in ("first", "second"):
        write("new", "w", str(number) * 5000)
        os.rename("new", name)
    write("log", "a", f"{number}\\n")
    if number == 5:
        print("going", flush=True)
"""
"""Syncs each file before it makes the next, as a database does: ``first``, ``second`` and the log never overtake."""


def number_in(path: pathlib.Path) -> int:
    """Read what the writer wrote; a mix of two numbers is none."""
    text = path.read_text()
    digits = text[: len(text) // 5000]
    assert text == digits * 5000, "half of one, half of another"
    return int(digits)


def test_a_state_of_one_moment(bench: Workbench, fresh_root: str) -> None:
    """Under a busy writer a snapshot has files as they were together at one time, which is not before it was made."""
    bench.layer("base")
    bench.driver.create("layer", "base")
    before = []
    with (
        bench.attached("layer", fresh_root) as place,
        subprocess.Popen([sys.executable, "-c", _WRITER, place], stdout=subprocess.PIPE, text=True) as writer,
    ):
        try:
            assert writer.stdout
            assert writer.stdout.readline() == "going\n"
            for number in range(8):
                before.append(len((pathlib.Path(place) / "log").read_text().splitlines()))
                driver_of(bench).snapshot("layer", f"branch{number}")
        finally:
            writer.kill()
    for number in range(8):
        with bench.viewing(f"branch{number}") as root:
            folder = pathlib.Path(root)
            first, second = number_in(folder / "first"), number_in(folder / "second")
            logged = (folder / "log").read_text().splitlines()
        assert logged == [str(line) for line in range(1, len(logged) + 1)]
        assert first - 1 <= second <= first
        assert len(logged) in {second, second - 1}
        assert len(logged) >= before[number]
    assert before[-1] > before[0] >= 4


def test_what_was_written_before_is_in_it(bench: Workbench, fresh_root: str) -> None:
    """What no program has synced, of a large file too, is in a snapshot that is asked for afterwards."""
    content = os.urandom(8 << 20)
    bench.driver.create("layer")
    with bench.attached("layer", fresh_root) as place:
        for number in range(20):
            Create(f"file{number}", content[number : number + 5000]).perform(place)
        Create("large", content).perform(place)
        driver_of(bench).snapshot("layer", "branch")
    with bench.viewing("branch") as root:
        folder = pathlib.Path(root)
        assert (folder / "large").read_bytes() == content
        assert [(folder / f"file{n}").read_bytes() for n in range(20)] == [content[n : n + 5000] for n in range(20)]


def test_the_size_costs_nothing(bench: Workbench) -> None:
    """A snapshot of a layer with a large file that the disk has is made without reading or writing it."""
    bench.driver.create("small")
    bench.driver.create("large")
    with open(os.path.join(tree_of(bench.driver, "large"), "file"), "wb") as file:
        file.writelines(os.urandom(1 << 20) for _ in range(256))
        file.flush()
        os.fsync(file.fileno())
    Create("file", b"1").perform(tree_of(bench.driver, "small"))
    os.sync()
    before = _written(bench.driver.home)
    driver_of(bench).snapshot("large", "branch")

    assert _written(bench.driver.home) - before < 16 << 20
    assert os.path.getsize(os.path.join(tree_of(bench.driver, "branch"), "file")) == 256 << 20


def _written(home: str) -> int:
    """Give the bytes in use on the file system."""
    room = os.statvfs(home)
    return (room.f_blocks - room.f_bfree) * room.f_frsize
