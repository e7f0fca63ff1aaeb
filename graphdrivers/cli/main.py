"""The program ``graphdriver``: its commands, and how each way of ending looks."""

import contextlib
import errno
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn, TextIO

import click

from graphdrivers import errors
from graphdrivers.cli import failures, output
from graphdrivers.cli.lazy import Lazy, LazyGroup
from graphdrivers.cli.settings import explained_global_options, from_environment

PROGRAM = "graphdriver"

_IMAGES, _CONTAINERS, _BOTH, _UPKEEP, _DRIVERS = (
    "Images",
    "Containers",
    "Images, containers and layers",
    "Upkeep",
    "Drivers and layers",
)

_COMMANDS = {
    "import": Lazy("graphdrivers.cli.importing", "import_image", "Bring in an image from a file or folder.", _IMAGES),
    "pull": Lazy("graphdrivers.cli.registry", "pull", "Bring in an image from a registry.", _IMAGES),
    "push": Lazy("graphdrivers.cli.registry", "push", "Send an image to a registry.", _IMAGES),
    "save": Lazy("graphdrivers.cli.outgoing", "save", "Write images into one tar.", _IMAGES),
    "images": Lazy("graphdrivers.cli.imagery", "list_images", "List the images.", _IMAGES),
    "history": Lazy("graphdrivers.cli.imagery", "history", "How an image was made.", _IMAGES),
    "tag": Lazy("graphdrivers.cli.imagery", "tag", "Give an image one more name.", _IMAGES),
    "rmi": Lazy("graphdrivers.cli.imagery", "rmi", "Remove images.", _IMAGES),
    "create": Lazy("graphdrivers.cli.containers", "create", "Make a container of an image.", _CONTAINERS),
    "ls": Lazy("graphdrivers.cli.containers", "list_containers", "List the containers.", _CONTAINERS),
    "rm": Lazy("graphdrivers.cli.containers", "remove", "Remove containers.", _CONTAINERS),
    "mount": Lazy("graphdrivers.cli.mountables", "mount", "Mount a container, or a view of an image.", _CONTAINERS),
    "umount": Lazy("graphdrivers.cli.mountables", "umount", "Unmount it, by its name or a path.", _CONTAINERS),
    "mounts": Lazy("graphdrivers.cli.mountables", "mounts", "How it would be mounted, as values.", _CONTAINERS),
    "fork": Lazy("graphdrivers.cli.containers", "fork", "A second container of the present state of one.", _CONTAINERS),
    "checkpoint": Lazy("graphdrivers.cli.containers", "checkpoint", "Keep a container's present state.", _CONTAINERS),
    "rollback": Lazy("graphdrivers.cli.containers", "rollback", "Take a container back to a checkpoint.", _CONTAINERS),
    "commit": Lazy("graphdrivers.cli.outgoing", "commit", "A new image of a container.", _CONTAINERS),
    "bundle": Lazy("graphdrivers.cli.bundling", "bundle", "A container as a bundle for crun or runc.", _CONTAINERS),
    "inspect": Lazy(
        "graphdrivers.cli.objects", "inspect", "All that is known of containers, images and layers.", _BOTH
    ),
    "diff": Lazy(
        "graphdrivers.cli.trees", "diff", "What a container changed, or what differs between two things.", _BOTH
    ),
    "export": Lazy("graphdrivers.cli.trees", "export", "A merged tree as one tar.", _BOTH),
    "status": Lazy("graphdrivers.cli.inspecting", "status", "The root in use: driver, engine, layers, disk.", _UPKEEP),
    "gc": Lazy("graphdrivers.cli.collecting", "gc", "Remove layers that nothing needs.", _UPKEEP),
    "check": Lazy("graphdrivers.cli.soundness", "check", "What is damaged, and its repair.", _UPKEEP),
    "explain": Lazy("graphdrivers.cli.soundness", "explain", "What keeps a thing alive.", _UPKEEP),
    "doctor": Lazy(
        "graphdrivers.cli.upkeep",
        "doctor",
        "What works on this machine, what to change, what was left behind.",
        _UPKEEP,
    ),
    "drivers": Lazy(
        "graphdrivers.cli.drivers", "drivers", "Every known driver: usable here or why not, and what it can.", _DRIVERS
    ),
    "layer": Lazy(
        "graphdrivers.cli.layers", "layer", "The driver's verbs on one layer, for scripts and debugging.", _DRIVERS
    ),
    "bench": Lazy("graphdrivers.cli.measure", "bench", "Measure the drivers of this machine side by side.", _DRIVERS),
    "conform": Lazy(
        "graphdrivers.cli.conform", "conform", "Check a driver against the contract, as its author would.", _DRIVERS
    ),
    "completion": Lazy(
        "graphdrivers.cli.upkeep", "completion", "Print the completion script for bash, zsh or fish.", _DRIVERS
    ),
}


class Application(LazyGroup):
    """The whole program; unlike a bare click group it tells failures in this program's way."""

    def main(self, args: Sequence[str] | None = None, *_names: Any, **_extra: Any) -> NoReturn:
        """Run one command line and exit with its code."""
        sys.exit(_run(self, list(sys.argv[1:] if args is None else args)))


def _version(context: click.Context, _option: click.Parameter, value: bool) -> None:  # noqa: FBT001 - click's signature
    if not value:
        return
    import importlib.metadata  # noqa: PLC0415 - 15 ms that only this option is worth

    version = importlib.metadata.version("graphdrivers")
    if context.obj.json:
        output.document({"name": "graphdrivers", "version": version})
    else:
        click.echo(f"{PROGRAM} {version}")
    context.exit()


