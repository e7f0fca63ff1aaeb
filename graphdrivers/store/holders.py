"""Who holds something: a process, told from a later one that got the same number.

Source: proc_pid_stat(5), field ``starttime``; random(4), ``boot_id``.
"""

import functools
import os
import re
from typing import Self

import attrs

from graphdrivers import errors
from graphdrivers.linux.boot import boot_id

_WRITTEN = re.compile(r"([^:]+):([0-9]{1,10}):([0-9]{1,20})", re.ASCII)


@attrs.frozen
class Holder:
    """One process of one boot of this machine."""

    boot: str
    pid: int
    started: int
    """Clock ticks after boot."""

    @classmethod
    def here(cls) -> Self:
        """Give this process."""
        pid = os.getpid()
        return cls(boot_id(), pid, _own_start(pid))

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read what ``str`` wrote.

        Raises:
            StoreCorrupt: something else wrote it.
        """
        found = _WRITTEN.fullmatch(text) if isinstance(text, str) else None
        if found is None:
            raise errors.StoreCorrupt("ledger", f"no process is called {text!r:.200}")
        return cls(found[1], int(found[2]), int(found[3]))

    def __str__(self) -> str:
        """Write it for the ledger."""
        return f"{self.boot}:{self.pid}:{self.started}"

    def is_alive(self) -> bool:
        """Say whether the process still runs. One that we may not look at counts as alive."""
        return self.boot == boot_id() and _started(self.pid) in {self.started, -1}


NOBODY = Holder("-", 0, 0)
"""In the row of a layer that could not be deleted: whoever likes may try again. A process that is gone, to all who ask
(and to older releases)."""


@functools.cache
def _own_start(pid: int) -> int:
    """Give when this process was started; asked once (a child that was forked has another pid)."""
    return _started(pid) or 0


def _started(pid: int) -> int | None:
    """Give when a process was started; ``None`` when there is none, -1 when it is hidden from us."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            text = file.read()
    except FileNotFoundError:
        return None
    except ProcessLookupError:
        return None
    except PermissionError:
        return -1
    fields = text.rpartition(b")")[2].split()
    return None if fields[0] in {b"Z", b"X"} else int(fields[19])
