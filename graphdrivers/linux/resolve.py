"""Paths opened below a directory that nothing can lead out of, whatever symbolic links say.

The kernel resolves (``openat2``, Linux 5.6). Where it cannot (an older kernel, a
sandbox, a path longer than ``PATH_MAX``), the same rules are applied one
component at a time.
"""

import ctypes
import errno
import os
import struct

from graphdrivers.errors import SyscallError
from graphdrivers.linux.libc import c_string, check, failure, system_call

RESOLVE_NO_XDEV = 0x01
RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_BENEATH = 0x08
RESOLVE_IN_ROOT = 0x10

PATH_MAX = 4096
"""Bytes of the longest path a system call takes, its final NUL counted."""

MAX_SYMLINKS = 40
"""Symbolic links the kernel follows in one path; more is ``ELOOP``."""

_NR_OPENAT2 = 437
_openat2 = system_call(ctypes.c_int, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_size_t)
_OPEN_HOW = struct.Struct("=QQQ")

_BENEATH = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS
_IN_ROOT = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS
_ATTEMPTS = 128
"""Tries while renames, anywhere on the system, leave the kernel unsure about a ``..`` (``EAGAIN``)."""

_UNAVAILABLE = frozenset({errno.ENOSYS, errno.EPERM, errno.EAGAIN})
"""What a missing ``openat2`` says, in a sandbox also ``EPERM``; a true one repeats itself in the walk."""


def openat2(dir_fd: int, path: bytes, flags: int, mode: int = 0, resolve: int = 0) -> int:
    """Open ``path`` under the ``RESOLVE_*`` rules; close-on-exec is added.

    Source: openat2(2).

    Raises:
        SyscallError: ``ENOSYS`` before Linux 5.6.
    """
    how = _OPEN_HOW.pack(flags | os.O_CLOEXEC, mode, resolve)
    name = c_string(path)
    for _ in range(_ATTEMPTS):
        result = _openat2(_NR_OPENAT2, dir_fd, name, how, len(how))
        if result != -1 or ctypes.get_errno() not in {errno.EINTR, errno.EAGAIN}:
            break
    return check(result, "openat2", path)


def open_beneath(dir_fd: int, path: bytes, flags: int, mode: int = 0) -> int:
    """Open a path below ``dir_fd`` that has no symbolic link in it and never climbs above it.

    Raises:
        OSError: ``ELOOP`` for a symbolic link, ``EXDEV`` for a path that is
            absolute or climbs out.
    """
    if len(path) < PATH_MAX:
        try:
            return openat2(dir_fd, path, flags, mode, _BENEATH)
        except SyscallError as error:
            if error.errno not in _UNAVAILABLE:
                raise
    return _Walk(dir_fd, flags, mode, in_root=False).open(path)


def open_in_root(dir_fd: int, path: bytes, flags: int, mode: int = 0) -> int:
    """Open a path as if ``dir_fd`` were ``/``: links and ``..`` resolve inside it, as after a chroot.

    Raises:
        OSError: as ``open(2)`` has it.
    """
    if len(path) < PATH_MAX:
        try:
            return openat2(dir_fd, path, flags, mode, _IN_ROOT)
        except SyscallError as error:
            if error.errno not in _UNAVAILABLE:
                raise
    return _Walk(dir_fd, flags, mode, in_root=True).open(path)


class _Walk:
    """One resolution, a component at a time.

    A ``..`` drops the last resolved name and starts again from the root: to
    open ``..`` itself would leave the root if the directory was moved out of it
    meanwhile. At most two descriptors are open, whatever the depth.
    """

    def __init__(self, root: int, flags: int, mode: int, *, in_root: bool) -> None:
        self.root = root
        self.flags = flags | os.O_CLOEXEC
        self.mode = mode
        self.in_root = in_root
        self.follow_last = not flags & os.O_NOFOLLOW and not (flags & os.O_CREAT and flags & os.O_EXCL)
        self.links = 0
        self.resolved: list[bytes] = []
        self.here = -1

    def open(self, path: bytes) -> int:
        """Resolve ``path`` and open what it names."""
        self._restart(path)
        pending = self._split(path, [])
        try:
            while pending:
                name = pending.pop()
                if name == b"..":
                    self._up(path)
                elif name not in {b"", b"."}:
                    opened = self._step(name, pending, path)
                    if opened is not None:
                        return opened
            return os.open(b".", self.flags, self.mode, dir_fd=self._current())
        finally:
            self._leave()

    def _split(self, path: bytes, pending: list[bytes]) -> list[bytes]:
        """Put the components of ``path`` in front of those that are ``pending`` (a stack: next one last)."""
        pending.extend(reversed(path.split(b"/")))
        return pending

    def _restart(self, path: bytes) -> None:
        """Go back to the root where ``path`` is absolute."""
        if not path:
            raise failure(errno.ENOENT, "openat2", path)
        if path.startswith(b"/"):
            if not self.in_root:
                raise SyscallError(errno.EXDEV, "openat2", path)
            self._leave()
            self.resolved.clear()

    def _up(self, path: bytes) -> None:
        if self.resolved:
            self._current()  # the directory must exist, as for the kernel
            self.resolved.pop()
            self._leave()
        elif not self.in_root:
            raise SyscallError(errno.EXDEV, "openat2", path)

    def _step(self, name: bytes, pending: list[bytes], path: bytes) -> int | None:
        """Take one component; return the descriptor if it was the last one."""
        directory = self._current()
        last = not any(pending)
        # What is pending behind the last one is a trailing slash: it asks for a directory, through a link too.
        target = self._link_target(directory, name) if pending or self.follow_last else None
        if target is not None:
            self._follow(target, pending, path)
        elif last:
            flags = self.flags | os.O_NOFOLLOW | (os.O_DIRECTORY if pending else 0)
            return os.open(name, flags, self.mode, dir_fd=directory)
        else:
            deeper = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
            self._leave()
            self.here = deeper
            self.resolved.append(name)
        return None

    def _link_target(self, directory: int, name: bytes) -> bytes | None:
        """Read a symbolic link; ``None`` for anything else, a missing name too."""
        try:
            return os.readlink(name, dir_fd=directory)
        except OSError as error:
            if error.errno in {errno.EINVAL, errno.ENOENT}:
                return None
            raise

    def _follow(self, target: bytes, pending: list[bytes], path: bytes) -> None:
        self.links += 1
        if not self.in_root or self.links > MAX_SYMLINKS:
            raise SyscallError(errno.ELOOP, "openat2", path)
        self._restart(target)
        self._split(target, pending)

    def _current(self) -> int:
        """Give the directory reached so far, walking down to it again after a ``..``."""
        if self.here == -1:
            self.here = os.open(b".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self.root)
            for name in self.resolved:
                deeper = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self.here)
                self._leave()
                self.here = deeper
        return self.here

    def _leave(self) -> None:
        if self.here != -1:
            os.close(self.here)
            self.here = -1
