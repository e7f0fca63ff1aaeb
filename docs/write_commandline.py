"""Write reference/commandline.rst from the command line itself (`make reference`); a test compares the two."""

import inspect
import pathlib
import textwrap
from collections.abc import Iterator

import click

from graphdrivers.cli.main import application

PAGE = pathlib.Path(__file__).parent / "reference" / "commandline.rst"

HEAD = """\
.. Written by `make reference`; change the help in graphdrivers/cli, not this page.

The command line
================

Documents and tables go to stdout, everything else to stderr. Each kind of failure is one line,
``graphdriver: what happened; what to do``, and has an exit code of its own (:doc:`errors`); 2 means a command line
that makes no sense, 3 a failed system call. With ``--json`` a command prints one JSON document, a failure
included. ``-`` stands for stdin and stdout. The options of ``graphdriver`` itself may stand anywhere.
"""


_WIDTH = 140
"""Columns of what is said of an option."""


def page() -> str:
    """Render the whole page."""
    context = click.Context(application, info_name="graphdriver")
    return "\n".join([HEAD, *_command(context, common=frozenset())])


def _command(context: click.Context, common: frozenset[str]) -> Iterator[str]:
    """Render a command and what is below it; options that every command has are shown at the top only."""
    command = context.command
    if context.parent:
        yield from _heading(context.command_path, "-" if context.parent.parent is None else "~")
    yield f"{inspect.cleandoc(command.help or '')}\n"
    arguments = [_argument(p) for p in command.params if isinstance(p, click.Argument)]
    if not isinstance(command, click.Group):
        yield from ("::\n", f"    {' '.join([context.command_path, '[OPTION]...', *arguments])}\n")
    options = [p for p in command.params if isinstance(p, click.Option) and not p.hidden and p.opts[0] not in common]
    for option in options:
        metavar = "" if option.is_flag or option.count else f" {option.metavar or _choices(option)}"
        default = f"Default: {option.default}." if option.show_default else ""
        names = ", ".join([*option.opts, *option.secondary_opts])
        said = textwrap.wrap(" ".join(filter(None, [option.help, _range(option), default])), _WIDTH)
        yield f"``{names}{metavar}``\n{textwrap.indent(chr(10).join(said), '    ')}\n"
    if command.epilog:
        yield from _epilog(command.epilog)
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            if below is not None:
                inner = click.Context(below, parent=context, info_name=name)
                yield from _command(inner, common | {option.opts[0] for option in options})


def _argument(argument: click.Argument) -> str:
    """Show an argument as a usage line does."""
    name = argument.metavar or argument.human_readable_name
    return name if argument.required or name.startswith("[") else f"[{name}]"


def _epilog(text: str) -> Iterator[str]:
    """Show what stands at the end of a help: an example, as code, or a sentence."""
    label, _, example = text.partition(": ")
    yield from (f"{label}::\n", f"    {example}\n") if label == "Example" else (f"{text}\n",)


def _range(option: click.Option) -> str:
    """Say which numbers an option takes."""
    if option.count or not isinstance(option.type, click.IntRange):
        return ""
    least, most = option.type.min, option.type.max
    return f"At least {least}." if most is None else f"From {least} to {most}."


def _choices(option: click.Option) -> str:
    """Say what an option takes that has no word for it."""
    return "|".join(option.type.choices) if isinstance(option.type, click.Choice) else option.type.name.upper()


def _heading(text: str, line: str) -> Iterator[str]:
    yield f"{text}\n{line * len(text)}\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
