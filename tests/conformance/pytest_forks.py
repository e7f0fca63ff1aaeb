"""Runs pytest again and again, each time in a process that is forked from this one, which has imported pytest already.

A program of its own, without threads and started with ``python -P``, for `conforming`. A line of its input is one run,
``[FOLDER, PATH, OPTIONS, OUTPUT, SECONDS]`` in JSON; it answers with pytest's exit code, or minus the signal that ended
the run, which after so many seconds is SIGALRM.
"""

import gc
import json
import os
import signal
import sys
from typing import NoReturn

import hypothesis.stateful  # noqa: F401 - these are imported for the processes to come
import pytest

import graphdrivers.backends.overlay.driver
import graphdrivers.backends.vfs
import graphdrivers.conformance.beside
import graphdrivers.loading  # noqa: F401


def main() -> None:
    """Serve until the input ends."""
    gc.freeze()  # so that no process looks through what they all have
    for line in sys.stdin:
        child = os.fork()
        if not child:
            become_pytest(*json.loads(line))
        _, status = os.waitpid(child, 0)
        sys.stdout.write(f"{os.waitstatus_to_exitcode(status)}\n")
        sys.stdout.flush()


def become_pytest(folder: str, path: list[str], options: list[str], output: str, seconds: int) -> NoReturn:
    """Be what ``python -m pytest OPTIONS >OUTPUT 2>&1`` is in a folder, with ``path`` in front of the modules."""
    signal.alarm(seconds)
    os.chdir(folder)
    sys.path[:0] = path
    os.environ.update(PYTHONPATH=os.pathsep.join(path), PYTEST_DISABLE_PLUGIN_AUTOLOAD="1")
    written = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND)
    for stream, opened in enumerate((os.open(os.devnull, os.O_RDONLY), written, written)):
        os.dup2(opened, stream)
    code = pytest.main(options)
    sys.stdout.flush()
    os._exit(code)  # a process that ends needs not be tidied up


if __name__ == "__main__":
    main()
