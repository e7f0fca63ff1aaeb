"""The project's targets: what each figure has to be, and what was measured."""

from collections.abc import Iterator, Mapping, Sequence

import attrs

import apply
import boxes
import diff
import images
import materials
import memory
import mounts
import startup
import tools
from graphdrivers.bench.quantities import quantity
from graphdrivers.bench.results import Summary, summarise
from measuring import Result

MIB = 1 << 20
STORE = images.store_of("layer")
"""A store as it is by default."""


@attrs.frozen(kw_only=True)
class Goal:
    """What one figure has to be: one of `factor`, `limit` and `ahead` says it."""

    work: str
    ours: str
    against: tuple[str, ...] = ()
    """What it is measured against: the slowest of these, round by round."""
    factor: float | None = None
    """At most so many times what `against` takes."""
    limit: float | None = None
    """At most so much, in the unit of the work, beyond `against`."""
    ahead: float | None = None
    """At least so many times faster than `peer`."""
    peer: str = tools.STORAGE
    """Whose figure is shown beside."""


@attrs.frozen
class Target:
    """One target in words, and the figures that it is about."""

    words: str
    goals: tuple[Goal, ...]


@attrs.frozen
class Verdict:
    """A goal and what came out, as texts for a table."""

    work: str
    ours: str
    against: str
    measured: str
    """The ratio or the difference that the goal is about, with its interval."""
    goal: str
    met: bool | None
    """``None`` where it was not measured."""
    sure: bool
    """The whole interval is on one side of the goal."""
    peer: str
    """The peer's figure, and how many times ours that is."""


_LAYERS = (*(spec.name for spec in apply.LAYERS), materials.REAL)
_CHANGED = ("clustered", "spread")
_OURS = ("overlay", "aufs")

TARGETS = (
    Target(
        "Applying a layer, with every check, the digest and the header record, takes at most as long as GNU tar.",
        tuple(
            Goal(work=f"apply {layer}", ours=driver, against=(tools.GNU_TAR,), factor=1.0)
            for layer in _LAYERS
            for driver in _OURS
        ),
    ),
    Target(
        "Applying many small files is at least 3 times as fast as with containers-storage.",
        (Goal(work="apply small", ours="overlay", ahead=3.0),),
    ),
    Target(
        "An image of 60 MB of gzip in 4 layers is imported in at most 0.8 s, at least 4 times as fast as by others.",
        (
            Goal(work=images.IMPORT, ours=STORE, limit=0.8, peer=tools.BUILDAH),
            Goal(work=images.IMPORT, ours=STORE, ahead=4.0, peer=tools.SKOPEO),
            Goal(work=images.IMPORT, ours=STORE, ahead=4.0, peer=tools.UMOCI),
        ),
    ),
    Target(
        "Applying gzip takes at most 1.15 times the slower of its decompression alone and the apply of the plain tar.",
        tuple(
            Goal(
                work=f"apply {layer}, gzip",
                ours=driver,
                against=(apply.ISAL, apply.plain(driver)),
                factor=1.15,
                peer=tools.GNU_TAR,
            )
            for layer in _LAYERS
            for driver in _OURS
        ),
    ),
    Target(
        "An apply of any size holds at most 64 MiB beyond the bare interpreter.",
        tuple(
            Goal(work="memory", ours=name, against=(memory.BARE,), limit=64 * MIB)
            for name in (memory.OURS, memory.ZIPPED, memory.FLAT)
        ),
    ),
    Target(
        "The diff of many small files, digest included, takes at most 1.2 times ``tar -c | sha256sum``.",
        tuple(
            Goal(work="diff small", ours=driver, against=(diff.FLOOR,), factor=1.2)
            for driver in ("overlay", "aufs", "vfs")
        ),
    ),
    Target(
        "1,000 changed files of a container over 50,000 are listed, or read as a diff, in at most 20 ms; none in 1 ms.",
        tuple(
            Goal(work=f"{work} {name}", ours=driver, limit=0.02 if name in _CHANGED else 0.001)
            for work in ("changes", "container diff")
            for name in (*_CHANGED, "none")
            for driver in _OURS
        ),
    ),
    Target(
        "Mounting and unmounting over 10 and over 100 layers takes at most 1.3 times the bare system calls.",
        tuple(
            Goal(work=f"mount {lowers}", ours=name, against=(mounts.BARE,), factor=1.3)
            for lowers in (10, 100)
            for name in (mounts.READY, "overlay")
        ),
    ),
    Target(
        "A container is made and mounted in at most 3 ms, durable, and as fast with 10,000 layers more in the store.",
        (
            Goal(work="create and mount", ours=boxes.store_of("layer"), limit=0.003),
            Goal(work="create and mount", ours=boxes.CROWDED, limit=0.003, peer=tools.BUILDAH),
            Goal(work="create and mount", ours=boxes.CROWDED, against=(boxes.store_of("layer"),), factor=1.2, peer=""),
        ),
    ),
    Target(
        "An image of 3 layers is imported in less time than its layers one by one.",
        (Goal(work="import three", ours=STORE, against=(images.ONE_BY_ONE,), factor=1.0, peer=tools.SKOPEO),),
    ),
    Target(
        "``graphdriver --help`` and ``drivers`` take at most 150 ms, the rest 100 ms beyond the bare interpreter.",
        (
            Goal(work="start-up", ours=startup.HELP, limit=0.15, peer=startup.STORAGE),
            Goal(work="start-up", ours=startup.DRIVERS, limit=0.15, peer=startup.STORAGE),
            *(
                Goal(work="start-up", ours=name, against=(startup.BARE,), limit=0.1, peer=startup.STORAGE)
                for name in (startup.VERSION, startup.LAYERS, startup.IMAGES, startup.STATUS)
            ),
        ),
    ),
)
"""All of them."""


