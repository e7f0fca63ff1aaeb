"""Guests, the commands that run in them, and what they may leave behind."""

import os
import pathlib
import subprocess
import sys
import time
from collections.abc import Mapping

ROOT = pathlib.Path(__file__).parent.parent.parent
PROGRAM = ROOT / "scripts" / "second-kernel"
UNSAVED = "ignore:The database setting is not configured"
"""What hypothesis says where it cannot write to the folder that it is run in."""
PYTEST = (sys.executable, "-P", "-m", "pytest", "-p", "no:cacheprovider", "-W", UNSAVED)


def command_line(*command: str, options: tuple[str, ...] = ()) -> list[str]:
    """Give the command line that runs ``command`` in a guest; no guest outlives half an hour."""
    return [sys.executable, str(PROGRAM), "--timeout", "1800", *options, "--", *command]


def run(
    *command: str,
    options: tuple[str, ...] = (),
    directory: pathlib.Path = ROOT,
    environment: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run ``command`` in a guest, to its end."""
    return subprocess.run(
        command_line(*command, options=options),
        check=False,
        capture_output=True,
        text=True,
        errors="surrogateescape",
        cwd=directory,
        env=None if environment is None else {**os.environ, **environment},
    )


def alive(argument: str) -> list[int]:
    """Give the processes that have ``argument`` on their command line; the dead that nobody waited for have none."""
    found = []
    for entry in pathlib.Path("/proc").iterdir():
        try:
            arguments = (entry / "cmdline").read_bytes().split(b"\0") if entry.name.isdecimal() else []
        except (FileNotFoundError, ProcessLookupError):
            continue
        found += [int(entry.name)] if argument.encode() in arguments else []
    return found


def gone(argument: str) -> bool:
    """Wait until no process has ``argument`` any more; false where that takes more than a minute."""
    deadline = time.monotonic() + 60
    while alive(argument):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True
