"""``graphdriver conform``: the conformance suite against one driver, in a process of its own."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
from typing import Any

import click

from graphdrivers import loading
from graphdrivers.bench import cleaning
from graphdrivers.cli import failures, output
from graphdrivers.cli.settings import Settings, global_options
from graphdrivers.conformance import suite

_NEEDED = ("pytest", "hypothesis")

_PASSED, _FAILED, _INTERRUPTED, _NOTHING = 0, 1, 2, 5
"""Exit codes of pytest's that mean something here. Source: pytest, *Exit codes*."""


@click.command()
@click.argument("name")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="[-- PYTEST-ARGUMENT...]")
@global_options
@click.pass_context
def conform(context: click.Context, name: str, arguments: tuple[str, ...]) -> None:
    """Check a driver against the contract: every check of the conformance suite, or those named.

    Each check gets a fresh folder below --root (else $TMPDIR), which is removed
    afterwards. What the driver does not claim is left out and counted. Exits
    with 1 when a check failed, else with 0.

    What follows -- goes to pytest: ``-- -k whiteout``, ``-- test_trees.py::test_owners``,
    ``-- -x --pdb``, ``-- --graphdriver-examples 1000`` for more random lives.

    Needs ``pip install graphdrivers[conformance]``.
    """
    settings: Settings = context.obj
    _refuse_incomplete()
    parent = settings.root if settings.root_given else settings.scratch
    os.makedirs(parent, mode=0o700, exist_ok=True)
    with cleaning.scratch(parent) as folder:
        with output.aside():
            loading.load_driver(name, os.path.join(folder, "first"), settings.options).close()
        report = os.path.join(folder, "report.json")
        code = _run(settings, [*_command(settings, name, folder, report), *_chosen(arguments)])
        counts = _read(report)
    if code == _NOTHING:
        raise click.UsageError("no check was chosen", context)
    if code not in {_PASSED, _FAILED, _INTERRUPTED}:
        raise click.UsageError("pytest made nothing of these arguments: its message is above", context)
    if settings.json and counts is not None:
        output.document({"ok": code == _PASSED, **counts})
    if code == _INTERRUPTED:
        context.exit(failures.INTERRUPTED)
    context.exit(0 if code == _PASSED else 1)


def _refuse_incomplete() -> None:
    missing = [module for module in _NEEDED if importlib.util.find_spec(module) is None]
    if missing:
        are = "is" if len(missing) == 1 else "are"
        raise click.ClickException(
            f"{' and '.join(missing)} {are} not installed; pip install 'graphdrivers[conformance]'"
        )


def _command(settings: Settings, name: str, folder: str, report: str) -> list[str]:
    """Give the command without the checks; no configuration of the folder that we are in has a say."""
    command = [
        "env",
        f"HYPOTHESIS_STORAGE_DIRECTORY={os.path.join(folder, 'hypothesis')}",
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "graphdrivers.conformance.plugin",
        "-p",
        "no:cacheprovider",
    ]
    command += ["-c", os.devnull, "--rootdir", suite.FOLDER, "--basetemp", os.path.join(folder, "checks")]
    command += ["--graphdriver", name, "--graphdriver-require", "--graphdriver-root", folder]
    command += ["--graphdriver-report", report]
    for key, value in settings.options.items():
        command += ["--graphdriver-opt", f"{key}={value}"]
    return command + ["-v"] * max(settings.verbosity, 0) + ["-q"] * max(-settings.verbosity, 0)


def _chosen(arguments: tuple[str, ...]) -> list[str]:
    """Add the whole suite unless a check is named."""
    found = [suite.located(argument) for argument in arguments]
    named = any(os.path.dirname(argument.partition("::")[0]) == suite.FOLDER for argument in found)
    return found if named else [suite.FOLDER, *found]


def _run(settings: Settings, command: list[str]) -> int:
    """Run pytest and give its exit code; it always comes to its end, however this process is asked to end.

    Ctrl-C reaches it from the terminal, as it reaches us; SIGTERM and SIGHUP are passed on as Ctrl-C,
    which pytest answers by leaving every fixture.
    """
    with subprocess.Popen(command, stdout=sys.stderr if settings.json else None) as child:
        try:
            return child.wait()
        except SystemExit:
            child.send_signal(signal.SIGINT)
            raise
        finally:
            child.wait()


def _read(path: str) -> dict[str, Any] | None:
    try:
        with open(path, encoding="utf-8") as file:
            read: dict[str, Any] = json.load(file)
    except FileNotFoundError:  # pytest ended before it had counted
        return None
    return read
