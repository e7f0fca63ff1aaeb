"""Times as documents have them, and as people say them."""

import datetime as dt
import time

_NS = 1_000_000_000

_STEPS = (
    ("second", 1, 60),
    ("minute", 60, 3600),
    ("hour", 3600, 2 * 86400),
    ("day", 86400, 14 * 86400),
    ("week", 7 * 86400, 60 * 86400),
    ("month", 30 * 86400, 730 * 86400),
)
"""Unit, its seconds, and up to how many seconds it is used; Docker's steps."""

_YEAR = 365 * 86400


def stamp(when: int) -> str:
    """Write ns since the epoch as RFC 3339 in UTC, all nine digits, as Docker does."""
    seconds, rest = divmod(when, _NS)
    moment = dt.datetime.fromtimestamp(seconds, dt.UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{rest:09d}Z"


def parse(text: object) -> int | None:
    """Read a time that an image's configuration claims, in ns since the epoch; ``None`` where it is none.

    Source: OCI image-spec, ``config.md``: RFC 3339, section 5.6.
    """
    if not isinstance(text, str):
        return None
    try:
        moment = dt.datetime.fromisoformat(text)
        if moment.tzinfo is None or moment.year < 1970:  # year 1 is Go's word for unknown
            return None
        return int(moment.timestamp()) * _NS
    except (ValueError, OverflowError):
        return None


def ago(when: int | None, *, now: int | None = None) -> str:
    """Say how long ago: ``3 weeks ago``, in whole units; ``N/A`` for a time that nobody knows."""
    if when is None:
        return "N/A"
    seconds = ((time.time_ns() if now is None else now) - when) // _NS
    if seconds < 1:
        return "just now"
    for unit, size, limit in _STEPS:
        if seconds < limit:
            return f"{_counted(seconds // size, unit)} ago"
    return f"{_counted(seconds // _YEAR, 'year')} ago"


def _counted(number: int, unit: str) -> str:
    return f"{number} {unit}" if number == 1 else f"{number} {unit}s"
