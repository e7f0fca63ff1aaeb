# ruff: noqa: INP001, S101 -- pytest asserts, a folder of tests is no package, and zfs is found by PATH
"""What the tests of this folder share: the pool that ``with-zfs`` made, and processes that are killed."""

import os
import pathlib
import signal
import subprocess
import sys

import pytest

HERE = pathlib.Path(__file__).parent

SHIM = """#!{python} -I
import os, signal, sys, time
calls, moment, at = {calls!r}, {moment!r}, {at!r}
with open(calls, "a") as file:
    file.write(" ".join(sys.argv[1:]) + "\\n")
with open(calls) as file:
    now = sum(1 for _ in file) - 1 == at
if now and moment in ("before", "behind"):
    os.kill(os.getppid(), signal.SIGKILL)
if now and moment == "before":
    sys.exit(1)
if now and moment == "behind":
    time.sleep(0.3)
if now and moment == "after":
    code = os.spawnv(os.P_WAIT, {real!r}, sys.argv)
    os.kill(os.getppid(), signal.SIGKILL)
    sys.exit(code)
os.execv({real!r}, sys.argv)
"""
"""A program ``zfs`` that writes down how it is called, and kills who calls it before, after, or before and yet does
what was asked for."""


def zfs(*arguments: str) -> str:
    """Run the program, and give what it says."""
    done = subprocess.run(["zfs", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def listed(*arguments: str) -> list[str]:
    """Give the names of the pool's datasets and snapshots, or of what is asked for."""
    return zfs("list", "-H", "-r", "-t", "filesystem,snapshot", "-o", "name", *(arguments or [pool()])).splitlines()


def pool() -> str:
    """Give the name of the pool to work in."""
    name = os.environ.get("WITH_ZFS_POOL", "")
    if not name and os.environ.get("GRAPHDRIVERS_OPTIONAL_TOOLS") == "1":
        pytest.skip("not run by with-zfs, and GRAPHDRIVERS_OPTIONAL_TOOLS is set")
    assert name, "run these tests by plugins/zfs/tests/with-zfs (GRAPHDRIVERS_OPTIONAL_TOOLS=1 skips them)"
    return name


def shimmed(folder: pathlib.Path, moment: str = "", at: int = -1) -> tuple[str, pathlib.Path]:
    """Make a program ``zfs`` that watches; give the PATH that finds it, and the file with its calls."""
    real = subprocess.run(["which", "zfs"], capture_output=True, text=True, check=True).stdout.strip()
    calls = folder / "calls"
    calls.write_text("")
    program = folder / "bin" / "zfs"
    program.parent.mkdir(exist_ok=True)
    program.write_text(SHIM.format(python=sys.executable, calls=str(calls), moment=moment, at=at, real=real))
    program.chmod(0o755)
    return f"{program.parent}:{os.environ['PATH']}", calls


def run(path: str, home: str, lines: str) -> bool:
    """Run lines of Python on a driver of ``home``, in a process of its own; say whether it was killed."""
    text = f"from graphdrivers import loading\ndriver = loading.load_driver('zfs', {home!r})\nBEGIN = 1\n{lines}"
    done = subprocess.run(
        [sys.executable, "-c", text], env={**os.environ, "PATH": path}, capture_output=True, text=True, check=False
    )
    assert done.returncode in {0, -signal.SIGKILL}, done.stderr
    return done.returncode != 0