def judge(target: Target, results: Mapping[str, Result]) -> Iterator[Verdict]:
    """Say of each goal of a target whether it is met."""
    for goal in target.goals:
        result = results.get(goal.work)
        yield _missed(goal, "it was not measured") if result is None else _judged(goal, result)


def _judged(goal: Goal, result: Result) -> Verdict:
    names = (goal.ours, *goal.against, *((goal.peer,) if goal.ahead else ()))
    for name in names:
        if not result.samples.get(name):
            return _missed(goal, f"{name}: {result.absent.get(name, 'it was not measured')}")
    found, bound = _figure(goal, result)
    low_is_good = goal.ahead is None
    met = found.median <= bound if low_is_good else found.median >= bound
    outer = (found.low <= bound) == (found.high <= bound)
    peer = result.summary(goal.peer)
    times = result.ratio(goal.peer, goal.ours) if peer else None
    return Verdict(
        work=goal.work,
        ours=f"{goal.ours}: {_plain(result, goal.ours)}",
        against=", ".join(f"{name}: {_plain(result, name)}" for name in goal.against),
        measured=_shown(found, "" if goal.limit is None else result.unit),
        goal=_bound(goal, result.unit),
        met=met,
        sure=outer,
        peer=f"{goal.peer}: {_plain(result, goal.peer)}, {times.median:.2g} times" if peer and times else "",
    )


def _figure(goal: Goal, result: Result) -> tuple[Summary, float]:
    """Give what the goal is about, round by round, and the bound on it."""
    mine = result.samples[goal.ours]
    rounds = [max(those) for those in zip(*(result.samples[name] for name in goal.against), strict=True)]
    if goal.factor is not None:
        return summarise([a / b for a, b in zip(mine, rounds, strict=True)]), goal.factor
    if goal.ahead is not None:
        return summarise([b / a for a, b in zip(mine, result.samples[goal.peer], strict=True)]), goal.ahead
    beyond: Sequence[float] = rounds or [0.0] * len(mine)
    return summarise([a - b for a, b in zip(mine, beyond, strict=True)]), goal.limit or 0.0


def _bound(goal: Goal, unit: str) -> str:
    if goal.factor is not None:
        return f"at most {goal.factor:g} times"
    if goal.ahead is not None:
        return f"{goal.peer} at least {goal.ahead:g} times"
    return f"at most {quantity(goal.limit or 0.0, unit)}" + (" more" if goal.against else "")


def _missed(goal: Goal, reason: str) -> Verdict:
    return Verdict(goal.work, f"{goal.ours}: {reason}", "", "-", _bound(goal, "s"), None, sure=True, peer="")


def _plain(result: Result, name: str) -> str:
    summary = result.summary(name)
    return quantity(summary.median, result.unit) if summary else "-"


def _shown(found: Summary, unit: str) -> str:
    if unit:
        return f"{quantity(found.median, unit)} ({quantity(found.low, unit)} to {quantity(found.high, unit)})"
    return f"{found.median:.2f} ({found.low:.2f} to {found.high:.2f})"
