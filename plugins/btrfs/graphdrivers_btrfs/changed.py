"""Which entries of a snapshot can differ from the tree that it was made of, without walking the two.

The kernel leaves out the blocks of a subvolume's tree that are older than the
snapshot. In the others are all inodes that were changed since: whatever touches a
file, its attributes or its names updates its inode, and so does what is made or
deleted in a directory. From these inodes their names lead up to the root.

One thing is told by no inode: a directory that was moved takes along files which
are as they were, and of which other names, elsewhere, belong into a diff. Those
below moved directories are searched for.
"""

import os
import stat
import struct
from collections.abc import Iterator

from graphdrivers.archive.compare import Pair, every_pair
from graphdrivers.archive.entries import Directory, Node
from graphdrivers_btrfs import ioctls
from graphdrivers_btrfs.ioctls import DIR_INDEX, INODE_EXTREF, INODE_ITEM, INODE_REF, Key

_INODE = struct.Struct("<8xQ24xI8xI")
"""Of ``struct btrfs_inode_item``: the last transaction, the number of names, the mode."""
_REF = struct.Struct("<QH")
_EXTREF = struct.Struct("<QQH")
_ENTRY = struct.Struct("<QBQQHHB")
"""``struct btrfs_dir_item``: what it leads to (a key), transaction, lengths of value and name, kind."""
_LAST_INODE = (1 << 64) - 257

_Name = tuple[int, bytes]
"""Inode number of a directory, and a name in it."""
_Target = tuple[int, int]
"""Number and key type of what a name leads to: an inode, or the root of a subvolume."""


class Changes:
    """The names that lead to inodes newer than a transaction, or are gone since."""

    def __init__(self, lower: int, upper: int, since: int) -> None:
        """Search a snapshot, open as ``upper``; it was ``lower``, which has not changed, when ``since`` ended.

        Raises:
            OSError: ``EPERM`` without ``CAP_SYS_ADMIN`` in the initial user namespace.
        """
        self._lower = _Subvolume(lower)
        self._upper = _Subvolume(upper)
        self._leading: dict[int, set[bytes]] = {}
        ioctls.sync(upper)
        for inode, found in self._upper.newer(since):
            self._lead_to(found.names or self._upper.names(inode))
            if stat.S_ISDIR(found.mode):
                self._compare_directory(inode)

    def pairs(self, lower: Directory | None, upper: Directory) -> list[Pair]:
        """Give the entries of one directory that may differ; see `graphdrivers.archive.compare.Lister`."""
        if lower is None or not self._is_one(lower.node, upper.node):
            return every_pair(lower, upper)
        names = sorted(self._leading.get(upper.node.stat.st_ino, ()))
        found = [(lower.lookup(name), upper.lookup(name)) for name in names]
        deletions: list[Pair] = [(old, new) for old, new in found if new is None and old is not None]
        return deletions + [(old, new) for old, new in found if new is not None]

    def _is_one(self, lower: Node, upper: Node) -> bool:
        """Say whether two directories are one inode in both subvolumes."""
        old, new = lower.stat, upper.stat
        devices = (old.st_dev, new.st_dev) == (self._lower.device, self._upper.device)
        return devices and old.st_ino == new.st_ino != ioctls.STUB_INODE

    def _compare_directory(self, directory: int) -> None:
        """Remember which of its names came or went, and what it took along where it was moved."""
        before = self._lower.names(directory)
        if not before and directory != ioctls.FIRST_INODE:
            return  # it is new, and looked at whole
        old, new = self._lower.entries(directory), self._upper.entries(directory)
        self._lead_to([(directory, name) for name, target in old.items() if new.get(name) != target])
        self._lead_to([(directory, name) for name in new if name not in old])
        if before != self._upper.names(directory):
            for inode in self._linked_below(directory):
                self._lead_to(self._upper.names(inode))

    def _linked_below(self, directory: int) -> Iterator[int]:
        """Give the files below a directory that have several names."""
        pending = [directory]
        while pending:
            for inode, kind in self._upper.entries(pending.pop()).values():
                found = self._upper.inode(inode) if kind == INODE_ITEM else None
                if found is not None and stat.S_ISDIR(found.mode):
                    pending.append(inode)
                elif found is not None and found.links > 1:
                    yield inode

    def _lead_to(self, names: list[_Name]) -> None:
        """Remember names, and those of the directories above, up to the root."""
        pending = list(names)
        while pending:
            directory, name = pending.pop()
            known = self._leading.get(directory)
            if known is None:
                known = self._leading[directory] = set()
                pending += self._upper.names(directory)
            known.add(name)


