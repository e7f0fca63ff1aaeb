"""How deletions are written down: ``.wh.`` names in tars and aufs layers, marks on disk in overlay layers.

A dialect is a closed choice from which everything follows: the form of a
whiteout, the form of an opaque directory, and which extended attributes are the
union's own instead of the image's.

Source: OCI image-spec ``layer.md``, heading *Whiteouts*; kernel
``Documentation/filesystems/overlayfs.rst``, headings *whiteouts and opaque
directories* and *Nesting overlayfs mounts*.
"""

import contextlib
import enum
import hashlib
import os
import stat

import attrs

from graphdrivers import errors
from graphdrivers.archive import owners

PREFIX = b".wh."
"""A name that begins with this deletes, in lower layers, what follows it."""

RESERVED_PREFIX = b".wh..wh."
"""Names of aufs' own bookkeeping; none is ever content."""

OPAQUE_NAME = b".wh..wh..opq"
"""Inside a directory: nothing of lower layers shows through it."""

PSEUDO_LINKS = b".wh..wh.plnk"
"""At a layer's root: where aufs keeps one name of each file whose other names it could not link yet."""

LONG_PREFIX = b".wh..wh.long-"
"""Begins the name of the marker that deletes a name too long for ``.wh.`` in front of it; see `whiteout_name`."""

NAME_MAX = 255
"""Longest name in bytes on the file systems of Linux (limits.h)."""

WHITEOUT_DEVICE = os.makedev(0, 0)
"""Overlay's whiteout is a character device of this number."""


class Meaning(enum.Enum):
    """What a member of a layer tar stands for, judged by its name alone."""

    ORDINARY = enum.auto()
    WHITEOUT = enum.auto()
    """Deletes one name of lower layers."""
    OPAQUE = enum.auto()
    """Makes its directory opaque."""
    RESERVED = enum.auto()
    """Bookkeeping of aufs (``.wh..wh.plnk/`` and the like), or content below a marker: not for the tree."""


_ORDINARY = (Meaning.ORDINARY, b"")


def classify(path: bytes) -> tuple[Meaning, bytes]:
    """Say what the member ``path`` of a layer tar means; whatever its type, only the name counts.

    Args:
        path: relative, components separated by single slashes.

    Returns:
        The meaning, and the name that a whiteout deletes (empty otherwise); the
        directory of the deleted name is the directory of ``path``.

    Raises:
        UnsafePath: the whiteout's target is empty, ``.`` or ``..``.
    """
    if PREFIX not in path:
        return _ORDINARY
    *parents, name = path.split(b"/")
    if any(parent.startswith(PREFIX) for parent in parents):
        return Meaning.RESERVED, b""
    if not name.startswith(PREFIX):
        return _ORDINARY
    if name == OPAQUE_NAME:
        return Meaning.OPAQUE, b""
    if name.startswith(RESERVED_PREFIX):
        return Meaning.RESERVED, b""
    target = name[len(PREFIX) :]
    if target in {b"", b".", b".."}:
        # moby 20.10 removed the whole parent directory for ".wh..."
        raise errors.UnsafePath("the whiteout deletes no name but a directory itself", os.fsdecode(path))
    return Meaning.WHITEOUT, target


def whiteout_name(name: bytes) -> bytes:
    """Return the name of the marker file that deletes ``name`` in an aufs branch on disk.

    Names of 252 to 255 bytes have no room for ``.wh.``. The marker of such a
    one is named by its sha256 and holds the name; to other readers of the
    dialect it is bookkeeping of aufs, which they skip.
    """
    if len(name) <= NAME_MAX - len(PREFIX):
        return PREFIX + name
    return LONG_PREFIX + hashlib.sha256(name).hexdigest().encode()


def long_name(marker: bytes, content: bytes) -> bytes | None:
    """Return the name that a marker named ``.wh..wh.long-*`` deletes, or None where its content does not fit it."""
    if whiteout_name(content) != marker or len(content) > NAME_MAX or b"/" in content or b"\0" in content:
        return None
    return content


