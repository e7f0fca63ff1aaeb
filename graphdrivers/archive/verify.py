"""Deep verification of a layer: what it holds now against the tar it was made from, path by path.

Three things are put together: the picture of what the tar means over the
layer's parents, the picture of what the driver says that the layer holds (its
diff, which leaves out what equals the parents), and the parents' tree, which
tells what may be left out.
"""

import enum
import struct
from collections.abc import Iterable, Iterator
from typing import BinaryIO

import attrs

from graphdrivers.archive import entries
from graphdrivers.archive.acls import ACCESS, DEFAULT
from graphdrivers.archive.entries import Tree
from graphdrivers.archive.picture import Below, Item, Picture, expected, of_node, plain_directory, produced
from graphdrivers.archive.restore import Damage
from graphdrivers.model import Capabilities, Limits

_NAMES = {
    entries.REGULAR: "a regular file",
    entries.DIRECTORY: "a directory",
    entries.SYMLINK: "a symbolic link",
    entries.CHARDEV: "a character device",
    entries.BLOCKDEV: "a block device",
    entries.FIFO: "a FIFO",
}
_RECORDED = frozenset({entries.REGULAR, entries.DIRECTORY})
"""Kinds of files that can carry a record of their owner."""

_DEVICES = frozenset({entries.CHARDEV, entries.BLOCKDEV})
_SELINUX = "security.selinux"
_SECOND = 1_000_000_000
_EARLIEST, _LATEST = -(1 << 31), (1 << 31) - 1
"""Seconds since the epoch that every file system can store; of others many take the nearest they can."""

_ACL_HEADER, _ACL_ENTRY = 4, struct.Struct("<HHI")
_NAMED = frozenset({0x02, 0x08})
_ACL_SHIFTS = {0x01: 6, 0x04: 3, 0x10: 3, 0x20: 0}


class FindingKind(enum.StrEnum):
    """What is wrong with one path; the worst where several things are."""

    MISSING = "missing"
    """The tar brings it (or leaves a parent's in place), and it is not there."""
    ADDED = "added"
    """It is there, and the tar neither brings it nor leaves it in place."""
    REPLACED = "replaced"
    """It is a file of another type, or no longer the same file as another name of it."""
    CONTENT = "content"
    """Its bytes, its size, where a link leads, or a device number."""
    ATTRIBUTES = "attributes"
    """Mode, owner, time, xattrs."""


@attrs.frozen
class Finding:
    """One path of a layer that is not as its tar says."""

    path: bytes
    """Relative; empty for the root."""
    kind: FindingKind
    detail: str
    """For people: all that is wrong, in one line."""
    others: tuple[bytes, ...] = ()
    """Further names of the same file, of which this is told too."""


def verify(
    original: BinaryIO,
    present: BinaryIO,
    capabilities: Capabilities,
    *,
    lower: Tree | None = None,
    damages: Iterable[Damage] = (),
    limits: Limits = Limits(),
) -> Iterator[Finding]:
    """Name every path of a layer that is not what unpacking its tar made it, sorted by path bytes.

    Memory is bounded by the number of entries: contents are compared by CRC-32
    and size, so this finds damage; against somebody who chooses what to change
    only the DiffID helps. A file with several names is told once, by the first.

    Args:
        original: the tar that the layer was made from, as it came or restored
            (`restore.restore`, with ``damages``); read to its end.
        present: what the driver's ``diff`` gives for the layer in the full
            profile; read to its end.
        capabilities: the driver's, which say what it could not keep.
        lower: the merged tree of the layer's parents; ``None`` without any.
        damages: what was told while ``original`` was restored; looked into only
            when that was read, so a list that fills meanwhile will do.
        limits: those that the layer was unpacked with.

    Raises (while iterating):
        ArchiveError: a stream is no tar; ``UnsupportedEntry`` when the driver
            cannot make a diff because a name begins with ``.wh.``.
        OSError: a stream, or the parents' tree, cannot be read.
    """
    with Below(lower) as below:
        said = expected(original, below, limits)
        shown = produced(present, limits)
        comparison = _Comparison(said, shown, below, capabilities)
        for damage in damages:
            comparison.damage(damage)
        findings = comparison.findings()
    yield from findings


