"""What a person or a program sees: documents, tables, lines and progress.

Documents and tables go to stdout, everything else to stderr. Names that come
from layers are shown with their control characters escaped, because a terminal
obeys those; JSON carries them exactly (a byte that is not UTF-8 is the lone
surrogate of Python's ``surrogateescape``).
"""

import contextlib
import json
import os
import shutil
import sys
import textwrap
from collections.abc import Collection, Iterator, Sequence
from typing import Protocol

import click

from graphdrivers.cli.settings import Settings

PLAIN_WIDTH = 80
"""Columns of text that no terminal shows."""

_LEAST = 20
"""Columns that the last one of a table has at least, whatever stands before it."""


def document(value: object) -> None:
    """Print the one JSON document of a command."""
    click.echo(json.dumps(value, indent=2, default=str))


def visible(text: str) -> str:
    r"""Escape what a terminal would obey, and bytes that are no text, as ``\xNN`` (and ``\`` itself)."""
    if text.isprintable() and "\\" not in text:
        return text
    return "".join(_escaped(char) for char in text)


def _escaped(char: str) -> str:
    if char == "\\":
        return "\\\\"
    if char.isprintable():
        return char
    code = ord(char)
    if 0xDC80 <= code <= 0xDCFF:  # a byte that surrogateescape let through
        code -= 0xDC00
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def one_line(text: str) -> str:
    """Make a message safe for a terminal and one line long; backslashes stay as they are."""
    return "".join(char if char.isprintable() else _escaped(char) for char in text)


def message(settings: Settings, text: str, *, level: int = 0) -> None:
    """Say something on stderr, unless the person asked for less than ``level``."""
    if settings.verbosity >= level:
        click.echo(one_line(text), err=True)


def error_line(text: str) -> None:
    """Say what went wrong: one line on stderr, the program's name in front."""
    click.echo(f"graphdriver: {one_line(text)}", err=True)


def raw_line(path: str) -> None:
    """Print a path exactly, for ``cd "$(graphdriver layer mount NAME)"``; escaped only on a terminal."""
    if sys.stdout.isatty():
        click.echo(visible(path))
    else:
        sys.stdout.buffer.write(os.fsencode(path) + b"\n")


@contextlib.contextmanager
def aside() -> Iterator[None]:
    """Send to stderr what is printed in the block, by other people's drivers and the programs that they start.

    stdout is for documents and tables alone, and scripts read it.
    """
    try:
        number, other = sys.stdout.fileno(), sys.stderr.fileno()
    except (OSError, ValueError):  # no real files, as under test runners
        with contextlib.redirect_stdout(sys.stderr):
            yield
        return
    sys.stdout.flush()
    kept = os.dup(number)
    try:
        os.dup2(other, number)
        yield
    finally:
        sys.stdout.flush()  # what was printed and not written yet
        os.dup2(kept, number)
        os.close(kept)


def width() -> int:
    """Columns to fill: the terminal's, or 80."""
    return shutil.get_terminal_size((PLAIN_WIDTH, 24)).columns if sys.stdout.isatty() else PLAIN_WIDTH


def paragraph(label: str, text: str, *, margin: str = "") -> None:
    """Print ``label: text`` wrapped, continuation lines indented; what a terminal would obey is escaped.

    Args:
        label: what it is about.
        text: what is said of it.
        margin: stands before the first line, and as blanks before the others.
    """
    line = one_line(" ".join(f"{label}: {text}".split()))
    rest = " " * len(margin) + "    "
    wrapped = textwrap.wrap(
        line, width(), initial_indent=margin, subsequent_indent=rest, break_long_words=False, break_on_hyphens=False
    )
    click.echo("\n".join(wrapped))


