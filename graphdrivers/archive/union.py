"""The union rule without a mount: what a stack of layers shows, as kernel overlayfs would show it.

This is the reference for what every driver's merged tree must be, and what
answers questions about parents while a layer is written or compared.

Source: kernel ``Documentation/filesystems/overlayfs.rst``; OCI image-spec
``layer.md``, heading *Applying Changesets*.
"""

import errno
import os
import stat
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from operator import itemgetter
from typing import Self

import attrs

from graphdrivers.archive import owners
from graphdrivers.archive.entries import Node
from graphdrivers.archive.handles import OPEN_LIMIT, Handles
from graphdrivers.archive.plain import PlainNode, by_name, read_directory
from graphdrivers.archive.search import Hit, Layer, Search, deleted_by, read_mark
from graphdrivers.archive.whiteouts import PREFIX, Dialect
from graphdrivers.linux import xattrs

_FORMAT = stat.S_IFMT(0o777777)
_first = itemgetter(0)

_REMEMBERED = 512
"""Merged directories that a union keeps for `Union.directory`."""


@attrs.frozen(eq=False)
class Branch:
    """One layer's directory, as a part of a union."""

    directory: int | str | bytes
    """A path, or a descriptor that stays open (and the caller's) as long as the union is used."""

    dialect: Dialect


class Union:
    """The merged view of layers, top first (`graphdrivers.archive.entries.Tree`); a context manager.

    Looking a name up costs one ``lstat`` per layer that has its directory, and
    not even that below the layer that decides. Descriptors are bounded
    (`graphdrivers.archive.handles`). The layers must not change while a union
    of them is used. Not safe for use by several threads at once.
    """

    def __init__(self, branches: Sequence[Branch], *, own: int = 1, open_limit: int = OPEN_LIMIT) -> None:
        """Merge ``branches``, at least one; each is opened when first looked into.

        Args:
            branches: top first.
            own: how many of them, from the top, `UnionDirectory.own` is about.
            open_limit: directories that are kept open.
        """
        self.branches = tuple(branches)
        self.own = own
        self._handles = Handles(open_limit)
        self._stack: list[Layer] | None = None
        self._directories: dict[bytes, UnionDirectory | None] = {}

    def roots(self) -> list[Layer]:
        """Return the roots that show through: a ``.wh.`` root may be opaque, one of overlay never is."""
        if self._stack is None:
            stack: list[Layer] = []
            for index, branch in enumerate(self.branches):
                stack.append(Layer(index, self._handles.root(branch.directory), branch.dialect))
                if stack[-1].is_opaque_root():
                    break
            self._stack = stack
        return self._stack

    def root(self) -> "UnionDirectory":
        """Open the root directory."""
        stack = self.roots()
        top = stack[0]
        node = UnionNode(b"", _shown(top, b"", os.fstat(top.handle.fd())), top, None)
        in_place = len(stack) > self.own or len(self.branches) == self.own
        directory = UnionDirectory(self, node, stack[: self.own], in_place=in_place)
        directory.known = stack
        return directory

    def directory(self, path: bytes) -> "UnionDirectory | None":
        """Return the merged directory at ``path``, or None where there is none.

        The most recently used ones are kept; closing the result releases its
        descriptors, and using it again opens them again.

        Args:
            path: relative, taken literally: a symbolic link on the way is no
                directory. Empty for the root.

        Raises:
            OSError: ``EINVAL`` for a redirect that could lead out of its layer.
        """
        known = self._directories
        if path in known:
            known[path] = known.pop(path)
            return known[path]
        start = path
        while start and start not in known:
            start = start.rpartition(b"/")[0]
        directory = known[start] if start in known else self._remember(b"", self.root())
        length = len(start)
        for name in path[length:].lstrip(b"/").split(b"/") if path != start else ():
            directory = _subdirectory(directory, name)
            length += len(name) + bool(length)
            self._remember(path[:length], directory)
        return directory

    def find(self, path: bytes) -> Node | None:
        """Return the entry at ``path`` (literal, as for `directory`), or None where there is none."""
        parent, _, name = path.rpartition(b"/")
        directory = self.directory(parent)
        if directory is None:
            return None
        return directory.lookup(name) if name else directory.node

    def close(self) -> None:
        """Release every descriptor. Idempotent."""
        self._directories.clear()
        self._handles.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _remember(self, path: bytes, directory: "UnionDirectory | None") -> "UnionDirectory | None":
        while len(self._directories) >= _REMEMBERED:
            oldest = next(iter(self._directories))
            del self._directories[oldest]
        self._directories[path] = directory
        return directory


