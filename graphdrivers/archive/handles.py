"""Open directories by the thousand with a bounded number of descriptors.

A walk holds one `Handle` per directory it is in; when more than a fixed number
are open, the oldest are parked (closed) and opened again when they are used, so
that neither depth nor ``RLIMIT_NOFILE`` limits a walk. A parked directory comes
back through ``..`` of the child just left where that is possible, else component
by component; no symbolic link is ever followed, and it must be the same inode.
"""

import errno
import os

OPEN_LIMIT = 128
"""Directories that one set keeps open; a process has 1,024 descriptors by default."""

_LONG = 2048
"""Bytes in a path from which on the directories on it are opened; the kernel takes at most 4,095 (PATH_MAX)."""

_NEAR = 32
"""Of a way down that is opened again, this many last directories stay open."""

_SPACING = 4096
"""Directories at multiples of this depth are kept longer, so that the way down to others begins nearby."""

_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Handle:
    """One directory, open or parked; made by `Handles.root` and `child`."""

    __slots__ = ("depth", "handles", "inode", "name", "number", "parent")

    def __init__(self, handles: "Handles", parent: "Handle | None", name: bytes) -> None:
        """Name the directory ``name`` in ``parent``; it is opened when first used."""
        self.handles = handles
        self.parent = parent
        self.name = name
        self.depth: int = 0 if parent is None else parent.depth + 1
        self.number = -1
        """The descriptor, -1 while there is none."""
        self.inode: tuple[int, int] | None = None
        """Device and inode, once it was parked."""

    def fd(self) -> int:
        """Return a descriptor that stays valid until another handle of the same set is used.

        Raises:
            OSError: it cannot be opened (again); ``ESTALE`` when another
                directory has taken its place since.
        """
        if self.number < 0:
            self._open()
        return self.number

    def child(self, name: bytes) -> "Handle":
        """Open the directory ``name`` in this one.

        Raises:
            OSError: ``ENOTDIR`` or ``ELOOP`` when it is none, or is a symbolic link.
        """
        handle = Handle(self.handles, self, name)
        handle.number = os.open(name, _FLAGS, dir_fd=self.fd())
        self.handles.add(handle)
        return handle

    def later(self, name: bytes) -> "Handle":
        """Return the directory ``name`` in this one without opening it: for looking up only a name or two in it."""
        return Handle(self.handles, self, name)

    def lstat(self, name: bytes) -> os.stat_result | None:
        """Look up a name in this directory, or give None where the directory does not (or cannot) hold it.

        Below a directory that was made with `later` and never opened, the path
        is left to the kernel: nothing on it may be replaced meanwhile.
        """
        fd = self.number
        if fd < 0:
            fd, name = self._locate(name)
        try:
            return os.stat(name, dir_fd=fd, follow_symlinks=False)
        except FileNotFoundError:
            return None
        except OSError as error:
            if error.errno != errno.ENAMETOOLONG:
                raise
            return None

    def close(self) -> None:
        """Let go of the descriptor, bringing a parked parent back at the price of one call. Idempotent."""
        if self.number < 0:
            return
        # out of the set first: bringing the parent back may park the oldest handle, which could be this one
        self.handles.discard(self)
        if self.parent is not None and self.parent.number < 0 and self.parent.inode is not None:
            self.parent.return_from(self.number)
        self.release()

    def park(self) -> None:
        """Close the descriptor for now, remembering which directory it was."""
        self.inode = _inode(self.number)
        self.release()

    def release(self) -> None:
        """Close the descriptor without more ado. Idempotent."""
        if self.number >= 0:
            os.close(self.number)
            self.number = -1

    def adopt(self, fd: int) -> None:
        """Take ``fd`` as this directory's descriptor, if it is the one that was parked."""
        if self.inode is not None and _inode(fd) != self.inode:
            os.close(fd)
            raise OSError(errno.ESTALE, "a directory was replaced while it was read", os.fsdecode(self.name))
        self.number = fd

    def return_from(self, child: int) -> None:
        """Open this parked directory as the parent of ``child``, if it (still) is that."""
        try:
            fd = os.open(b"..", _FLAGS, dir_fd=child)
        except OSError:  # it stays parked; using it tries again from above and says what is wrong
            return
        if _inode(fd) == self.inode:
            self.number = fd
            self.handles.add(self)
        else:
            os.close(fd)

    def _locate(self, name: bytes) -> tuple[int, bytes]:
        """Return the nearest open directory above, and the path of ``name`` from there."""
        handle, path = self, name
        while handle.number < 0 and handle.inode is None and handle.parent is not None and len(path) < _LONG:
            path = b"%s/%s" % (handle.name, path)
            handle = handle.parent
        if handle.parent is None:
            return handle.fd(), path
        if handle.number < 0:
            return self.fd(), name
        self.handles.add(handle)
        return handle.number, path

    def _open(self) -> None:
        if self.parent is not None and self.parent.number >= 0:
            self.adopt(os.open(self.name, _FLAGS, dir_fd=self.parent.number))
            self.handles.add(self)
            return
        chain: list[Handle] = []
        handle = self
        while handle.number < 0 and handle.parent is not None:
            chain.append(handle)
            handle = handle.parent
        if handle.number < 0:
            handle.adopt(self.handles.open_root(handle))
            self.handles.add(handle)
        stays = True
        while chain:
            inner = chain.pop()
            try:
                inner.adopt(os.open(inner.name, _FLAGS, dir_fd=handle.number))
            finally:
                if not stays:
                    handle.release()
            handle = inner
            # a long way down must not push everything else out of the set
            stays = len(chain) < _NEAR or handle.depth % _SPACING == 0
            if stays:
                self.handles.add(handle)


class Handles:
    """A set of directories of which at most ``limit`` are open at a time.

    Not safe for use by several threads at once.
    """

    def __init__(self, limit: int = OPEN_LIMIT) -> None:
        """Keep up to ``limit`` (at least 2) directories open, and a quarter more at certain depths."""
        self._limit = max(2, limit)
        self._open: dict[Handle, None] = {}
        self._checkpoints: dict[Handle, None] = {}
        self._roots: dict[Handle, int | str | bytes] = {}

    def root(self, directory: int | str | bytes) -> Handle:
        """Return a handle for the directory where a tree begins, opened when first used.

        Args:
            directory: a path, or a descriptor (``O_PATH`` will do) that the
                caller keeps open and that is not touched.
        """
        handle = Handle(self, None, b"")
        self._roots[handle] = directory
        return handle

    def open_root(self, handle: Handle) -> int:
        """Open what a root stands for."""
        directory = self._roots[handle]
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
        if isinstance(directory, int):
            return os.open(b".", flags, dir_fd=directory)
        return os.open(directory, flags)

    def add(self, handle: Handle) -> None:
        """Count an opened handle as the newest, parking the oldest when there are too many."""
        kept, limit = self._open, self._limit
        if handle.depth and handle.depth % _SPACING == 0:
            kept, limit = self._checkpoints, max(1, limit // 4)
        kept.pop(handle, None)
        kept[handle] = None
        if len(kept) > limit:
            oldest = next(iter(kept))
            del kept[oldest]
            oldest.park()

    def discard(self, handle: Handle) -> None:
        """Forget a handle that is about to be closed."""
        self._open.pop(handle, None)
        self._checkpoints.pop(handle, None)

    def close(self) -> None:
        """Close every descriptor. Idempotent."""
        for handle in (*self._open, *self._checkpoints):
            handle.release()
        self._open.clear()
        self._checkpoints.clear()


def _inode(fd: int) -> tuple[int, int]:
    status = os.fstat(fd)
    return status.st_dev, status.st_ino
