"""``graphdriver bench``: the drivers of this machine side by side."""

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any

import attrs
import click

from graphdrivers.bench import comparison, runner
from graphdrivers.bench import document as documents
from graphdrivers.bench.sizes import FULL, Sizes
from graphdrivers.bench.workload import Workload
from graphdrivers.bench.workloads import WORKLOADS
from graphdrivers.cli import files, measured, measuring, output
from graphdrivers.cli.settings import Settings, global_options, size_given

REGRESSED = 4
"""Exit code where ``--compare`` found something that got worse by more than ``--tolerance``."""

_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600}


def _workload_names(_context: click.Context, _argument: click.Parameter, names: tuple[str, ...]) -> list[Workload]:
    """Turn names (or nothing, for all) into workloads, in the order of the report."""
    known = [workload.name for workload in WORKLOADS]
    for name in names:
        if name not in known:
            raise click.BadParameter(f"{name!r} is none of {', '.join(known)}")
    return [workload for workload in WORKLOADS if not names or workload.name in names]


def _read_old(context: click.Context, option: click.Parameter, paths: tuple[str, ...]) -> list[dict[str, Any]]:
    found = []
    for path in paths:
        try:
            found.append(documents.read(path))
        except ValueError as error:
            raise click.BadParameter(f"{path!r} cannot be compared with: {error}", context, option) from error
    return found


def _duration(context: click.Context, option: click.Parameter, text: str) -> float:
    match = re.fullmatch(r"([0-9]{1,6}(?:\.[0-9]+)?)([smh]?)", text)
    if match is None:
        raise click.BadParameter(f"{text!r} is not a time such as 90s or 5m", context, option)
    return float(match[1]) * _UNITS[match[2]]


def _percentage(context: click.Context, option: click.Parameter, text: str) -> float:
    match = re.fullmatch(r"([0-9]{1,4}(?:\.[0-9]+)?)%?", text)
    if match is None:
        raise click.BadParameter(f"{text!r} is not a percentage such as 10%", context, option)
    return float(match[1]) / 100


def _places(context: click.Context, option: click.Parameter, pairs: tuple[str, ...]) -> dict[str, str]:
    places = {}
    for pair in pairs:
        name, equals, folder = pair.partition("=")
        if not name or not equals or not os.path.isdir(folder):
            raise click.BadParameter(f"{pair!r} is not DRIVER=DIR with a directory that exists", context, option)
        places[name] = os.path.realpath(folder)
    return places


@click.command()
@click.argument("workloads", nargs=-1, callback=_workload_names, metavar="[WORKLOAD]...")
@click.option("--list", "listing", is_flag=True, help="Only explain the workloads.")
@click.option("--drivers", metavar="A,B", help="Which drivers; by default all that work here.")
@click.option(
    "--place",
    "places",
    metavar="DRIVER=DIR",
    multiple=True,
    callback=_places,
    help="Measure a driver below DIR, on another file system; repeatable.",
)
@click.option(
    "--image", metavar="PATH", type=click.Path(exists=True), help="An OCI layout or docker archive to measure with."
)
@click.option("--full", is_flag=True, help="All that a workload models (a database of 1 GiB), whatever it costs.")
@click.option("--files", "count", metavar="N", type=click.IntRange(1, 10**6), help="Small files at most.")
@click.option("--database", metavar="SIZE", callback=size_given, help="Size of the database's file.")
@click.option(
    "--budget", metavar="TIME", callback=_duration, default="60s", show_default=True, help="Time for everything."
)
@click.option(
    "--repeats", metavar="N", type=click.IntRange(1, 1000), default=25, show_default=True, help="Samples at most."
)
@click.option(
    "--precision",
    metavar="PERCENT",
    callback=_percentage,
    default="3%",
    show_default=True,
    help="Half an interval that is narrow enough.",
)
@click.option("--calls", is_flag=True, help="Afterwards also count system calls, by strace.")
@click.option("-o", "--output", "target", metavar="FILE.json", help="Also write the measurements as JSON.")
@click.option("--html", "page", metavar="FILE", help="Also write a page with charts; needs graphdrivers[report].")
@click.option(
    "--compare", metavar="OLD.json", multiple=True, callback=_read_old, help="Compare with an earlier --output."
)
@click.option(
    "--tolerance",
    metavar="PERCENT",
    callback=_percentage,
    default="10%",
    show_default=True,
    help="What may be worse than in OLD.json without exit code 4.",
)
@click.option(
    "--user-namespace/--no-user-namespace", default=True, help="As a plain user: run in a namespace that may mount."
)
@global_options
@click.pass_obj
def bench(
    settings: Settings,
    /,
    *,
    workloads: list[Workload],
    listing: bool,
    user_namespace: bool,
    target: str | None,
    page: str | None,
    compare: list[dict[str, Any]],
    tolerance: float,
    **asked: Any,
) -> None:
    """Measure the drivers of this machine side by side.

    Workloads: unpack, build, ci, sandbox, database, packages, read, deep,
    density, cleanup; by default all; --list explains them. Each driver gets a
    fresh folder below --root (else $TMPDIR), which is removed afterwards, and
    its options by --opt DRIVER.KEY=VALUE. Samples are taken in turns until the
    medians are sure or the budget is used up. With --compare the exit code is 4
    where something got worse. Ctrl-C shows what there is.
    """
    if listing:
        _list(settings, workloads)
        return
    if user_namespace:
        _enter_user_namespace(settings)
    parent = settings.root if settings.root_given else settings.scratch
    os.makedirs(parent, mode=0o700, exist_ok=True)
    run = _run(settings, parent, workloads, asked)
    render = _renderer() if page else None
    with contextlib.ExitStack() as stack:
        sink = stack.enter_context(files.writing(target)) if target else None
        html = stack.enter_context(files.writing(page)) if page else None
        _measure(settings, run, parent)
        found = run.document(settings.source_date_epoch)
        changes = comparison.compare(compare, found, tolerance) if compare else []
        if compare:
            found["comparison"] = [attrs.asdict(one) for one in changes]
        if sink is not None:
            sink.write(json.dumps(found, indent=2).encode() + b"\n")
        if html is not None and render is not None:
            html.write(render(found, changes).encode())
    _show(settings, found, compare, changes)
    if not run.results.complete:
        raise KeyboardInterrupt
    if any(one.regressed for one in changes):
        raise click.exceptions.Exit(REGRESSED)


