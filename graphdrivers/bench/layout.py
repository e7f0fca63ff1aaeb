"""The table of a run, as text that fits a width: every figure where there is room, else ratios."""

import textwrap
from collections.abc import Sequence

import attrs

from graphdrivers.bench import counts, view
from graphdrivers.bench.document import Document
from graphdrivers.bench.quantities import percent, quantity, ratio, short_ratio

_WIDE = 22
"""Columns that a driver's cell takes with all there is to say."""

_NARROW = 7
"""Columns of one with a ratio, or the best's own figure."""

_TITLE = 15
"""Columns of a row's title."""

LEGEND_WIDE = "±: half the 95 % interval; ~: perhaps as good as the best; ?: few samples; !: one, no warm-up."
LEGEND_NARROW = "*: the best; others as ratios to it; ~: perhaps as good; ?: few samples; !: one, no warm-up."


LEGEND_CALLS = (
    "Of this process, its threads and the programs that it starts, counted in samples of their own; without those that "
    "chance decides on (futex, brk, madvise)."
)


@attrs.frozen
class Shown:
    """One cell as people read it."""

    text: str
    best: bool = False


@attrs.frozen
class Layout:
    """A table: headings (of several lines), then per workload a heading and its rows."""

    headings: tuple[str, ...]
    groups: tuple[tuple[str, tuple[tuple[str, tuple[Shown, ...]], ...]], ...]
    legend: str

    def widths(self) -> list[int]:
        """Give the columns that each takes; cells are one column apart."""
        rows = [row for _title, rows in self.groups for row in rows]
        titles = max((len(title) + 1 for title, _cells in rows), default=0)
        return [
            titles,
            *(
                max(len(text) for text in (*heading.split("\n"), *(cells[index].text for _title, cells in rows)))
                for index, heading in enumerate(self.headings[1:])
            ),
        ]

    def heading_lines(self) -> list[list[str]]:
        """Give the headings line by line, ended on the last."""
        columns = [heading.split("\n") for heading in self.headings]
        height = max(len(column) for column in columns)
        padded = [[""] * (height - len(column)) + column for column in columns]
        return [list(line) for line in zip(*padded, strict=True)]


def layout(document: Document, width: int) -> Layout:
    """Lay a document out for ``width`` columns; with eight drivers 80 are enough."""
    names = view.drivers(document)
    wide = _TITLE + len(names) * (_WIDE + 1) <= width
    show = _wide if wide else _narrow
    return Layout(
        ("", *(name if wide else broken(name) for name in names)),
        tuple(
            (
                f"{section.name}: {section.title}",
                tuple(
                    (line.title, tuple(show(figure, line.unit) for figure in line.figures)) for line in section.lines
                ),
            )
            for section in view.sections(document)
        ),
        LEGEND_WIDE if wide else LEGEND_NARROW,
    )


def calls(document: Document) -> Layout:
    """Lay out how many system calls one operation makes; it needs no more room than ratios do."""
    return Layout(
        ("", *(broken(name) for name in view.drivers(document))),
        tuple(
            (
                f"{section.name}: {section.title}",
                tuple((line.title, tuple(_calls(figure) for figure in line.figures)) for line in section.lines),
            )
            for section in counts.sections(document)
        ),
        LEGEND_CALLS,
    )


def _calls(figure: view.Figure) -> Shown:
    return Shown("-" if figure.median is None else counts.number(figure.median))


def broken(name: str, width: int = _NARROW) -> str:
    """Break a driver's name into lines of ``width`` columns, after hyphens where it has some."""
    pieces = name.replace("-", "-\n").split("\n")
    return "\n".join(part for piece in pieces for part in textwrap.wrap(piece, width, break_on_hyphens=False))


def _wide(figure: view.Figure, unit: str) -> Shown:
    if figure.median is None:
        return Shown("-")
    text = quantity(figure.median, unit)
    if figure.samples > 1:
        text += f" {percent(figure.spread)}"
    mark = "" if figure.warm else "!"
    if figure.ratio is None:
        return Shown(text + mark)
    told = "best" if figure.best else figure.mark + ratio(figure.ratio)
    return Shown(f"{text}{mark} {told:>6}", figure.best)


def _narrow(figure: view.Figure, unit: str) -> Shown:
    if figure.median is None:
        return Shown("-")
    mark = "" if figure.warm else "!"
    if figure.best or figure.ratio is None:
        return Shown(quantity(figure.median, unit, space="") + ("*" if figure.best else mark), figure.best)
    return Shown(figure.mark + short_ratio(figure.ratio) + mark)


def reasons(sections: Sequence[view.Section]) -> list[tuple[str, str]]:
    """Explain the dashes: (where, why), what has one reason together."""
    return [(f"{section.name} {where}", why) for section in sections for where, why in told(section.lines)]


def told(lines: Sequence[view.Line]) -> list[tuple[str, str]]:
    """Explain the dashes of a workload: (rows and drivers, why)."""
    rows: dict[tuple[str, str], list[str]] = {}
    for line in lines:
        for figure in line.figures:
            if figure.median is None:
                rows.setdefault((figure.reason, figure.driver), []).append(line.row)
    drivers: dict[tuple[str, str], list[str]] = {}
    for (reason, driver), names in rows.items():
        drivers.setdefault((reason, _rows(names)), []).append(driver)
    return [(f"({names}) on {', '.join(on)}", reason) for (reason, names), on in drivers.items()]


def _rows(rows: Sequence[str]) -> str:
    return ", ".join(rows) if len(rows) <= 4 else f"{len(rows)} rows"
