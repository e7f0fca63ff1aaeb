"""How one name is followed down a stack of layers, as kernel overlayfs does it.

Source: ``fs/overlayfs/namei.c`` (``ovl_lookup``, ``ovl_lookup_single``,
``ovl_check_redirect``); kernel ``Documentation/filesystems/overlayfs.rst``,
headings *redirect_dir*, *Metadata only copy up* and *whiteouts and opaque
directories*. The ``.wh.`` dialect follows OCI image-spec ``layer.md``.
"""

import errno
import os
import stat
from collections.abc import Iterable, Sequence

from graphdrivers.archive.handles import Handle
from graphdrivers.archive.whiteouts import (
    LONG_PREFIX,
    NAME_MAX,
    OPAQUE_NAME,
    PREFIX,
    RESERVED_PREFIX,
    Dialect,
    long_name,
    whiteout_name,
)
from graphdrivers.linux import xattrs

_ABSENT = {errno.ENODATA, errno.ENOTSUP}
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Layer:
    """One directory of one layer, as part of a merged directory."""

    __slots__ = ("dialect", "handle", "index", "names")

    def __init__(self, index: int, handle: Handle, dialect: Dialect) -> None:
        """Say that ``handle`` is a directory of branch number ``index``, counted from the top."""
        self.index = index
        self.handle = handle
        self.dialect = dialect
        self.names: list[str] | None = None
        """Names of this directory's xattrs, once they were listed."""

    def is_whiteout(self, name: bytes, status: os.stat_result) -> bool:
        """Say whether an entry of this directory is a whiteout: a device, or an empty file with the xattr for it.

        Containers nested in overlay mounts write the latter, from Linux 6.7 on.
        """
        dialect = self.dialect
        kind = stat.S_IFMT(status.st_mode)
        if kind == stat.S_IFDIR or not dialect.devices:
            return False
        if kind == stat.S_IFREG:
            return not status.st_size and self.mark(name, "whiteout") is not None
        return dialect.is_whiteout(status)

    def hides(self, name: bytes) -> bool:
        """Say whether a ``.wh.`` marker in this directory deletes ``name`` from the layers below."""
        if not self.dialect.marker_names or name.startswith(PREFIX):
            return False
        marker = whiteout_name(name)
        if self.handle.lstat(marker) is None:
            return False
        return not marker.startswith(LONG_PREFIX) or _long(self.handle.fd(), marker) == name

    def mark(self, name: bytes, mark: str) -> bytes | None:
        """Return the value of one of overlay's private xattrs of an entry, or None."""
        if not self.dialect.devices:
            return None
        return read_mark(xattrs.at(self.handle.fd(), name), self.dialect.xattr(mark))

    def marks(self) -> tuple[bool, bytes | None]:
        """Say whether this directory is opaque, and where its redirect leads, if it has one."""
        if self.dialect.marker_names and self.handle.lstat(OPAQUE_NAME) is not None:
            return True, None
        if not self.dialect.devices:
            return False, None
        fd = self.handle.fd()
        names = self.names = _list_xattrs(fd)
        opaque, redirect = self.dialect.xattr("opaque"), self.dialect.xattr("redirect")
        if opaque in names and read_mark(fd, opaque) == b"y":
            return True, None
        return False, read_mark(fd, redirect) if redirect in names else None

    def is_opaque_root(self) -> bool:
        """Say whether this root hides all layers below; overlay's mark means nothing on a root."""
        return self.dialect.marker_names and self.handle.lstat(OPAQUE_NAME) is not None


class Hit:
    """Where a name was found: an entry of one layer, and that entry as a layer's directory if it is one."""

    __slots__ = ("directory", "layer", "name", "status")

    def __init__(self, layer: Layer, name: bytes, status: os.stat_result, directory: Layer | None) -> None:
        """Say that ``layer`` holds ``name``."""
        self.layer = layer
        self.name = name
        self.status = status
        self.directory = directory