@click.command(
    PROGRAM,
    cls=Application,
    lazy=_COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Variables: GRAPHDRIVER_ROOT, GRAPHDRIVER_DRIVER, NO_COLOR, SOURCE_DATE_EPOCH, TMPDIR.",
)
@explained_global_options
@click.option("--version", is_flag=True, callback=_version, expose_value=False, help="Print the version.")
def application() -> None:
    """Store container images as layers, make containers of them, and mount both."""


def main() -> NoReturn:
    """Run the program; see `entry`."""
    _open_streams()
    application.main()


def _open_streams() -> None:
    """Open closed output streams on nothing, so that no file of ours gets their numbers and their content.

    What the locale has no character for is escaped on stdout, as Python does on stderr.
    """
    if sys.stdout is None:
        sys.stdout = _nothing(1)
    if sys.stderr is None:
        sys.stderr = _nothing(2)
    reconfigure = getattr(sys.stdout, "reconfigure", None)  # test runners put in streams that have none
    if reconfigure is not None:
        reconfigure(errors="backslashreplace")


def _nothing(number: int) -> TextIO:
    nothing = os.open(os.devnull, os.O_WRONLY)
    if nothing != number:
        os.dup2(nothing, number)
        os.close(nothing)
    return open(number, "w", encoding="utf-8", errors="backslashreplace")


def _run(program: Application, arguments: list[str]) -> int:
    """Run one command line and give its exit code; tells every failure that is not a bug in one line."""
    as_json = "--json" in arguments
    try:
        with _terminable():
            return _invoke(program, arguments)
    except (KeyboardInterrupt, click.Abort):
        return failures.INTERRUPTED
    except (click.ClickException, errors.GraphDriverError, OSError) as error:
        return _end(error, as_json=as_json)


def _end(error: click.ClickException | errors.GraphDriverError | OSError, *, as_json: bool) -> int:
    """Tell why the command ended, and give its exit code."""
    if isinstance(error, click.exceptions.NoArgsIsHelpError):  # a group alone: its help, but as a mistake
        click.echo(error.format_message(), err=True)
        return failures.USAGE
    if isinstance(error, click.ClickException):
        return _tell(_of_click(error), as_json=as_json)
    if isinstance(error, errors.GraphDriverError):
        return _tell(failures.of_library(error), as_json=as_json)
    if error.errno == errno.EPIPE and error.filename is None:  # whoever read our output has gone
        _silence()
        return failures.BROKEN_PIPE
    return _tell(failures.of_system(error), as_json=as_json)


def _invoke(program: Application, arguments: list[str]) -> int:
    settings = from_environment()
    settings.arguments = tuple(arguments)
    if settings.completion is not None:
        from graphdrivers.cli import shells  # noqa: PLC0415 - only for a shell that asks

        shells.complete(program, settings, settings.completion)
        return 0
    try:
        with program.make_context(PROGRAM, arguments, obj=settings) as context:
            program.invoke(context)
    except click.exceptions.Exit as ending:
        sys.stdout.flush()
        return ending.exit_code
    sys.stdout.flush()  # here, so that a full disk or a closed pipe is told and not lost at exit
    return 0


def _of_click(error: click.ClickException) -> failures.Failure:
    if not isinstance(error, click.UsageError):
        return failures.Failure(type(error).__name__, error.format_message(), "", error.exit_code)
    path = error.ctx.command_path if error.ctx else PROGRAM
    message = _wrong_option(error) or " ".join(error.format_message().split()).rstrip(".")
    return failures.Failure("UsageError", message, f"see '{path} --help'", failures.USAGE)


def _wrong_option(error: click.UsageError) -> str:
    """Say what an option that does not exist, or takes no value, may mean; nothing where the mistake is another one."""
    from graphdrivers.cli import habits  # noqa: PLC0415 - only for a mistake

    if isinstance(error, click.BadOptionUsage) and error.option_name in habits.VALUES:
        return f"{error.format_message().rstrip('.')}; here that is {habits.VALUES[error.option_name]}"
    if not isinstance(error, click.NoSuchOption):
        return ""
    of = error.ctx.command if error.ctx else click.Command("")
    known = [name for option in of.params for name in (*option.opts, *option.secondary_opts) if name.startswith("--")]
    return habits.option(error.option_name, known, of.name or "")


def _tell(failure: failures.Failure, *, as_json: bool) -> int:
    """Tell a failure on stderr, and on stdout too where JSON was asked for."""
    try:
        output.error_line(failure.line)
        if as_json:
            output.document(failure.document())
        sys.stdout.flush()  # what a full disk refused stays in the buffer, and would be tried again at exit
    except OSError:  # nobody is left to tell
        _silence()
    return failure.exit_code


def _silence() -> None:
    """Point stdout at nothing, so that the interpreter's last flush has nothing to complain about."""
    with contextlib.suppress(OSError, ValueError):  # ValueError: stdout is no real file, as under test runners
        nothing = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
        os.dup2(nothing, sys.stdout.fileno())
        os.close(nothing)


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """Make SIGTERM and SIGHUP end the block as Ctrl-C does: with every clean-up on the way."""
    wanted = (signal.SIGTERM, signal.SIGHUP)
    try:
        before = {number: signal.signal(number, _terminate) for number in wanted}
    except ValueError:  # not in the main thread: whoever runs us handles signals
        yield
        return
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _terminate(number: int, _frame: object) -> NoReturn:
    raise SystemExit(128 + number)
