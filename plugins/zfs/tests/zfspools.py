# ruff: noqa: INP001, S101 -- pytest asserts, a folder of tests is no package, and zfs is found by PATH
"""What the tests of this folder share: the pool that ``with-zfs`` made, and processes that are killed."""

import os
import pathlib
import shutil
import signal
import subprocess
import traceback
from collections.abc import Callable

import attrs
import pytest

from graphdrivers import loading
from graphdrivers.driver import Driver

Verb = Callable[[Driver], object]

HERE = pathlib.Path(__file__).parent

SHIM = """#!/bin/sh
echo "$*" >>{calls}
if [ "$(wc -l <{calls})" -eq {at} ]; then
    case {moment} in
    before) kill -KILL $PPID; exit 1 ;;
    behind) kill -KILL $PPID; sleep 0.2 ;;
    after) {real} "$@"; code=$?; kill -KILL $PPID; exit $code ;;
    esac
fi
exec {real} "$@"
"""
"""A program ``zfs`` that writes down how it is called, and at one call kills who calls it: before it does what was
asked for, and then does not; or before, and then does it; or after it."""


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


@attrs.frozen
class Shim:
    """A program ``zfs`` in a folder, and the file with its calls."""

    folder: pathlib.Path

    @property
    def calls(self) -> pathlib.Path:
        """Where it writes, a line for each call."""
        return self.folder / "calls"

    def run(self, home: str, verb: Verb, at: int = 0, moment: str = "never") -> bool:
        """Do a verb in a process of its own, which is killed at a call of that, the first being 1; say whether it was.

        The calls of opening the home are not counted; when it ends, ``calls`` has those of the verb.
        """
        real = shutil.which("zfs")
        program = self.folder / "bin" / "zfs"
        program.parent.mkdir(exist_ok=True)
        program.write_text(SHIM.format(calls=self.calls, at=0, moment=moment, real=real))
        program.chmod(0o755)
        child = os.fork()
        if not child:
            try:
                os.environ["PATH"] = f"{program.parent}:{os.environ['PATH']}"
                driver = loading.load_driver("zfs", home)
                program.write_text(SHIM.format(calls=self.calls, at=at, moment=moment, real=real))
                self.calls.write_text("")
                verb(driver)
            except BaseException:  # noqa: BLE001 - a forked test must not go on
                os.write(2, traceback.format_exc().encode())
                os._exit(1)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        assert killed or status == 0, "the process failed; standard error has its traceback"
        return killed
