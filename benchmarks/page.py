"""Runs as the page ``docs/benchmarks.rst``, with a chart for each file system."""

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import attrs

import chart
import images
import machine
import ours
import startup
import targets
import tools
from graphdrivers.bench.quantities import quantity
from measuring import Result

DOCS = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "docs")
_STORE = images.store_of("layer")
_DRIVERS = ("overlay", "aufs", "vfs", "btrfs", "zfs", "devicemapper", "fuse-overlayfs")
_PEERS = (tools.GNU_TAR, tools.BSDTAR, tools.UMOCI, tools.STORAGE, tools.BUILDAH, tools.SKOPEO)
_MARKED = (*_PEERS, ours.COMMANDS)
"""Who is in the chart."""

_HEAD = """\
.. Written by benchmarks/peers.py: change that, and run it again.

Measured against others
=======================

The drivers and the store of this package beside other programs that keep layers: on the same layers, in the same run,
on one machine. Absolute times belong to that machine; ratios are what carries over. To measure the drivers on your own
machine, see :doc:`howto/bench`. This page is made anew from the sources, as root, by ::

    scripts/system-packages --optional
    scripts/debian-image .debian-image
    python benchmarks/peers.py --directory /dev/shm --image .debian-image/layout --output memory.json
    python benchmarks/peers.py --directory /var/tmp --image .debian-image/layout --output disk.json
    python benchmarks/peers.py --write memory.json disk.json

How it is measured
------------------

* Every round runs each contender once, in turns; the first round warms up and is not counted. Shown is the median of
  the rounds, with half the width of its 95 % interval where that is 5 % or more. A ratio is taken round by round; shown
  is its median.
* What is read lies in the page cache. What was written is handed to the disk (``syncfs``) between contenders, and
  nothing else is made durable, but by ``store, durability layer``, which makes every layer durable before it answers.
* Ours apply with all checks, the digest of the layer and the record that gives back the identical tar. GNU tar and
  bsdtar just unpack.
* A sample of mounting without a process is the fastest of 5 in a row, for an unmount waits for the kernel (RCU) at
  random.
* The others run as processes, one for each verb, as they are used; what starting alone takes is in the tables
  *Start-up*. ``graphdriver (commands)`` is our own command line, measured the same way.
* Layers are made from a fixed seed: ``base`` is like a distribution's smallest image, ``big`` like a compiler and an
  interpreter over it, ``delta`` 500 small files and 3 deletions over ``base``, ``small`` 30,000 small files; ``debian``
  is a real image, its lowest layer or all of it.
* A dash is what a program cannot do; the reasons are below each table.
"""

_GROUPS = (
    ("Apply a layer", ("apply base", "apply big", "apply delta", "apply small", "apply debian")),
    (
        "Apply a compressed layer",
        ("apply base, gzip", "apply big, gzip", "apply delta, gzip", "apply small, gzip", "apply debian, gzip"),
    ),
    ("Import and commit images", ("import", "import three", "import debian", "commit")),
    ("Diff a layer", ("diff base", "diff small")),
    (
        "What a container changed",
        (
            "changes none",
            "changes clustered",
            "changes spread",
            "container diff none",
            "container diff clustered",
            "container diff spread",
        ),
    ),
    ("Mount and unmount", ("mount 4", "mount 10", "mount 100")),
    ("A container's life", ("create", "create and mount", "remove", "remove small", "fork")),
    ("Start-up", ("start-up",)),
    ("Memory", ("memory",)),
)

_CHARTED = (
    ("apply base", "overlay"),
    ("apply big", "overlay"),
    ("apply delta", "overlay"),
    ("apply small", "overlay"),
    ("apply debian", "overlay"),
    ("import", _STORE),
    ("import debian", _STORE),
    ("commit", _STORE),
    ("diff small", "overlay"),
    ("changes spread", "overlay"),
    ("container diff spread", "overlay"),
    ("mount 10", "overlay"),
    ("create and mount", _STORE),
    ("remove small", "overlay"),
)
"""Works in the chart, each with the contender that stands for us."""

_NARROW_ENOUGH = 0.05


@attrs.frozen
class Run:
    """What one run found on one file system."""

    facts: Mapping[str, Any]
    results: Mapping[str, Result]

    @property
    def place(self) -> str:
        """Name the file system."""
        return str(self.facts["filesystem"])


def write(runs: Sequence[Run], folder: str) -> list[str]:
    """Write the page and its charts; give their paths."""
    written = []
    parts = [*_glance(runs), *_targets(runs), *(line for run in runs for line in _run(run))]
    text = _HEAD + "\n".join(["", *parts, ""])
    files = {"benchmarks.rst": text} | {_chart_name(run): _chart(run) for run in runs}
    for name, content in files.items():
        written.append(os.path.join(folder, name))
        with open(written[-1], "w", encoding="utf-8") as file:
            file.write(content)
    return written


def _glance(runs: Sequence[Run]) -> Iterator[str]:
    yield from _titled("At a glance", "-")
    for run in runs:
        yield f".. image:: {_chart_name(run)}"
        yield f"   :alt: How many times as long as ours others take, on {run.place}"
        yield ""


