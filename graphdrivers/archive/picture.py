"""What layer tars say, as pictures in memory: one small value per path, contents as checksums.

A layer's tar does not say by itself what the layer holds: names go through
symbolic links of its parents, later members replace earlier ones, directories
that no member names appear, whiteouts act on the parents alone. `expected`
draws what unpacking makes of all that (the rules are those of
`graphdrivers.archive.apply` and `merged`), `produced` what a driver's own diff
lists, which has none of it.
"""

import os
import stat
from typing import BinaryIO, Self

import attrs

from graphdrivers import errors
from graphdrivers.archive import checksums, entries, whiteouts
from graphdrivers.archive.apply import clean
from graphdrivers.archive.entries import Directory, Entry, Node, Tree
from graphdrivers.archive.pathset import PathSet
from graphdrivers.archive.places import join
from graphdrivers.archive.reader import TarReader
from graphdrivers.archive.whiteouts import Meaning
from graphdrivers.model import Limits

_KINDS = {
    stat.S_IFREG: entries.REGULAR,
    stat.S_IFDIR: entries.DIRECTORY,
    stat.S_IFLNK: entries.SYMLINK,
    stat.S_IFCHR: entries.CHARDEV,
    stat.S_IFBLK: entries.BLOCKDEV,
    stat.S_IFIFO: entries.FIFO,
}
_REMEMBERED = 256
_CHUNK = 1 << 20


@attrs.define(eq=False)
class Item:
    """One file (several paths may lead to it), directory, link or device."""

    kind: bytes
    """A type flag of `entries`, never ``HARDLINK``; empty for a socket, which no tar holds."""
    mode: int
    uid: int
    gid: int
    mtime: int
    size: int = 0
    linkname: bytes = b""
    device: tuple[int, int] = (0, 0)
    xattrs: dict[str, bytes] = attrs.field(factory=dict)
    checksum: int | None = 0
    """Of a regular file's content, where it is known."""
    fresh: bool = False
    """Written anew by this layer, so nothing else is another name of it."""


def plain_directory() -> Item:
    """Make the directory that no layer describes, which is also the root of an empty layer."""
    return Item(entries.DIRECTORY, 0o755, 0, 0, 0)


def of_node(node: Node) -> Item:
    """Read an entry of a tree, its content included."""
    status = node.stat
    kind = _KINDS.get(stat.S_IFMT(status.st_mode), b"")
    item = Item(kind, stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid, status.st_mtime_ns)
    item.xattrs = node.xattrs()
    if kind == entries.REGULAR:
        item.size = status.st_size
        item.checksum = _content_of(node)
    elif kind == entries.SYMLINK:
        item.linkname = node.readlink()
    elif kind in {entries.CHARDEV, entries.BLOCKDEV}:
        item.device = os.major(status.st_rdev), os.minor(status.st_rdev)
    return item


class Below:
    """The merged view of a layer's parents, asked path by path; a context manager."""

    def __init__(self, tree: Tree | None) -> None:
        """Look into ``tree``, which stays the caller's; ``None`` for a layer without a parent."""
        self._tree = tree
        self._directories: dict[bytes, Directory | None] = {}

    def find(self, path: bytes) -> Node | None:
        """Return the entry at a real path; usable until the next question."""
        head, _, name = path.rpartition(b"/")
        directory = self._directory(head)
        if directory is None:
            return None
        return directory.lookup(name) if name else directory.node

    def names(self, path: bytes) -> list[bytes]:
        """Return the names in a directory; none where there is no directory."""
        directory = self._directory(path)
        return [] if directory is None else [node.name for node in directory.scan()]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        for directory in self._directories.values():
            if directory is not None:
                directory.close()
        self._directories.clear()

    def _directory(self, path: bytes) -> Directory | None:
        """Open a directory by its real path, beginning at the nearest one that is open."""
        known = self._directories
        start = path
        while start and start not in known:
            start = start.rpartition(b"/")[0]
        if start not in known:
            known[b""] = None if self._tree is None else self._tree.root()
        directory = known[start]
        for name in path[len(start) :].lstrip(b"/").split(b"/") if path != start else ():
            node = None if directory is None else directory.lookup(name)
            is_directory = node is not None and stat.S_ISDIR(node.stat.st_mode)
            directory = directory.enter(node) if directory and node and is_directory else None
            start = join(start, name)
            known[start] = directory
        while len(known) > _REMEMBERED:
            oldest = next(one for one in known if one and one != path)
            gone = known.pop(oldest)
            if gone is not None:
                gone.close()
        return directory


@attrs.define(eq=False)
class Picture:
    """What one layer holds."""

    items: dict[bytes, Item] = attrs.field(factory=dict)
    """By real path; the root is there when something describes it."""
    deleted: set[bytes] = attrs.field(factory=set)
    """Paths of the parents that it deletes; what is below one of them is not named."""

    def deletes(self, path: bytes) -> bool:
        """Say whether a path of the parents is deleted, by itself or with something above it."""
        return path in self.deleted or _is_below(path, self.deleted)


