"""The traced program: runs operations on one driver, and marks in the trace which is which.

A mark is ``access("/budget/...")``, a call that nobody else makes and that
fails. Each operation has been run once before it is marked, so that imports,
probes and first-time work do not count.
"""

import argparse
import contextlib
import os
import sqlite3
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from types import FrameType
from typing import Any

import attrs
import budgetwork
from budgetwork import OPERATIONS, SMALL

import graphdrivers
from graphdrivers.kit import baseline

DRIVERS: dict[str, tuple[str, dict[str, str]]] = {
    "vfs": ("vfs", {}),
    "overlay": ("overlay", {}),
    "aufs": ("aufs", {"engine": "overlay-shadow"}),
    "aufs-copy": ("aufs", {"engine": "copy"}),
}
"""What is counted, with engines that work on every kernel."""

COUNTED = {"root": tuple(DRIVERS), "plain": ("vfs", "aufs-copy"), "userns": ("overlay",)}
"""As whom: a plain user cannot mount; in a user namespace overlay has other ways."""

CALLERS = 4
"""How many lines of the library are told for a call: the one that makes it, and those that led to it."""

_PACKAGE = os.path.dirname(graphdrivers.__file__) + os.sep
_CONNECT = sqlite3.connect
_WRITE_BASELINE = baseline.write

TICK = 0.02
"""Seconds after which the clock of a file system has moved on, on every kernel."""


def mark(text: str) -> None:
    """Put a mark into the trace."""
    os.access(f"/budget/{text}", os.F_OK)


def connect(*args: Any, **kwargs: Any) -> sqlite3.Connection:
    """Connect, and mark each statement of SQLite and each transaction that writes."""
    connection: sqlite3.Connection = _CONNECT(*args, **kwargs)

    def told(statement: str) -> None:
        verb = statement.split(maxsplit=1)[0].upper()
        if verb == "--":  # what a trigger does belongs to the statement that set it off
            return
        mark("sql/statements")
        alone = not connection.in_transaction and verb in {"INSERT", "UPDATE", "DELETE", "REPLACE"}
        if alone or statement.upper().startswith("BEGIN IMMEDIATE"):
            mark("sql/transactions")

    connection.set_trace_callback(told)
    return connection


def write_baseline(path: str, made: Iterable[tuple[int, int]]) -> None:
    """Write a record of copies a moment later: those of the last tick prove nothing, and chance would count."""
    time.sleep(TICK)
    _WRITE_BASELINE(path, made)


@contextlib.contextmanager
def lines() -> Iterator[None]:
    """Mark each line of the library before it runs, so that calls can be told by it."""
    sys.settrace(_entered)
    threading.settrace(_entered)
    try:
        yield
    finally:
        sys.settrace(None)
        threading.settrace(None)


def _entered(frame: FrameType, _event: str, _value: object) -> Any:
    return _ran if frame.f_code.co_filename.startswith(_PACKAGE) else None


def _ran(frame: FrameType, event: str, _value: object) -> Any:
    at = frame.f_back if event == "return" else frame
    chain: list[str] = []
    while at is not None and len(chain) < CALLERS:
        if at.f_code.co_filename.startswith(_PACKAGE):
            chain.append(f"{at.f_code.co_filename.removeprefix(_PACKAGE)}:{at.f_lineno}")
        at = at.f_back
    mark(f"at/{' < '.join(chain)}")
    return _ran


def _nothing(_text: str) -> None:
    """Put no mark into the trace."""


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser()
    parser.add_argument("driver", choices=DRIVERS)
    parser.add_argument("folder")
    parser.add_argument("operations", nargs="*")
    parser.add_argument("--lines", action="store_true")
    asked = parser.parse_args()
    sqlite3.connect = connect  # type: ignore[assignment]
    baseline.write = write_baseline
    os.umask(0o022)
    driver, options = DRIVERS[asked.driver]
    tracing = lines if asked.lines else contextlib.nullcontext
    bed = budgetwork.begin(asked.folder, driver, options, mark, tracing)
    warming = attrs.evolve(bed, mark=_nothing, tracing=contextlib.nullcontext)
    for name in asked.operations or OPERATIONS:
        operation = OPERATIONS[name]
        operation.run(warming, SMALL)
        for size in (SMALL, *operation.sizes.values()):
            operation.run(bed, size)
    bed.store.close()
    bed.driver.close()


if __name__ == "__main__":
    main()
