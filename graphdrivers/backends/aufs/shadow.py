"""Shadow branches: what makes kernel overlayfs read layers of ``.wh.`` files.

Overlayfs knows nothing of ``.wh.`` files. Two small generated directories tell
it what those of a layer mean:

*above* the layer
    hides the markers themselves: a whiteout (char device 0:0) for each name
    that begins with ``.wh.``. Its directories are on top, so they carry the
    attributes of the layer's own.

*below* the layer, above its parent
    does what the markers say: a whiteout for each deleted name, an opaque
    directory for each opaque one. Below, because the layer's own entry of the
    same name has to win, and because a directory that is opaque above the layer
    would hide the layer's own content.

What is below a layer and what is above its parent are neighbours, so they are
one directory. Both depend on the layer and its ancestors alone, which are
immutable: they are built once, when first needed, and go with the layer.
An opaque root is no matter of a shadow (overlayfs ignores the mark on a root):
the stack ends there.

Source: OCI image-spec ``layer.md``, heading *Whiteouts*; kernel
``Documentation/filesystems/overlayfs.rst``, heading *whiteouts and opaque directories*.
"""

import contextlib
import errno
import functools
import os
import stat
from collections.abc import Callable, Iterator
from typing import Self

from graphdrivers.archive.search import deleted_by, read_mark
from graphdrivers.archive.whiteouts import OPAQUE_NAME, PREFIX, WHITEOUT_DEVICE, Dialect
from graphdrivers.kit import layerdirs
from graphdrivers.linux import durable, trees, xattrs

ABOVE, BELOW = "above", "below"


def above(state: str, diff: str, dialect: Dialect, staging: str) -> None:
    """Build what hides the markers of a sealed layer, unless somebody did meanwhile.

    Args:
        state: the layer's folder of ``state``.
        diff: what the layer holds.
        dialect: of the overlay that will be mounted.
        staging: a folder on the same file system to build in.
    """
    with _building(os.path.join(state, ABOVE), staging) as built:
        _hide(built, diff, dialect)


def below(state: str, diff: str, parent: str | None, dialect: Dialect, staging: str) -> None:
    """Build what carries out the markers of a sealed layer and hides those of its parent; see `above`.

    Args:
        state: the layer's folder of ``state``.
        diff: what the layer holds.
        parent: what its parent holds, where that has markers; else ``None``.
        dialect: of the overlay that will be mounted.
        staging: a folder on the same file system to build in.
    """
    with _building(os.path.join(state, BELOW), staging) as built:
        _carry_out(built, diff, dialect)
        if parent is not None:
            _hide(built, parent, dialect)


def root_is_opaque(diff: str) -> bool:
    """Say whether a layer hides everything below it."""
    return os.path.lexists(os.path.join(os.fsencode(diff), OPAQUE_NAME))


@contextlib.contextmanager
def _building(place: str, staging: str) -> Iterator[str]:
    """Give an empty directory; at the end it is ``place``, unless that is there already."""
    with durable.Staging(staging) as building:
        built = os.path.join(building.path, "shadow")
        os.mkdir(built, 0o700)
        yield built
        with layerdirs.directory(os.path.dirname(place)) as folder:
            try:
                durable.rename_noreplace(building.fd, "shadow", folder, os.path.basename(place))
            except OSError as error:
                if error.errno != errno.EEXIST:
                    raise


def _carry_out(built: str, diff: str, dialect: Dialect) -> None:
    """Write what the markers of a layer mean; nothing below what is hidden already."""
    with _Walk(diff, built) as walk:
        for directories, names in walk.directories():
            if OPAQUE_NAME in names and walk.own.depth:
                walk.catch_up()
                dialect.write_opaque(walk.made.fd)
                directories.clear()
                continue
            deleted = deleted_by(walk.own.fd, names)
            if deleted:
                walk.catch_up()
                directories[:] = [name for name in directories if name not in deleted]
            for name in deleted:
                _whiteout(walk.made.fd, name)