def produced(tar: BinaryIO, limits: Limits = Limits()) -> Picture:
    """Read the tar that a driver gave for a layer, in the full profile.

    Raises:
        ArchiveError: what `TarReader` raises.
        OSError: the stream failed.
    """
    picture = Picture()
    reader = TarReader(tar, limits)
    while (entry := reader.next()) is not None:
        path = clean(entry.name)
        meaning, name = whiteouts.classify(path)
        if meaning is Meaning.WHITEOUT:
            picture.deleted.add(join(path.rpartition(b"/")[0], name))
        elif entry.kind == entries.HARDLINK:
            picture.items[path] = picture.items[clean(entry.linkname)]
        else:
            picture.items[path] = _of_member(entry, reader)
    reader.drain()
    return picture


def expected(tar: BinaryIO, below: Below, limits: Limits = Limits()) -> Picture:
    """Read the tar that a layer was made from, and find out what the layer has to hold.

    Args:
        tar: it was unpacked before, so it is known to be right.
        below: what the layer's parents show.
        limits: those it was unpacked with.

    Raises:
        ArchiveError: what `TarReader` raises.
        OSError: the stream or the parents' tree failed.
    """
    drawing = _Drawing(below)
    reader = TarReader(tar, limits)
    while (entry := reader.next()) is not None:
        drawing.member(entry, reader)
    reader.drain()
    return drawing.finished()