class _Inode:
    """What an inode's own item says, and its names, where they were found all."""

    __slots__ = ("links", "mode", "names")

    def __init__(self, links: int, mode: int) -> None:
        self.links = links
        self.mode = mode
        self.names: list[_Name] = []


class _Subvolume:
    """The items of one subvolume's tree."""

    def __init__(self, root: int) -> None:
        described = ioctls.describe(root)
        self._root = root
        self._tree = described.number
        self.device = os.fstat(root).st_dev

    def newer(self, since: int) -> Iterator[tuple[int, _Inode]]:
        """Give the inodes that a later transaction changed; ``names`` is empty where not all are in newer blocks."""
        first, last = Key(ioctls.FIRST_INODE, 0, 0), Key(_LAST_INODE, 255, ioctls.LAST.offset)
        number, found = 0, None
        for key, content in ioctls.search(self._root, self._tree, first, last, since):
            if key.type == INODE_ITEM:
                if found is not None:
                    yield number, _with_all_names(found)
                transaction, links, mode = _INODE.unpack_from(content)
                number, found = key.objectid, _Inode(links, mode) if transaction > since else None
            elif found is not None and key.objectid == number and key.type in {INODE_REF, INODE_EXTREF}:
                found.names += _names(key, content)
        if found is not None:
            yield number, _with_all_names(found)

    def inode(self, number: int) -> _Inode | None:
        """Give one inode."""
        key = Key(number, INODE_ITEM, 0)
        for _, content in ioctls.search(self._root, self._tree, key, key):
            _, links, mode = _INODE.unpack_from(content)
            return _Inode(links, mode)
        return None

    def names(self, inode: int) -> list[_Name]:
        """Give all names of an inode; none where it does not exist."""
        first, last = Key(inode, INODE_REF, 0), Key(inode, INODE_EXTREF, ioctls.LAST.offset)
        found: list[_Name] = []
        for key, content in ioctls.search(self._root, self._tree, first, last):
            found += _names(key, content)
        return found

    def entries(self, directory: int) -> dict[bytes, _Target]:
        """Give what is in a directory; nothing where it does not exist."""
        first, last = Key(directory, DIR_INDEX, 0), Key(directory, DIR_INDEX, ioctls.LAST.offset)
        found = {}
        for _, content in ioctls.search(self._root, self._tree, first, last):
            number, kind, _, _, _, length, _ = _ENTRY.unpack_from(content)
            found[bytes(content[_ENTRY.size : _ENTRY.size + length])] = (number, kind)
        return found


def _with_all_names(found: _Inode) -> _Inode:
    if len(found.names) != found.links:
        found.names = []
    return found


def _names(key: Key, content: memoryview) -> Iterator[_Name]:
    """Give the names in one item; that of the root, ``..`` in itself, is none."""
    place = len(content) if key.objectid == ioctls.FIRST_INODE else 0
    while place < len(content):
        if key.type == INODE_REF:
            parent, (_, length) = key.offset, _REF.unpack_from(content, place)
            place += _REF.size
        else:
            parent, _, length = _EXTREF.unpack_from(content, place)
            place += _EXTREF.size
        yield parent, bytes(content[place : place + length])
        place += length
