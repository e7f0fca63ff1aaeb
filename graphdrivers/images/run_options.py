"""What somebody who runs a container asks for beyond what its image says."""

import enum
import re
from collections.abc import Iterable

import attrs

from graphdrivers import errors
from graphdrivers.images.accounts import ID_MAX

_HOSTNAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]{0,62}[A-Za-z0-9])?")
"""Source: hostname(7); 64 bytes is the kernel's limit (uname(2))."""


class Network(enum.StrEnum):
    """Which network the container sees."""

    NONE = "none"
    """Its own, with nothing in it but a loopback device."""
    HOST = "host"
    """The host's."""


@attrs.frozen
class IdMapping:
    """A range of uids or gids of a user namespace; Source: user_namespaces(7)."""

    container: int
    """The first one inside."""
    host: int
    """The one it is outside."""
    size: int
    """How many; at least 1."""

    def __attrs_post_init__(self) -> None:
        """Refuse a range that is empty or leaves the numbers there are."""
        last = max(self.container, self.host) + self.size - 1
        if min(self.container, self.host) < 0 or self.size < 1 or last > ID_MAX:
            raise errors.InvalidRunOption("mapping", f"{self.container}:{self.host}:{self.size} is no range of ids")

    def holds(self, number: int) -> bool:
        """Tell whether a number inside has one outside."""
        return self.container <= number < self.container + self.size


@attrs.frozen
class RunMount:
    """One mount more; Source: runtime-spec ``config.md``, heading *Mounts*."""

    destination: str
    """Absolute, inside; the runtime resolves links in it inside the root."""
    source: str
    """Absolute where ``type`` is ``bind``."""
    type: str = "bind"
    options: tuple[str, ...] = ("rbind", "rprivate")

    def __attrs_post_init__(self) -> None:
        """Refuse paths that are relative or not plain."""
        check_path("mount destination", self.destination)
        if self.type == "bind":
            check_path("mount source", self.source)
        for text in (self.source, self.type, *self.options):
            check_text("mount", text)


@attrs.frozen(kw_only=True)
class RunOptions:
    """Overrides and additions; ``None`` leaves what the image says."""

    entrypoint: tuple[str, ...] | None = None
    """In place of the image's ``Entrypoint``; its ``Cmd`` then does not count either."""
    args: tuple[str, ...] | None = None
    """In place of the image's ``Cmd``: arguments of the entry point, or the command where there is none."""
    env: tuple[str, ...] = ()
    """Added as ``NAME=VALUE``, in place of the image's own of that name."""
    cwd: str | None = None
    """Absolute; missing directories are made by the runtime, where the root is writable."""
    user: str | None = None
    """As in an image: `graphdrivers.images.accounts.read_account`."""
    terminal: bool = False
    readonly: bool = False
    """The root file system cannot be written to."""
    hostname: str = "container"
    network: Network = Network.NONE
    mounts: tuple[RunMount, ...] = ()
    """After the standard ones, in this order."""
    tmpfs_volumes: bool = False
    """Put an empty tmpfs on each of the image's ``Volumes``; else they are directories like others."""
    no_new_privileges: bool = False
    """Programs with set-user-ID bits or file capabilities give none (``PR_SET_NO_NEW_PRIVS``)."""
    uid_mappings: tuple[IdMapping, ...] = ()
    """Those of a user namespace of its own; none for no such namespace."""
    gid_mappings: tuple[IdMapping, ...] = ()

    def __attrs_post_init__(self) -> None:
        """Refuse what no runtime could do."""
        for option, texts in (("entrypoint", self.entrypoint), ("args", self.args), ("env", self.env)):
            for text in texts or ():
                check_text(option, text)
        for entry in self.env:
            if not entry.partition("=")[0] or "=" not in entry:
                raise errors.InvalidRunOption("env", f"{entry!r} is not NAME=VALUE")
        if self.cwd is not None:
            check_path("cwd", self.cwd)
        if not _HOSTNAME.fullmatch(self.hostname):
            raise errors.InvalidRunOption("hostname", f"{self.hostname!r} is not 1 to 64 letters, digits, '.' and '-'")
        if bool(self.uid_mappings) != bool(self.gid_mappings):
            raise errors.InvalidRunOption("mapping", "a user namespace needs both uids and gids")

    @property
    def user_namespace(self) -> bool:
        """Whether the container gets a user namespace of its own."""
        return bool(self.uid_mappings)


def rootless_mappings(uid: int, gid: int) -> dict[str, tuple[IdMapping, ...]]:
    """Give the mappings that need no privilege: root inside is the caller outside, and nobody else exists.

    Returned as keywords for `RunOptions`.
    """
    return {"uid_mappings": (IdMapping(0, uid, 1),), "gid_mappings": (IdMapping(0, gid, 1),)}


def maps(mappings: Iterable[IdMapping], number: int) -> bool:
    """Tell whether a number inside exists; all do without a user namespace."""
    listed = tuple(mappings)
    return not listed or any(mapping.holds(number) for mapping in listed)


def check_text(option: str, text: str) -> None:
    """Refuse what cannot be handed to a process: NUL, or characters that UTF-8 does not have."""
    reason = text_problem(text)
    if reason:
        raise errors.InvalidRunOption(option, f"{text!r} {reason}")


def check_path(option: str, path: str) -> None:
    """Refuse a path that is not absolute and plain."""
    reason = path_problem(path)
    if reason:
        raise errors.InvalidRunOption(option, f"{path!r} {reason}")


def text_problem(text: str) -> str:
    """Say why a text cannot be handed to a process; empty for one that can."""
    if "\0" in text:
        return "has a NUL character in it"
    try:
        text.encode()
    except UnicodeEncodeError:
        return "is not text that UTF-8 can hold"
    return ""


def path_problem(path: str) -> str:
    """Say why a path cannot be one inside a container; empty for one that can."""
    if not path.startswith("/"):
        return "is not an absolute path"
    if ".." in path.split("/"):
        return "has '..' in it"
    if len(path) >= 4096:
        return "is longer than a path can be"
    return text_problem(path)
