"""Scratch folders that are gone afterwards, whatever happens."""

import contextlib
import os
import signal
import tempfile
from collections.abc import Iterator

from graphdrivers.linux import mountinfo, mounts, trees

SCRATCH_PREFIX = "graphdriver-bench-"
"""In front of the process number, in the names of scratch folders."""


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
def uninterrupted() -> Iterator[None]:
    """Hold back Ctrl-C and SIGTERM until the block has ended."""
    held = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM, signal.SIGHUP))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, held)
