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
from click.shell_completion import CompletionItem

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

    found_root: str | None
    """Absolute path below which everything lies; ``None`` where nobody named one and the user has no home."""
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

    @property
    def root(self) -> str:
        """Absolute path below which everything lies.

        Raises:
            click.UsageError: nobody named one, and the user has no home.
        """
        if self.found_root is None:
            raise click.UsageError(
                "this user has no home directory (HOME): name a place with --root or GRAPHDRIVER_ROOT"
            )
        return self.found_root


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
        found_root=None if root is None else os.path.realpath(root),
        root_given="GRAPHDRIVER_ROOT" in variables,
        driver=variables.get("GRAPHDRIVER_DRIVER", "auto"),
        source_date_epoch=_epoch(variables.get("SOURCE_DATE_EPOCH")),
        completion=variables.get(COMPLETION_VARIABLE),
        registry={name: variables[name] for name in REGISTRY_VARIABLES if name in variables},
        scratch=os.path.abspath(variables.get("TMPDIR", "/tmp")),  # noqa: S108 - as above
    )


def _default_root(variables: Mapping[str, str], uid: int) -> str | None:
    """Where layers live when nobody says (XDG Base Directory Specification for users); ``None`` without a home."""
    if uid == 0:
        return "/var/lib/graphdrivers"
    data = variables.get("XDG_DATA_HOME", "")
    if not os.path.isabs(data):  # the specification: a relative one is ignored
        home = variables.get("HOME") or os.path.expanduser("~")
        if not os.path.isabs(home):  # a user whom no database knows: "~" stays as it is
            return None
        data = os.path.join(home, ".local", "share")
    return os.path.join(data, "graphdrivers")


def _epoch(text: str | None) -> int | None:
    if text is None:
        return None
    if not re.fullmatch(r"[0-9]{1,12}", text):
        raise click.UsageError(f"SOURCE_DATE_EPOCH is {text!r}, not a number of seconds")
    return int(text)


def _set_root(context: click.Context, _option: click.Parameter, value: str | None) -> None:
    if value is not None:
        context.obj.found_root = os.path.realpath(value)
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


def _folders(_context: click.Context, _option: click.Parameter, typed: str) -> list[CompletionItem]:
    """Let the shell offer its folders."""
    return [CompletionItem(typed, type="dir")]


def _drivers(_context: click.Context, _option: click.Parameter, typed: str) -> list[CompletionItem]:
    """Offer the drivers that are installed; loads none."""
    from graphdrivers import offers  # noqa: PLC0415 - only for a shell that asks

    return [CompletionItem(name) for name in sorted((*offers.installed(), "auto")) if name.startswith(typed)]


_SHORT = {
    "root": "Where everything lies.",
    "driver": "Which storage driver.",
    "opt": "Driver option.",
    "verbose": "Say more.",
    "quiet": "Only errors.",
}
"""What each command says of the global options."""

_LONG = {
    "root": "Where everything lies. Default: $GRAPHDRIVER_ROOT, else /var/lib/graphdrivers for root, and for others"
    " graphdrivers in $XDG_DATA_HOME (~/.local/share).",
    "driver": "Which storage driver, of those that 'graphdriver drivers' lists. Default: $GRAPHDRIVER_DRIVER, else the"
    " one that made the store, else the best that works here.",
    "opt": "An option of the driver; may be repeated.",
    "verbose": "Say more, also how things are done.",
    "quiet": "Say nothing but errors; of lists only the IDs.",
}
"""What the program itself says of them."""


def global_options(command: _Command) -> _Command:
    """Let a command (or group) take the global options; their values end in ``context.obj``."""
    return _taking(command, _SHORT)


def explained_global_options(command: _Command) -> _Command:
    """Do the same for the whole program, whose help explains them."""
    return _taking(command, _LONG)


def _taking(command: _Command, told: Mapping[str, str]) -> _Command:
    """Add the global options; each ends in ``context.obj``, and none in the parameters of the command."""
    options: tuple[tuple[tuple[str, ...], dict[str, Any]], ...] = (
        (("--root",), {"metavar": "DIR", "callback": _set_root, "shell_complete": _folders}),
        (("--driver",), {"metavar": "NAME", "callback": _set_driver, "shell_complete": _drivers}),
        (("--opt",), {"metavar": "KEY=VALUE", "multiple": True, "callback": _set_options}),
        (("--json",), {"is_flag": True, "is_eager": True, "callback": _set_json, "help": "Print one JSON document."}),
        (("-v", "--verbose"), {"count": True, "callback": _set_loudness}),
        (("-q", "--quiet"), {"is_flag": True, "callback": _set_quiet}),
    )
    for names, how in reversed(options):
        said = told.get(names[-1].removeprefix("--"))
        command = click.option(*names, expose_value=False, **{"help": said, **how})(command)
    return command


def size_given(_context: click.Context, _option: click.Parameter, text: str | None) -> int | None:
    """Turn the value of an option into bytes, as `parse_size` does."""
    return None if text is None else parse_size(text)


def parse_size(text: str) -> int:
    """Turn ``512``, ``10M`` or ``1.5G`` into bytes (powers of 1024).

    Raises:
        click.BadParameter: anything else.
    """
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*([KMGT]?)(?:i?B)?", text, re.IGNORECASE)
    if match is None:
        raise click.BadParameter(f"{text!r} is not a size such as 512M or 10G")
    return int(float(match[1]) * 1024 ** " KMGT".index(match[2].upper() or " "))
