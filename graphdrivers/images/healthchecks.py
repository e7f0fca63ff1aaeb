"""``HEALTHCHECK`` of a Dockerfile, as an image's configuration has it.

Source: Dockerfile reference, heading *HEALTHCHECK*; Go's ``time.ParseDuration``.
"""

import re
from collections.abc import Callable

from graphdrivers.images.shellwords import BadWord

_OPTION = re.compile(r"--([a-z-]+)(?:=(\S*))?(?:\s+(.*))?", re.DOTALL)
_DURATION = re.compile(r"(?:[0-9]+(?:\.[0-9]+)?(?:ns|us|µs|ms|s|m|h))+", re.ASCII)
_PART = re.compile(r"([0-9]+)(?:\.([0-9]+))?(ns|us|µs|ms|s|m|h)", re.ASCII)
_UNITS = {"ns": 1, "us": 1000, "µs": 1000, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}
_TIMES = {
    "interval": "Interval",
    "timeout": "Timeout",
    "start-period": "StartPeriod",
    "start-interval": "StartInterval",
}
_SHORTEST = 10**6
_LONGEST = (1 << 63) - 1


def read_healthcheck(text: str, array: Callable[[str], list[str] | None]) -> dict[str, object]:
    """Read what stands behind ``HEALTHCHECK``.

    Args:
        text: ``NONE``, or options and ``CMD`` with a command.
        array: reads a JSON array of strings; ``None`` where it is no JSON.

    Raises:
        BadWord: it is not understood.
    """
    check: dict[str, object] = {}
    while match := _OPTION.fullmatch(text):
        name, value, text = match[1], match[2] or "", match[3] or ""
        key = "Retries" if name == "retries" else _TIMES.get(name)
        if key is None:
            raise BadWord(f"--{name} is not among --retries, --{', --'.join(_TIMES)}")
        if key in check:
            raise BadWord(f"--{name} comes twice")
        check[key] = _retries(value) if name == "retries" else _nanoseconds(name, value)
    word, _, command = text.partition(" ")
    command = command.strip()
    if word.upper() == "NONE" and not command and not check:
        return {"Test": ["NONE"]}
    if word.upper() != "CMD" or not command:
        raise BadWord("write it as [OPTIONS] CMD COMMAND, or NONE alone")
    words = array(command)
    if words is not None and not words:
        raise BadWord("there is no command behind CMD")
    test = ["CMD-SHELL", command] if words is None else ["CMD", *words]
    return {"Test": test} | {key: value for key, value in check.items() if value}


def _retries(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise BadWord(f"--retries is {text!r}, which is no number")
    return int(text)


def _nanoseconds(name: str, text: str) -> int:
    """Read a duration as Go writes it; 0 means the default."""
    if text == "0":
        return 0
    if not _DURATION.fullmatch(text) or len(text) > 100:
        raise BadWord(f"--{name} is {text!r}, which is no duration such as 30s or 1m30s")
    total = 0
    for whole, fraction, unit in _PART.findall(text):
        total += int(whole) * _UNITS[unit] + int(fraction or 0) * _UNITS[unit] // 10 ** len(fraction)
    if total and not _SHORTEST <= total <= _LONGEST:
        raise BadWord(f"--{name} is {text}, which is shorter than 1ms or longer than can be written")
    return total
