"""Command groups whose commands are imported when they are used, so that ``--help`` starts nothing."""

import importlib
from collections.abc import Mapping
from typing import Any

import attrs
import click


@attrs.frozen
class Lazy:
    """Where a command is, and its one line of help."""

    module: str
    name: str
    summary: str
    section: str = "Commands"
    """Heading that the help lists it under."""


class LazyGroup(click.Group):
    """A group that knows its commands by where they are."""

    def __init__(self, *args: Any, lazy: Mapping[str, Lazy], **kwargs: Any) -> None:
        """Take what `click.Group` does, and the table of commands."""
        super().__init__(*args, **kwargs)
        self._lazy = dict(lazy)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Name the commands in the order of the table."""
        return [*self._lazy, *super().list_commands(ctx)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the module of one command."""
        lazy = self._lazy.get(cmd_name)
        if lazy is None:
            return super().get_command(ctx, cmd_name)
        command: click.Command = getattr(importlib.import_module(lazy.module), lazy.name)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command; what a wrong name may mean is told.

        Raises:
            click.UsageError: there is no such command.
        """
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            from graphdrivers.cli import habits  # noqa: PLC0415 - only for a mistake

            words = habits.COMMANDS if ctx.parent is None else habits.LAYER_COMMANDS
            raise click.UsageError(habits.command(args[0], self.list_commands(ctx), words), error.ctx or ctx) from None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands from the table, importing none."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for name, lazy in self._lazy.items():
            sections.setdefault(lazy.section, []).append((name, lazy.summary))
        for name, command in self._own(ctx):
            sections.setdefault("Commands", []).append((name, command.get_short_help_str(formatter.width)))
        for heading, rows in sections.items():
            with formatter.section(heading):
                formatter.write_dl(rows)

    def _own(self, ctx: click.Context) -> list[tuple[str, click.Command]]:
        """Give the commands that are here already."""
        return [(name, self.commands[name]) for name in super().list_commands(ctx)]
