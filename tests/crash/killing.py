"""Processes that SIGKILL ends before their n-th change, or whose n-th change fails; and file systems for them."""

import builtins
import contextlib
import os
import pathlib
import signal
import sqlite3
from collections.abc import Callable, Iterator

from storetools import forked

from graphdrivers.linux import durable, mountapi, mounts
from graphdrivers.model import Mount

_CHANGING = (
    *("chmod", "chown", "fchmod", "fchown", "fsync", "link", "mkdir", "mknod", "removexattr", "rename", "rmdir"),
    *("setxattr", "symlink", "unlink", "utime", "write"),
)


@contextlib.contextmanager
def tmpfs(place: pathlib.Path, size: str | None = None) -> Iterator[pathlib.Path]:
    """Give a folder in memory, of a size."""
    place.mkdir()
    options = (("mode", "0700"), *([("size", size)] if size else []))
    mounts.attach((Mount("tmpfs", "tests", options),), str(place))
    try:
        yield place
    finally:
        mounts.detach(str(place), lazy=True)


def killed_before(number: int, action: Callable[[], object]) -> bool:
    """Do something in a process that SIGKILL ends before its change ``number`` (from 1).

    Returns:
        Whether there was such a change.
    """
    child = forked(lambda _say: (arm(number, lambda: os.kill(os.getpid(), signal.SIGKILL)), action()))
    child.lines()
    status = child.wait()
    assert status in {0, -signal.SIGKILL}
    return status != 0


def arm(number: int, strike: Callable[[], object]) -> list[int]:
    """Call ``strike`` before a change of files, mounts or the ledger, in this process that is not to last.

    SQLite's own calls are not seen; the statements that begin and end a step are, the latter before and after.

    Returns:
        How many changes there were, counted on.
    """
    count = [0]

    def step() -> None:
        count[0] += 1
        if count[0] == number:
            strike()

    def wrapped(
        call: Callable[..., object], counts: Callable[..., bool] = lambda *_, **__: True
    ) -> Callable[..., object]:
        def run(*args: object, **kwargs: object) -> object:
            if counts(*args, **kwargs):
                step()
            return call(*args, **kwargs)

        return run

    for name in _CHANGING:
        setattr(os, name, wrapped(getattr(os, name)))
    os.open = wrapped(os.open, lambda _path, flags, *_, **__: bool(flags & os.O_CREAT))  # type: ignore[assignment]
    builtins.open = wrapped(open, lambda _path, mode="r", *_, **__: mode[0] in "wx")  # type: ignore[assignment]
    for name in ("syncfs", "rename_noreplace"):
        setattr(durable, name, wrapped(getattr(durable, name)))
    for name in ("move_mount", "umount2"):
        setattr(mountapi, name, wrapped(getattr(mountapi, name)))
    _watch_steps(step)
    return count


def _watch_steps(step: Callable[[], None]) -> None:
    connect = sqlite3.connect

    class Watched(sqlite3.Connection):
        """Counts the statements that begin and end a change."""

        def execute(self, *args: object) -> sqlite3.Cursor:
            """Strike before and after the end of a step."""
            text = str(args[0])
            if text in {"COMMIT", "BEGIN IMMEDIATE"}:
                step()
            done = super().execute(*args)  # type: ignore[arg-type]
            if text == "COMMIT":
                step()
            return done

    sqlite3.connect = lambda *args, **kwargs: connect(*args, **kwargs, factory=Watched)  # type: ignore[assignment]
