"""What the numbers say, in plain words: which driver for what, and what speaks for another one."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from graphdrivers.bench import view
from graphdrivers.bench.document import Document
from graphdrivers.bench.quantities import quantity, ratio

_CLOSE = 1.25
"""Up to this ratio to the best a driver is worth naming beside it."""

_ABILITIES: Mapping[str, tuple[str, str]] = {
    "fork_live": ("forks containers while they run", "fork containers while they run"),
    "quota": ("can limit the size of a layer", "can limit the size of a layer"),
    "native_diff": ("finds changes without a walk through the image", "find changes without a walk through the image"),
    "mount_free": ("needs no mount", "need no mount"),
}
"""What a driver may be chosen for beside its speed: of one, of several."""


def summary(document: Document) -> list[str]:
    """Give the whole of it, a sentence or two for each workload; nothing where one driver alone was measured."""
    if len(view.drivers(document)) < 2:
        return []
    told = [
        _overall(document),
        *_beside(document),
        *(text for section in view.sections(document) if (text := _about(section))),
    ]
    if any(figure.few for section in view.sections(document) for figure in section.speaker().figures):
        told.append("Some of it rests on too few samples to be sure: give the run more time.")
    if document["disturbed"]:
        told.append("Something else was going on during the run: measure again on a quiet machine before you decide.")
    return [text for text in told if text]


def _about(section: view.Section) -> str:
    """Say who is best for a workload, who is as good, and how far the others are."""
    line = section.speaker()
    measured = line.measured()
    if len(measured) < 2:
        return ""
    best, *others = measured
    text = f"For {section.purpose}: {best.driver} ({line.meaning}: {quantity(best.median or 0.0, line.unit)})"
    unsure = [one.driver for one in others if one.unsure]
    behind = [f"{one.driver} {ratio(one.ratio)}" for one in others if not one.unsure]
    if unsure:
        text += f"; {_joined(unsure)} may be as good"
    if behind:
        text += f"; {_joined(behind)} as much"
    return f"{text}."


def _overall(document: Document) -> str:
    """Rank by the geometric mean of the ratios, over the workloads that all of the ranked can do."""
    lines = [section.speaker() for section in view.sections(document)]
    names = view.drivers(document)
    common = [line for line in lines if line.unit == "s" and len(line.measured()) == len(names)]
    if len(common) < 3:
        return ""
    means = {
        name: math.exp(
            sum(math.log(max(one.ratio or 1.0, 1e-9)) for line in common for one in line.figures if one.driver == name)
            / len(common)
        )
        for name in names
    }
    first, *others = sorted(means, key=lambda name: means[name])
    near = [name for name in others if means[name] / means[first] <= _CLOSE]
    rest = [f"{name} {ratio(means[name] / means[first])}" for name in others if name not in near]
    text = f"Over {len(common)} workloads on this machine (geometric mean): {first}"
    if near:
        text += f", closely followed by {_joined(near)}"
    if rest:
        text += f"; {_joined(rest)} as long"
    return f"{text}."


def _beside(document: Document) -> Iterator[str]:
    """Name what only some of the drivers can do."""
    described: Sequence[Any] = document["drivers"]
    for ability, (of_one, of_several) in _ABILITIES.items():
        able = [one["name"] for one in described if one["capabilities"].get(ability)]
        if able and len(able) < len(described):
            yield f"Only {_joined(able)} {of_one if len(able) == 1 else of_several}."


def _joined(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
