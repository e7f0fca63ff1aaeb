"""``graphdriver bench``: the drivers of this machine side by side."""

import contextlib
import datetime as dt
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import attrs
import click

from graphdrivers import errors, loading
from graphdrivers.bench import comparison, facts, report, runner, sample
from graphdrivers.bench.bed import Bed, Tar
from graphdrivers.bench.workloads import WORKLOADS, Workload
from graphdrivers.cli import files, output
from graphdrivers.cli.settings import Settings, global_options
from graphdrivers.images.opening import open_image


@attrs.define
class _Session:
    """One run: what was asked for, and what has come out so far."""

    plan: runner.Plan
    files: int
    image: str
    results: runner.Results = attrs.Factory(runner.Results)
    tars: list[Tar] = attrs.Factory(list)
    beds: list[Bed] = attrs.Factory(list)
    refused: dict[str, errors.GraphDriverError] = attrs.Factory(dict)
    facts: dict[str, object] = attrs.Factory(dict)


def _workload_names(_context: click.Context, _argument: click.Parameter, names: tuple[str, ...]) -> list[Workload]:
    """Turn names (or nothing, for all) into workloads, in the order of the report."""
    known = [workload.name for workload in WORKLOADS]
    for name in names:
        if name not in known:
            raise click.BadParameter(f"{name!r} is none of {', '.join(known)}")
    return [workload for workload in WORKLOADS if not names or workload.name in names]


def _read_old(context: click.Context, option: click.Parameter, path: str | None) -> dict[str, Any] | None:
    if path is None:
        return None
    try:
        return comparison.read(path)
    except ValueError as error:
        raise click.BadParameter(f"{path!r} cannot be compared with: {error}", context, option) from error


@click.command()
@click.argument("workloads", nargs=-1, callback=_workload_names, metavar="[WORKLOAD]...")
@click.option("--drivers", metavar="A,B", help="Which drivers; by default all that work here.")
@click.option(
    "--image", metavar="PATH", type=click.Path(exists=True), help="An OCI layout or docker archive to measure with."
)
@click.option(
    "--repeats", metavar="N", type=click.IntRange(1, 1000), default=5, show_default=True, help="Samples per cell."
)
@click.option(
    "--budget", metavar="S", type=click.FloatRange(0), default=60, show_default=True, help="Seconds for everything."
)
@click.option(
    "--files", "count", metavar="N", type=click.IntRange(1, 10**6), default=1000, show_default=True, help="Small files."
)
@click.option("-o", "--output", "target", metavar="FILE.json", help="Also write the measurements as JSON.")
@click.option("--compare", metavar="OLD.json", callback=_read_old, help="Compare with what --output wrote before.")
@click.option(
    "--user-namespace/--no-user-namespace", default=True, help="As a plain user: run in a namespace that may mount."
)
@global_options
@click.pass_obj
def bench(
    settings: Settings,
    *,
    workloads: list[Workload],
    drivers: str | None,
    image: str | None,
    repeats: int,
    budget: float,
    count: int,
    target: str | None,
    compare: dict[str, Any] | None,
    user_namespace: bool,
) -> None:
    """Measure the drivers of this machine side by side.

    Workloads: apply, create, mount, read, metadata, copy-up, changes, diff,
    remove, stack-2, stack-10, stack-50, stack-100, disk; by default all. Each
    driver gets a fresh folder below --root (else $TMPDIR), which is removed
    afterwards. Samples are taken in turns; shown are the median, half the
    width of its 95 % interval, and the ratio to the row's best. Ctrl-C shows
    what there is.
    """
    if user_namespace:
        _enter_user_namespace(settings)
    parent = settings.root if settings.root_given else settings.scratch
    os.makedirs(parent, mode=0o700, exist_ok=True)
    session = _Session(
        runner.Plan(workloads=workloads, repeats=repeats, budget=budget), count, image or "built-in sample"
    )
    with contextlib.ExitStack() as stack:
        sink = stack.enter_context(files.writing(target)) if target else None
        try:
            with runner.scratch(parent) as folder, output.aside():
                _measure(settings, session, folder, image, drivers)
        except KeyboardInterrupt:
            if not session.results.cells:
                raise
            output.message(settings, "graphdriver: interrupted; this is what was measured")
        document = _document(session, settings.source_date_epoch)
        if compare is not None:
            document["comparison"] = [attrs.asdict(one) for one in comparison.compare(compare, document)]
        if sink is not None:
            sink.write(json.dumps(document, indent=2).encode() + b"\n")
    if settings.json:
        output.document(document)
    else:
        _show(session)
        if compare is not None:
            _show_comparison(compare, document)
    if not session.results.complete:
        raise KeyboardInterrupt


