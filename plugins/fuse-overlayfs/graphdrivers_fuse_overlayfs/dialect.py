"""How deletions are written in the layers: what fuse-overlayfs writes into an upper directory, and what stays.

A layer at rest has overlay's form: a character device 0:0 is a whiteout, an
xattr makes a directory opaque (``trusted.overlay.opaque`` as root,
``user.fuseoverlayfs.opaque`` in a user namespace). A mount leaves more in each
directory that it makes: an empty file ``.wh..wh..opq`` and a whiteout named
``.wh..opq``; whiteouts that cannot be devices are ``.wh.`` files. All of it is
read the same way by fuse-overlayfs, whatever layer it is in.

Source: fuse-overlayfs 1.10, main.c (``set_fd_opaque``, ``create_whiteout``, ``can_access_xattr``).
"""

import os
import stat

import attrs

from graphdrivers import errors
from graphdrivers.archive.whiteouts import OPAQUE_NAME, Dialect
from graphdrivers.linux import trees

_HIDDEN = ("trusted.overlay.", "user.overlay.", "user.fuseoverlayfs.")
"""Prefixes of xattrs that no mount shows."""

_ARTEFACT = b".wh..opq"

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@attrs.frozen
class FuseDialect(Dialect):
    """Overlay's dialect, in which the private xattrs of three namespaces are hidden and none can be escaped."""

    def is_private(self, name: str) -> bool:
        """Say whether a mount hides this xattr."""
        return name.startswith(_HIDDEN)

    def escape(self, name: str) -> str:
        """Return the name as it is.

        Raises:
            UnsupportedEntry: no mount would show it.
        """
        if name.startswith(_HIDDEN):
            raise errors.UnsupportedEntry(f"xattr {name!r} is overlay's own, and fuse-overlayfs shows none of those")
        return name

    def visible(self, stored: dict[str, bytes]) -> dict[str, bytes]:
        """Return the xattrs that a mount shows."""
        return {name: value for name, value in stored.items() if not name.startswith(_HIDDEN)}


def at_rest(*, user_xattrs: bool) -> FuseDialect:
    """Give the dialect of a layer that is settled, and in which a tar is unpacked."""
    namespace = "user.fuseoverlayfs." if user_xattrs else "trusted.overlay."
    return FuseDialect("fuse-overlayfs", namespace=namespace, devices=True)


def in_use(resting: FuseDialect) -> FuseDialect:
    """Give the dialect of a layer that may have been mounted since it was settled."""
    return attrs.evolve(resting, title="fuse-overlayfs, mounted", marker_names=True)


def through() -> FuseDialect:
    """Give the dialect of a mount: a real tree, but for the xattrs that it would take and not show."""
    return FuseDialect("fuse-overlayfs, merged")


def tidy(tree: str, resting: FuseDialect) -> None:
    """Remove what a mount leaves beside the marks of a layer at rest; times of directories are kept. Idempotent."""
    root = os.open(tree, _DIRECTORY)
    try:
        with trees.DirStack(root) as stack:
            for inside in stack.visit():
                _tidy_directory(stack.fd, resting)
                with os.scandir(stack.fd) as entries:
                    inside += [os.fsencode(one.name) for one in entries if one.is_dir(follow_symlinks=False)]
    finally:
        os.close(root)


def _tidy_directory(directory: int, resting: FuseDialect) -> None:
    """Remove the two names from a directory that is opaque without them; anywhere else they are not the daemon's."""
    try:
        if os.getxattr(directory, resting.xattr("opaque")) != b"y":
            return
    except OSError:  # it has none
        return
    before = os.fstat(directory)
    removed = False
    for name in (OPAQUE_NAME, _ARTEFACT):
        try:
            found = os.lstat(name, dir_fd=directory)
        except FileNotFoundError:
            continue
        if resting.is_whiteout(found) or (stat.S_ISREG(found.st_mode) and not found.st_size):
            os.unlink(name, dir_fd=directory)
            removed = True
    if removed:
        os.utime(directory, ns=(before.st_atime_ns, before.st_mtime_ns))
