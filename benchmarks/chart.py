"""A chart as SVG: how many times as long as ours others take, on a logarithmic scale."""

import html
import math
from collections.abc import Iterator, Mapping, Sequence

import attrs

WIDTH = 760
_LEFT, _RIGHT, _ROW, _TOP = 210, 24, 30, 78
_TICKS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)

_LOOK = 'font-family="system-ui, sans-serif" font-size="14" role="img" aria-labelledby="t d"'
_LIGHT = ("#0a7aca", "#d9601a", "#12855c", "#b0308c", "#8a6d00", "#c02626", "#777")
_DARK = ("#58b4f5", "#ff9a5c", "#4fd1a1", "#ee86d0", "#e2c044", "#ff7d7d", "#999")
_STYLE = f"""
    .ground {{ fill: #fff }} text {{ fill: #222 }} .small {{ font-size: 12px; fill: #555 }}
    .grid {{ stroke: #ddd }} .ours {{ stroke: #222; stroke-width: 2 }} .span {{ stroke: #bbb }}
    {" ".join(f".m{number} {{ fill: {colour} }}" for number, colour in enumerate(_LIGHT))}
    @media (prefers-color-scheme: dark) {{
      .ground {{ fill: #131416 }} text {{ fill: #eee }} .small {{ fill: #bbb }}
      .grid {{ stroke: #333 }} .ours {{ stroke: #eee }} .span {{ stroke: #555 }}
      {" ".join(f".m{number} {{ fill: {colour} }}" for number, colour in enumerate(_DARK))}
    }}
"""
_SHAPES = (
    '<circle cx="{x}" cy="{y}" r="6"',
    '<rect x="{x-5}" y="{y-5}" width="10" height="10"',
    '<path d="M{x} {y-7} l7 12 h-14 z"',
    '<path d="M{x} {y-7} l7 7 l-7 7 l-7 -7 z"',
    '<path d="M{x} {y+7} l7 -12 h-14 z"',
    '<path d="M{x-6} {y-2} h4 v-4 h4 v4 h4 v4 h-4 v4 h-4 v-4 h-4 z"',
    '<path d="M{x-6} {y-2} h12 v4 h-12 z"',
)
"""Marks differ in shape as well as in colour."""


@attrs.frozen
class Row:
    """One work: what it is, our figure, and how many times as long each other one takes."""

    label: str
    figure: str
    ratios: Mapping[str, float]


def draw(title: str, rows: Sequence[Row], names: Sequence[str]) -> str:
    """Draw the rows under a legend; gives the SVG's text.

    Args:
        title: stands above.
        rows: at least one.
        names: all others, at most seven: each has the same mark in every chart that is drawn with these.
    """
    height = _TOP + _ROW * len(rows) + 34
    values = [ratio for row in rows for ratio in row.ratios.values()] + [1.0]
    scale = _Scale(min(values) * 0.8, max(values) * 1.25)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" {_LOOK}>',
        f'  <title id="t">{html.escape(title)}</title>',
        f'  <desc id="d">{html.escape(_in_words(rows))}</desc>',
        f"  <style>{_STYLE}  </style>",
        f'  <rect class="ground" width="{WIDTH}" height="{height}"/>',
        f'  <text x="12" y="24">{html.escape(title)}</text>',
        *_legend(names, {name for row in rows for name in row.ratios}),
        *_grid(scale, height),
    ]
    for number, row in enumerate(rows):
        parts += _row(row, _TOP + _ROW * number + _ROW // 2, scale, names)
    return "\n".join([*parts, "</svg>"]) + "\n"


@attrs.frozen
class _Scale:
    low: float
    high: float

    def x(self, value: float) -> int:
        """Place a ratio."""
        part = math.log(value / self.low) / math.log(self.high / self.low)
        return round(_LEFT + part * (WIDTH - _LEFT - _RIGHT))

    def ticks(self) -> list[float]:
        """Give the round numbers that lie on it."""
        return [tick for tick in _TICKS if self.low <= tick <= self.high]


def _legend(names: Sequence[str], shown: set[str]) -> Iterator[str]:
    x = 18
    for number, name in enumerate(names):
        if name not in shown:
            continue
        yield f"  {_mark(number, x, 46)}"
        yield f'  <text class="small" x="{x + 12}" y="50">{html.escape(name)}</text>'
        x += 30 + 13 * len(name) // 2
    yield f'  <path class="ours" d="M{x} 38 v16"/><text class="small" x="{x + 8}" y="50">ours</text>'


def _grid(scale: _Scale, height: int) -> Iterator[str]:
    for tick in scale.ticks():
        x = scale.x(tick)
        yield f'  <path class="{"ours" if tick == 1 else "grid"}" d="M{x} {_TOP - 8} V{height - 26}"/>'
        yield f'  <text class="small" x="{x}" y="{height - 10}" text-anchor="middle">{tick:g}x</text>'


def _row(row: Row, y: int, scale: _Scale, names: Sequence[str]) -> Iterator[str]:
    yield f'  <text x="12" y="{y}">{html.escape(row.label)}</text>'
    yield f'  <text class="small" x="12" y="{y + 13}">ours {html.escape(row.figure)}</text>'
    places = [scale.x(ratio) for ratio in row.ratios.values()] + [scale.x(1)]
    yield f'  <path class="span" d="M{min(places)} {y} H{max(places)}"/>'
    for name, ratio in row.ratios.items():
        note = html.escape(f"{row.label}: {name} {ratio:.2g} times ours")
        yield f"  <g><title>{note}</title>{_mark(names.index(name), scale.x(ratio), y)}</g>"


def _mark(number: int, x: int, y: int) -> str:
    shape = _SHAPES[number % len(_SHAPES)]
    for name, middle in (("x", x), ("y", y)):
        shape = shape.replace(f"{{{name}}}", str(middle))
        for shift in (-7, -6, -5, -2, 7):
            shape = shape.replace(f"{{{name}{shift:+d}}}", str(middle + shift))
    return f'{shape} class="m{number % len(_SHAPES)}"/>'


def _in_words(rows: Sequence[Row]) -> str:
    told = (", ".join(f"{name} {ratio:.2g} times ours" for name, ratio in row.ratios.items()) for row in rows)
    return " ".join(f"{row.label}: {text}." for row, text in zip(rows, told, strict=True))
