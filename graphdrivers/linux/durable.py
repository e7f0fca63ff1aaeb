"""Writes that survive a crash: synced, renamed into place, or recognisable as left over."""

import contextlib
import ctypes
import errno
import fcntl
import os
import stat
from collections.abc import Iterator
from typing import BinaryIO, Self

from graphdrivers.errors import SyscallError
from graphdrivers.linux import trees
from graphdrivers.linux.libc import c_string, check, failure, function

RENAME_NOREPLACE = 1

_syncfs = function("syncfs", ctypes.c_int)
_renameat2 = function("renameat2", ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)


def fsync_path(path: str | bytes) -> None:
    """Make a file's content and attributes durable."""
    _fsync(path, os.O_RDONLY)


def fsync_directory(target: int | str | bytes) -> None:
    """Make the names in a directory durable: new files, renames, removals."""
    if isinstance(target, int):
        os.fsync(target)
    else:
        _fsync(target, os.O_RDONLY | os.O_DIRECTORY)


def syncfs(fd: int) -> None:
    """Make everything on the file system of ``fd`` durable.

    Errors of earlier write-back are reported (Linux 5.8) to descriptors that
    were opened before the writing: open it first. Source: syncfs(2).

    Raises:
        SyscallError: something was not written; nothing of it can be trusted.
    """
    check(_syncfs(fd), "syncfs")


def write_atomic(dir_fd: int, name: str | bytes, content: bytes, *, durable: bool = True, mode: int = 0o600) -> None:
    """Write a file so that ``name`` is the old content or the new, never a mix.

    Args:
        dir_fd: an open directory.
        name: in that directory; replaced if it exists.
        content: the whole new content.
        durable: also survive a power cut once this returns.
        mode: permission bits of the new file (before the umask).
    """
    temporary = f".tmp-{os.urandom(8).hex()}"
    opened = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode, dir_fd=dir_fd)
    try:
        with os.fdopen(opened, "wb", buffering=0) as file:
            _write(file.fileno(), content)
            if durable:
                os.fsync(file.fileno())
        os.rename(temporary, name, src_dir_fd=dir_fd, dst_dir_fd=dir_fd)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary, dir_fd=dir_fd)
        raise
    if durable:
        os.fsync(dir_fd)


def rename_noreplace(src_dir_fd: int, src: str | bytes, dst_dir_fd: int, dst: str | bytes) -> None:
    """Rename, refusing a destination that exists. Atomic.

    File systems without ``RENAME_NOREPLACE`` (some network and FUSE ones) are
    served by other means with one gap: an *empty* directory that another
    process creates at ``dst`` in the same instant is replaced.

    Raises:
        OSError: ``EEXIST`` where ``dst`` is taken.
    """
    try:
        result = _renameat2(src_dir_fd, c_string(src), dst_dir_fd, c_string(dst), RENAME_NOREPLACE)
        check(result, "renameat2", src, dst)
    except SyscallError as error:
        if error.errno not in {errno.EINVAL, errno.ENOSYS}:
            raise
        _rename_checked(src_dir_fd, src, dst_dir_fd, dst)


def _rename_checked(src_dir_fd: int, src: str | bytes, dst_dir_fd: int, dst: str | bytes) -> None:
    """Rename without the kernel's help: a hard link cannot replace, nor can a rename onto a directory with content."""
    if not stat.S_ISDIR(os.stat(src, dir_fd=src_dir_fd, follow_symlinks=False).st_mode):
        os.link(src, dst, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd, follow_symlinks=False)
        os.unlink(src, dir_fd=src_dir_fd)
        return
    with contextlib.suppress(FileNotFoundError):
        os.stat(dst, dir_fd=dst_dir_fd, follow_symlinks=False)
        raise failure(errno.EEXIST, "renameat", src, dst)
    try:
        os.rename(src, dst, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)
    except OSError as error:
        if error.errno in {errno.ENOTEMPTY, errno.ENOTDIR}:
            raise failure(errno.EEXIST, "renameat", src, dst) from error
        raise