class _Drawing:
    """A layer in the making; the counterpart of `graphdrivers.archive.merged.MergedTree`."""

    def __init__(self, below: Below) -> None:
        self._below = below
        self._items: dict[bytes, Item] = {}
        self._paths = PathSet()  # the same, to find what is below a path
        self._hidden = PathSet()
        self._opaque = PathSet()
        self._implied: set[bytes] = set()

    def member(self, entry: Entry, reader: TarReader) -> None:
        """Take in one member."""
        name = clean(entry.name)
        if not name:
            self._items[b""] = _of_member(entry, reader)
            return
        head, _, base = name.rpartition(b"/")
        meaning, target = whiteouts.classify(name)
        if meaning is Meaning.RESERVED and head == whiteouts.PSEUDO_LINKS and entry.kind == entries.REGULAR:
            meaning = Meaning.ORDINARY
        if meaning is Meaning.WHITEOUT:
            real = self._walk(head, create=False)
            if real is not None:
                self._hidden.add(join(real, target))
        elif meaning is Meaning.OPAQUE:
            self._make_opaque(head)
        elif meaning is Meaning.ORDINARY:
            self._put(join(self._parent(head), base), entry, reader)

    def finished(self) -> Picture:
        """Draw the rest: what implied directories are, and what is deleted."""
        self._clear(whiteouts.PSEUDO_LINKS)
        for path in self._implied:
            if self._gone(path):
                self._items[path] = plain_directory()
        deleted: set[bytes] = set()
        for path in self._hidden:
            self._delete(path, deleted)
        for path in self._opaque:
            if self._stands(path):
                self._delete_below(path, deleted)
        return Picture(self._items, {path for path in deleted if not _is_below(path, deleted)})

    def _put(self, path: bytes, entry: Entry, reader: TarReader) -> None:
        old = self._items.get(path)
        if entry.kind == entries.HARDLINK:
            source = self._source(clean(entry.linkname))
            if source is not old:
                self._clear(path)
                self._add(path, source)
            return
        item = _of_member(entry, reader)
        if item.kind == entries.DIRECTORY:
            self._implied.discard(path)
            if old is not None and old.kind != entries.DIRECTORY:
                self._hidden.add(path)
        else:
            item.fresh = True
            self._clear(path)
        self._add(path, item)

    def _add(self, path: bytes, item: Item) -> None:
        self._items[path] = item
        self._paths.add(path)

    def _clear(self, path: bytes) -> None:
        """Drop what the layer has at and below a path."""
        if path not in self._items:
            return
        for one in [path, *self._paths.below(path)]:
            self._items.pop(one, None)
            self._implied.discard(one)
        self._paths.discard_tree(path)

    def _source(self, literal: bytes) -> Item:
        """Find the file that a hard link means; one of the parents' is copied up."""
        head, _, name = literal.rpartition(b"/")
        real = self._walk(head, create=False)
        path = join(real or b"", name)
        item = self._items.get(path)
        if item is None:
            node = self._lower(path)
            if node is None or real is None:
                raise errors.MalformedArchive(f"hard link to {os.fsdecode(literal)!r}, which does not exist")
            item = of_node(node)
            self._add(join(self._parent(real), name), item)
        return item

    def _make_opaque(self, literal: bytes) -> None:
        real = self._walk(literal, create=False)
        if real is None:  # the directory takes the place of a file, if there is one
            head, _, name = literal.rpartition(b"/")
            above = self._walk(head, create=False)
            if above is None:
                return
            path = join(above, name)
            kind = self._kind(path)
            if not kind or kind == entries.SYMLINK:
                return
            real = self._parent(path)
        self._opaque.add(real)

    def _parent(self, literal: bytes) -> bytes:
        """Resolve a member's directory, making what is missing."""
        if not literal or (literal in self._items and self._items[literal].kind == entries.DIRECTORY):
            return literal
        real = self._walk(literal, create=True)
        if real is None:
            raise AssertionError("a creating walk always arrives")
        return real

    def _walk(self, literal: bytes, *, create: bool) -> bytes | None:
        """Resolve a directory's name as a chroot would; ``None`` where the view has no such directory."""
        todo = literal.split(b"/")[::-1]
        real = b""
        while todo:
            name = todo.pop()
            if name in {b"", b"."}:
                continue
            if name == b"..":
                real = real.rpartition(b"/")[0]
                continue
            path = join(real, name)
            kind = self._kind(path)
            if kind == entries.SYMLINK:
                target = self._linkname(path)
                real = b"" if target.startswith(b"/") else real
                todo.extend(target.split(b"/")[::-1])
                continue
            if create:
                self._make_directory(path)
            elif kind != entries.DIRECTORY:
                return None
            real = path
        return real

    def _make_directory(self, path: bytes) -> None:
        """Make sure that the layer has a directory, as the parents have it or else a plain one."""
        own = self._items.get(path)
        if own is not None:
            if own.kind == entries.DIRECTORY:
                return
            self._clear(path)
            self._hidden.add(path)
        node = self._lower(path)
        if node is not None and stat.S_ISDIR(node.stat.st_mode):
            self._implied.add(path)
            self._add(path, of_node(node))
        else:
            self._add(path, plain_directory())

    def _kind(self, path: bytes) -> bytes:
        """Return the type flag of what the view has at a path, so far; empty for nothing (or a socket)."""
        own = self._items.get(path)
        if own is not None:
            return own.kind
        node = self._lower(path)
        return b"" if node is None else _KINDS.get(stat.S_IFMT(node.stat.st_mode), b"")

    def _linkname(self, path: bytes) -> bytes:
        own = self._items.get(path)
        if own is not None:
            return own.linkname
        node = self._lower(path)
        return b"" if node is None else node.readlink()

    def _lower(self, path: bytes) -> Node | None:
        return None if self._gone(path) else self._below.find(path)

    def _gone(self, path: bytes) -> bool:
        return path in self._hidden or self._hidden.covers(path) or self._opaque.covers(path)

    def _stands(self, path: bytes) -> bool:
        """Say whether nothing in the layer but directories is at or above a path."""
        while path:
            own = self._items.get(path)
            if own is not None and own.kind != entries.DIRECTORY:
                return False
            path = path.rpartition(b"/")[0]
        return True

    def _delete(self, path: bytes, deleted: set[bytes]) -> None:
        """Note what hiding a path deletes: all of it, or where the layer has a directory there, what it lacks."""
        if self._below.find(path) is None or not self._stands(path.rpartition(b"/")[0]):
            return
        if path not in self._items:
            deleted.add(path)
        elif self._items[path].kind == entries.DIRECTORY:
            self._delete_below(path, deleted)

    def _delete_below(self, path: bytes, deleted: set[bytes]) -> None:
        pending = [path]
        while pending:
            directory = pending.pop()
            for name in self._below.names(directory):
                inner = join(directory, name)
                own = self._items.get(inner)
                if own is None:
                    deleted.add(inner)
                elif own.kind == entries.DIRECTORY:
                    pending.append(inner)


def _of_member(entry: Entry, reader: TarReader) -> Item:
    """Take over a member, its content read."""
    checksum = 0
    if entry.kind == entries.REGULAR:
        whole = reader.stored(None)
        pieces = reader.pieces(None) if whole is None else iter([(0, whole)])
        checksum = checksums.of_pieces(pieces, entry.size)
    return Item(
        entry.kind,
        entry.mode,
        entry.uid,
        entry.gid,
        entry.mtime,
        entry.size,
        entry.linkname if entry.kind == entries.SYMLINK else b"",
        entry.device,
        entry.xattrs,
        checksum,
    )


def _content_of(node: Node) -> int:
    fd = node.open()
    try:
        return checksums.of_file(fd)
    finally:
        os.close(fd)


def _is_below(path: bytes, paths: set[bytes]) -> bool:
    above = path.rpartition(b"/")[0]
    while above:
        if above in paths:
            return True
        above = above.rpartition(b"/")[0]
    return False
