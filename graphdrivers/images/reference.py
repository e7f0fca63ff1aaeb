"""References: how people name images (``debian:12``, ``example.org:5000/team/app@sha256:...``).

Source: the grammar of distribution's ``reference`` package, with Docker's short
names: no host means ``docker.io``, one word there means ``library/``.
"""

import re
from collections.abc import Iterable
from typing import Self

import attrs

from graphdrivers import errors
from graphdrivers.model import Digest, validate_digest

_HOST_PART = r"[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?"
_HOST = re.compile(rf"(?:{_HOST_PART}(?:\.{_HOST_PART})*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?", re.ASCII)
_PATH_PART = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
_PATH = re.compile(rf"{_PATH_PART}(?:/{_PATH_PART})*", re.ASCII)
_TAG = re.compile(r"\w[\w.-]{0,127}", re.ASCII)
_IMAGE_ID = re.compile(r"[0-9a-f]{64}")

NAME_MAX = 255
"""Characters of host and path together."""

DEFAULT_HOST = "docker.io"
DEFAULT_TAG = "latest"


@attrs.frozen
class Reference:
    """A parsed reference, short forms completed; at least one of tag and digest is set."""

    host: str
    path: str
    tag: str | None
    digest: Digest | None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``[HOST[:PORT]/]PATH[:TAG][@DIGEST]``; with neither tag nor digest it means ``latest``.

        Raises:
            InvalidReference: it breaks the grammar, or is the hex ID of an image.
        """
        name, at, digest = text.partition("@")
        cut = name.rfind(":")
        tag = name[cut + 1 :] if cut > name.rfind("/") else None
        host, path = _split_host(name if tag is None else name[:cut])
        _check(text, host, path, tag)
        if tag is None and not at:
            tag = DEFAULT_TAG
        return cls(host, path, tag, _check_digest(text, digest) if at else None)

    @property
    def repository(self) -> str:
        """Host and path, without tag and digest."""
        return f"{self.host}/{self.path}"

    @property
    def familiar(self) -> str:
        """The short form that people write."""
        path = self.path.removeprefix("library/") if self.path.count("/") == 1 else self.path
        return (path if self.host == DEFAULT_HOST else self.repository) + self._suffix

    @property
    def _suffix(self) -> str:
        return (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")

    def __str__(self) -> str:
        """Write it in full."""
        return self.repository + self._suffix


def matches(wanted: str, names: Iterable[str], digests: Iterable[str]) -> bool:
    """Tell whether ``wanted`` means an image with these names and digests.

    It does when it is one of the digests or, letter by letter, one of the
    names (in a layout a name may be any text, often a bare tag), or the same
    reference as one once both are written in full. With ``NAME@DIGEST`` both
    halves have to fit.
    """
    name, _, digest = wanted.partition("@")
    if digest and digest not in digests:
        return False
    full = _in_full(name)
    return wanted in digests or any(name == known or (full and full == _in_full(known)) for known in names)


def _in_full(name: str) -> str | None:
    try:
        return str(Reference.parse(name))
    except errors.InvalidReference:
        return None


def _split_host(name: str) -> tuple[str, str]:
    """Complete a short name: only what looks like a host (``.``, ``:``, a capital, ``localhost``) is one."""
    first, slash, rest = name.partition("/")
    if slash and (first == "localhost" or "." in first or ":" in first or first != first.lower()):
        host, path = ("docker.io", rest) if first == "index.docker.io" else (first, rest)
    else:
        host, path = DEFAULT_HOST, name
    if host == DEFAULT_HOST and "/" not in path:
        path = f"library/{path}"
    return host, path


def _check(text: str, host: str, path: str, tag: str | None) -> None:
    if not _HOST.fullmatch(host):
        raise errors.InvalidReference(text, f"{host!r} is no host")
    if not _PATH.fullmatch(path):
        raise errors.InvalidReference(text, "its name is not lower-case words joined by '.', '_', '-' and '/'")
    if len(host) + 1 + len(path) > NAME_MAX:
        raise errors.InvalidReference(text, f"its name has more than {NAME_MAX} characters")
    if _IMAGE_ID.fullmatch(path.removeprefix("library/")):
        raise errors.InvalidReference(text, "64 hex digits are an image's ID, not a name")
    if tag is not None and not _TAG.fullmatch(tag):
        raise errors.InvalidReference(text, f"{tag!r} is no tag")


def _check_digest(text: str, digest: str) -> Digest:
    try:
        return validate_digest(digest)
    except errors.InvalidName as error:
        raise errors.InvalidReference(text, f"{digest!r}: {error.reason}") from error
