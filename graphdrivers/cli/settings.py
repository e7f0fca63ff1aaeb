"""What the person asked for: the environment, the global options, and their defaults.

This is the only file of the library that reads the environment. The global
options are accepted before and after every command; the later one wins.
"""

import os
import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import attrs
import click

_Command = TypeVar("_Command", bound=Callable[..., Any])

COMPLETION_VARIABLE = "_GRAPHDRIVER_COMPLETE"
"""Set by the completion scripts when a shell asks for candidates."""


REGISTRY_VARIABLES = (
    *("REGISTRY_AUTH_FILE", "DOCKER_CONFIG", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME", "HOME"),
    *("SSL_CERT_FILE", "SSL_CERT_DIR"),
    *("https_proxy", "HTTPS_PROXY", "http_proxy", "all_proxy", "ALL_PROXY", "no_proxy", "NO_PROXY"),
)
"""What podman, skopeo and docker look at too. ``HTTP_PROXY`` in capitals is left out: a CGI client could set it."""


@attrs.define
class Settings:
    """The answer to *where, with what, how loud*; filled while the command line is parsed."""

    root: str
    """Absolute path below which everything lies."""
    root_given: bool = False
    """Whether the person named it, by option or variable."""
    driver: str = "auto"
    options: dict[str, str] = attrs.Factory(dict)
    json: bool = False
    """One JSON document on stdout instead of text for people."""
    verbosity: int = 0
    """-1 is quiet, 1 and more also says how things are done."""
    source_date_epoch: int | None = None
    """Seconds; later times in what is produced are clamped to it (reproducible-builds.org)."""
    completion: str | None = None
    """What a shell's completion script asks for."""
    arguments: tuple[str, ...] | None = None
    """The command line as it was given, to start over with; ``None`` where there is none."""
    registry: Mapping[str, str] = attrs.Factory(dict)
    """The variables that say where logins, certificates and proxies for registries are, as they were found."""
    scratch: str = "/tmp"  # noqa: S108 - the documented default of TMPDIR; folders in it are made by tempfile
    """Where folders that live only as long as a command are made."""


def from_environment(environ: Mapping[str, str] | None = None, *, uid: int | None = None) -> Settings:
    """Read the variables that this program honours, and no others.

    ``GRAPHDRIVER_ROOT``, ``GRAPHDRIVER_DRIVER``, ``XDG_DATA_HOME``, ``TMPDIR``,
    ``SOURCE_DATE_EPOCH``, and for registries those of `REGISTRY_VARIABLES`.
    (``NO_COLOR``, ``TERM`` and ``COLUMNS`` are honoured by the libraries that draw.) Empty variables count as unset.

    Raises:
        click.UsageError: ``SOURCE_DATE_EPOCH`` is no number of seconds.
    """
    variables = {name: value for name, value in (os.environ if environ is None else environ).items() if value}
    root = variables.get("GRAPHDRIVER_ROOT") or _default_root(variables, os.geteuid() if uid is None else uid)
    return Settings(
        root=os.path.realpath(root),
        root_given="GRAPHDRIVER_ROOT" in variables,
        driver=variables.get("GRAPHDRIVER_DRIVER", "auto"),
        source_date_epoch=_epoch(variables.get("SOURCE_DATE_EPOCH")),
        completion=variables.get(COMPLETION_VARIABLE),
        registry={name: variables[name] for name in REGISTRY_VARIABLES if name in variables},
        scratch=os.path.abspath(variables.get("TMPDIR", "/tmp")),  # noqa: S108 - as above
    )


def _default_root(variables: Mapping[str, str], uid: int) -> str:
    """Where layers live when nobody says (XDG Base Directory Specification for users)."""
    if uid == 0:
        return "/var/lib/graphdrivers"
    data = variables.get("XDG_DATA_HOME", "")
    if not os.path.isabs(data):  # the specification: a relative one is ignored
        data = os.path.join(variables.get("HOME") or os.path.expanduser("~"), ".local", "share")
    return os.path.join(data, "graphdrivers")


def _epoch(text: str | None) -> int | None:
    if text is None:
        return None
    if not re.fullmatch(r"[0-9]{1,12}", text):
        raise click.UsageError(f"SOURCE_DATE_EPOCH is {text!r}, not a number of seconds")
    return int(text)


def _set_root(context: click.Context, _option: click.Parameter, value: str | None) -> None:
    if value is not None:
        context.obj.root = os.path.realpath(value)
        context.obj.root_given = True


def _set_driver(context: click.Context, _option: click.Parameter, value: str | None) -> None:
    if value is not None:
        context.obj.driver = value


def _set_options(context: click.Context, option: click.Parameter, values: tuple[str, ...]) -> None:
    for pair in values:
        key, equals, value = pair.partition("=")
        if not key or not equals:
            raise click.BadParameter(f"{pair!r} is not KEY=VALUE", context, option)
        context.obj.options[key] = value


def _set_json(context: click.Context, _option: click.Parameter, value: bool) -> None:  # noqa: FBT001 - click's signature
    context.obj.json = context.obj.json or value


def _set_loudness(context: click.Context, _option: click.Parameter, value: int) -> None:
    if value and context.obj.verbosity < 0:
        raise click.UsageError("-v and -q exclude each other", context)
    context.obj.verbosity += value


def _set_quiet(context: click.Context, _option: click.Parameter, value: bool) -> None:  # noqa: FBT001 - click's signature
    if value and context.obj.verbosity > 0:
        raise click.UsageError("-v and -q exclude each other", context)
    if value:
        context.obj.verbosity = -1


def global_options(command: _Command) -> _Command:
    """Let a command (or group) take the global options; their values end in ``context.obj``."""
    adders = (
        click.option("--root", metavar="DIR", callback=_set_root, expose_value=False, help="Where everything lies."),
        click.option(
            "--driver", metavar="NAME", callback=_set_driver, expose_value=False, help="Which storage driver."
        ),
        click.option(
            "--opt",
            metavar="KEY=VALUE",
            multiple=True,
            callback=_set_options,
            expose_value=False,
            help="Driver option.",
        ),
        click.option(
            "--json",
            is_flag=True,
            is_eager=True,
            callback=_set_json,
            expose_value=False,
            help="Print one JSON document.",
        ),
        click.option("-v", "--verbose", count=True, callback=_set_loudness, expose_value=False, help="Say more."),
        click.option("-q", "--quiet", is_flag=True, callback=_set_quiet, expose_value=False, help="Only errors."),
    )
    for add in reversed(adders):
        command = add(command)
    return command


def parse_size(text: str) -> int:
    """Turn ``512``, ``10M`` or ``1.5G`` into bytes (powers of 1024).

    Raises:
        click.BadParameter: anything else.
    """
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*([KMGT]?)(?:i?B)?", text, re.IGNORECASE)
    if match is None:
        raise click.BadParameter(f"{text!r} is not a size such as 512M or 10G")
    return int(float(match[1]) * 1024 ** " KMGT".index(match[2].upper() or " "))
