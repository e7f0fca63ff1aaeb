"""Edits of a tree as values: replayed on a driver's mounted tree and on a flat directory, they must give the same.

A room of its own, below the inspectors: the conformance suite checks drivers
with these edits, the benchmark measures drivers with them. In `replay` every
edit sets the times of what it touches to a fixed moment, so two replays are
equal to the nanosecond.
"""

import abc
import os
import stat
from collections.abc import Iterable

import attrs

from graphdrivers.linux import trees

EPOCH = 1_700_000_000_000_000_000
"""Modification time of the first edit in ns; each following one is a bit more than a second later."""

STEP = 1_000_000_007


@attrs.frozen
class Edit(abc.ABC):
    """One change of one path; paths are relative, ``str`` with ``surrogateescape``."""

    path: str

    @abc.abstractmethod
    def perform(self, root: str) -> None:
        """Do it below ``root``."""

    def touched(self) -> tuple[str, ...]:
        """Give the paths whose modification time it changes."""
        return (self.path, os.path.dirname(self.path))


@attrs.frozen
class Create(Edit):
    """Create a regular file."""

    content: bytes = b""
    mode: int = 0o644

    def perform(self, root: str) -> None:
        """Create, write, chmod."""
        target = os.path.join(root, self.path)
        with open(target, "xb") as file:
            file.write(self.content)
        os.chmod(target, self.mode)


@attrs.frozen
class Write(Edit):
    """Replace the content of a regular file in place."""

    content: bytes = b""

    def perform(self, root: str) -> None:
        """Truncate and write."""
        fd = os.open(os.path.join(root, self.path), os.O_WRONLY | os.O_TRUNC | os.O_NOFOLLOW)
        with open(fd, "wb") as file:
            file.write(self.content)

    def touched(self) -> tuple[str, ...]:
        """Only the file."""
        return (self.path,)


@attrs.frozen
class Punch(Edit):
    """Create a file of ``size`` bytes with data only at its end."""

    size: int = 1 << 20

    def perform(self, root: str) -> None:
        """Seek and write."""
        with open(os.path.join(root, self.path), "xb") as file:
            file.seek(self.size - 5)
            file.write(b"at it")


@attrs.frozen
class Remove(Edit):
    """Remove a path and everything below it."""

    def perform(self, root: str) -> None:
        """Unlink, or remove the tree."""
        parent, name = os.path.split(os.path.join(root, self.path))
        fd = os.open(parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            trees.remove_tree(fd, os.fsencode(name))
        finally:
            os.close(fd)

    def touched(self) -> tuple[str, ...]:
        """Only the parent is left."""
        return (os.path.dirname(self.path),)


@attrs.frozen
class Mkdir(Edit):
    """Create a directory."""

    mode: int = 0o755

    def perform(self, root: str) -> None:
        """Create, chmod."""
        os.mkdir(os.path.join(root, self.path), 0o700)
        os.chmod(os.path.join(root, self.path), self.mode)


@attrs.frozen
class Rename(Edit):
    """Rename ``path`` to ``new``, replacing what is there."""

    new: str

    def perform(self, root: str) -> None:
        """Call rename(2)."""
        os.rename(os.path.join(root, self.path), os.path.join(root, self.new))

    def touched(self) -> tuple[str, ...]:
        """Both parents."""
        return (os.path.dirname(self.path), os.path.dirname(self.new))


@attrs.frozen
class Chmod(Edit):
    """Set the permission bits."""

    mode: int

    def perform(self, root: str) -> None:
        """Call chmod(2)."""
        os.chmod(os.path.join(root, self.path), self.mode)

    def touched(self) -> tuple[str, ...]:
        """No modification time changes."""
        return ()


@attrs.frozen
class Chown(Edit):
    """Set owner and group, of a link itself."""

    uid: int
    gid: int

    def perform(self, root: str) -> None:
        """Call lchown(2)."""
        os.chown(os.path.join(root, self.path), self.uid, self.gid, follow_symlinks=False)

    def touched(self) -> tuple[str, ...]:
        """No modification time changes."""
        return ()


@attrs.frozen
class Link(Edit):
    """Give ``path`` the additional name ``new``."""

    new: str

    def perform(self, root: str) -> None:
        """Call link(2), not following a symbolic link."""
        os.link(os.path.join(root, self.path), os.path.join(root, self.new), follow_symlinks=False)

    def touched(self) -> tuple[str, ...]:
        """The parent of the new name."""
        return (os.path.dirname(self.new),)


@attrs.frozen
class Symlink(Edit):
    """Create a symbolic link with this target."""

    target: str

    def perform(self, root: str) -> None:
        """Call symlink(2)."""
        os.symlink(self.target, os.path.join(root, self.path))


@attrs.frozen
class Mknod(Edit):
    """Create a fifo, socket or device node."""

    mode: int = stat.S_IFIFO | 0o644
    """With the file type."""
    device: tuple[int, int] = (0, 0)

    def perform(self, root: str) -> None:
        """Call mknod(2), chmod(2)."""
        os.mknod(os.path.join(root, self.path), self.mode, os.makedev(*self.device))
        os.chmod(os.path.join(root, self.path), stat.S_IMODE(self.mode))


@attrs.frozen
class SetXattr(Edit):
    """Set an extended attribute."""

    name: str
    value: bytes

    def perform(self, root: str) -> None:
        """Call lsetxattr(2)."""
        os.setxattr(os.path.join(root, self.path), self.name, self.value, follow_symlinks=False)

    def touched(self) -> tuple[str, ...]:
        """No modification time changes."""
        return ()


@attrs.frozen
class Utime(Edit):
    """Set the modification time (ns)."""

    mtime: int

    def perform(self, root: str) -> None:
        """Call utimensat(2)."""
        os.utime(os.path.join(root, self.path), ns=(self.mtime, self.mtime), follow_symlinks=False)

    def touched(self) -> tuple[str, ...]:
        """It says the time itself."""
        return ()


@attrs.frozen
class Sync(Edit):
    """Make what was written to a regular file durable."""

    def perform(self, root: str) -> None:
        """Call fsync(2)."""
        fd = os.open(os.path.join(root, self.path), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def touched(self) -> tuple[str, ...]:
        """No modification time changes."""
        return ()


def perform(edits: Iterable[Edit], root: str) -> None:
    """Perform edits in order below ``root``, as programs do: the times are what they get."""
    for edit in edits:
        edit.perform(root)


def replay(edits: Iterable[Edit], root: str, *, start: int = EPOCH) -> None:
    """Perform edits in order below ``root``; equal edits and ``start`` (ns) give equal trees."""
    for number, edit in enumerate(edits):
        edit.perform(root)
        moment = start + number * STEP
        for path in edit.touched():
            os.utime(os.path.join(root, path), ns=(moment, moment), follow_symlinks=not path)