@attrs.frozen
class Dialect:
    """How one directory tree writes down whiteouts; take one of the constants below."""

    title: str
    """What people call it."""

    marker_names: bool = False
    """Names beginning with ``.wh.`` are marks, never content."""

    namespace: str = ""
    """Prefix of overlay's private xattrs, with its final dot; content of such names is stored escaped."""

    devices: bool = False
    """Overlay's own marks act: a char device 0:0 is a whiteout, private xattrs say what a directory is."""

    records_owners: bool = False
    """Owners and modes that cannot be had are in an xattr of the file; see `graphdrivers.archive.owners`."""

    def is_whiteout(self, status: os.stat_result) -> bool:
        """Say whether this ``lstat`` is that of overlay's whiteout device."""
        return self.devices and stat.S_ISCHR(status.st_mode) and status.st_rdev == WHITEOUT_DEVICE

    def is_marker(self, name: bytes) -> bool:
        """Say whether ``name`` is a mark in this dialect and so never content."""
        return self.marker_names and name.startswith(PREFIX)

    def is_mark(self, name: bytes, status: os.stat_result) -> bool:
        """Say whether an entry, by its name and ``lstat``, is a mark and so never content."""
        return self.is_marker(name) or self.is_whiteout(status)

    def xattr(self, mark: str) -> str:
        """Return the name of overlay's private xattr ``mark`` (``opaque``, ``redirect``, ``metacopy``...)."""
        return self.namespace + mark

    def is_private(self, name: str) -> bool:
        """Say whether this xattr is overlay's own or records an owner, so that the merged view does not show it."""
        if self.records_owners and name == owners.XATTR:
            return True
        if not self.namespace or not name.startswith(self.namespace):
            return False
        return not name.startswith("overlay.", len(self.namespace))

    def escape(self, name: str) -> str:
        """Return the xattr name under which the image's own ``name`` is stored, so that it is content and no mark.

        Overlay shows ``trusted.overlay.overlay.NAME`` as ``trusted.overlay.NAME`` from Linux 6.7 on.
        """
        if self.namespace and name.startswith(self.namespace):
            return f"{self.namespace}overlay.{name[len(self.namespace) :]}"
        return name

    def unescape(self, name: str) -> str:
        """Return the name under which the merged view shows a stored xattr that is not private."""
        if self.namespace and name.startswith(self.namespace):
            return self.namespace + name[len(self.namespace) + len("overlay.") :]
        return name

    def visible(self, stored: dict[str, bytes]) -> dict[str, bytes]:
        """Return stored xattrs as the merged view shows them: private ones left out, escapes undone."""
        if self.records_owners and owners.XATTR in stored:
            stored = {name: value for name, value in stored.items() if name != owners.XATTR}
        if not self.namespace or not any(name.startswith(self.namespace) for name in stored):
            return stored
        return {self.unescape(name): value for name, value in stored.items() if not self.is_private(name)}

    def stored(self, visible: dict[str, bytes]) -> dict[str, bytes]:
        """Return xattrs as they must be written so that the merged view shows ``visible``; inverse of `visible`."""
        if not self.namespace or not any(name.startswith(self.namespace) for name in visible):
            return visible
        return {self.escape(name): value for name, value in visible.items()}

    def write_whiteout(self, directory: int, name: bytes) -> None:
        """Delete ``name`` of lower layers in an open directory; the name must be free.

        Raises:
            OSError: ``EPERM`` where device nodes may not be made, ``EINVAL`` for
                a tree without whiteouts.
        """
        if self.devices:
            os.mknod(name, stat.S_IFCHR, WHITEOUT_DEVICE, dir_fd=directory)
            return
        marker = whiteout_name(name)
        self._write_marker(directory, marker, name if marker.startswith(LONG_PREFIX) else b"")

    def write_opaque(self, directory: int) -> None:
        """Hide everything that lower layers hold in this open directory. Idempotent."""
        if self.devices:
            os.setxattr(directory, self.xattr("opaque"), b"y")
        else:
            self._write_marker(directory, OPAQUE_NAME, b"")

    def _write_marker(self, directory: int, name: bytes, content: bytes) -> None:
        if not self.marker_names:
            raise OSError(22, f"{self.title} has no whiteouts", os.fsdecode(name))
        if content:  # one that was cut short says nothing, and must not stay
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name, dir_fd=directory)
        flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        # 0444 as aufs makes them
        fd = os.open(name, flags, 0o444, dir_fd=directory)
        try:
            if content:
                os.write(fd, content)
        finally:
            os.close(fd)


PLAIN = Dialect("a plain tree")
"""A real tree: nothing is a mark."""

PLAIN_RECORDED = Dialect("a plain tree with recorded owners", records_owners=True)
"""A real tree made by a process that cannot give files away."""

AUFS = Dialect("aufs", marker_names=True)
"""``.wh.`` files on disk: aufs branches, and a layer tar unpacked as it is."""

AUFS_ESCAPED = Dialect("aufs for overlay", marker_names=True, namespace="trusted.overlay.")
"""The same in a directory that an overlay mount is made of: xattrs named as overlay's own are stored escaped."""

AUFS_ESCAPED_USER = Dialect("aufs for overlay with user xattrs", marker_names=True, namespace="user.overlay.")
"""The same for overlays with ``userxattr``."""

PLAIN_ESCAPED = Dialect("aufs for overlay, without whiteouts", namespace="trusted.overlay.")
"""A layer of `AUFS_ESCAPED` that is known to hold no ``.wh.`` names, so that nobody looks for them."""

PLAIN_ESCAPED_USER = Dialect("aufs for overlay with user xattrs, without whiteouts", namespace="user.overlay.")
"""A layer of `AUFS_ESCAPED_USER` that is known to hold no ``.wh.`` names."""

OVERLAY = Dialect("overlay", namespace="trusted.overlay.", devices=True)
"""Kernel overlayfs as root mounts it."""

OVERLAY_USER = Dialect("overlay with user xattrs", namespace="user.overlay.", devices=True)
"""Kernel overlayfs with ``userxattr``, as user namespaces mount it (Linux 5.11 on)."""
