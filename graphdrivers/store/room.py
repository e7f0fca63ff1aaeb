"""A little room kept aside, so that a store on a full disk can still be opened and emptied.

To record that something is removed takes some pages of the ledger's log, and
to open the ledger takes a few more; without any room nothing could be removed.
"""

import contextlib
import os

FILE = "room"

SIZE = 1 << 20
"""Bytes kept; the log of a removal takes tens of kilobytes."""

_PLENTY = 4 * SIZE


def begin(folder: str) -> None:
    """Before the ledger is opened: set the room aside where there is plenty, give it up where there is none."""
    with contextlib.suppress(OSError):
        if _free(folder) < SIZE:
            give_up(folder)
        else:
            set_aside(folder)


def set_aside(folder: str) -> None:
    """Set the room aside where there is plenty, unless it is. Idempotent, and a courtesy only."""
    with contextlib.suppress(OSError):
        if _free(folder) > _PLENTY and not os.path.lexists(os.path.join(folder, FILE)):
            _make(folder)


def give_up(folder: str) -> None:
    """Let the disk have the room. Idempotent; `set_aside` takes it again later."""
    with contextlib.suppress(OSError):
        os.unlink(os.path.join(folder, FILE))


def _free(folder: str) -> int:
    status = os.statvfs(folder)
    return status.f_bavail * status.f_frsize


def _make(folder: str) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    opened = os.open(os.path.join(folder, FILE), flags, 0o600)
    try:
        os.posix_fallocate(opened, 0, SIZE)
    except BaseException:
        give_up(folder)
        raise
    finally:
        os.close(opened)