def _renderer() -> Callable[[documents.Document, Sequence[comparison.Change]], str]:
    """Give what renders the page.

    Raises:
        click.UsageError: what draws the charts is not installed.
    """
    try:
        from graphdrivers.bench import page  # noqa: PLC0415 - it needs the extra "report"
    except ModuleNotFoundError as error:
        if error.name != "pygal":
            raise
        raise click.UsageError("--html needs pygal: pip install 'graphdrivers[report]'") from error
    return page.page


def _measure(settings: Settings, run: measuring.Run, parent: str) -> None:
    """Measure until the end, or until Ctrl-C where there is something to show by then."""
    try:
        with output.aside():
            run.measure(settings, parent)
    except KeyboardInterrupt:
        if not any(cell.samples for cell in run.results.cells):
            raise
        output.message(settings, "graphdriver: interrupted; this is what was measured")


def _show(
    settings: Settings, found: dict[str, object], before: list[dict[str, Any]], changes: list[comparison.Change]
) -> None:
    if settings.json:
        output.document(found)
        return
    measured.show(found)
    if before:
        measured.show_comparison(changes, before, found)


def _list(settings: Settings, workloads: Sequence[Workload]) -> None:
    if settings.json:
        output.document(measured.workload_list(workloads))
    else:
        measured.show_workloads(workloads)


def _run(settings: Settings, parent: str, workloads: Sequence[Workload], asked: dict[str, Any]) -> measuring.Run:
    """Make a run of what was asked for; a sample's patience is such that the budget lasts for a few of each."""
    wanted = measuring.chosen(settings, asked["drivers"], asked["places"], parent)
    patience = asked["budget"] / 4 / max(len(wanted) * len(workloads), 1)
    sizes = FULL if asked["full"] else Sizes(patience=min(max(patience, 0.05), 1.0))
    given = {"files": asked["count"], "database": asked["database"]}
    sizes = attrs.evolve(sizes, **{key: value for key, value in given.items() if value is not None})
    plan = runner.Plan(
        workloads=workloads,
        repeats=asked["repeats"],
        precision=asked["precision"],
        budget=asked["budget"],
        whatever=asked["full"],
    )
    return measuring.Run(plan, sizes, asked["image"], wanted, calls=asked["calls"])


def _enter_user_namespace(settings: Settings) -> None:
    """Start over as root of a new user namespace where a plain user can make one; else return.

    There overlay can be mounted (Linux 5.11). One id is mapped, which the facts say.
    """
    if os.geteuid() == 0 or settings.arguments is None or shutil.which("unshare") is None:
        return
    unshare = ["unshare", "--user", "--map-root-user", "--mount"]
    tried = subprocess.run([*unshare, "true"], stdin=subprocess.DEVNULL, capture_output=True, check=False)
    if tried.returncode:
        output.message(settings, "graphdriver: note: no user namespace can be made here, so nothing can be mounted")
        return
    output.message(settings, "measuring in a user namespace of one id", level=1)
    os.execvp(unshare[0], [*unshare, "--", sys.executable, "-m", "graphdrivers", *settings.arguments])  # noqa: S606 - no shell is wanted
