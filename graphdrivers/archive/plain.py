"""Real directories, and nothing at all, as trees to compare and to read."""

import errno
import os
import stat
import sys
from operator import attrgetter
from typing import Self

from graphdrivers.archive import owners
from graphdrivers.archive.entries import Directory, Node
from graphdrivers.archive.handles import Handle, Handles
from graphdrivers.linux import xattrs

by_name = attrgetter("name")
"""Sort key of nodes: their name's bytes."""

_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
"""Not blocking: what was a file when it was looked at may be a FIFO by now."""


class PlainNode:
    """One entry of a real directory (`graphdrivers.archive.entries.Node`)."""

    __slots__ = ("_parent", "bare", "inside", "listed", "name", "stat")

    def __init__(self, name: bytes, status: os.stat_result, parent: Handle) -> None:
        """Describe ``name`` in ``parent``; the empty name is the directory ``parent`` itself."""
        self.name = name
        self.stat = status
        self._parent = parent
        self.inside: Handle | None = None
        """The directory that it is, once it was entered: asking an open one takes a fraction of asking by name."""
        self.listed: list[str] | None = None
        """Names of its xattrs, where they were listed already."""
        self.bare = False
        """Known to have no xattrs: found out by `open`, at a quarter of the price of asking by name."""

    def xattrs(self) -> dict[str, bytes]:
        """Return all xattrs, as stored."""
        if self.bare:
            return {}
        return xattrs.read_all(self.where(), None, self.listed)

    def where(self) -> int | bytes:
        """Give a descriptor, or a path for calls that know no ``dir_fd``.

        It holds until another directory of the tree is used.
        """
        if self.inside is not None:
            return self.inside.fd()
        return xattrs.at(self._parent.fd(), self.name or b".")

    def readlink(self) -> bytes:
        """Return the target of a symbolic link."""
        return os.readlink(self.name, dir_fd=self._parent.fd())

    def open(self) -> int:
        """Open a regular file for reading; the caller closes the descriptor."""
        fd = os.open(self.name, _FLAGS, dir_fd=self._parent.fd())
        try:
            self.listed = os.listxattr(fd)
            self.bare = not self.listed
        except OSError as error:
            self.bare = error.errno == errno.ENOTSUP
        return fd


class RecordedNode(PlainNode):
    """One entry of a real directory, with the owner and mode recorded for it."""

    __slots__ = ()

    def __init__(self, name: bytes, status: os.stat_result, parent: Handle) -> None:
        """Describe ``name`` in ``parent``; ``status`` is its real one."""
        super().__init__(name, owners.look(parent.fd(), name, status), parent)

    def xattrs(self) -> dict[str, bytes]:
        """Return all xattrs but the record."""
        found = super().xattrs()
        found.pop(owners.XATTR, None)
        return found


def read_directory(handle: Handle) -> list[tuple[bytes, os.stat_result]]:
    """Return names and ``lstat`` of what a directory holds, in no order; what vanishes meanwhile is left out."""
    encoding, errors = sys.getfilesystemencoding(), sys.getfilesystemencodeerrors()  # as os.fsencode has it
    with os.scandir(handle.fd()) as entries:
        try:
            return [(one.name.encode(encoding, errors), one.stat(follow_symlinks=False)) for one in entries]
        except FileNotFoundError:
            pass
    found = []
    for name in os.listdir(handle.fd()):
        try:
            found.append((os.fsencode(name), os.stat(name, dir_fd=handle.fd(), follow_symlinks=False)))
        except FileNotFoundError:
            continue
    return found


class PlainDirectory:
    """An open real directory (`graphdrivers.archive.entries.Directory`)."""

    __slots__ = ("_handle", "_kind", "node")

    def __init__(self, node: Node, handle: Handle, kind: type[PlainNode] = PlainNode) -> None:
        """Show the directory behind ``handle``, which is described by ``node``; entries become nodes of a ``kind``."""
        self.node = node
        self._handle = handle
        self._kind = kind

    def scan(self) -> list[Node]:
        """Return what it holds, sorted by name bytes."""
        handle, kind = self._handle, self._kind
        nodes: list[Node] = [kind(name, status, handle) for name, status in read_directory(handle)]
        nodes.sort(key=by_name)
        return nodes

    def lookup(self, name: bytes) -> Node | None:
        """Return one entry without scanning."""
        status = self._handle.lstat(name)
        return None if status is None else self._kind(name, status, self._handle)

    def enter(self, node: Node) -> Directory:
        """Open an entry that is a directory; refuses a symbolic link put in its place meanwhile."""
        inside = self._handle.child(node.name)
        if isinstance(node, PlainNode):
            node.inside = inside
        return PlainDirectory(node, inside, self._kind)

    def close(self) -> None:
        """Release the descriptor. Idempotent."""
        self._handle.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class PlainTree:
    """A real directory tree, read as it is (`graphdrivers.archive.entries.Tree`).

    It holds a bounded number of descriptors however deep the tree is. Not safe
    for use by several threads at once.
    """

    def __init__(self, root_fd: int, *, recorded: bool = False) -> None:
        """Read below ``root_fd``, which the caller keeps open (and closes).

        Args:
            root_fd: the root directory.
            recorded: show owners and modes as recorded (`graphdrivers.archive.owners`).
        """
        self._kind = RecordedNode if recorded else PlainNode
        self._handles = Handles()
        self._root = self._handles.root(root_fd)

    def root(self) -> Directory:
        """Open the root directory."""
        node = self._kind(b"", os.fstat(self._root.fd()), self._root)
        return PlainDirectory(node, self._root, self._kind)

    def close(self) -> None:
        """Release every descriptor but the caller's. Idempotent."""
        self._handles.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


_EMPTY_ROOT = os.stat_result((stat.S_IFDIR | 0o755, 0, 0, 2, 0, 0, 0, 0, 0, 0), {"st_mtime_ns": 0, "st_ctime_ns": 0})


class EmptyTree:
    """What a layer without a parent is compared with: a root 0755, 0:0, times 0, holding nothing."""

    def root(self) -> Directory:
        """Open the root directory, which costs no descriptor."""
        return _EmptyDirectory()


class _EmptyNode:
    name = b""
    stat = _EMPTY_ROOT

    def xattrs(self) -> dict[str, bytes]:
        return {}

    def readlink(self) -> bytes:
        raise OSError(22, "a directory is no symbolic link")

    def open(self) -> int:
        raise IsADirectoryError(21, "a directory cannot be read as a file")


class _EmptyDirectory:
    node: Node = _EmptyNode()

    def scan(self) -> list[Node]:
        return []

    def lookup(self, name: bytes) -> Node | None:  # noqa: ARG002 -- whatever the name, it is not here
        return None

    def enter(self, node: Node) -> Directory:
        raise FileNotFoundError(2, "an empty tree has no directories", os.fsdecode(node.name))

    def close(self) -> None: ...

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None: ...
