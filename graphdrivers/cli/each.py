"""The same for several names: one that fails is told and does not keep the others."""

from collections.abc import Callable, Sequence

import click

from graphdrivers import errors
from graphdrivers.cli import failures, output
from graphdrivers.cli.failures import Failure
from graphdrivers.cli.settings import Settings


def each(settings: Settings, names: Sequence[str], act: Callable[[str], object]) -> None:
    """Call ``act`` with every name; print what it gives where JSON is wanted.

    One name is told as any command's: its error is raised. Of several, each
    error is one line, and the exit code is the first one's. As JSON that is
    ``{done: [...], errors: [...]}``.
    """
    if len(names) == 1:
        done = act(names[0])
        if settings.json:
            output.document({"done": [done], "errors": []})
        return
    results: list[object] = []
    failed: list[Failure] = []
    for name in dict.fromkeys(names):
        try:
            results.append(act(name))
        except (errors.GraphDriverError, OSError) as error:
            failed.append(_failure(error))
            output.error_line(failed[-1].line)
    if settings.json:
        output.document({"done": results, "errors": [one.document()["error"] for one in failed]})
    if failed:
        click.get_current_context().exit(failed[0].exit_code)


def _failure(error: errors.GraphDriverError | OSError) -> Failure:
    if isinstance(error, errors.GraphDriverError):
        return failures.of_library(error)
    return failures.of_system(error)
