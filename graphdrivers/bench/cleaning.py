"""Scratch folders that are gone afterwards, whatever happens."""

import contextlib
import os
import signal
import tempfile
from collections.abc import Callable, Iterator
from types import FrameType

from graphdrivers.linux import mountinfo, mounts, trees

SCRATCH_PREFIX = "graphdriver-bench-"
"""In front of the process number, in the names of scratch folders."""

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextlib.contextmanager
def scratch(parent: str) -> Iterator[str]:
    """Give a new private folder in ``parent``; at exit all mounts in it are undone and it is removed.

    The clean-up cannot be interrupted by signals.

    Raises:
        OSError: what could not be cleaned up, named.
    """
    folder = tempfile.mkdtemp(prefix=f"{SCRATCH_PREFIX}{os.getpid()}-", dir=parent)
    try:
        yield folder
    finally:
        with uninterrupted():
            unmount_below(folder)
            parent_fd = os.open(parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                trees.remove_tree(parent_fd, os.fsencode(os.path.basename(folder)))
            finally:
                os.close(parent_fd)


def unmount_below(folder: str) -> None:
    """Undo every mount below a folder, what lies on top first."""
    for mount in reversed(mountinfo.mounted_below(folder)):
        mounts.detach(mount.target, lazy=True)


@contextlib.contextmanager
def interruptible() -> Iterator[Callable[[], None]]:
    """Give what is called now and then, so that no Ctrl-C or SIGTERM is lost.

    What a signal raises can be replaced by the error of a clean-up that it cut short, which looks like a failure of a
    driver then. The call raises again. Outside of the main thread, where no signal arrives, it does nothing.
    """
    caught: list[int] = []
    before = {number: signal.getsignal(number) for number in _ENDING}

    def notice(number: int, frame: FrameType | None) -> None:
        caught.append(number)
        handler = before[signal.Signals(number)]
        if callable(handler):
            handler(number, frame)

    def look() -> None:
        if caught:
            notice(caught.pop(), None)

    try:
        for number in (number for number, handler in before.items() if callable(handler)):
            signal.signal(number, notice)
    except ValueError:
        yield look
        return
    try:
        yield look
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Hold back Ctrl-C and SIGTERM until the block has ended."""
    held = signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, held)
