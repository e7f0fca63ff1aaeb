"""The program ``zfs``: how it is called, and what its complaints mean.

OpenZFS's and zfs-fuse's say the same things in the same words where the locale
is C; both took them over from Solaris. Nothing else is read from what they
print for people: what is asked for comes in columns (``-H``).

Source: zfs(8), zfs-list(8); OpenZFS, lib/libzfs/libzfs_util.c (``libzfs_error_description``).
"""

import errno
import os
import re
import shutil
import subprocess
from typing import ClassVar

import attrs

from graphdrivers import errors

_PLACES = "/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin"
"""Where administrators' programs are; not all of it is on every user's PATH."""


@attrs.define(eq=False)
class ZfsError(errors.GraphDriverError):
    """The program failed; ``said`` is what it complained about."""

    command: str
    said: str
    advice: str = ""

    template: ClassVar[str] = "zfs: {command}: {said}"
    remedy: ClassVar[str] = "{advice}"
    exit_code: ClassVar[int] = 13


@attrs.define(eq=False)
class Busy(ZfsError):
    """Somebody uses the dataset, in this mount namespace or another."""


@attrs.define(eq=False)
class Exists(ZfsError):
    """The name is taken."""


@attrs.define(eq=False)
class Missing(ZfsError):
    """There is no such dataset or snapshot."""


@attrs.define(eq=False)
class HasDependents(ZfsError):
    """Clones, snapshots or datasets stand on it."""


@attrs.define(eq=False)
class UnknownProperty(ZfsError):
    """This ZFS lacks a property that was set."""


@attrs.define(eq=False)
class TooSmall(ZfsError):
    """A limit is below what is there already."""


_MEANINGS: tuple[tuple[str, type[ZfsError]], ...] = (
    ("is busy", Busy),
    ("already exists", Exists),
    ("does not exist", Missing),
    ("has dependent clones", HasDependents),
    ("has children", HasDependents),
    ("invalid property", UnknownProperty),
    ("less than current used", TooSmall),
)

_FULL = (("out of space", errno.ENOSPC), ("no space left", errno.ENOSPC), ("quota exceed", errno.EDQUOT))

_SUBJECT = re.compile(r"^cannot [a-z ]+ '[^']*': ")
"""What is said in front of the reason, and stands in the command too."""

_ADVICE: tuple[tuple[str, str], ...] = (
    ("permission denied", "run as root"),
    ("zfs-fuse daemon", "start zfs-fuse, then 'zpool import' the pool"),
    ("/dev/zfs", "load the kernel module: 'modprobe zfs'"),
    ("is busy", "unmount it wherever it is mounted, in other mount namespaces too"),
    ("i/o is currently suspended", "'zpool status' says what the pool lacks"),
)


def find(driver: str) -> str:
    """Give the path of the program.

    Raises:
        PrerequisiteMissing: it is not installed.
    """
    found = shutil.which("zfs") or shutil.which("zfs", path=_PLACES)
    if found is None:
        fix = "install zfsutils-linux (OpenZFS, with its kernel module) or zfs-fuse"
        raise errors.PrerequisiteMissing(driver, "the program 'zfs' is not installed", fix)
    return found


@attrs.frozen
class Tool:
    """The program at one path. Each call takes 5 to 30 ms, most of them for the pool to write a transaction group."""

    program: str

    def run(self, *arguments: str) -> str:
        """Run it, and give what it printed.

        Raises:
            Busy, Exists, Missing, HasDependents, UnknownProperty, TooSmall, ZfsError: it failed; in one line why.
            OSError: ``ENOSPC``, the pool is full; ``EDQUOT``, a quota above the datasets is.
        """
        # No shell; names are checked, and none begins with a dash.
        environment = {"LC_ALL": "C", "PATH": _PLACES}
        done = subprocess.run(
            (self.program, *arguments), stdin=subprocess.DEVNULL, capture_output=True, env=environment, check=False
        )
        if done.returncode:
            raise _failure(arguments, done.stderr.decode("utf-8", "replace"))
        return done.stdout.decode("utf-8", "surrogateescape")

    def rows(self, *arguments: str) -> list[list[str]]:
        """Run it, and give the columns of each line that it printed."""
        return [line.split("\t") for line in self.run(*arguments).splitlines()]


def _failure(arguments: tuple[str, ...], complaint: str) -> Exception:
    # What it says behind "use '-R'" is how to destroy all at once what stands on it: no advice of ours.
    lines = [line.strip() for line in complaint.partition("\nuse '-")[0].splitlines()]
    said = "; ".join(_SUBJECT.sub("", line) for line in lines if line) or "it failed and said nothing"
    command = f"{arguments[0]} {arguments[-1]}"
    lower = said.lower()
    for words, code in _FULL:
        if words in lower:
            return OSError(code, os.strerror(code), f"zfs {command}")
    advice = next((text for words, text in _ADVICE if words in lower), "")
    kind = next((kind for words, kind in _MEANINGS if words in lower), ZfsError)
    return kind(command, said, advice)
