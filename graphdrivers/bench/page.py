"""A measurement as one page that needs nothing else: no network, no script, light and dark, on a phone or a desk.

Importing this needs the extra ``graphdrivers[report]``, which draws the charts.
"""

import html
import importlib.resources
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from graphdrivers.bench import advice, charts, comparison, counts, layout, view
from graphdrivers.bench.document import Document
from graphdrivers.bench.quantities import percent, quantity, ratio

_CALLS = 3
"""Names of system calls in a cell."""

_POLICY = "default-src 'none'; style-src 'unsafe-inline'"


def page(document: Document, changes: Sequence[comparison.Change] = ()) -> str:
    """Render the whole page."""
    return "\n".join(_page(document, changes)) + "\n"


def _page(document: Document, changes: Sequence[comparison.Change]) -> Iterator[str]:
    style = importlib.resources.files("graphdrivers.bench").joinpath("page.css").read_text("utf-8")
    title = f"Storage drivers on {document['facts']['cpu']}, {document['created'][:10]}"
    yield "<!doctype html>"
    yield f'<html lang="en"><head><meta charset="utf-8"><title>{_text(title)}</title>'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
    yield f'<meta http-equiv="Content-Security-Policy" content="{_text(_POLICY)}">'
    yield f"<style>\n{style}</style></head><body>"
    yield f"<h1>{_text(title)}</h1>"
    yield from _opening(document)
    names = view.drivers(document)
    calls = {section.name: section for section in counts.sections(document)}
    by_name = counts.names(document)
    for number, section in enumerate(view.sections(document)):
        yield from _section(section, names, number)
        if section.name in calls:
            yield from _calls(calls[section.name], names, by_name)
        yield "</section>"
    yield from _changes(changes)
    yield from _drivers(document)
    yield from _facts(document)
    yield "</body></html>"


def _opening(document: Document) -> Iterator[str]:
    if not document["complete"]:
        yield '<p class="warn">The run was interrupted: this is what was measured by then.</p>'
    for complaint in document["disturbed"]:
        yield f'<p class="warn">Disturbed: {_text(complaint)}.</p>'
    told = advice.summary(document)
    if told:
        yield f'<ul class="summary">{"".join(f"<li>{_text(text)}</li>" for text in told)}</ul>'
    links = [f'<a href="#{_text(one["name"])}">{_text(one["name"])}</a>' for one in document["workloads"]]
    yield f"<nav>{' '.join([*links, '<a href=#drivers>drivers</a>', '<a href=#machine>machine</a>'])}</nav>"
    yield (
        '<p class="soft">The less the better, everywhere. ± is half the 95 % interval of the median; ~ means perhaps '
        "as good as the best; ? too few samples to be sure; ! one sample, without a warm-up.</p>"
    )


def _section(section: view.Section, names: Sequence[str], number: int) -> Iterator[str]:
    yield f'<section id="{_text(section.name)}"><h2>{_text(f"{section.name}: {section.title}")}</h2>'
    yield f"<p>{_text(section.models)}</p>"
    drawn = charts.chart(section, names, number)
    if drawn:
        yield f'<figure>{drawn}<figcaption class="soft">{_text(charts.caption(section))}</figcaption></figure>'
    head = "".join(f"<th>{_text(name)}</th>" for name in names)
    yield f'<div class="wide"><table><thead><tr><th></th>{head}</tr></thead><tbody>'
    for line in section.lines:
        cells = "".join(_cell(figure, line.unit) for figure in line.figures)
        yield f'<tr><td title="{_text(line.meaning)}">{_text(line.title)}</td>{cells}</tr>'
    yield "</tbody></table></div>"
    for where, why in layout.told(section.lines):
        yield f'<p class="soft">- {_text(where)}: {_text(why)}</p>'


def _calls(
    section: view.Section, names: Sequence[str], by_name: Mapping[tuple[str, str, str], Mapping[str, float]]
) -> Iterator[str]:
    """Tell the system calls of a workload, folded: how many, and the most frequent ones below each other."""
    yield "<details><summary>System calls of one operation</summary>"
    head = "".join(f"<th>{_text(name)}</th>" for name in names)
    yield f'<div class="wide"><table><thead><tr><th></th>{head}</tr></thead><tbody>'
    for line in section.lines:
        cells = ""
        for figure in line.figures:
            if figure.median is None:
                cells += f'<td title="{_text(figure.reason)}">-</td>'
                continue
            calls = by_name[section.name, line.row, figure.driver]
            most = "".join(f"<small>{_text(text)}</small>" for text in counts.told(calls, _CALLS))
            cells += f"<td>{counts.number(figure.median)}{most}</td>"
        yield f'<tr><td title="{_text(line.meaning)}">{_text(line.title)}</td>{cells}</tr>'
    yield "</tbody></table></div>"
    yield f'<p class="soft">{_text(layout.LEGEND_CALLS)}</p>'
    for where, why in layout.told(section.lines):
        yield f'<p class="soft">- {_text(where)}: {_text(why)}</p>'
    yield "</details>"


