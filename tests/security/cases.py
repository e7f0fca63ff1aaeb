"""What a hostile case is, and short ways to write the layers that it is made of.

A case is a value: where it comes from, a layer tar made header by header, the
layers below it, and the one right outcome. The corpus is the ``corpus_*``
modules; what runs it is ``stage``.
"""

import os
import stat
import tempfile
from collections.abc import Mapping

import attrs
from rawtars import END, header, member, pax

from graphdrivers import errors
from graphdrivers.conformance.observe import Item
from graphdrivers.model import Limits

OUTSIDE = os.fsencode(os.path.join(tempfile.gettempdir(), f"graphdrivers-victim-{os.getpid()}"))
"""Absolute path of a folder that no layer may touch; `canaries` says what is in it."""

INSIDE = os.fsdecode(OUTSIDE[1:])
"""Where a layer ends up that means `OUTSIDE`: the same path below its own root."""


@attrs.frozen
class Refused:
    """The layer is refused by an error of this class that names this member."""

    error: type[errors.ArchiveError]
    member: str
    limit: str = ""


@attrs.frozen
class Like:
    """One path of a tree: what `shown` makes of it, and some of its attributes."""

    shown: str
    attributes: Mapping[str, object]


Tree = Mapping[str, str | Like]
"""Every path of the merged tree but the root, as `shown` shows it."""


@attrs.frozen(kw_only=True)
class Case:
    """One hostile layer."""

    name: str
    source: str
    """The CVE, or the peer and its test, or the rule that it is about."""
    tar: bytes = attrs.field(repr=False)
    outcome: Refused | Tree = attrs.field(repr=False)
    parents: tuple[bytes, ...] = attrs.field(default=(), repr=False)
    """The layers below, lowest first; these are harmless."""
    limits: Limits = Limits()
    needs: str = ""
    """A capability; a driver that lacks it refuses the layer with ``UnsupportedEntry`` and the same member."""
    lacking: str = ""
    """The member that is refused where ``needs`` is lacking."""


def like(shown: str, **attributes: object) -> Like:
    """Describe a path with attributes of ``observe.Item``."""
    return Like(shown, attributes)


def layer(*members: bytes) -> bytes:
    """Join members to a layer."""
    return b"".join(members) + END


def file(name: bytes, payload: bytes = b"x", **fields: object) -> bytes:
    """Make a regular file; a name that the header cannot hold goes into a PAX record."""
    return _named(name, payload, **fields)


def folder(name: bytes, **fields: object) -> bytes:
    """Make a directory."""
    return _named(name, **{"kind": b"5", "mode": b"0000755\0", **fields})


def symlink(name: bytes, target: bytes, **fields: object) -> bytes:
    """Make a symbolic link."""
    return _linked(name, target, b"2", **fields)


def hardlink(name: bytes, target: bytes, **fields: object) -> bytes:
    """Make a hard link."""
    return _linked(name, target, b"1", **fields)


def device(name: bytes, kind: bytes, major: int, minor: int, **fields: object) -> bytes:
    """Make a device node, kind ``3`` for character and ``4`` for block devices."""
    return _named(name, kind=kind, devices=b"%07o\0%07o\0" % (major, minor), **fields)


def fifo(name: bytes, **fields: object) -> bytes:
    """Make a FIFO."""
    return _named(name, kind=b"6", **fields)


def whiteout(name: bytes) -> bytes:
    """Make the marker that deletes ``name``."""
    head, slash, base = name.rpartition(b"/")
    return _named(head + slash + b".wh." + base)


def opaque(name: bytes) -> bytes:
    """Make the marker that empties a directory; the empty name is the root."""
    return _named(name + (b"/" if name else b"") + b".wh..wh..opq")


def xattr(name: bytes, value: bytes) -> bytes:
    """Make the extended header that gives the next member an extended attribute."""
    return pax((b"SCHILY.xattr." + name, value))


def implied(path: str) -> dict[str, str]:
    """Describe the directories above a path."""
    parts = path.split("/")[:-1]
    return {"/".join(parts[: end + 1]): "/" for end in range(len(parts))}


def base256(value: int, width: int) -> bytes:
    """Write a number in GNU tar's binary form."""
    return (value & ((1 << (8 * width - 1)) - 1) | 1 << (8 * width - 1)).to_bytes(width, "big")


def shown(path: str, item: Item, content: Mapping[str, bytes]) -> str:
    """Describe a path in one line: content, ``/``, ``-> TARGET``, ``c 1:3``, ``p``; ``= FIRST`` for further names."""
    first = min(item.names)
    if item.kind != stat.S_IFDIR and path != first:
        return f"= {first}"
    if item.kind == stat.S_IFREG:
        text = content.get(path)
        return f"{item.size} bytes" if text is None else text.decode("utf-8", "surrogateescape")
    if item.kind in {stat.S_IFCHR, stat.S_IFBLK}:
        letter = "c" if item.kind == stat.S_IFCHR else "b"
        return f"{letter} {os.major(item.device)}:{os.minor(item.device)}"
    return {stat.S_IFDIR: "/", stat.S_IFLNK: f"-> {item.target}", stat.S_IFIFO: "p"}[item.kind]


def _named(name: bytes, payload: bytes = b"", **fields: object) -> bytes:
    if len(name) <= 100:
        return member(name, payload, **fields)
    return pax((b"path", name)) + member(b"long", payload, **fields)


def _linked(name: bytes, target: bytes, kind: bytes, **fields: object) -> bytes:
    records = [(b"linkpath", target)] * (len(target) > 100) + [(b"path", name)] * (len(name) > 100)
    front = pax(*records) if records else b""
    link = b"long" if len(target) > 100 else target
    return front + header(b"long" if len(name) > 100 else name, kind=kind, link=link, **fields)  # type: ignore[arg-type]