def _targets(runs: Sequence[Run]) -> Iterator[str]:
    yield from _titled("Targets", "-")
    yield "What the project wants to reach:"
    yield ""
    yield from (f"{number}. {target.words}" for number, target in enumerate(targets.TARGETS, 1))
    yield ""
    yield "And what was reached. *Unsure* is where the interval holds the target."
    for run in runs:
        yield ""
        yield from _titled(f"Targets on {run.place}", "~")
        yield from _reached(run)


def _reached(run: Run) -> Iterator[str]:
    rows = [["", "work", "ours", "measured against", "measured", "target", "met", "peer"]]
    met = []
    for number, target in enumerate(targets.TARGETS, 1):
        for one in targets.judge(target, run.results):
            met.append(one.met)
            answer = _answer(one)
            rows.append([f"{number}", one.work, one.ours, one.against, one.measured, one.goal, answer, one.peer])
    yield f"{met.count(True)} of {len(met)} figures are as they should be, {met.count(False)} are not."
    if met.count(None):
        yield f"{met.count(None)} were not measured."
    yield ""
    yield from _table(rows)


def _answer(verdict: targets.Verdict) -> str:
    if verdict.met is None:
        return "-"
    return ("yes" if verdict.met else "**no**") + ("" if verdict.sure else ", unsure")


def _run(run: Run) -> Iterator[str]:
    yield ""
    yield from _titled(f"On {run.place}", "-")
    yield from _facts(run.facts)
    for title, works in _GROUPS:
        found = [run.results[work] for work in works if work in run.results]
        if found:
            yield ""
            yield from _titled(f"{title} ({run.place})", "~")
            yield from _group(found)


def _facts(facts: Mapping[str, Any]) -> Iterator[str]:
    kernel = ".".join(str(facts["kernel"]).split("-", maxsplit=1)[0].split(".")[:2])
    processors = f"{facts['cpus']} processors"
    memory = f"{facts['memory'] / 2**30:.0f} GiB of memory"
    yield f"{facts['date']}: Linux {kernel}, {processors} ({facts['cpu']}), {memory}, {facts['filesystem']}."
    versions = [f"{name} {version}" for kind in ("versions", "tools") for name, version in facts[kind].items()]
    yield f"{', '.join([facts['python'], *versions])}."
    yield f"{facts['rounds']} rounds, more of what is short."
    if facts["quick"]:
        yield "**A quick try with small trees: the figures say nothing.**"
    if facts["others"] > machine.BUSY:
        busy = f"{facts['others']:.1f} of the {processors}"
        yield f"**Disturbed: other programs and the kernel kept {busy} busy meanwhile.**"
    else:
        yield "Nothing else was running."


def _group(results: Sequence[Result]) -> Iterator[str]:
    """Show works as a table: what is done across, who does it down."""
    names = list(dict.fromkeys(name for result in results for name in result.samples))
    names.sort(key=_order)
    heads = [result.work for result in results]
    rows = [["", *heads]]
    rows += [[name, *(_cell(result, name) for result in results)] for name in names]
    for result in results:
        against = f"; ratios to {result.floor}" if result.floor else ""
        yield f"* ``{result.work}``: {result.title}{against}."
    yield ""
    yield from _table(rows)
    reasons: dict[str, list[str]] = {}
    for result in results:
        for name, reason in result.absent.items():
            reasons.setdefault(reason, [])
            if name not in reasons[reason]:
                reasons[reason].append(name)
    if reasons:
        yield ""
        yield "Without figures: " + "; ".join(f"{', '.join(who)} ({why})" for why, who in reasons.items()) + "."


def _order(name: str) -> int:
    """Put the floors first, then ours, then the others; within each as they ran."""
    if name in _PEERS or name in {startup.STORAGE, startup.BUILDAH}:
        return 2
    return int(name.split(",", maxsplit=1)[0] in {*_DRIVERS, "store", ours.COMMANDS})


def _cell(result: Result, name: str) -> str:
    summary = result.summary(name)
    if summary is None:
        return "-"
    text = quantity(summary.median, result.unit)
    spread = (summary.high - summary.low) / 2 / summary.median if summary.median else 0.0
    if spread >= _NARROW_ENOUGH:
        text += f" ±{spread:.0%}"
    ratio = result.ratio(name, result.floor) if result.floor and name != result.floor else None
    return f"{text}, {_times(ratio.median)}" if ratio else text


def _times(ratio: float) -> str:
    return f"{ratio:.2f}x" if ratio < 9.95 else f"{ratio:.0f}x"


def _table(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield ".. list-table::"
    yield "   :header-rows: 1"
    yield ""
    for row in rows:
        for number, cell in enumerate(row):
            yield f"   {'*' if number == 0 else ' '} - {cell}".rstrip()


def _titled(text: str, under: str) -> Iterator[str]:
    yield text
    yield under * len(text)
    yield ""


def _chart_name(run: Run) -> str:
    return f"benchmarks-{run.place}.svg"


def _chart(run: Run) -> str:
    rows = []
    for work, mine in _CHARTED:
        result = run.results.get(work)
        summary = result.summary(mine) if result else None
        if result is None or summary is None:
            continue
        found = ((name, result.ratio(name, mine)) for name in _MARKED)
        ratios = {name: ratio.median for name, ratio in found if ratio}
        if ratios:
            rows.append(chart.Row(work, quantity(summary.median, result.unit), ratios))
    return chart.draw(
        f"Time that others take, as a multiple of ours ({run.place}; to the right is slower)", rows, _MARKED
    )