def _cell(figure: view.Figure, unit: str) -> str:
    if figure.median is None:
        return f'<td title="{_text(figure.reason)}">-</td>'
    mark = "" if figure.warm else " !"
    notes = [percent(figure.spread)] if figure.samples > 1 else []
    if figure.best:
        notes.append("best")
    elif figure.ratio is not None:
        notes.append(figure.mark + ratio(figure.ratio))
    small = f"<small>{_text(' '.join(notes))}</small>" if notes else ""
    return f"<td{' class=best' if figure.best else ''}>{_text(quantity(figure.median, unit) + mark)}{small}</td>"


def _changes(changes: Sequence[comparison.Change]) -> Iterator[str]:
    if not changes:
        return
    yield '<section id="changes"><h2>Compared with before</h2><div class="wide"><table>'
    counted = any(one.calls for one in changes)
    head = ["row", "driver", "before", "now", "change", "is", *(["system calls"] if counted else [])]
    yield f"<tr>{''.join(f'<th>{cell}</th>' for cell in head)}</tr>"
    for one in changes:
        cells = [
            f"{one.workload} {one.row}",
            one.driver,
            quantity(one.before, one.unit),
            quantity(one.now, one.unit),
            f"{ratio(one.ratio)} ({one.low:.2f}-{one.high:.2f})",
            one.verdict + (", beyond the tolerance" if one.regressed else ""),
            *([_changed(one.calls)] if counted else []),
        ]
        yield f"<tr>{''.join(f'<td>{_text(cell)}</td>' for cell in cells)}</tr>"
    yield "</table></div></section>"


def _changed(calls: comparison.Calls | None) -> str:
    """Say how the system calls of one operation changed."""
    if calls is None:
        return "-"
    if calls.verdict == "same":
        return f"{calls.now:.6g}, the same"
    return f"{calls.before:.6g} to {calls.now:.6g}: {', '.join(calls.told(_CALLS))}"


def _drivers(document: Document) -> Iterator[str]:
    yield '<section id="drivers"><h2>The drivers</h2><div class="wide"><table class="plain">'
    yield "<tr><th>driver</th><th>engine</th><th>file system</th><th>mounted with</th><th>options</th></tr>"
    for one in document["drivers"]:
        place, options = one["place"], ", ".join(f"{key}={value}" for key, value in one["options"].items())
        cells = [one["engine"], f"{place['filesystem']} ({place['source']})", ", ".join(place["options"]), options]
        yield f"<tr><td>{_text(one['name'])}</td>{''.join(f'<td>{_text(cell)}</td>' for cell in cells)}</tr>"
    yield "</table></div>"
    for one in document["drivers"]:
        for note in one["notes"]:
            yield f'<p class="soft">{_text(one["name"])}: {_text(note)}</p>'
    for one in document["refused"]:
        advised = f"; {one['fix']}" if one["fix"] else ""
        yield f'<p class="soft">{_text(one["name"])} was left out: {_text(one["reason"] + advised)}</p>'
    yield "</section>"


def _facts(document: Document) -> Iterator[str]:
    yield '<section id="machine"><h2>The machine, and how it was measured</h2><dl>'
    for part in ("facts", "settings"):
        for key, value in document[part].items():
            yield f"<dt>{_text(key.replace('_', ' '))}</dt><dd>{_text(_value(key, value))}</dd>"
    yield "</dl></section>"


def _value(key: str, value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_value(name, one)}" for name, one in value.items())
    if isinstance(value, float):
        return f"{value:.3g}"
    if key in {"memory", "image_size", "image", "database", "shared"} and isinstance(value, int):
        return quantity(value, "B")
    return "-" if value is None or value == "" else str(value)


def _text(text: str) -> str:
    """Escape for HTML; what no file could hold becomes a question mark."""
    return html.escape(text.encode("utf-8", "replace").decode("utf-8"), quote=True)