def created(path: str) -> BinaryIO:
    """Open a new file for writing, which nobody else may read.

    Raises:
        FileExistsError: there is one.
    """
    return open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb")


class Staging:
    """A new directory to build something in, locked while its maker lives; a context manager.

    When the building is done, rename ``name`` to its place with
    `rename_noreplace`. What is still here at exit is removed. A maker that was
    killed leaves a directory whose lock is free: `leftovers` finds it. Needs a
    file system with ``flock(2)`` on directories (all local ones; not NFS).
    """

    def __init__(self, parent: str) -> None:
        """Create the directory (mode 0700, unique name) in ``parent``, which exists."""
        self.parent_fd = os.open(parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            self.name, self.fd = self._create()
        except BaseException:
            os.close(self.parent_fd)
            raise
        self.path = os.path.join(parent, self.name)

    def close(self) -> None:
        """Remove what is still here and let the lock go. Idempotent."""
        if self.parent_fd == -1:
            return
        try:
            trees.remove_tree(self.parent_fd, os.fsencode(self.name))
        finally:
            os.close(self.fd)
            os.close(self.parent_fd)
            self.parent_fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _create(self) -> tuple[str, int]:
        """Create and lock, again if a cleaner came between the two and took it for left over."""
        while True:
            name = f"new-{os.urandom(8).hex()}"
            os.mkdir(name, 0o700, dir_fd=self.parent_fd)
            locked = _lock(self.parent_fd, name)
            if locked is not None:
                return name, locked

    @staticmethod
    def leftovers(parent: str) -> Iterator[str]:
        """Give the names in ``parent`` whose maker is gone; each stays locked until the next is asked for."""
        parent_fd = os.open(parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for name in sorted(os.listdir(parent_fd)):
                locked = _lock(parent_fd, name)
                if locked is None:
                    continue
                try:
                    yield name
                finally:
                    os.close(locked)
        finally:
            os.close(parent_fd)


@contextlib.contextmanager
def discarding(path: str, parent: str) -> Iterator[str]:
    """Move a directory out of sight into ``parent``, atomically; it is deleted at the end of the block. Idempotent.

    Gives the path that it has there. Takes no room on the disk, so that a full one can be emptied. What a killed
    process leaves in ``parent`` is found by `Staging.leftovers`.

    Raises:
        OSError: ``EBUSY``, with the move done and nothing deleted, while something is mounted in it.
    """
    name = f"old-{os.urandom(8).hex()}"
    with contextlib.ExitStack() as stack:
        parent_fd = os.open(parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        stack.callback(os.close, parent_fd)
        with contextlib.suppress(FileNotFoundError):
            opened = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            stack.callback(os.close, opened)
            with contextlib.suppress(BlockingIOError):  # somebody else is discarding it and has the lock: as good
                fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.rename(path, name, dst_dir_fd=parent_fd)
        yield os.path.join(parent, name)
        trees.remove_tree(parent_fd, os.fsencode(name))


def _lock(parent_fd: int, name: str) -> int | None:
    """Open and lock what has a name; ``None`` if it is locked by someone else, or gone."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        opened = os.open(name, flags, dir_fd=parent_fd)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno not in {errno.ELOOP, errno.ENXIO}:
            raise
        return os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent_fd)  # a link or socket: nobody's
    try:
        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Between the two calls its holder may have removed it and let go.
        if _is(parent_fd, name, opened):
            return opened
    except BlockingIOError:
        pass
    except BaseException:
        os.close(opened)
        raise
    os.close(opened)
    return None


def _is(parent_fd: int, name: str, opened: int) -> bool:
    """Tell whether ``name`` is still what was opened."""
    try:
        return os.path.samestat(os.stat(name, dir_fd=parent_fd, follow_symlinks=False), os.fstat(opened))
    except FileNotFoundError:
        return False


def _fsync(path: str | bytes, flags: int) -> None:
    opened = os.open(path, flags | os.O_CLOEXEC)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def _write(fd: int, content: bytes) -> None:
    left = memoryview(content)
    while left:
        left = left[os.write(fd, left) :]
