"""What a probe found, kept in the home for the day when the disk is full and nothing can be tried.

A home has to open then too, or nobody could remove layers from it. What was
found is believed only for the same user, user namespace, kernel, file system
and options; a probe that can run is always run.
"""

import contextlib
import errno
import json
import os
from collections.abc import Callable, Mapping

import attrs

from graphdrivers import errors
from graphdrivers.kit import layerdirs
from graphdrivers.linux import durable
from graphdrivers.model import Capabilities, Support

FILE = "support.json"

NOTE = "the disk is full: nothing could be tried, so this is what worked before"

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


def probed(home: str, options: Mapping[str, str], probe: Callable[[], Support]) -> Support:
    """Run a probe; where the disk is too full for it, give what it found the last time.

    Raises:
        DriverUnavailable, OSError: what the probe raises; on a full disk only
            where nothing is known about this home and process.
    """
    try:
        return probe()
    except (errors.DriverUnavailable, OSError) as error:
        known = _read(home, options) if _is_full(error) else None
        if known is None:
            raise
        return attrs.evolve(known, notes=(*known.notes, NOTE))


def known(home: str, options: Mapping[str, str]) -> Support | None:
    """Give what a probe found here before under the same circumstances, for a driver whose trials are expensive."""
    return _read(home, options)


def remember(home: str, options: Mapping[str, str], found: Support) -> None:
    """Keep what a probe found in a home that is open, unless it is there already. Atomic.

    A courtesy to the future: where it cannot be written, nothing happens.
    """
    if NOTE in found.notes or _read(home, options) == attrs.evolve(found, deviations=()):
        return
    with contextlib.suppress(OSError):
        _write(home, options, found)


def _is_full(error: BaseException | None) -> bool:
    """Say whether an error, or what led to it, is that of a full disk."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in _FULL:
            return True
        error = error.__cause__
    return False


def _circumstances(home: str, options: Mapping[str, str]) -> dict[str, object]:
    """Give all that the answer of a probe depends on."""
    return {
        "uid": os.geteuid(),
        "namespace": os.stat("/proc/self/ns/user").st_ino,
        "kernel": os.uname().release,
        "device": os.stat(home).st_dev,
        "options": dict(options),
    }


def _read(home: str, options: Mapping[str, str]) -> Support | None:
    """Give what was found last under the same circumstances; ``None`` for anything else, damage too."""
    try:
        with open(os.path.join(home, FILE), "rb") as file:
            text = json.load(file)
        if text["circumstances"] != _circumstances(home, options):
            return None
        return Support(Capabilities(**text["capabilities"]), str(text["engine"]), tuple(map(str, text["notes"])))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _write(home: str, options: Mapping[str, str], found: Support) -> None:
    text = {
        "circumstances": _circumstances(home, options),
        "capabilities": attrs.asdict(found.capabilities),
        "engine": found.engine,
        "notes": found.notes,
    }
    with layerdirs.directory(home) as opened:
        durable.write_atomic(opened, FILE, json.dumps(text, indent=1).encode(), durable=False)
