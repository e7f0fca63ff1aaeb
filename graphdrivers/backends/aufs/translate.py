"""One layer's directory between its two forms: at rest ``.wh.`` files, as overlay's upper directory devices and xattrs.

Both directions go through the directory in place, depth first, and are
idempotent at every step: of a marker and the device that means the same, the
new one is made before the old one goes. Times of directories are kept, across a
kill in a private xattr of the directory.

Overlayfs writes whiteouts only where they hide something, but calls any new
directory opaque, so the ancestors are asked about those alone. In the other
direction they are asked about every marker: overlayfs would list a whiteout of
nothing in a directory that it does not merge, and any in or below an opaque one.
"""

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from typing import Self

from graphdrivers.archive.entries import Node
from graphdrivers.archive.plain import EmptyTree
from graphdrivers.archive.search import deleted_by, read_mark
from graphdrivers.archive.union import Union
from graphdrivers.archive.whiteouts import OPAQUE_NAME, PREFIX, Dialect
from graphdrivers.kit import layerdirs
from graphdrivers.linux import trees, xattrs

_TIMES = "graphdrivers.times"
"""Overlay's own to the kernel, so never shown: a directory's times while its entries are changed."""

Lower = Union | EmptyTree
"""What the ancestors of the layer show together."""


def has_marks(diff: str, overlay: Dialect) -> bool:
    """Say whether `to_rest` would make ``.wh.`` files; looks at names and directories only."""
    with _Walk(diff, overlay) as walk:
        for entries in walk.directories():
            if walk.is_opaque() or any(overlay.is_whiteout(status) for _, status in entries):
                return True
    return False


def to_rest(diff: str, lower: Lower, overlay: Dialect, rest: Dialect) -> bool:
    """Turn overlay's marks into ``.wh.`` files; say whether any are there now. Idempotent.

    Every ``.wh.`` name in the layer counts as a marker.
    """
    marked = False
    with _Walk(diff, overlay) as walk:
        for entries in walk.directories():
            changing = walk.is_opaque() or any(overlay.is_whiteout(status) for _, status in entries)
            with walk.times_kept(changing=changing):
                marked |= _directory_to_rest(walk, entries, lower, rest)
    return marked


def strip_root(diff: str, overlay: Dialect) -> None:
    """Do what `to_rest` does, for a layer that holds nothing."""
    with layerdirs.directory(diff) as root:
        for mark in os.listxattr(root):
            if overlay.is_private(mark):
                os.removexattr(root, mark)


def _directory_to_rest(walk: "_Walk", entries: list[tuple[bytes, os.stat_result]], lower: Lower, rest: Dialect) -> bool:
    """Translate one directory; say whether it holds markers now.

    It is not listed again for that: what shows through a descriptor of entries
    made since it was opened is unspecified (POSIX, readdir), and Btrfs leaves them out.
    """
    own, overlay = walk.own.fd, walk.overlay
    opaque = walk.is_opaque()
    marked = any(name.startswith(PREFIX) for name, _ in entries)
    # Also where it hides no directory but a file: aufs would go on looking below that.
    if opaque and _find(lower, walk.own.path()) is not None:
        rest.write_opaque(own)
        marked = True
    for name, status in entries:
        if overlay.is_whiteout(status):
            if not opaque and isinstance(lower, Union):
                rest.write_whiteout(own, name)
                marked = True
            os.unlink(name, dir_fd=own)
        elif not stat.S_ISDIR(status.st_mode):  # a directory is looked at when it is entered
            _strip(own, name, overlay)
    _strip(own, b".", overlay)
    return marked


def to_overlay(diff: str, lower: Lower, overlay: Dialect) -> None:
    """Turn ``.wh.`` files into overlay's marks, and remove bookkeeping of aufs. Idempotent."""
    with _Walk(diff, overlay) as walk:
        for entries in walk.directories():
            markers = [name for name, _ in entries if name.startswith(PREFIX)]
            if markers:
                with walk.times_kept(changing=True):
                    _directory_to_overlay(walk, {name: status.st_mode for name, status in entries}, markers, lower)


