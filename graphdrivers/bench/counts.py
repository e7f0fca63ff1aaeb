"""The system calls in a document: how many one operation makes, and which."""

from collections.abc import Mapping
from typing import Any

from graphdrivers.bench import view
from graphdrivers.bench.document import Document
from graphdrivers.bench.quantities import figures
from graphdrivers.bench.workload import SECONDS

_SHOWN = 6
"""Names that are told."""


def sections(document: Document) -> list[view.Section]:
    """Give the workloads with calls in place of times, as far as there are any or a reason why not.

    Nothing where nobody asked for them, or where nothing could be counted at all.
    """
    results = [_result(one) for one in document["results"] if one.get("calls")]
    if not any(one["samples"] for one in results):
        return []
    workloads = [
        {**one, "rows": [row for row in one["rows"] if row["unit"] == SECONDS]} for one in document["workloads"]
    ]
    return view.sections({**document, "results": results, "workloads": [one for one in workloads if one["rows"]]})


def missing(document: Document) -> str:
    """Say why there are none at all though somebody asked; empty where there are, or nobody did."""
    asked = [one["calls"] for one in document["results"] if one.get("calls")]
    if any(one["operation"] is not None for one in asked):
        return ""
    return "; ".join(dict.fromkeys(one["reason"] for one in asked))


def _result(result: Mapping[str, Any]) -> dict[str, Any]:
    """Give a result with calls per operation in place of the median."""
    calls = result["calls"]
    count = calls["operation"]
    samples = [] if count is None else [count]
    same = {"median": count, "low": count, "high": count, "reason": calls["reason"], "warm": True}
    return {**result, **same, "samples": samples}


def names(document: Document) -> dict[tuple[str, str, str], Mapping[str, float]]:
    """Give the calls of one operation by name, the most first, for each workload, row and driver."""
    return {
        (one["workload"], one["row"], one["driver"]): one["calls"]["names"]
        for one in document["results"]
        if one.get("calls")
    }


def told(calls: Mapping[str, float], most: int = _SHOWN) -> list[str]:
    """Tell the most frequent of some calls: ``openat 8``, and how many others there are."""
    rest = sum(list(calls.values())[most:])
    shown = [f"{name} {number(count)}" for name, count in list(calls.items())[:most]]
    return [*shown, f"others {number(rest)}"] if rest else shown


def number(count: float) -> str:
    """Show a count in at most five characters: ``41``, ``2.06``, ``12.3k``."""
    if count < 9.995 and round(count, 2) != round(count):
        return f"{count:.2f}"
    if count < 99.95 and round(count, 1) != round(count):
        return f"{count:.1f}"
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= size * 0.9995:
            return f"{figures(count / size)}{letter}"
    return f"{count:.0f}"