def _enter_user_namespace(settings: Settings) -> None:
    """Start over as root of a new user namespace where a plain user can make one; else return.

    There overlay can be mounted (Linux 5.11). One id is mapped, so all files
    belong to the user; the report's facts say so.
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


def _measure(settings: Settings, session: _Session, folder: str, image: str | None, drivers: str | None) -> None:
    session.facts = facts.machine(folder)
    place = os.path.join(folder, "roots")
    os.mkdir(place, 0o700)
    with contextlib.ExitStack() as stack:
        observe = stack.enter_context(_observing(settings))
        session.tars = _tars(folder, image)
        names = _driver_names(drivers, settings)
        beds = runner.beds(names, place, session.tars, session.files, settings.options)
        session.beds, session.refused = stack.enter_context(beds)
        if not session.beds:
            raise next(iter(session.refused.values()))
        runner.run(session.plan, session.beds, session.results, observe)


def _tars(folder: str, image: str | None) -> list[Tar]:
    place = os.path.join(folder, "image")
    os.mkdir(place, 0o700)
    with open_image(image or sample.build_sample(os.path.join(place, "sample"))) as opened:
        return runner.unpacked(opened, place)


def _driver_names(drivers: str | None, settings: Settings) -> list[str]:
    """Choose the drivers: those named, else every one that can be loaded."""
    if drivers is not None:
        return list(dict.fromkeys(name for name in drivers.split(",") if name))
    if settings.driver != loading.AUTO:
        return [settings.driver]
    return list(dict.fromkeys(info.name for info in loading.list_drivers()))


@contextlib.contextmanager
def _observing(settings: Settings) -> Iterator[runner.Observer]:
    """Show a bar with the time left on a terminal, and with -v a line when a workload begins."""
    announced: set[str] = set()
    with output.progress(settings, "preparing", 1000, as_bytes=False) as show:

        def observe(workload: str, driver: str, done: float) -> None:
            if workload not in announced:
                announced.add(workload)
                output.message(settings, f"measuring {workload}", level=1)
            show(int(done * 1000), f"{workload} on {driver}")

        yield observe


def _now(epoch: int | None) -> dt.datetime:
    return dt.datetime.now(dt.UTC) if epoch is None else dt.datetime.fromtimestamp(epoch, dt.UTC)


def _document(session: _Session, epoch: int | None) -> dict[str, object]:
    """Give the whole document; its shape is described in `report`."""
    return {
        "schema": report.SCHEMA,
        "kind": report.KIND,
        "complete": session.results.complete,
        "created": _now(epoch).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "facts": session.facts,
        "settings": {
            "image": session.image,
            "layers": len(session.tars),
            "image_size": sum(tar.size for tar in session.tars),
            "files": session.files,
            "repeats": session.plan.repeats,
            "budget": session.plan.budget,
        },
        "drivers": [
            {
                "name": bed.name,
                "engine": bed.driver.support.engine,
                "notes": list(bed.driver.support.notes),
                "capabilities": attrs.asdict(bed.driver.support.capabilities),
            }
            for bed in session.beds
        ],
        "refused": [
            {"name": name, "reason": error.message, "fix": error.fix} for name, error in session.refused.items()
        ],
        "results": [report.as_result(cell) for cell in session.results.cells],
    }


def _show(session: _Session) -> None:
    names = [bed.name for bed in session.beds]
    size = output.human_size(sum(tar.size for tar in session.tars))
    machine = session.facts
    click.echo(f"kernel {machine['kernel']}, {machine['cpus']} cpus, {machine['filesystem']}, {machine['user']}")
    click.echo(f"image: {session.image}, {len(session.tars)} layers, {size}; {session.files} small files")
    click.echo()
    table = list(report.rows(session.results, names))
    output.table(
        ["workload", *names],
        [[title, *(cell.text for cell in cells)] for title, cells in table],
        right=range(1, len(names) + 1),
        strong={
            (row, column + 1)
            for row, (_title, cells) in enumerate(table)
            for column, cell in enumerate(cells)
            if cell.best
        },
    )
    _show_reasons(session)


def _show_reasons(session: _Session) -> None:
    notes: Sequence[str] = [
        *report.reasons(session.results),
        *(f"{name} left out: {error}" for name, error in session.refused.items()),
    ]
    if notes:
        click.echo()
    for note in notes:
        label, _colon, text = note.partition(": ")
        output.paragraph(label, text)


def _show_comparison(before: dict[str, Any], now: dict[str, object]) -> None:
    """Print how the medians changed since ``before``."""
    rows = [
        [
            one.title,
            one.driver,
            report.quantity(one.before, one.unit),
            report.quantity(one.now, one.unit),
            one.verdict,
        ]
        for one in comparison.compare(before, now)
    ]
    click.echo()
    output.table(["workload", "driver", "before", "now", "is"], rows, right=(2, 3))
    for doubt in comparison.doubts(before, now):
        output.paragraph("not the same", output.one_line(doubt))
