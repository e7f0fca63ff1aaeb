"""One picture per workload, as SVG to be put into a page: drawn by pygal, in the page's own colours.

Importing this needs the extra ``graphdrivers[report]``.
"""

import math
import re
from collections.abc import Iterable, Sequence
from typing import Any
from xml.etree import ElementTree as ET

import pygal
from pygal.style import Style

from graphdrivers.bench import view
from graphdrivers.bench.quantities import quantity

_WIDTH = 420
"""Units across: a phone shows them a little smaller than they are, a desk a little larger."""

_BAR = 30
"""Units of height for one driver."""

_FRAME = 60
"""Units of height beside the bars."""

_LOGARITHMIC = 20
"""Ratio of the greatest to the least from which on the axis is logarithmic."""

_TICKS = 5
"""Labels along an axis, about."""

_SVG = "http://www.w3.org/2000/svg"
_NUMBERED = re.compile(r"(?P<what>.+)-(?P<number>[0-9]+)")


def chart(section: view.Section, drivers: Sequence[str], number: int) -> str:
    """Draw a workload: its headline as bars, or as curves where that is one of several depths or counts.

    Args:
        section: what was measured.
        drivers: all of the page, for a driver to have one colour in all charts.
        number: which chart of the page it is.

    Returns:
        An ``svg`` element, empty where there is nothing to draw.
    """
    line = section.speaker()
    if not line.measured():
        return ""
    family = _family(section, line)
    if len(family) > 1:
        return _curves(family, drivers, number)
    return _bars(line, drivers, number)


def caption(section: view.Section) -> str:
    """Say what the chart shows."""
    line = section.speaker()
    numbers = [str(count) for count, _line in _family(section, line)]
    return " ".join("N" if word in numbers else word for word in line.meaning.split())


def colour(drivers: Sequence[str], driver: str) -> str:
    """Give the colour of a driver, as the page's style sheet names it."""
    return f"var(--driver-{drivers.index(driver) % 8})"


def _family(section: view.Section, line: view.Line) -> list[tuple[int, view.Line]]:
    """Give the lines that ask the same at other depths or counts, with these."""
    headline = _NUMBERED.fullmatch(line.row)
    if headline is None:
        return []
    matches = [(_NUMBERED.fullmatch(other.row), other) for other in section.lines]
    return [(int(m["number"]), other) for m, other in matches if m and m["what"] == headline["what"]]


def _bars(line: view.Line, drivers: Sequence[str], number: int) -> str:
    measured = line.measured()
    made = _configured(
        pygal.HorizontalBar,
        [one.median or 0.0 for one in measured],
        line,
        number,
        height=_FRAME + _BAR * len(measured),
        show_legend=False,
    )
    # The best on top; its label tells the figure, for whom the axis is too coarse.
    made.x_labels = [f"{one.driver}  {quantity(one.median or 0.0, line.unit)}" for one in reversed(measured)]
    made.add(
        line.meaning,
        [
            {
                "value": one.median,
                "color": colour(drivers, one.driver),
                **({"ci": {"low": one.low, "high": one.high}} if one.samples > 1 and one.low > 0 else {}),
            }
            for one in reversed(measured)
        ],
    )
    return _inline(made, f"{line.meaning}: " + _told(measured, line.unit))


def _curves(family: Sequence[tuple[int, view.Line]], drivers: Sequence[str], number: int) -> str:
    first = family[0][1]
    values = [one.median or 0.0 for _count, line in family for one in line.measured()]
    made = _configured(
        pygal.Line, values, first, number, height=300, show_legend=True, legend_at_bottom=True, dots_size=4
    )
    made.x_labels = [str(count) for count, _line in family]
    for position, driver in enumerate(drivers):
        figures = [line.figures[position].median for _count, line in family]
        if any(value is not None for value in figures):
            # What is not there is a gap; zero cannot be drawn on a logarithmic axis.
            made.add(driver, [value or None for value in figures])
    return _inline(made, "; ".join(f"{line.meaning}: {_told(line.measured(), line.unit)}" for _count, line in family))


def _configured(kind: Any, values: Sequence[float], line: view.Line, number: int, **settings: Any) -> Any:
    present = [value for value in values if value > 0]
    logarithmic = len(present) == len(values) and max(present) / min(present) > _LOGARITHMIC
    ticks = _powers(present) if logarithmic else _steps(max(present, default=1.0))
    made = kind(
        width=_WIDTH,
        style=_style(),
        js=[],
        explicit_size=False,
        show_x_guides=False,
        truncate_legend=-1,
        truncate_label=-1,
        logarithmic=logarithmic,
        margin=4,
        margin_right=30,
        zero=ticks[0],
        spacing=8,
        **settings,
        range=(ticks[0], max([ticks[-1], *present])),
        y_labels=[{"value": tick, "label": _tick(tick, line.unit)} for tick in ticks],
    )
    made.uuid = f"workload-{number}"  # the same document gives the same page
    return made


def _steps(greatest: float) -> list[float]:
    """Give round values from nothing to a little above ``greatest``."""
    step = 10.0 ** math.floor(math.log10(greatest))
    step = next(step * part for part in (0.25, 0.5, 1.0, 2.5) if greatest / (step * part) <= _TICKS)
    return [step * number for number in range(math.ceil(greatest / step) + 1)]


def _powers(values: Sequence[float]) -> list[float]:
    """Give the powers of ten around all values; where that is one step only, with something between."""
    first, last = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    every = max(1, math.ceil((last - first) / _TICKS))
    powers = [10.0**exponent for exponent in range(first, last + every, every)]
    return powers if len(powers) > 3 else sorted([*powers, *(3 * power for power in powers[:-1])])


def _tick(value: float, unit: str) -> str:
    number, _space, name = quantity(value, unit).partition(" ")
    if "." in number:
        number = number.rstrip("0").rstrip(".")
    return f"{number} {name}"


def _style() -> Style:
    return Style(
        background="transparent",
        plot_background="transparent",
        foreground="var(--ink)",
        foreground_strong="var(--ink)",
        foreground_subtle="var(--line)",
        guide_stroke_color="var(--line)",
        major_guide_stroke_color="var(--line)",
        font_family="system-ui, sans-serif",
        label_font_size=13,
        major_label_font_size=13,
        value_font_size=13,
        legend_font_size=13,
        opacity="1",
        opacity_hover="1",
        stroke_opacity="1",
        stroke_width="2",
        transition="0s",
        colors=tuple(f"var(--driver-{index})" for index in range(8)),
    )


def _told(figures: Iterable[view.Figure], unit: str) -> str:
    return ", ".join(f"{one.driver} {quantity(one.median or 0.0, unit)}" for one in figures)


def _inline(made: Any, description: str) -> str:
    """Give the chart as an element of the page, without scripts and without what says when it was made."""
    root = made.render_tree()
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag is ET.Comment or _name(child) == "script":
                parent.remove(child)
    title = next(child for child in root if _name(child) == "title")
    title.text = description
    root.set("role", "img")
    root.set("aria-label", description)
    return ET.tostring(root, encoding="unicode")


def _name(element: ET.Element) -> str:
    return str(element.tag).removeprefix(f"{{{_SVG}}}")
