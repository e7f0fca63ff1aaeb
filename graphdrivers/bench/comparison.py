"""A measurement beside earlier ones of the same machine."""

import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import attrs

from graphdrivers.bench.document import Document
from graphdrivers.bench.results import can_differ

_SAME_MACHINE = ("cpu", "cpus", "memory", "architecture", "kernel", "governor")
"""Facts without which a comparison says little."""

_SAME_QUESTION = ("image", "image_size", "sizes", "database", "memory")
"""Settings that change the numbers."""


_ALIKE = 0.001
"""Part by which counts of the same work may differ: when a thread ends, or whether two times are the same."""


@attrs.frozen
class Calls:
    """System calls of one operation, now and before."""

    before: float
    """Of several measurements, their median."""
    now: float
    verdict: str
    """``more`` or ``fewer`` than in each earlier measurement, by more than a thousandth, else ``same``."""
    names: Mapping[str, float]
    """By name how many more, or fewer where negative; what is the same is left out."""

    def told(self, most: int = 6) -> list[str]:
        """Tell what changed most: ``fsync +2``."""
        ordered = sorted(self.names.items(), key=lambda item: (-abs(item[1]), item[0]))
        return [f"{name} {change:+.6g}" for name, change in ordered[:most]]


@attrs.frozen
class Change:
    """One row on one driver, against one earlier measurement or the range of several."""

    workload: str
    row: str
    title: str
    driver: str
    unit: str
    before: float
    """Median then; of several measurements, their medians' median."""
    now: float
    ratio: float
    """Now to then."""
    low: float
    high: float
    """Bounds of the ratio: the ends of the two intervals that make it least and greatest."""
    verdict: str
    """``faster`` or ``slower`` (``smaller``, ``larger``) where the intervals are apart, ``same`` where they are not,
    ``unsure`` where there are too few samples to tell."""
    regressed: bool
    """More than the tolerance slower (larger) than in every earlier measurement, and that is sure."""
    calls: Calls | None = None
    """Where they were counted now and before. They are no regression: more calls may take less time."""


def compare(before: Sequence[Document], now: Document, tolerance: float) -> list[Change]:
    """Give what all documents measured, in the order of the latest.

    Args:
        before: one or more; a row counts as changed where it did against each of them.
        now: the latest.
        tolerance: by how much, as a part, something may get worse.
    """
    earlier = [_measured(document) for document in before]
    titles = {(one["name"], row["name"]): row["title"] for one in now["workloads"] for row in one["rows"]}
    return [
        _change(one, then, titles[one["workload"], one["row"]], tolerance)
        for key, one in _measured(now).items()
        if (then := [document[key] for document in earlier if key in document])
    ]


def _measured(document: Document) -> dict[tuple[str, str, str], Mapping[str, Any]]:
    return {
        (one["workload"], one["row"], one["driver"]): one for one in document["results"] if one["median"] is not None
    }


def _change(now: Mapping[str, Any], then: Sequence[Mapping[str, Any]], title: str, tolerance: float) -> Change:
    before = statistics.median(one["median"] for one in then)
    low = min(_quotient(now["low"], one["high"]) for one in then)
    high = max(_quotient(now["high"], one["low"]) for one in then)
    sure = now["unit"] != "s" or all(can_differ(len(now["samples"]), len(one["samples"])) for one in then)
    return Change(
        workload=now["workload"],
        row=now["row"],
        title=title,
        driver=now["driver"],
        unit=now["unit"],
        before=before,
        now=now["median"],
        ratio=_quotient(now["median"], before),
        low=low,
        high=high,
        verdict=_verdict(low, high, now["unit"]) if sure else "unsure",
        regressed=sure and low > 1 + tolerance,
        calls=_calls(now, then),
    )


def _calls(now: Mapping[str, Any], then: Sequence[Mapping[str, Any]]) -> Calls | None:
    here, *before = (one.get("calls") or {"operation": None} for one in (now, *then))
    before = [one for one in before if one["operation"] is not None]
    if here["operation"] is None or not before:
        return None
    numbers = [one["operation"] for one in before]
    changes = {
        name: here["names"].get(name, 0.0) - statistics.median(one["names"].get(name, 0.0) for one in before)
        for name in sorted({name for one in (here, *before) for name in one["names"]})
    }
    return Calls(
        before=statistics.median(numbers),
        now=here["operation"],
        verdict=_less_or_more(here["operation"], numbers),
        names={name: change for name, change in changes.items() if change},
    )


def _less_or_more(now: float, before: Sequence[float]) -> str:
    if now < min(before) * (1 - _ALIKE):
        return "fewer"
    return "more" if now > max(before) * (1 + _ALIKE) else "same"


def _quotient(value: float, other: float) -> float:
    """Divide; nothing to nothing is the same, and JSON has no infinity."""
    if not other:
        return 1.0 if not value else 1e9
    return value / other


def _verdict(low: float, high: float, unit: str) -> str:
    less, more = ("faster", "slower") if unit == "s" else ("smaller", "larger")
    if high < 1:
        return less
    return more if low > 1 else "same"


def doubts(before: Document, now: Document) -> Iterator[str]:
    """Say what else changed between two measurements: each makes the comparison worth less."""
    for part, keys in (("facts", _SAME_MACHINE), ("settings", _SAME_QUESTION)):
        for key in keys:
            yield from _doubt(key, before[part].get(key), now[part].get(key))
    places = {one["name"]: one["place"]["filesystem"] for one in before["drivers"]}
    for one in now["drivers"]:
        if one["name"] in places:
            yield from _doubt(f"file system of {one['name']}", places[one["name"]], one["place"]["filesystem"])
    for document, when in ((before, "before"), (now, "now")):
        yield from (f"disturbed {when}: {complaint}" for complaint in document["disturbed"])


def _doubt(what: str, then: object, here: object) -> Iterator[str]:
    if then != here:
        yield f"{what} was {then!r} and is {here!r}"
