"""Whole directory trees: walked, measured and removed without recursion, at any depth.

A tree may be 100,000 directories deep and ``RLIMIT_NOFILE`` 1024, so the way
down is remembered as names and inode numbers, and only its last part is open.
"""

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Iterator
from typing import Self

import attrs

from graphdrivers.errors import SyscallError
from graphdrivers.linux import mountinfo, resolve
from graphdrivers.linux.libc import failure

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@attrs.define(eq=False)
class _Level:
    """One directory on the way down; ``fd`` is -1 while it is closed."""

    name: bytes
    fd: int
    device: int
    inode: int


class DirStack:
    """The way from a root directory down to a current one, as open directories; a context manager.

    At most `KEEP` descriptors are open. One that was closed is opened again
    through ``..`` when the way leads back up, and must be the same inode: a
    directory that somebody moved meanwhile is an error, never a wrong turn.
    """

    KEEP = 64
    """Directories held open; deeper trees cost one extra ``open`` per level."""

    def __init__(self, root_fd: int) -> None:
        """Start at ``root_fd``, which stays the caller's."""
        status = os.fstat(root_fd)
        self._levels = [_Level(b"", os.open(b".", _DIRECTORY, dir_fd=root_fd), status.st_dev, status.st_ino)]

    @property
    def fd(self) -> int:
        """The current directory, open for reading."""
        return self._levels[-1].fd

    @property
    def depth(self) -> int:
        """Directories below the root, 0 at the root itself."""
        return len(self._levels) - 1

    @property
    def device(self) -> int:
        """``st_dev`` of the root."""
        return self._levels[0].device

    def path(self, name: bytes = b"") -> bytes:
        """Give the path from the root to ``name`` in the current directory; its length has no limit."""
        parts = [level.name for level in self._levels[1:]]
        return b"/".join([*parts, name] if name else parts)

    def enter(self, name: bytes) -> None:
        """Go down into ``name``.

        Raises:
            OSError: ``ELOOP`` or ``ENOTDIR`` where it is no directory, ``EXDEV``
                where another file system begins.
        """
        self.push(name, os.open(name, _DIRECTORY, dir_fd=self.fd))

    def push(self, name: bytes, fd: int) -> None:
        """Go down into ``name``, which the caller opened; ``fd`` is ours from here on, also on failure."""
        status = os.fstat(fd)
        if status.st_dev != self.device:
            os.close(fd)
            raise SyscallError(errno.EXDEV, "openat", self.path(name))
        self._levels.append(_Level(name, fd, status.st_dev, status.st_ino))
        if len(self._levels) > self.KEEP:
            self._shut(self._levels[-self.KEEP])

    def leave(self) -> int:
        """Go up; return the directory just left, still open: the caller closes it.

        Raises:
            OSError: ``ESTALE`` where the directory was moved to another parent.
        """
        parent = self._levels[-2]
        if parent.fd == -1:
            parent.fd = self._reopen(parent)
        return self._levels.pop().fd

    def visit(self) -> Iterator[list[bytes]]:
        """Go through the directories below the current one and itself, parents first, and end there again.

        Yields:
            An empty list, once in each directory: the names of directories that
            the caller puts into it are entered, the last one first.

        Raises:
            OSError: see `enter` and `leave`.
        """
        pending: list[list[bytes]] = []
        while True:
            inside: list[bytes] = []
            yield inside
            pending.append(inside)
            while not pending[-1]:
                pending.pop()
                if not pending:
                    return
                os.close(self.leave())
            self.enter(pending[-1].pop())

    def close(self) -> None:
        """Close what is open. Idempotent."""
        for level in self._levels:
            self._shut(level)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _reopen(self, level: _Level) -> int:
        opened = os.open(b"..", _DIRECTORY, dir_fd=self.fd)
        status = os.fstat(opened)
        if (status.st_dev, status.st_ino) != (level.device, level.inode):
            os.close(opened)
            raise SyscallError(errno.ESTALE, "openat", self.path(b".."))
        return opened

    def _shut(self, level: _Level) -> None:
        if level.fd != -1:
            os.close(level.fd)
            level.fd = -1


def usage(dir_fd: int, ignore: Callable[[bytes, os.stat_result], bool] | None = None) -> tuple[int, int, int]:
    """Measure what is below a directory, each inode once, the directory itself not.

    Args:
        dir_fd: an open directory.
        ignore: tells by its name and ``lstat`` whether an entry does not count (a whiteout).

    Returns:
        Sum of the apparent sizes of regular files in bytes, number of inodes,
        bytes allocated on disk.
    """
    total = inodes = blocks = 0
    seen: set[tuple[int, int]] = set()
    for name, status in _walk(dir_fd):
        if status.st_nlink > 1 and not stat.S_ISDIR(status.st_mode):
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
        if ignore is not None and ignore(name, status):
            continue
        inodes += 1
        blocks += status.st_blocks
        if stat.S_ISREG(status.st_mode):
            total += status.st_size
    return total, inodes, blocks * 512


