"""Locks between processes and threads that the kernel releases when their holder dies."""

import contextlib
import errno
import fcntl
import os
import struct
import time
from collections.abc import Iterator
from typing import Self

from graphdrivers import errors

_FLOCK = struct.Struct("hhqqi")
"""``struct flock`` of 64-bit systems: type, whence, start, length, pid."""


class FileLock:
    """A lock on a file, exclusive or shared; a context manager.

    Open-file-description locks: each `acquire` opens the file anew, so threads
    exclude each other as processes do, and closing some other descriptor of
    the file does not drop the lock. It is not reentrant. The file is created
    where it is missing and never removed: that would let two holders in.

    Source: fcntl(2), heading *Open file description locks*.
    """

    def __init__(
        self, path: str, *, shared: bool = False, timeout: float | None = None, slot: int | None = None
    ) -> None:
        """Remember what to lock; nothing is opened yet.

        Args:
            path: the lock file; its directory exists.
            shared: let other shared holders in.
            timeout: seconds to wait, ``None`` for ever, 0 to try once.
            slot: lock just this one of 2^62 places of the file, so that one file serves any number of
                locks; ``None`` for all of it.
        """
        self.path = path
        self.shared = shared
        self._range = (0, 0) if slot is None else (slot, 1)
        self.timeout = timeout
        self._held: list[int] = []

    def acquire(self) -> None:
        """Wait for the lock.

        Raises:
            LockTimeout: it was not free within ``timeout`` seconds.
        """
        lock_fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            self._wait(lock_fd)
        except BaseException:
            os.close(lock_fd)
            raise
        self._held.append(lock_fd)

    def is_free(self) -> bool:
        """Say whether `acquire` would not have to wait now; nothing is locked, not even for a moment.

        Held by this object counts too. Source: fcntl(2), ``F_OFD_GETLK``.
        """
        lock_fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            answer = fcntl.fcntl(lock_fd, fcntl.F_OFD_GETLK, self._request())
        finally:
            os.close(lock_fd)
        kind: int = _FLOCK.unpack(answer)[0]
        return kind == fcntl.F_UNLCK

    def fileno(self) -> int:
        """Give the descriptor that holds the lock: a process that inherits it holds the lock too.

        Raises:
            IndexError: it is not held.
        """
        return self._held[-1]

    def release(self) -> None:
        """Let the lock go.

        Raises:
            IndexError: it is not held.
        """
        os.close(self._held.pop())

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(self, *exc: object) -> None:
        self.release()

    def _request(self) -> bytes:
        kind = fcntl.F_RDLCK if self.shared else fcntl.F_WRLCK
        return _FLOCK.pack(kind, os.SEEK_SET, *self._range, 0)

    def _wait(self, lock_fd: int) -> None:
        request = self._request()
        if self.timeout is None:
            fcntl.fcntl(lock_fd, fcntl.F_OFD_SETLKW, request)
            return
        deadline = time.monotonic() + self.timeout
        pause = 0.001
        while not _try_lock(lock_fd, request):
            left = deadline - time.monotonic()
            if left <= 0:
                raise errors.LockTimeout(self.path, f"the lock was not free within {self.timeout:g} s")
            time.sleep(min(pause, left))
            pause = min(pause * 2, 0.05)


@contextlib.contextmanager
def claimed(directory: str, *, wait: bool = True) -> Iterator[bool]:
    """Hold a lock on a directory itself for the time of a block; leaves nothing in it.

    Threads exclude each other as processes do; it is not reentrant. Needs a
    file system with ``flock(2)`` on directories (all local ones; not NFS).

    Args:
        directory: it exists; it may be moved or deleted meanwhile.
        wait: for another holder; else the block runs at once.

    Yields:
        Whether the lock is held.
    """
    opened = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        yield _flocked(opened, wait=wait)
    finally:
        os.close(opened)


def _flocked(opened: int, *, wait: bool) -> bool:
    try:
        fcntl.flock(opened, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    return True


def _try_lock(lock_fd: int, request: bytes) -> bool:
    try:
        fcntl.fcntl(lock_fd, fcntl.F_OFD_SETLK, request)
    except OSError as error:
        if error.errno in {errno.EAGAIN, errno.EACCES}:
            return False
        raise
    return True