def _hide(built: str, diff: str, dialect: Dialect) -> None:
    """Write whiteouts of a layer's markers, but where the shadow hides everything already."""
    with _Walk(diff, built, functools.partial(_dress, dialect=dialect)) as walk:
        for directories, names in walk.directories():
            if names:
                walk.catch_up()
            for name in names:
                _whiteout(walk.made.fd, name)
            if walk.is_level():
                directories[:] = [name for name in directories if not _is_hidden(walk.made.fd, name, dialect)]


class _Walk:
    """Goes through the directories of a layer, and at its side through those of a shadow as far as they exist."""

    def __init__(self, diff: str, built: str, leaving: Callable[[int, int], None] | None = None) -> None:
        """Open both roots; ``leaving`` is called with the two open directories that are left together."""
        with layerdirs.directory(diff) as root:
            self.own = trees.DirStack(root)
        with layerdirs.directory(built) as root:
            self.made = trees.DirStack(root)
        self._leaving = leaving
        self._names: list[bytes] = []

    def directories(self) -> Iterator[tuple[list[bytes], list[bytes]]]:
        """Give subdirectories and markers of each directory, parents first; what is left in the first is entered."""
        pending: list[list[bytes]] = []
        while True:
            directories, names = _entries(self.own.fd)
            yield directories, names
            pending.append(directories)
            while not pending[-1]:
                pending.pop()
                if not pending:
                    if self._leaving is not None:  # also of an empty shadow: its root is on top
                        self._leaving(self.made.fd, self.own.fd)
                    return
                self._leave()
            self._enter(pending[-1].pop())

    def is_level(self) -> bool:
        """Say whether the present directory has its counterpart in the shadow."""
        return self.made.depth == self.own.depth

    def catch_up(self) -> None:
        """Make the present directory's counterpart, with all above it."""
        for name in self._names[self.made.depth :]:
            os.mkdir(name, 0o755, dir_fd=self.made.fd)
            self.made.enter(name)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.own.close()
        self.made.close()

    def _enter(self, name: bytes) -> None:
        level = self.is_level()
        self.own.enter(name)
        self._names.append(name)
        if level:
            with contextlib.suppress(FileNotFoundError):
                self.made.enter(name)

    def _leave(self) -> None:
        level = self.is_level()
        self._names.pop()
        own = self.own.leave()
        try:
            if level:
                made = self.made.leave()
                try:
                    if self._leaving is not None:
                        self._leaving(made, own)
                finally:
                    os.close(made)
        finally:
            os.close(own)


def _entries(directory: int) -> tuple[list[bytes], list[bytes]]:
    """Give the subdirectories and the ``.wh.`` names of a directory; a directory of such a name is a marker."""
    directories, names = [], []
    with os.scandir(directory) as entries:
        for entry in entries:
            name = os.fsencode(entry.name)
            if name.startswith(PREFIX):
                names.append(name)
            elif entry.is_dir(follow_symlinks=False):
                directories.append(name)
    return directories, names


def _whiteout(directory: int, name: bytes) -> None:
    os.mknod(name, stat.S_IFCHR, WHITEOUT_DEVICE, dir_fd=directory)


def _is_hidden(directory: int, name: bytes, dialect: Dialect) -> bool:
    """Say whether the shadow hides what lies below it at a name."""
    try:
        facts = os.lstat(name, dir_fd=directory)
    except FileNotFoundError:
        return False
    if not stat.S_ISDIR(facts.st_mode):
        return True
    return read_mark(xattrs.at(directory, name), dialect.xattr("opaque")) == b"y"


def _dress(place: int, own: int, *, dialect: Dialect) -> None:
    """Give a directory of the shadow the attributes that the layer's own has."""
    facts = os.fstat(own)
    os.fchown(place, facts.st_uid, facts.st_gid)
    for name in os.listxattr(own):
        if not dialect.is_private(name):
            os.setxattr(place, name, os.getxattr(own, name))
    os.fchmod(place, stat.S_IMODE(facts.st_mode))
    os.utime(place, ns=(facts.st_atime_ns, facts.st_mtime_ns))