class LateUnion(Union):
    """A union of branches that are asked for when it is first looked into: they may still be in the making."""

    def __init__(self, ask: Callable[[], Sequence[Branch]]) -> None:
        """Call ``ask`` for the branches, top first, at most once; what it raises comes out of the first look."""
        super().__init__(())
        self._ask = ask

    def roots(self) -> list[Layer]:
        """Ask for the branches, and return their roots; see `Union.roots`."""
        if self._stack is None:
            self.branches = tuple(self._ask())
        return super().roots()


class UnionNode(PlainNode):
    """One visible entry; its attributes are those of the topmost layer that has it."""

    __slots__ = ("directory", "layer")

    def __init__(
        self, name: bytes, status: os.stat_result, layer: Layer, directory: "UnionDirectory | None", /
    ) -> None:
        """Describe ``name`` as ``layer`` of the merged ``directory`` has it."""
        self.name = name  # what the class above does, at half the price: there is one for each entry that is read
        self.stat = status
        self._parent = layer.handle
        self.bare = False
        self.inside = None
        self.listed = None
        self.layer = layer
        self.directory = directory

    def xattrs(self) -> dict[str, bytes]:
        """Return the xattrs that the merged view shows: private marks left out, escapes undone."""
        if self.bare:
            return {}
        dialect = self.layer.dialect
        if self.listed is not None and all(map(dialect.is_private, self.listed)):
            return {}
        found = xattrs.read_all(self.where(), dialect.is_private, self.listed)
        return dialect.visible(found) if found else found

    def open(self) -> int:
        """Open a regular file for reading, wherever its content is; the caller closes the descriptor.

        Raises:
            OSError: ``EIO`` when a copy of metadata has no content below it.
        """
        fd = super().open()
        dialect = self.layer.dialect
        if self.bare or not dialect.devices:
            return fd
        mark = dialect.xattr("metacopy")
        try:
            if (self.listed is not None and mark not in self.listed) or read_mark(fd, mark) is None:
                return fd
        except OSError:
            os.close(fd)
            raise
        os.close(fd)
        return self._open_data()

    def _open_data(self) -> int:
        hits = [] if self.directory is None else self.directory.data_of(self)
        if not hits:
            raise OSError(errno.EIO, "no layer has the content of this file", os.fsdecode(self.name))
        return PlainNode(hits[-1].name, hits[-1].status, hits[-1].layer.handle).open()


