"""Two measurements of one machine, before and after."""

import json
from collections.abc import Mapping
from typing import Any

import attrs

from graphdrivers.bench import report

_SAME_MACHINE = ("cpu", "cpus", "memory", "filesystem", "architecture")
"""Facts without which a comparison says little."""

_SAME_QUESTION = ("image", "image_size", "files")
"""Settings that change the numbers."""


@attrs.frozen
class Compared:
    """One workload on one driver, then and now."""

    workload: str
    title: str
    driver: str
    unit: str
    before: float
    """Median then."""
    now: float
    """Median now."""
    verdict: str
    """``faster`` or ``slower`` (``smaller``, ``larger``) where the intervals are apart, else ``same``."""


def read(path: str) -> dict[str, Any]:
    """Read a document that `report` describes.

    Raises:
        ValueError: it is none, or of a newer schema; the text says which.
    """
    with open(path, encoding="utf-8") as file:
        found = json.load(file)
    if not isinstance(found, dict) or found.get("kind") != report.KIND:
        raise ValueError(f"it is no document of kind {report.KIND!r}")
    if found.get("schema") != report.SCHEMA:
        raise ValueError(f"its schema is {found.get('schema')!r}, not {report.SCHEMA}")
    return found


def compare(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[Compared]:
    """Give what both documents measured, in the order of the later one."""
    old = {(one["workload"], one["driver"]): one for one in before["results"] if one["median"] is not None}
    compared = []
    for one in now["results"]:
        then = old.get((one["workload"], one["driver"]))
        if then is not None and one["median"] is not None:
            compared.append(
                Compared(
                    one["workload"],
                    one["title"],
                    one["driver"],
                    one["unit"],
                    then["median"],
                    one["median"],
                    _verdict(then, one),
                )
            )
    return compared


def doubts(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Say what else changed between the two: each makes the comparison worth less."""
    changed = []
    for part, keys in (("facts", _SAME_MACHINE), ("settings", _SAME_QUESTION)):
        for key in keys:
            then, here = before[part].get(key), now[part].get(key)
            if then != here:
                changed.append(f"{key} was {then!r} and is {here!r}")
    return changed


def _verdict(then: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    less, more = ("faster", "slower") if now["unit"] == "s" else ("smaller", "larger")
    if now["high"] < then["low"]:
        return less
    return more if now["low"] > then["high"] else "same"
