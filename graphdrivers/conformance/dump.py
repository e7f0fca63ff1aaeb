"""What a stranger needs to see when a check fails: the driver's home on disk, and the merged trees."""

import itertools
import os
import stat
from collections.abc import Iterator

from graphdrivers import errors
from graphdrivers.conformance import observe
from graphdrivers.driver import Driver
from graphdrivers.linux import mounts, xattrs

LINES = 120
"""Most lines of one tree."""

LAYERS = 4
"""Most layers whose merged tree is shown, the deepest first."""

_START = 40
"""Bytes of a file's content that are shown."""


def sections(driver: Driver) -> Iterator[tuple[str, str]]:
    """Give heading and text of each thing to show; what cannot be looked at is said instead."""
    yield "graphdriver home", _home(driver)
    for record in itertools.islice(driver.layers(), LAYERS):
        state = "sealed" if record.sealed else "writable"
        over = f", over {record.parent!r}" if record.parent is not None else ""
        yield f"merged tree of {record.name!r} ({state}{over})", _merged(driver, record.name)


def tree(root: str) -> str:
    """List a tree, a path a line as ``ls -l`` would, with xattrs and the beginning of contents; a long one is cut."""
    fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        shown = list(itertools.islice((_line(fd, path, status) for path, status in observe.walk(fd)), LINES + 1))
    finally:
        os.close(fd)
    return "\n".join(shown if len(shown) <= LINES else [*shown[:LINES], "... and more"])


def _home(driver: Driver) -> str:
    try:
        return tree(driver.home)
    except OSError as error:
        return f"cannot be shown: {error}"


def _merged(driver: Driver, layer: str) -> str:
    try:
        with mounts.opened(driver.mounts(layer, view=True)) as root:
            return tree(f"/proc/self/fd/{root}")
    except (OSError, errors.GraphDriverError) as error:
        return f"cannot be shown: {error}"


def _line(root: int, path: str, status: os.stat_result) -> str:
    place = f"/proc/self/fd/{root}/{path}"
    words = [stat.filemode(status.st_mode), f"{status.st_uid}:{status.st_gid}", str(status.st_mtime_ns), ascii(path)]
    if stat.S_ISREG(status.st_mode):
        words += [f"{status.st_size} bytes", _beginning(place)]
    elif stat.S_ISLNK(status.st_mode):
        words.append(f"-> {os.readlink(place)!a}")
    elif status.st_rdev:
        words.append(f"{os.major(status.st_rdev)}:{os.minor(status.st_rdev)}")
    if status.st_nlink > 1 and not stat.S_ISDIR(status.st_mode):
        words.append(f"inode {status.st_ino} has {status.st_nlink} names")
    words += [f"{name}={value[:_START]!r}" for name, value in xattrs.read_all(os.fsencode(place)).items()]
    return " ".join(words)


def _beginning(path: str) -> str:
    try:
        with open(path, "rb") as file:
            return ascii(file.read(_START))
    except PermissionError:
        return "(not ours to read)"