class UnionDirectory:
    """An open merged directory (`graphdrivers.archive.entries.Directory`).

    Its lower parts are looked for when they are first needed.
    """

    __slots__ = ("_own", "_union", "in_place", "known", "node", "unknown")

    def __init__(self, union: Union, node: UnionNode, own: list[Layer], *, in_place: bool) -> None:
        """Show ``own``, top first, and what is merged with it: either ``known`` or ``unknown`` is set next."""
        self.node: Node = node
        self.in_place = in_place
        """What shows below the own branches is just what the other branches alone show at this path."""
        self.known: list[Layer] = []
        """What is merged here, top first, once it was looked for."""
        self.unknown: tuple[Search, UnionDirectory] | None = None
        """Until then: how to go on looking, in which directory."""
        self._union = union
        self._own = own
        """Directories of the union's own branches; the topmost one of any branch where none of them has it."""

    def stack(self) -> list[Layer]:
        """Return the directories that are merged here, top first."""
        if self.unknown is None:
            return self.known
        waiting = [self]
        while (unknown := waiting[-1].unknown) is not None:
            waiting.append(unknown[1])
        for directory in reversed(waiting[:-1]):
            directory.look()
        return self.known

    def look(self) -> None:
        """Find what is merged here; the parent's own parts are known."""
        if self.unknown is not None:
            search, parent = self.unknown
            below = max(self._own[0].index, self._union.own - 1)
            self.known = [*self._own, *_directories(search.rest(parent.known, below))]
            self.unknown = None

    def data_of(self, node: UnionNode) -> list[Hit]:
        """Return where the content of a metadata-only copy may be, the last one having it; empty where nothing has."""
        search = Search(self._union.roots(), node.name)
        search.skip(node.layer)
        hits = search.rest(self.stack(), node.layer.index)
        return [] if search.lacks_data else hits

    def scan(self) -> list[Node]:
        """Return visible entries, sorted by name bytes."""
        nodes = [node for _, node in self._said(self.stack()) if node is not None]
        nodes.sort(key=by_name)
        return nodes

    def own(self) -> list[tuple[bytes, Node | None]]:
        """Return what the own branches say here, sorted by name: entries, and None for deleted names."""
        return sorted(self._said(self._own), key=_first)  # at most one of each name: no nodes are compared

    def lookup(self, name: bytes) -> Node | None:
        """Return one visible entry without scanning."""
        for layer in self.known if self.unknown is None else self.stack():
            marker = layer.dialect.marker_names and name.startswith(PREFIX)
            status = None if marker else layer.handle.lstat(name)
            if status is not None:
                if layer.is_whiteout(name, status):
                    return None
                return UnionNode(name, _shown(layer, name, status), layer, self)
            if layer.hides(name):
                return None
        return None

    def enter(self, node: Node) -> "UnionDirectory":
        """Open an entry of this directory that is itself a directory.

        Raises:
            TypeError: the node is not one of this tree's.
            OSError: ``EINVAL`` for a redirect that could lead out of its layer.
        """
        if not isinstance(node, UnionNode):
            raise TypeError(f"{node!r} is no node of a union")
        roots, count, index = self._union.roots(), self._union.own, node.layer.index
        if index == roots[-1].index:  # nothing is below, so its marks mean nothing
            top = Layer(index, node.layer.handle.later(node.name), node.layer.dialect)
            node.inside = top.handle
            inner = UnionDirectory(self._union, node, [top], in_place=self.in_place and index < count)
            inner.known = [top]
            return inner
        search = Search(roots, node.name)
        top = search.enter(node.layer)
        node.inside, node.listed = top.handle, top.names
        own = [top]
        if index < count - 1:
            own += _directories(search.rest(self._own, index, count))
        in_place = self.in_place and index < count and not search.stopped and search.name == node.name
        inner = UnionDirectory(self._union, node, own, in_place=in_place)
        if search.stopped:
            inner.known = own
        else:
            inner.unknown = (search, self)
        return inner

    def close(self) -> None:
        """Release the descriptors. Idempotent."""
        for layer in self.known or self._own:
            layer.handle.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _said(self, stack: Sequence[Layer]) -> list[tuple[bytes, Node | None]]:
        """Return what the topmost of several layers that says something about a name says."""
        if len(stack) == 1:
            return self._entries(stack[0], frozenset())
        said: list[tuple[bytes, Node | None]] = []
        decided: set[bytes] = set()
        for layer in stack:
            found = self._entries(layer, decided)
            decided.update(name for name, _ in found)
            said += found
        return said

    def _entries(self, layer: Layer, decided: AbstractSet[bytes]) -> list[tuple[bytes, Node | None]]:
        """Return what one layer says about names that no layer above it has ``decided``."""
        found: list[tuple[bytes, Node | None]] = []
        markers = []
        marks = layer.dialect.devices
        regular = stat.S_IFREG
        marker_names = layer.dialect.marker_names
        listed = read_directory(layer.handle)
        if layer.dialect.records_owners:
            listed = [(name, _shown(layer, name, status)) for name, status in listed]
        for name, status in listed:
            if marker_names and name.startswith(PREFIX):
                markers.append(name)
            elif name not in decided:
                content = not marks or (status.st_size and status.st_mode & _FORMAT == regular)  # as most entries are
                shown = content or not layer.is_whiteout(name, status)
                found.append((name, UnionNode(name, status, layer, self) if shown else None))
        if markers:
            present = {name for name, _ in found}
            found.extend((name, None) for name in deleted_by(layer.handle.fd(), markers) - present - decided)
        return found


def _shown(layer: Layer, name: bytes, status: os.stat_result) -> os.stat_result:
    """Return an ``lstat`` as the layer records it, where it does."""
    return owners.look(layer.handle.fd(), name, status) if layer.dialect.records_owners else status


def _directories(hits: Sequence[Hit]) -> list[Layer]:
    return [hit.directory for hit in hits if hit.directory is not None]


def _subdirectory(directory: UnionDirectory | None, name: bytes) -> UnionDirectory | None:
    node = None if directory is None else directory.lookup(name)
    if directory is None or node is None or not stat.S_ISDIR(node.stat.st_mode):
        return None
    return directory.enter(node)