class Search:
    """One name on its way down; its state is that of the kernel's ``struct ovl_lookup_data``."""

    __slots__ = ("_is_directory", "_roots", "lacks_data", "name", "stopped")

    def __init__(self, roots: Sequence[Layer], name: bytes) -> None:
        """Look for ``name``; redirects with absolute paths start again at ``roots``, indexed by branch."""
        self._roots = roots
        self._is_directory = False
        self.name = name
        """What to look for further down: a redirect changes it."""
        self.stopped = False
        """Nothing further down can show through."""
        self.lacks_data = False
        """The last file found is a copy of metadata only: its content is further down."""

    def enter(self, layer: Layer) -> Layer:
        """Take the topmost entry, which is a directory, and open it."""
        return self._take_directory(layer, self.name, b"", b"")

    def skip(self, layer: Layer) -> None:
        """Take the topmost entry, which is a file that has no content of its own."""
        self.lacks_data = True
        self._redirect(layer.mark(self.name, "redirect"), b"", b"")

    def rest(self, stack: Sequence[Layer], below: int, end: int | None = None) -> list[Hit]:
        """Follow the name further down.

        Args:
            stack: the merged parent directory.
            below: number of the layer that was looked at last.
            end: number of the first layer not to look at any more; the search can go on there later.
        """
        hits = []
        absolute = False
        end = len(self._roots) if end is None else end
        layers = list(reversed([layer for layer in stack if below < layer.index < end]))
        while not self.stopped:
            if not absolute and self.name.startswith(b"/"):
                absolute = True
                layers = list(reversed(self._roots[below + 1 : end]))
            if not layers:
                break
            layer = layers.pop()
            hit = self._walk(layer)
            if hit is not None:
                hits.append(hit)
            below = layer.index
        return hits

    def _walk(self, layer: Layer) -> Hit | None:
        if not self.name.startswith(b"/"):
            return self._single(layer, self.name, b"", b"")
        at = layer
        remaining = self.name[1:]
        while True:
            component, slash, following = remaining.partition(b"/")
            prefix = self.name[: len(self.name) - len(remaining)]
            hit = self._single(at, component, prefix, slash + following)
            if hit is None or not slash or hit.directory is None:
                return hit
            at = hit.directory
            remaining = following

    def _single(self, layer: Layer, component: bytes, prefix: bytes, suffix: bytes) -> Hit | None:
        status = None if layer.dialect.is_marker(component) else layer.handle.lstat(component)
        if status is None:
            self.stopped = layer.hides(component)
            return None
        if layer.is_whiteout(component, status):
            self.stopped = True
            return None
        return self._take(layer, component, status, prefix, suffix)

    def _take(self, layer: Layer, component: bytes, status: os.stat_result, prefix: bytes, suffix: bytes) -> Hit | None:
        directory = None
        if stat.S_ISDIR(status.st_mode) and (suffix or not self.lacks_data):
            directory = self._take_directory(layer, component, prefix, suffix)
        elif self._is_directory or suffix or (self.lacks_data and not stat.S_ISREG(status.st_mode)):
            self.stopped = True
            return None
        else:
            self.lacks_data = stat.S_ISREG(status.st_mode) and layer.mark(component, "metacopy") is not None
            self.stopped = not self.lacks_data
            if self.lacks_data:
                self._redirect(layer.mark(component, "redirect"), prefix, suffix)
        return Hit(layer, component, status, directory)

    def _take_directory(self, layer: Layer, component: bytes, prefix: bytes, suffix: bytes) -> Layer:
        self._is_directory = self._is_directory or not suffix
        if layer.index == self._roots[-1].index:  # nothing is below, so its marks mean nothing
            return Layer(layer.index, layer.handle.later(component), layer.dialect)
        inner = Layer(layer.index, layer.handle.child(component), layer.dialect)
        opaque, redirect = inner.marks()
        if opaque or layer.hides(component):
            self.stopped = True
        else:
            self._redirect(redirect, prefix, suffix)
        return inner

    def _redirect(self, target: bytes | None, prefix: bytes, suffix: bytes) -> None:
        if target is None:
            return
        target = target.rstrip(b"\0")
        components = target.removeprefix(b"/").split(b"/")
        absolute = target.startswith(b"/")
        if any(part in {b"", b".", b".."} for part in components) or (len(components) > 1 and not absolute):
            raise OSError(errno.EINVAL, "invalid redirect in a layer", os.fsdecode(target))
        if absolute:
            # an opaque parent on the way stops the search, an absolute redirect below it starts it again
            self.stopped = False
            self.name = target + suffix
        else:
            self.name = prefix + target + suffix


def deleted_by(directory: int, markers: Iterable[bytes]) -> set[bytes]:
    """Return the names that ``.wh.`` files delete, which are in an open directory."""
    deleted = set()
    for marker in markers:
        if not marker.startswith(RESERVED_PREFIX):
            deleted.add(marker[len(PREFIX) :])
        elif marker.startswith(LONG_PREFIX):
            deleted.add(_long(directory, marker) or b"")
    return deleted - {b"", b".", b".."}


def _long(directory: int, marker: bytes) -> bytes | None:
    """Return the name that the marker of a long name deletes, or None where it is no such marker."""
    try:
        fd = os.open(marker, _FILE, dir_fd=directory)
    except OSError as error:
        if error.errno not in {errno.ELOOP, errno.ENXIO}:
            raise
        return None
    try:
        return long_name(marker, os.read(fd, NAME_MAX + 1)) if stat.S_ISREG(os.fstat(fd).st_mode) else None
    finally:
        os.close(fd)


def read_mark(target: int | bytes, name: str) -> bytes | None:
    """Return one xattr of a descriptor or path (not followed), or None where there is none."""
    try:
        return os.getxattr(target, name, follow_symlinks=isinstance(target, int))
    except OSError as error:
        if error.errno not in _ABSENT:
            raise
        return None


def _list_xattrs(fd: int) -> list[str]:
    try:
        return os.listxattr(fd)
    except OSError as error:
        if error.errno not in _ABSENT:
            raise
        return []