class _Comparison:
    """Two pictures of one layer, and what is wrong."""

    def __init__(self, said: Picture, shown: Picture, below: Below, capabilities: Capabilities) -> None:
        self._said = said
        self._shown = shown
        self._below = below
        self._judge = _Judge(capabilities)
        self._found: dict[bytes, tuple[FindingKind, list[str]]] = {}
        self._changed: dict[int, bytes] = {}  # by identity of an item: its first name, where the tar brings none
        self._further: dict[bytes, list[bytes]] = {}
        self._first: dict[int, bytes] = {}  # by identity of an item: its first name, if possible one that is there
        names = sorted(said.items)
        for name in [*filter(self._is_there, names), *names]:
            self._first.setdefault(id(said.items[name]), name)

    def damage(self, damage: Damage) -> None:
        """Take over what restoring the tar told."""
        reason = f" ({damage.reason})" if damage.reason else ""
        item = self._said.items.get(damage.path)
        if item is not None:
            item.checksum = None
        if damage.path not in self._shown.items:
            self._note(damage.path, FindingKind.MISSING, f"it {damage.kind}{reason}")
        elif item is None or not self._is_there(damage.path):
            self._note(damage.path, FindingKind.REPLACED, f"it {damage.kind}{reason}")
        else:
            self._note(self._first[id(item)], FindingKind.CONTENT, f"it {damage.kind}{reason}, byte {damage.offset}")

    def findings(self) -> list[Finding]:
        """Compare, and sort."""
        for path, item in self._said.items.items():
            shown = self._shown.items.get(path)
            if shown is None:
                self._left_out(path, item)
            else:
                self._both(path, item, shown)
        for path, shown in self._shown.items.items():
            if path not in self._said.items:
                self._unexpected(path, shown)
        self._deletions()
        self._links()
        others = self._others()
        return [
            Finding(path, kind, "; ".join(details), tuple(others.get(path, ())))
            for path, (kind, details) in sorted(self._found.items())
        ]

    def _others(self) -> dict[bytes, list[bytes]]:
        """Give the further names of what was found."""
        items = self._said.items
        found = {id(items[path]): path for path in self._found if path in items}
        others = self._further
        for name, item in items.items() if found else ():
            if found.get(id(item), name) != name:
                others.setdefault(found[id(item)], []).append(name)
        return others

    def _note(self, path: bytes, kind: FindingKind, detail: str) -> None:
        known, details = self._found.setdefault(path, (kind, []))
        if detail not in details:
            details.append(detail)
        order = list(FindingKind)
        self._found[path] = (min(known, kind, key=order.index), details)

    def _left_out(self, path: bytes, item: Item) -> None:
        """Look at what the diff does not have: it must equal the parents', which is why it was left out."""
        lower = self._lower(path)
        if lower is None:
            if path or self._differences(item, plain_directory()):
                self._note(path, FindingKind.MISSING, f"{_name(item)} is not there")
        elif self._shown.deletes(path):
            self._note(path, FindingKind.MISSING, f"{_name(item)} is not there, nor what the parents have")
        elif self._differences(item, lower) or self._is_there(self._first[id(item)]):
            # A diff that has one name of a file has all of them.
            self._note(path, FindingKind.MISSING, f"{_name(item)} is not there, but what the parents have")

    def _both(self, path: bytes, item: Item, shown: Item) -> None:
        if self._first[id(item)] == path or item.kind != shown.kind:
            for kind, detail in self._differences(item, shown):
                self._note(path, kind, detail)

    def _unexpected(self, path: bytes, shown: Item) -> None:
        """Look at what the tar does not bring: it must equal the parents', being told for the sake of others."""
        lower = None if self._said.deletes(path) else self._lower(path)
        if not path and lower is None:
            lower = plain_directory()
        if lower is None:
            self._note(path, FindingKind.ADDED, f"{_name(shown)} that the layer's tar does not bring")
            return
        differences = self._differences(lower, shown)
        first = self._changed.setdefault(id(shown), path) if differences else path
        if first != path and first in self._found:
            self._further.setdefault(first, []).append(path)
            return
        for kind, detail in differences:
            self._note(path, kind, f"changed from what the parents have: {detail}")

    def _deletions(self) -> None:
        for path in self._shown.deleted - self._said.deleted:
            if path not in self._said.items:  # else it was noted
                self._note(path, FindingKind.MISSING, "deleted, which the layer's tar does not do")
        for path in self._said.deleted - self._shown.deleted:
            if path not in self._shown.items and not self._is_gone(path):
                self._note(path, FindingKind.ADDED, "the parents' shows through, though the layer's tar deletes it")

    def _is_gone(self, path: bytes) -> bool:
        """Say whether a path cannot be there, because what is above it was deleted or replaced, which was noted."""
        above = path.rpartition(b"/")[0]
        while above:
            shown = self._shown.items.get(above)
            if shown is not None and shown.kind != entries.DIRECTORY:
                return True
            above = above.rpartition(b"/")[0]
        return self._shown.deletes(path)

    def _links(self) -> None:
        """Compare which names are names of one file."""
        owners: dict[int, tuple[bytes, Item]] = {}
        for path, shown in sorted(self._shown.items.items()):
            item = self._said.items.get(path)
            if item is None or item.kind == entries.DIRECTORY:
                continue
            first, other = owners.setdefault(id(shown), (path, item))
            if other is not item and (item.fresh or other.fresh):
                self._note(path, FindingKind.REPLACED, f"it is the same file as {first!r} now")
        for path, item in sorted(self._said.items.items()):
            first = self._first[id(item)]
            now = self._shown.items.get(path)
            if now is not None and now.kind == item.kind and now is not self._shown.items[first]:
                self._note(path, FindingKind.REPLACED, f"it is no longer the same file as {first!r}")

    def _is_there(self, path: bytes) -> bool:
        """Say whether the diff has the path, as a file of the same type."""
        shown = self._shown.items.get(path)
        return shown is not None and shown.kind == self._said.items[path].kind

    def _lower(self, path: bytes) -> Item | None:
        node = self._below.find(path)
        return None if node is None else of_node(node)

    def _differences(self, item: Item, shown: Item) -> list[tuple[FindingKind, str]]:
        return list(self._judge.differences(item, shown))


