"""Every file of a layer made durable one by one, for stores that ask for it."""

import os
import stat
from collections.abc import Sequence

from graphdrivers.driver import Driver
from graphdrivers.linux import trees
from graphdrivers.model import Mount

_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def sync_each(driver: Driver, layer: str) -> None:
    """Call fsync(2) on each file and directory of the folder that a layer keeps its content in.

    A layer that is no folder (a block device) has none; the syncfs(2) that
    follows covers it, as it covers the driver's own records.

    Raises:
        OSError: naming the first file that could not be written.
    """
    folder = _folder_of(driver.mounts(layer, view=True))
    if folder is None:
        return
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with trees.DirStack(opened) as stack:
            for inside in stack.visit():
                inside.extend(_sync_directory(stack))
    finally:
        os.close(opened)


def _folder_of(plan: Sequence[Mount]) -> str | None:
    """Give the topmost directory of a view's plan: fsync(2) through a mounted overlay view does nothing."""
    if len(plan) != 1:
        return None
    if plan[0].type == "bind":
        return plan[0].source
    return next((value for key, value in plan[0].options if key == "lowerdir+"), None)


def _sync_directory(stack: trees.DirStack) -> list[bytes]:
    """Sync the files of the present directory and itself; give the directories in it."""
    below = []
    with os.scandir(stack.fd) as entries:
        for entry in entries:
            name = os.fsencode(entry.name)
            if entry.is_dir(follow_symlinks=False):
                below.append(name)
            elif entry.is_file(follow_symlinks=False):
                _sync_file(stack, name)
    os.fsync(stack.fd)
    return below


def _sync_file(stack: trees.DirStack, name: bytes) -> None:
    opened = os.open(name, _OPEN, dir_fd=stack.fd)
    try:
        if stat.S_ISREG(os.fstat(opened).st_mode):
            os.fsync(opened)
    except OSError as error:
        error.filename = stack.path(name)
        raise
    finally:
        os.close(opened)
