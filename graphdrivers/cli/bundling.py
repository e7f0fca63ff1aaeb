"""``graphdriver bundle``: a container as an OCI runtime bundle."""

import os
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import click

from graphdrivers.cli import completing, output, stores
from graphdrivers.cli.settings import Settings, global_options
from graphdrivers.images.run_options import Network, RunMount, RunOptions, rootless_mappings

_Command = TypeVar("_Command", bound=Callable[..., Any])


def _run_options(command: _Command) -> _Command:
    """Let a command take what Docker's ``run`` takes of this."""
    adders = (
        click.option("-e", "--env", metavar="NAME=VALUE", multiple=True, help="A variable, in place of the image's."),
        click.option("-u", "--user", metavar="USER[:GROUP]", help="Who it runs as, by name or number."),
        click.option("-w", "--workdir", metavar="PATH", help="Where it starts."),
        click.option("-t", "--tty", is_flag=True, help="With a terminal."),
        click.option("--entrypoint", metavar="PROGRAM", help="In place of the image's entry point."),
        click.option("--hostname", metavar="NAME", default="container", show_default=True, help="What it is called."),
        click.option(
            "--network",
            type=click.Choice([str(network) for network in Network]),
            default="none",
            show_default=True,
            help="An empty network of its own, or the host's.",
        ),
        click.option("--volume", "volumes", metavar="SOURCE:PATH[:ro]", multiple=True, help="Bind a path of here."),
        click.option("--read-only", is_flag=True, help="The root file system cannot be written to."),
        click.option("--tmpfs-volumes", is_flag=True, help="An empty tmpfs for each volume of the image."),
        click.option("--no-new-privileges", is_flag=True, help="Set-user-ID programs give none."),
        click.option(
            "--rootless/--no-rootless", default=None, help="In a user namespace of its own; the default unless root."
        ),
    )
    for add in reversed(adders):
        command = add(command)
    return command


@click.command(epilog="Example: graphdriver bundle web ./web -- /bin/echo hello && crun run -b ./web web")
@click.argument("name", shell_complete=completing.containers)
@click.argument("directory", metavar="DIR", type=click.Path(file_okay=False))
@click.argument("args", nargs=-1, metavar="[-- ARG...]")
@_run_options
@global_options
@click.pass_obj
def bundle(settings: Settings, /, name: str, directory: str, args: tuple[str, ...], **asked: Any) -> None:
    """Make DIR an OCI runtime bundle of the container NAME, for crun or runc; print its path.

    DIR gets config.json and rootfs, on which the container stays mounted until
    'umount NAME'. What runs is what the image says, ARGs in place of its
    command.
    """
    options = _options(args, asked)
    with stores.opened(settings) as store:
        spec = store.container(name).bundle(directory, options)
    for label in spec.withheld:
        output.message(settings, f"graphdriver: label {label!r} of the image is left out: runtimes would obey it")
    path = os.path.abspath(directory)
    if settings.json:
        output.document({"path": path, "withheld": list(spec.withheld)})
    else:
        output.raw_line(path)


def _options(args: tuple[str, ...], asked: Mapping[str, Any]) -> RunOptions:
    """Make the library's value of the options.

    Raises:
        InvalidRunOption: one makes no sense.
    """
    rootless = os.geteuid() != 0 if asked["rootless"] is None else asked["rootless"]
    return RunOptions(
        entrypoint=None if asked["entrypoint"] is None else (asked["entrypoint"],),
        args=args or None,
        env=asked["env"],
        cwd=asked["workdir"],
        user=asked["user"],
        terminal=asked["tty"],
        readonly=asked["read_only"],
        hostname=asked["hostname"],
        network=Network(asked["network"]),
        mounts=tuple(map(_volume, asked["volumes"])),
        tmpfs_volumes=asked["tmpfs_volumes"],
        no_new_privileges=asked["no_new_privileges"],
        **(rootless_mappings(os.geteuid(), os.getegid()) if rootless else {}),
    )


def _volume(text: str) -> RunMount:
    """Read ``SOURCE:PATH[:ro|rw]``; a relative source is one of here.

    Raises:
        click.BadParameter: something else.
        InvalidRunOption: PATH is not absolute.
    """
    parts = text.split(":")
    mode = parts.pop() if len(parts) == 3 else "rw"
    if len(parts) != 2 or not all(parts) or mode not in {"ro", "rw"}:
        raise click.BadParameter(f"{text!r} is not SOURCE:PATH[:ro]")
    return RunMount(parts[1], os.path.abspath(parts[0]), options=("rbind", "rprivate", mode))