def table(
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    right: Collection[int] = (),
    strong: Collection[tuple[int, int]] = (),
) -> None:
    """Print rows under their headings; drawn by rich on a terminal, aligned text elsewhere.

    Args:
        columns: the headings.
        rows: cells, as many as headings; what a terminal would obey in them is escaped.
        right: numbers of the columns that are aligned to the right.
        strong: (row, column) of the cells that stand out where there is colour.
    """
    if not rows:
        return
    rows = [[one_line(cell) for cell in row] for row in rows]
    if sys.stdout.isatty():
        _rich_table(columns, rows, right, strong)
        return
    for line in plain_table(columns, rows, right=right):
        click.echo(line)


def plain_table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, right: Collection[int] = ()) -> Iterator[str]:
    """Give the lines of a table as plain text, columns two spaces apart; a long last column is wrapped."""
    everything = [[column.upper() for column in columns], *rows]
    widths = [max(len(row[index]) for row in everything) for index in range(len(columns))]
    before = sum(widths[:-1]) + 2 * (len(widths) - 1)
    for row in everything:
        cells = [
            cell.rjust(size) if index in right else cell.ljust(size)
            for index, (cell, size) in enumerate(zip(row, widths, strict=True))
        ]
        line = "  ".join(cells).rstrip()
        if len(line) <= PLAIN_WIDTH:
            yield line
            continue
        head, last = line[:before], line[before:]
        for part in textwrap.wrap(
            last, max(PLAIN_WIDTH - before, _LEAST), break_long_words=False, break_on_hyphens=False
        ):
            yield f"{head}{part}"
            head = " " * before


def _rich_table(
    columns: Sequence[str], rows: Sequence[Sequence[str]], right: Collection[int], strong: Collection[tuple[int, int]]
) -> None:
    from rich.console import Console  # noqa: PLC0415 - 40 ms that only a drawn table is worth
    from rich.table import Table  # noqa: PLC0415 - as above
    from rich.text import Text  # noqa: PLC0415 - as above

    drawn = Table(box=None, header_style="bold", pad_edge=False)
    for index, column in enumerate(columns):
        drawn.add_column(column.upper(), justify="right" if index in right else "left", overflow="fold")
    for number, row in enumerate(rows):
        styles = ["bold green" if (number, index) in strong else "" for index in range(len(row))]
        drawn.add_row(*(Text(cell, style) for cell, style in zip(row, styles, strict=True)))
    Console(highlight=False).print(drawn)


def human_size(size: int) -> str:
    """Show bytes with three significant figures, in powers of 1024: ``1.46 GiB``."""
    value, unit = float(size), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB", "PiB"):
        if value < 1000:
            break
        value, unit = value / 1024, larger
    return f"{size} B" if unit == "B" else f"{value:.3g} {unit}"


class Report(Protocol):
    """What tells a bar how far things are: done so far, and what is being done now if that changes."""

    def __call__(self, done: int, label: str | None = None, /) -> None:
        """Show it."""


@contextlib.contextmanager
def progress(settings: Settings, label: str, total: int | None, *, as_bytes: bool = True) -> Iterator[Report]:
    """Show a bar on stderr while the block runs; give what is called with the amount done so far.

    Nothing is drawn (and nothing imported) when stderr is no terminal, or with ``-q`` or ``--json``.

    Args:
        settings: how loud.
        label: what is being done.
        total: the amount at the end, or ``None`` where nobody knows.
        as_bytes: show the amount, as bytes.
    """
    if settings.verbosity < 0 or settings.json or not sys.stderr.isatty():
        yield _ignore
        return
    from rich import progress as bars  # noqa: PLC0415 - 50 ms that only a drawn bar is worth
    from rich.console import Console  # noqa: PLC0415 - as above

    columns = [
        bars.TextColumn("{task.description}", markup=False),
        bars.BarColumn(bar_width=None),
        bars.DownloadColumn(binary_units=True) if as_bytes else bars.TaskProgressColumn(),
        bars.TimeRemainingColumn(),
    ]
    with bars.Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(one_line(label), total=total)

        def report(done: int, label: str | None = None) -> None:
            bar.update(task, completed=done, description=None if label is None else one_line(label))

        yield report


def _ignore(_done: int, _label: str | None = None) -> None:
    """Show nothing."""
