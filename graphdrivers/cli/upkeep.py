"""``graphdriver doctor`` and ``graphdriver completion``."""

import attrs
import click

from graphdrivers import loading
from graphdrivers.cli import checks, output, shells, storechecks
from graphdrivers.cli.drivers import as_document
from graphdrivers.cli.settings import Settings, global_options

_SIGNS = {checks.State.OK: "ok", checks.State.NOTE: "note", checks.State.PROBLEM: "PROBLEM"}


@click.command()
@global_options
@click.pass_context
def doctor(context: click.Context) -> None:
    """Say what works on this machine, what to change, and what was left behind.

    Changes nothing. Exits with 1 when something needs a hand, else with 0;
    a driver that cannot work here is only a note while another one can.
    """
    settings: Settings = context.obj
    with output.aside():
        drivers = loading.list_drivers(settings.root, settings.options)
        found = [
            *checks.machine(),
            *checks.root_folder(settings.root),
            *checks.drivers(drivers),
            *checks.left_behind(settings.root, drivers),
            *storechecks.store(settings.root),
            *checks.scratch_folders(settings.scratch),
        ]
    healthy = all(check.state is not checks.State.PROBLEM for check in found)
    if settings.json:
        told = [{**attrs.asdict(check), "state": check.state.value} for check in found]
        output.document({"ok": healthy, "checks": told, "drivers": [as_document(info) for info in drivers]})
    else:
        for check in found:
            _show(check)
    context.exit(0 if healthy else 1)


def _show(check: checks.Check) -> None:
    output.paragraph(check.subject, check.message, margin=f"{_SIGNS[check.state]:7}  ")
    if check.fix:
        output.paragraph("fix", check.fix, margin=" " * 9)


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]), metavar="SHELL")
@global_options
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the completion script for SHELL.

    For good: 'graphdriver completion bash > ~/.local/share/bash-completion/completions/graphdriver',
    and likewise in a folder of zsh's $fpath (as _graphdriver) or ~/.config/fish/completions (as graphdriver.fish).
    """
    click.echo(shells.completer(context.find_root().command, context.obj, shell).source())
