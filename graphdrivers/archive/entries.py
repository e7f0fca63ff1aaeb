"""What a tar member is, and what a tree on disk looks like to the code that compares and writes trees.

Bytes below this floor: names, paths and link targets are ``bytes``; xattr names
are ``str`` (``surrogateescape``), as the standard library has them.
"""

import os
from typing import Protocol, Self

import attrs

from graphdrivers.model import ChangeKind

BLOCK = 512
"""Bytes in one tar block."""

REGULAR, HARDLINK, SYMLINK, CHARDEV, BLOCKDEV, DIRECTORY, FIFO = b"0", b"1", b"2", b"3", b"4", b"5", b"6"
"""Type flags of ustar (POSIX.1-2017, *pax*, heading *ustar Interchange Format*)."""


@attrs.define(eq=False)
class Entry:
    """One tar member as its headers describe it, extension headers merged in.

    ``name`` and ``linkname`` are as written in the tar, not normalised.
    """

    name: bytes
    kind: bytes
    """One of the type flags above; old and contiguous files are ``REGULAR``."""
    mode: int
    """Permission bits, 0 to 0o7777."""
    uid: int
    gid: int
    size: int
    """Bytes of the file once unpacked, holes counted; 0 for everything but regular files."""
    mtime: int
    """ns since the epoch; may be negative."""
    linkname: bytes
    device: tuple[int, int]
    """Major and minor number."""
    xattrs: dict[str, bytes]
    """Decoded ``SCHILY.xattr.*`` (and ``LIBARCHIVE.xattr.*``) records; do not change it: it may be shared."""
    sparse: tuple[tuple[int, int], ...] | None
    """Data regions (offset, length) in file order, or ``None`` for a file without holes."""
    offset: int
    """Byte offset in the tar of the member's first header block (extension headers included)."""


class Node(Protocol):
    """One entry of a tree; usable until its directory is closed."""

    @property
    def name(self) -> bytes:
        """Name in its directory; empty for the root."""

    @property
    def stat(self) -> os.stat_result:
        """Its ``lstat``, as the merged view shows it."""

    def xattrs(self) -> dict[str, bytes]:
        """All xattrs as the merged view shows them: private marks left out, escapes undone."""

    def readlink(self) -> bytes:
        """Target of a symbolic link."""

    def open(self) -> int:
        """Open a regular file for reading; the caller closes the descriptor."""


class Directory(Protocol):
    """An open directory of a tree; `close` when done (a context manager too)."""

    @property
    def node(self) -> Node:
        """The directory's own attributes."""

    def scan(self) -> list[Node]:
        """Visible entries, sorted by name bytes."""

    def lookup(self, name: bytes) -> Node | None:
        """One visible entry, without scanning."""

    def enter(self, node: Node) -> "Directory":
        """Open an entry of this directory that is itself a directory."""

    def close(self) -> None:
        """Release the descriptors. Idempotent."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *exc: object) -> None: ...


class Tree(Protocol):
    """A whole tree to walk."""

    def root(self) -> Directory:
        """Open the root directory; the caller closes it."""


@attrs.define(eq=False)
class Difference:
    """One path that differs between two trees, with the nodes on both sides.

    The nodes are usable only until the next difference is asked for.
    """

    path: bytes
    """Relative, without a leading slash; empty for the root."""
    kind: ChangeKind
    upper: Node | None
    """The new state; ``None`` where deleted."""
    lower: Node | None
    """The old state; ``None`` where added."""
    listed: bool = True
    """False for what a tar needs though it did not change itself: a directory above
    a change, unchanged names of a file whose other names changed; and for the root."""