class _Judge:
    """Compares two items, as far as a driver can keep what they are."""

    def __init__(self, capabilities: Capabilities) -> None:
        self._can = capabilities

    def differences(self, item: Item, shown: Item) -> Iterator[tuple[FindingKind, str]]:
        """Give what differs, in words; the first is what was, the second what is."""
        if item.kind != shown.kind:
            yield FindingKind.REPLACED, f"{_name(shown)} instead of {_name(item)}"
            return
        if item.size != shown.size:
            yield FindingKind.CONTENT, f"{shown.size} bytes instead of {item.size}"
        elif item.checksum is not None and item.checksum != shown.checksum:
            yield FindingKind.CONTENT, "its content changed"
        if item.linkname != shown.linkname:
            yield FindingKind.CONTENT, f"it leads to {shown.linkname!r} instead of {item.linkname!r}"
        if item.kind in _DEVICES and item.device != shown.device:
            yield FindingKind.CONTENT, f"device {shown.device} instead of {item.device}"
        for detail in self._attributes(item, shown):
            yield FindingKind.ATTRIBUTES, detail

    def _attributes(self, item: Item, shown: Item) -> Iterator[str]:
        was, now = self._mode(item), self._mode(shown)
        if was != now:
            yield f"mode {now:04o} instead of {was:04o}"
        if self._keeps_owner(item) and (item.uid, item.gid) != (shown.uid, shown.gid):
            yield f"owner {shown.uid}:{shown.gid} instead of {item.uid}:{item.gid}"
        if not self._same_time(item.mtime, shown.mtime):
            yield f"time {_seconds(shown.mtime)} instead of {_seconds(item.mtime)}"
        old, new = self._xattrs(item), self._xattrs(shown)
        if _SELINUX not in old:
            new.pop(_SELINUX, None)  # the kernel labels files by itself
        for name in sorted(old.keys() | new.keys()):
            if old.get(name) != new.get(name):
                verb = "gone" if name not in new else "added" if name not in old else "changed"
                yield f"xattr {name!r} {verb}"

    def _keeps_owner(self, item: Item) -> bool:
        return self._can.ownership or (self._can.recorded_owners and item.kind in _RECORDED)

    def _mode(self, item: Item) -> int:
        """Give the permission bits that a file has once its ACL is set; of a link none, for they mean nothing."""
        if item.kind == entries.SYMLINK:
            return 0
        mode = item.mode
        acl = _parsed(item.xattrs.get(ACCESS, b""))
        masked = any(tag == 0x10 for tag, _, _ in acl)
        for tag, permissions, _ in acl:
            if tag in _ACL_SHIFTS and not (tag == 0x04 and masked):
                shift = _ACL_SHIFTS[tag]
                mode = mode & ~(7 << shift) | permissions << shift
        if not self._keeps_owner(item):
            mode &= ~0o6000  # the kernel takes these bits from who is not in a file's group
        return mode

    def _same_time(self, was: int, now: int) -> bool:
        resolution = self._can.time_resolution
        if was // resolution == now // resolution:
            return True
        seconds, kept = was // _SECOND, now // _SECOND
        if seconds > _LATEST:
            return _LATEST <= kept < seconds
        return seconds < _EARLIEST and seconds < kept <= 0

    def _xattrs(self, item: Item) -> dict[str, object]:
        """Give the xattrs that the driver can keep, ACLs in one form."""
        kept: dict[str, object] = {}
        for name, value in item.xattrs.items():
            namespace = name.partition(".")[0]
            if namespace == "trusted" and not self._can.trusted_xattrs:
                continue
            if namespace == "security" and not self._can.security_xattrs:
                continue
            if name in {ACCESS, DEFAULT}:
                acl = _parsed(value)
                if len(acl) > 3 or (acl and name == DEFAULT):  # else the mode says it all
                    kept[name] = acl
            else:
                kept[name] = value
        return kept


def _parsed(acl: bytes) -> tuple[tuple[int, int, int], ...]:
    """Read an ACL as (tag, permissions, owner), sorted; only named entries have an owner."""
    body = acl[_ACL_HEADER:]
    found = [_ACL_ENTRY.unpack_from(body, at) for at in range(0, len(body) - len(body) % 8, 8)]
    return tuple(sorted((tag, permissions, owner if tag in _NAMED else 0) for tag, permissions, owner in found))


def _name(item: Item) -> str:
    return _NAMES.get(item.kind, "a socket")


def _seconds(time: int) -> str:
    return f"{time // _SECOND}.{time % _SECOND:09}"