def _directory_to_overlay(walk: "_Walk", modes: dict[bytes, int], markers: list[bytes], lower: Lower) -> None:
    own, overlay = walk.own.fd, walk.overlay
    deleted = deleted_by(own, markers)
    if walk.own.depth and walk.is_opaque():
        overlay.write_opaque(own)
        deleted = set()
    elif OPAQUE_NAME in markers:  # overlay knows no opaque root
        deleted = set()
        if isinstance(lower, Union):
            with lower.root() as root:
                deleted = {node.name for node in root.scan()}
    if walk.covered:
        deleted = set()
    for name in deleted:
        if _find(lower, walk.own.path(name)) is None:
            continue
        if name not in modes:
            overlay.write_whiteout(own, name)
        elif stat.S_ISDIR(modes[name]):
            os.setxattr(xattrs.at(own, name), overlay.xattr("opaque"), b"y", follow_symlinks=False)
    for name in markers:
        trees.remove_tree(own, name)


def _find(lower: Lower, path: bytes) -> Node | None:
    """Give what the ancestors show at a path."""
    return lower.find(path) if isinstance(lower, Union) else None


def _strip(directory: int, name: bytes, overlay: Dialect) -> None:
    """Remove overlay's private xattrs from an entry."""
    place = xattrs.at(directory, name)
    for mark in os.listxattr(place, follow_symlinks=name == b"."):
        if overlay.is_private(mark) and mark != overlay.xattr(_TIMES):
            os.removexattr(place, mark, follow_symlinks=name == b".")


@contextlib.contextmanager
def _suppressed(*numbers: int) -> Iterator[None]:
    """Go on behind the block where it fails with one of these errors."""
    try:
        yield
    except OSError as error:
        if error.errno not in numbers:
            raise


class _Walk:
    """Goes through a layer's directories."""

    def __init__(self, diff: str, overlay: Dialect) -> None:
        """Open the layer."""
        self.overlay = overlay
        self.covered = False
        """A directory above the present one is opaque, so nothing of the ancestors shows here either."""
        with layerdirs.directory(diff) as root:
            self.own = trees.DirStack(root)

    def directories(self) -> Iterator[list[tuple[bytes, os.stat_result]]]:
        """Give the entries of each directory, parents first; those that are directories still then are entered."""
        pending: list[list[bytes]] = []
        above: list[bool] = []
        while True:
            with os.scandir(self.own.fd) as found:
                entries = [(os.fsencode(entry.name), entry.stat(follow_symlinks=False)) for entry in found]
            yield entries
            pending.append([name for name, facts in entries if stat.S_ISDIR(facts.st_mode) and name[:4] != PREFIX])
            above.append(self.covered or (bool(pending[-1]) and self.is_opaque()))
            while not pending[-1]:
                pending.pop()
                above.pop()
                if not pending:
                    return
                os.close(self.own.leave())
            self.covered = above[-1]
            self.own.enter(pending[-1].pop())

    def is_opaque(self) -> bool:
        """Say whether nothing of the ancestors shows in the present directory, in either form."""
        if self.own.depth and read_mark(self.own.fd, self.overlay.xattr("opaque")) == b"y":
            return True
        return os.access(OPAQUE_NAME, os.F_OK, dir_fd=self.own.fd, follow_symlinks=False)

    @contextlib.contextmanager
    def times_kept(self, *, changing: bool) -> Iterator[None]:
        """Give the present directory back the times that it has now, or had before a killed process changed it."""
        own, mark = self.own.fd, self.overlay.xattr(_TIMES)
        noted = read_mark(own, mark)
        if noted is None and not changing:
            yield
            return
        if noted is None:
            before = os.fstat(own)
            noted = b"%d %d" % (before.st_atime_ns, before.st_mtime_ns)
            with _suppressed(errno.ENOSPC, errno.E2BIG, errno.ERANGE):  # ext4 has one block for them all
                os.setxattr(own, mark, noted)
        yield
        atime, mtime = noted.split()
        os.utime(own, ns=(int(atime), int(mtime)))
        with _suppressed(errno.ENODATA):
            os.removexattr(own, mark)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.own.close()
