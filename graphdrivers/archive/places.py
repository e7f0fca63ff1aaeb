"""Open directories of a tree that is being filled, each left as it should be found.

Creating entries changes a directory's times, and a default ACL or a missing
permission of its own would change what is created in it. A `Place` takes those
away while it is open and puts them back when it is left, so the caller writes
in any order and remembers nothing. Only a bounded number is open at once.

Paths here are *real*: relative to the root, without symbolic links, ``.`` or
``..``; the root is ``b""``. Every component is opened with ``O_NOFOLLOW`` from
the descriptor of its parent, so no path string is ever resolved twice.
"""

import contextlib
import errno
import os
import stat

from graphdrivers.archive import acls

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_OPEN_AT_ONCE = 96


def join(directory: bytes, name: bytes) -> bytes:
    """Give the real path of an entry; a directory of ``b""`` is the root."""
    return directory + b"/" + name if directory else name


class Place:
    """One open directory: descriptor, what a new file in it gets, what to restore on leaving.

    Opening another directory may close this one, unless ``pinned`` is set.
    """

    __slots__ = ("acl", "fd", "gid", "mode", "mtime", "path", "pinned", "setgid")

    def __init__(self, path: bytes, fd: int) -> None:
        """Hold ``fd``; ``mtime`` (ns) is set on leaving, ``gid`` is the group of a new file here."""
        self.path = path
        self.fd = fd
        self.mtime = 0
        self.gid = 0
        self.setgid = False
        self.pinned = False
        self.acl: bytes | None = None
        self.mode: int | None = None

    def child(self, name: bytes) -> bytes:
        """Path of an entry in here."""
        return join(self.path, name)


class Places:
    """The open directories below one root."""

    def __init__(self, root: int, *, privileged: bool) -> None:
        """Start at the directory ``root``, a descriptor that stays the caller's.

        Args:
            root: the tree's root directory.
            privileged: permissions do not bind this process (``CAP_DAC_OVERRIDE``).
        """
        self._privileged = privileged
        self._egid = _born_group(root)
        self._open: dict[bytes, Place] = {}
        self.root = self._enter(b"", os.open(".", _DIRECTORY, dir_fd=root))
        self.get = self._open.get

    def adopt(self, path: bytes, fd: int, mtime: int, *, ordinary: bool = False) -> Place:
        """Keep a directory that the caller just made; its times become ``mtime``.

        Args:
            path: its real path.
            fd: it, open; closed when it is left.
            mtime: ns, set when it is left.
            ordinary: it has no ACL, is not set-group-ID, and its owner may use it: nothing to take away.
        """
        place = Place(path, fd)
        if ordinary:
            place.gid = self._egid
        else:
            self.take(place)
        place.mtime = mtime
        self._keep(place)
        return place

    def find(self, path: bytes) -> Place | None:
        """Open an existing directory; ``None`` where a component is missing or no directory."""
        place = self._open.get(path)
        if place is not None:
            return place
        parts = path.split(b"/")
        place = self.root
        for end in range(len(parts)):
            prefix = b"/".join(parts[: end + 1]) if end else parts[0]
            known = self._open.get(prefix)
            if known is None:
                known = self.step(place, parts[end], prefix)
            if known is None:
                return None
            place = known
        return place

    def step(self, place: Place, name: bytes, path: bytes = b"") -> Place | None:
        """Open the directory ``name`` in ``place``; ``None`` where it is missing or no directory.

        Whoever has its path already hands it over: joining and hashing long ones is most of the work.
        """
        path = path or place.child(name)
        known = self._open.get(path)
        if known is not None:
            return known
        try:
            fd = os.open(name, _DIRECTORY, dir_fd=place.fd)
        except OSError as error:
            if error.errno in {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG}:
                return None
            if error.errno != errno.EACCES or self._privileged:
                raise
            forced = self._force(place, name)
            if forced is None:
                return None
            fd = forced
        return self._enter(path, fd)

    def leave(self, path: bytes) -> None:
        """Restore and close one directory, if it is open."""
        place = self._open.pop(path, None)
        if place is not None:
            self._restore(place)

    def forget_below(self, path: bytes) -> None:
        """Close a directory and everything open below it, about to be deleted."""
        prefix = path + b"/"
        for known in [p for p in self._open if p == path or p.startswith(prefix)]:
            os.close(self._open.pop(known).fd)

    def close(self, *, restore: bool = True) -> None:
        """Close all; restore their times and modes unless the tree is to be thrown away."""
        while self._open:
            _, place = self._open.popitem()
            if restore:
                self._restore(place)
            else:
                os.close(place.fd)

    def take(self, place: Place) -> None:
        """Learn what an open directory gives to new entries, and take away what would change them."""
        facts = os.fstat(place.fd)
        place.setgid = bool(facts.st_mode & stat.S_ISGID)
        place.gid = facts.st_gid if place.setgid else self._egid
        place.mode = place.acl = None
        if not self._privileged and facts.st_mode & stat.S_IRWXU != stat.S_IRWXU:
            place.mode = stat.S_IMODE(facts.st_mode)
            os.fchmod(place.fd, place.mode | stat.S_IRWXU)
        with contextlib.suppress(OSError):  # ENODATA in all but a few; ENOTSUP on file systems without ACLs
            place.acl = os.getxattr(place.fd, acls.DEFAULT)
            os.removexattr(place.fd, acls.DEFAULT)
        place.mtime = facts.st_mtime_ns

    def _enter(self, path: bytes, fd: int) -> Place:
        """Wrap a directory that was there before."""
        place = Place(path, fd)
        self.take(place)
        self._keep(place)
        return place

    def _keep(self, place: Place) -> None:
        """Remember an open directory, and make room for it."""
        if len(self._open) >= _OPEN_AT_ONCE:
            self._leave_oldest()
        self._open[place.path] = place

    def _leave_oldest(self) -> None:
        """Close the directory that was opened first; the root and pinned ones stay."""
        for path, place in self._open.items():
            if path and not place.pinned:
                self.leave(path)
                return

    def _restore(self, place: Place) -> None:
        """Put back ACL, mode and times, then close."""
        try:
            if place.acl is not None:
                os.setxattr(place.fd, acls.DEFAULT, place.acl)
            if place.mode is not None:
                os.fchmod(place.fd, place.mode)
            os.utime(place.fd, ns=(place.mtime, place.mtime))
        finally:
            os.close(place.fd)

    def _force(self, place: Place, name: bytes) -> int | None:
        """Open a directory that its owner may not read, without following a link."""
        facts = os.lstat(name, dir_fd=place.fd)
        if not stat.S_ISDIR(facts.st_mode):
            return None
        os.chmod(name, 0o700, dir_fd=place.fd)
        fd = os.open(name, _DIRECTORY, dir_fd=place.fd)
        os.fchmod(fd, stat.S_IMODE(facts.st_mode))
        return fd


def _born_group(root: int) -> int:
    """Find out which group a new file gets: the process's, unless the mount says otherwise (``grpid``).

    Source: mount(8), ext4 option ``grpid``; xfs has the same.
    """
    try:
        fd = os.open(b".", os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, 0o600, dir_fd=root)
    except OSError:  # not every file system has O_TMPFILE
        name = b".graphdrivers-" + os.urandom(8).hex().encode()
        before = os.fstat(root)
        fd = os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=root)
        os.unlink(name, dir_fd=root)
        os.utime(root, ns=(before.st_atime_ns, before.st_mtime_ns))  # they are read next, to be put back at the end
    try:
        return os.fstat(fd).st_gid
    finally:
        os.close(fd)
