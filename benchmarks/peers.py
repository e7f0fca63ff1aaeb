"""Our drivers and store against GNU tar, bsdtar, umoci, containers-storage, buildah and skopeo, in one run.

    python benchmarks/peers.py [--directory DIR] [--rounds N] [--quick] [--only PART]... [--image LAYOUT] --output FILE
    python benchmarks/peers.py --write FILE... [--docs DIR]

The first measures on the file system of DIR, as root, prints as it goes, and keeps all samples and the machine's facts
in FILE (JSON). The second makes ``docs/benchmarks.rst`` and its charts of such files, one for each file system. The
programs come from ``scripts/system-packages --optional``; LAYOUT is an image of ``scripts/debian-image``.
"""

import argparse
import json
import os
from collections.abc import Iterable, Mapping
from typing import Any

import attrs

import apply
import boxes
import changes
import diff
import images
import machine
import measuring
import memory
import mounts
import page
import startup
import targets
from measuring import Measure, Result

PARTS: Mapping[str, Measure] = {
    "apply": apply.measure,
    "images": images.measure,
    "diff": diff.measure,
    "changes": changes.measure,
    "mounts": mounts.measure,
    "boxes": boxes.measure,
    "startup": startup.measure,
    "memory": memory.measure,
}
"""What is measured, each alone in its module."""

SCHEMA = 1


def main() -> None:
    """Measure, or write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    measuring.add_options(parser)
    parser.add_argument("--only", action="append", choices=list(PARTS), help="one part; may be said again")
    parser.add_argument("--output", metavar="FILE", help="where the samples are kept")
    parser.add_argument("--write", nargs="+", metavar="FILE", help="make the documentation's page of these")
    parser.add_argument("--docs", metavar="DIR", default=page.DOCS, help="where the page is written (docs)")
    options = parser.parse_args()
    if options.write:
        for path in page.write([read(path) for path in options.write], options.docs):
            print(path)
        return
    facts = machine.described(options.directory) | {"quick": options.quick, "rounds": options.rounds}
    watch = machine.Watch.begin()
    results: list[Result] = []
    for name in options.only or list(PARTS):
        results += measuring.with_bench(options, PARTS[name])
        if options.output:
            save(options.output, facts | {"others": watch.others()}, results)
    _print_targets(results)


def _print_targets(results: list[Result]) -> None:
    by_work = {result.work: result for result in results}
    for target in targets.TARGETS:
        print(f"\n{target.words}")
        for one in targets.judge(target, by_work):
            answer = "-" if one.met is None else "met" if one.met else "NOT met"
            print(f"  {answer:8} {one.work:24} {one.ours}; {one.measured}, {one.goal}")


def save(path: str, facts: Mapping[str, object], results: Iterable[Result]) -> None:
    """Keep a run: ``{"schema": 1, "facts": {...}, "results": [{work, title, samples, absent, floor, unit}]}``."""
    document = {"schema": SCHEMA, "facts": facts, "results": [attrs.asdict(result) for result in results]}
    with open(f"{path}.new", "w", encoding="utf-8") as file:
        json.dump(document, file, indent=1)
    os.replace(f"{path}.new", path)


def read(path: str) -> page.Run:
    """Read a run that was kept.

    Raises:
        SystemExit: it is none.
    """
    with open(path, encoding="utf-8") as file:
        document: dict[str, Any] = json.load(file)
    if document.get("schema") != SCHEMA:
        raise SystemExit(f"{path}: not a run of this program")
    results = [
        Result(**one | {"samples": {name: tuple(taken) for name, taken in one["samples"].items()}})
        for one in document["results"]
    ]
    return page.Run(document["facts"], {result.work: result for result in results})


if __name__ == "__main__":
    main()