def _walk(dir_fd: int) -> Iterator[tuple[bytes, os.stat_result]]:
    """Give name and ``lstat`` of everything below a directory."""
    with DirStack(dir_fd) as stack:
        for inside in stack.visit():
            with os.scandir(stack.fd) as entries:
                for entry in entries:
                    name = os.fsencode(entry.name)
                    yield name, entry.stat(follow_symlinks=False)
                    if entry.is_dir(follow_symlinks=False):
                        inside.append(name)


def remove_tree(dir_fd: int, name: bytes) -> None:
    """Remove ``name`` in an open directory, with everything below it. Idempotent.

    Directories without permissions are made writable first. A mount point in
    the tree refuses the removal before anything is deleted, and the walk itself
    never leaves the file system. Entries that vanish meanwhile (another process
    removes the same tree) are no error.

    Raises:
        OSError: ``EBUSY`` naming the mount point; whatever ``unlink`` says.
    """
    while True:
        try:
            status = os.stat(name, dir_fd=dir_fd, follow_symlinks=False)
        except FileNotFoundError:
            return
        if not stat.S_ISDIR(status.st_mode):
            os.unlink(name, dir_fd=dir_fd)
            return
        _refuse_mounts(dir_fd, name)
        # Somebody else removing the same tree takes directories away below us: look again.
        with contextlib.suppress(FileNotFoundError):
            _remove_directory(dir_fd, name)


def _refuse_mounts(dir_fd: int, name: bytes) -> None:
    """Raise ``EBUSY`` where something is mounted on or below the tree: deletion would empty *that*."""
    try:
        parent = os.readlink(f"/proc/self/fd/{dir_fd}")
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        return  # deeper than the mount table can say; the walk will not enter a mount
    found = mountinfo.mounted_within(os.path.join(parent, os.fsdecode(name)))
    # In a detached mount a path begins at its own root, and only looks like one of the table's.
    if found and mountinfo.mount_id(dir_fd) in {mount.mount_id for mount in mountinfo.read()}:
        raise SyscallError(errno.EBUSY, "unlinkat", found[0].target)


def _remove_directory(dir_fd: int, name: bytes) -> None:
    """Empty and remove a directory, depth first."""
    with DirStack(dir_fd) as stack, _located(dir_fd, stack):
        _descend(stack, name)
        pending = [_unlink_files(stack.fd)]
        while pending:
            if not pending[-1]:
                pending.pop()
                os.close(stack.leave())
                if pending:
                    with contextlib.suppress(FileNotFoundError):
                        os.rmdir(pending[-1].pop(), dir_fd=stack.fd)
            else:
                _descend(stack, pending[-1][-1])
                pending.append(_unlink_files(stack.fd))
    os.rmdir(name, dir_fd=dir_fd)


@contextlib.contextmanager
def _located(dir_fd: int, stack: DirStack) -> Iterator[None]:
    """Let an error tell the whole path of what it names in the current directory."""
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        if not isinstance(error.filename, bytes):
            raise
        try:
            above = os.fsencode(os.readlink(f"/proc/self/fd/{dir_fd}"))
        except OSError:
            above = b"."
        path = os.path.join(above, stack.path(error.filename))
        raise failure(error.errno or errno.EIO, "unlinkat", os.fsdecode(path)) from error


def _descend(stack: DirStack, name: bytes) -> None:
    """Enter ``name``, which is no mount point, giving ourselves the permission where it is missing."""
    try:
        fd = _open_here(stack.fd, name)
    except PermissionError:
        _permit(stack.fd, name)
        fd = _open_here(stack.fd, name)
    mode = os.fstat(fd).st_mode
    stack.push(name, fd)
    if mode & stat.S_IRWXU != stat.S_IRWXU:
        os.fchmod(fd, stat.S_IRWXU)  # its entries could not be removed


def _open_here(dir_fd: int, name: bytes) -> int:
    """Open a directory on the same mount: a bind of the same file system has the same ``st_dev``."""
    try:
        return resolve.openat2(dir_fd, name, _DIRECTORY, resolve=resolve.RESOLVE_NO_XDEV)
    except SyscallError as error:
        if error.errno not in {errno.ENOSYS, errno.EPERM}:
            raise
    return os.open(name, _DIRECTORY, dir_fd=dir_fd)


def _permit(dir_fd: int, name: bytes) -> None:
    """Make a directory of ours accessible, without following a symbolic link that took its place."""
    pinned = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=dir_fd)
    try:
        os.chmod(f"/proc/self/fd/{pinned}", stat.S_IRWXU)
    finally:
        os.close(pinned)


def _unlink_files(dir_fd: int) -> list[bytes]:
    """Unlink all but the directories; return those."""
    directories = []
    with os.scandir(dir_fd) as entries:
        found = list(entries)
    for entry in found:
        name = os.fsencode(entry.name)
        if entry.is_dir(follow_symlinks=False):
            directories.append(name)
        else:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name, dir_fd=dir_fd)
    return directories
