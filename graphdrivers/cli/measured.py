"""What ``graphdriver bench`` shows: the table, the reasons for its dashes, what changed."""

import textwrap
from collections.abc import Sequence

import click

from graphdrivers.bench import comparison, counts, layout, view
from graphdrivers.bench.document import Document
from graphdrivers.bench.quantities import quantity, ratio
from graphdrivers.bench.workload import Workload
from graphdrivers.cli import output


def show_workloads(workloads: Sequence[Workload]) -> None:
    """Explain the workloads and their rows."""
    for workload in workloads:
        output.paragraph(workload.name, f"{workload.title}. {workload.models}")
        output.paragraph("figures", "; ".join(row.meaning for row in workload.rows), margin="    ")


def workload_list(workloads: Sequence[Workload]) -> list[dict[str, object]]:
    """Give the same as a value."""
    return [
        {
            "name": workload.name,
            "title": workload.title,
            "models": workload.models,
            "rows": {row.name: row.meaning for row in workload.rows},
        }
        for workload in workloads
    ]


def show(document: Document) -> None:
    """Print the whole report."""
    facts, settings = document["facts"], document["settings"]
    _wrapped(f"kernel {facts['kernel']}, {facts['cpus']} cpus ({facts['cpu']}), {facts['user']}")
    size = output.human_size(settings["image_size"])
    _wrapped(f"image: {settings['image']}, {settings['layers']} layers, {size}; database by {settings['database']}")
    _wrapped(_places(document))
    click.echo()
    _table(layout.layout(document, output.width()))
    _notes(document)
    _calls(document)


def _calls(document: Document) -> None:
    """Print how many system calls the operations make, and for the row that speaks for each workload which."""
    sections = counts.sections(document)
    if not sections:
        if reason := counts.missing(document):
            output.paragraph("system calls not counted", reason)
        return
    click.echo()
    click.echo(f"System calls of one operation, by {document['settings']['calls']}")
    _table(layout.calls(document))
    click.echo()
    by_name = counts.names(document)
    for section in sections:
        for figure in section.speaker().figures:
            if told := counts.told(by_name.get((section.name, section.speaker().row, figure.driver), {})):
                label = f"{section.name} ({section.speaker().title}) on {figure.driver}"
                output.paragraph(label, ", ".join(told))
    timeless = layout.reasons(view.sections(document))
    for label, text in layout.reasons(sections):
        if (label, text) not in timeless:
            output.paragraph(f"no calls: {label}", output.one_line(text))


def _wrapped(text: str) -> None:
    lines = textwrap.wrap(output.one_line(text), output.width(), subsequent_indent="    ", break_long_words=False)
    click.echo("\n".join(lines))


def _places(document: Document) -> str:
    """Say on which file system each driver ran."""
    by_place: dict[str, list[str]] = {}
    for one in document["drivers"]:
        by_place.setdefault(one["place"]["filesystem"], []).append(one["name"])
    return "on " + "; ".join(f"{place}: {', '.join(names)}" for place, names in by_place.items())


def _table(found: layout.Layout) -> None:
    """Print the table: rich has the colours, the columns are our own because a workload's heading spans them."""
    from rich.console import Console  # noqa: PLC0415 - 40 ms that only a drawn table is worth
    from rich.text import Text  # noqa: PLC0415 - as above

    console = Console(highlight=False, width=output.width(), soft_wrap=True)
    widths = found.widths()
    for heading in found.heading_lines():
        console.print(Text(_line(heading, widths).rstrip(), "bold"))
    for title, rows in found.groups:
        console.print(Text(title, "bold cyan"))
        for row, cells in rows:
            line = Text(f" {row}".ljust(widths[0]))
            for cell, width in zip(cells, widths[1:], strict=True):
                line.append(" " + cell.text.rjust(width), "bold green" if cell.best else "")
            console.print(line)
    for part in textwrap.wrap(found.legend, output.width()):
        console.print(Text(part, "dim"))


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    first, *others = zip(cells, widths, strict=True)
    return " ".join([first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)])


def _notes(document: Document) -> None:
    """Print what the dashes mean, who was left out, and what disturbed the run."""
    notes = [
        *layout.reasons(view.sections(document)),
        *((f"{one['name']} left out", _advised(one)) for one in document["refused"]),
        *(("disturbed", complaint) for complaint in document["disturbed"]),
    ]
    if notes:
        click.echo()
    for label, text in notes:
        output.paragraph(label, output.one_line(text))


def _advised(refused: Document) -> str:
    return f"{refused['reason']}; {refused['fix']}" if refused["fix"] else refused["reason"]


def show_comparison(changes: Sequence[comparison.Change], before: Sequence[Document], now: Document) -> None:
    """Print how the medians changed since ``before``."""
    rows = [
        [
            f"{one.workload} {one.row}",
            one.driver,
            quantity(one.before, one.unit),
            quantity(one.now, one.unit),
            f"{ratio(one.ratio)} ({one.low:.2f}-{one.high:.2f})",
            one.verdict + (" !" if one.regressed else ""),
        ]
        for one in changes
    ]
    click.echo()
    output.table(["row", "driver", "before", "now", "change", "is"], rows, right=(2, 3, 4))
    _changed_calls([(one, one.calls) for one in changes if one.calls is not None])
    for doubt in dict.fromkeys(doubt for document in before for doubt in comparison.doubts(document, now)):
        output.paragraph("not the same", output.one_line(doubt))


def _changed_calls(counted: Sequence[tuple[comparison.Change, comparison.Calls]]) -> None:
    """Print which operations make more or fewer system calls than before."""
    rows = [
        [
            f"{one.workload} {one.row}",
            one.driver,
            f"{calls.before:.6g}",
            f"{calls.now:.6g}",
            calls.verdict,
            ", ".join(calls.told()),
        ]
        for one, calls in counted
        if calls.verdict != "same"
    ]
    if counted:
        click.echo()
        click.echo(
            f"System calls of one operation: {len(counted) - len(rows)} of {len(counted)} rows make as many as before"
        )
    output.table(["row", "driver", "before", "now", "is", "by name"], rows, right=(2, 3))
