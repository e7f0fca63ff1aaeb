"""Owners and modes that a process cannot set, recorded in an xattr of the file and shown by whoever reads the tree.

A process that may not give files away keeps what an archive says in
``user.containers.override_stat``: ``UID:GID:MODE:TYPE``, the ids in decimal, the
mode as four octal digits, the type ``file`` or ``dir``. Other tools write and
read the same (containers/storage, fuse-overlayfs). Linux keeps ``user.*``
attributes on regular files and directories only, see xattr(7), so nothing else
has a record.

On disk such a file has the mode of `disk_mode`: its owner can read it, and it is
not set-id, because that would hand out the rights of the wrong user. As long as
it has just that mode the record's is shown; a later ``chmod(2)`` wins over it.
"""

import errno
import os
import re
import stat
from collections.abc import Iterator
from typing import Any, cast

import attrs

from graphdrivers.linux import namespaces, trees, xattrs

XATTR = "user.containers.override_stat"
"""The attribute; where a tree records owners it is private, and never content."""

_FORMAT = re.compile(rb"([0-9]{1,10}):([0-9]{1,10}):([0-7]{1,7})(?::(file|dir))?")
_KINDS = {stat.S_IFREG: b"file", stat.S_IFDIR: b"dir"}
_NO_ID = 2**32 - 1
"""``chown(2)`` takes it for "leave as it is": nobody's id."""

_UNREADABLE = frozenset({errno.ENODATA, errno.ENOTSUP, errno.EACCES, errno.EPERM, errno.ENOENT, errno.ERANGE})


@attrs.frozen
class Record:
    """What one xattr says."""

    uid: int
    gid: int
    mode: int
    """Permission bits, set-id bits included."""

    def value(self, kind: int) -> bytes:
        """Write it down for a file of this type (``S_IFREG`` or ``S_IFDIR``)."""
        return b"%d:%d:%04o:%s" % (self.uid, self.gid, self.mode, _KINDS[kind])


def parse(value: bytes, kind: int) -> Record | None:
    """Read a record; ``None`` for what is none, or is about another type of file."""
    found = _FORMAT.fullmatch(value)
    if found is None or found[4] not in {None, _KINDS.get(kind)}:
        return None
    uid, gid = int(found[1]), int(found[2])
    return Record(uid, gid, stat.S_IMODE(int(found[3], 8))) if max(uid, gid) < _NO_ID else None


def needed_bits(kind: int) -> int:
    """Return the permissions without which a file's owner, bound by permissions, cannot read it."""
    return stat.S_IRUSR | stat.S_IXUSR if kind == stat.S_IFDIR else stat.S_IRUSR


def disk_mode(mode: int, kind: int, *, bound: bool) -> int:
    """Return the permission bits that a file with a record has on disk.

    Args:
        mode: the recorded one.
        kind: ``S_IFREG`` or ``S_IFDIR``.
        bound: it was made by a process that permissions bind (without ``CAP_DAC_OVERRIDE``).
    """
    return mode & ~(stat.S_ISUID | stat.S_ISGID) | (needed_bits(kind) if bound else 0)


def look(dir_fd: int, name: bytes, status: os.stat_result) -> os.stat_result:
    """Return the ``lstat`` of an entry as recorded; its own where nothing (readable) is."""
    if stat.S_IFMT(status.st_mode) not in _KINDS:
        return status
    return shown(status, read(xattrs.at(dir_fd, name or b".")))


def shown(status: os.stat_result, value: bytes | None) -> os.stat_result:
    """Return ``status`` with the owner that ``value`` records, and its mode unless a later ``chmod(2)`` changed it."""
    kind = stat.S_IFMT(status.st_mode)
    record = None if value is None else parse(value, kind)
    if record is None:
        return status
    real = stat.S_IMODE(status.st_mode)
    modes = [disk_mode(record.mode, kind, bound=bound) for bound in (True, False)]
    kept = real in {*modes, modes[0] | stat.S_IWUSR}  # the last one is that of a layer's root
    mode = kind | (record.mode if kept else real)
    _, (fields, named) = cast("tuple[Any, tuple[tuple[Any, ...], dict[str, Any]]]", status.__reduce__())
    return os.stat_result((mode, *fields[1:4], record.uid, record.gid, *fields[6:]), named)


def read(target: int | bytes) -> bytes | None:
    """Return a file's record as stored; a path is not followed."""
    try:
        return os.getxattr(target, XATTR, follow_symlinks=isinstance(target, int))
    except OSError as error:
        if error.errno not in _UNREADABLE:
            raise
        return None


def is_bound() -> bool:
    """Say whether permissions bind this process."""
    return not namespaces.has_capability("CAP_DAC_OVERRIDE")


def give(fd: int, uid: int, gid: int, mode: int, *, bound: bool) -> None:
    """Give an open file or directory of the caller's an owner and a mode, recording what it cannot have for real.

    Args:
        fd: it.
        uid: its owner.
        gid: its group.
        mode: its permission bits.
        bound: `is_bound`, asked once for many files.
    """
    status = os.fstat(fd)
    kind = stat.S_IFMT(status.st_mode)
    needed = needed_bits(kind) if bound else 0
    plain = (uid, gid) == (status.st_uid, status.st_gid) and mode & needed == needed
    if not plain:
        os.fchmod(fd, stat.S_IRWXU)  # writing an xattr takes the permission to write
        os.setxattr(fd, XATTR, Record(uid, gid, mode).value(kind))
        mode = disk_mode(mode, kind, bound=bound)
    elif read(fd) is not None:
        os.fchmod(fd, stat.S_IRWXU)
        os.removexattr(fd, XATTR)
    os.fchmod(fd, mode)


def make_movable(root: int) -> None:
    """Let the caller move a layer's root, an open directory of its own, whatever mode that has; what is shown stays.

    To move a directory to another parent takes permission to write to it. Idempotent; does nothing for a process
    that permissions do not bind.

    Source: rename(2), heading *Errors*, ``EACCES``.
    """
    status = os.fstat(root)
    if status.st_mode & stat.S_IWUSR or status.st_uid != os.geteuid() or not is_bound():
        return
    old = shown(status, read(root))
    os.fchmod(root, stat.S_IRWXU)
    mode = stat.S_IMODE(old.st_mode)
    os.setxattr(root, XATTR, Record(old.st_uid, old.st_gid, mode).value(stat.S_IFDIR))
    os.fchmod(root, disk_mode(mode, stat.S_IFDIR, bound=True) | stat.S_IWUSR)


def make_usable(root: int) -> None:
    """Record modes that keep the caller from reading its own files below ``root``, then give it the permission.

    Also from moving ``root`` itself: see `make_movable`.

    For a tree that somebody without privileges wrote to: it could not be copied
    or compared otherwise. What is shown stays the same. Other people's files are
    left alone. Idempotent; does nothing for a process that permissions do not bind.
    """
    if not is_bound():
        return
    uid = os.geteuid()
    _open_up(root, os.fstat(root), uid)
    make_movable(root)
    with trees.DirStack(root) as stack:
        for inside in stack.visit():
            inside.extend(_opened_up(stack.fd, uid))


def _opened_up(directory: int, uid: int) -> Iterator[bytes]:
    """Make what a directory holds usable; give the names of its directories."""
    with os.scandir(directory) as entries:
        found = [(os.fsencode(entry.name), entry.stat(follow_symlinks=False)) for entry in entries]
    for name, status in found:
        kind = stat.S_IFMT(status.st_mode)
        if kind in _KINDS and status.st_uid == uid and status.st_mode & needed_bits(kind) != needed_bits(kind):
            pinned = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
            try:
                _open_up(pinned, os.fstat(pinned), uid)
            finally:
                os.close(pinned)
        if kind == stat.S_IFDIR:
            yield name


def _open_up(pinned: int, status: os.stat_result, uid: int) -> None:
    """Make one file or directory usable; a descriptor with ``O_PATH`` will do."""
    kind = stat.S_IFMT(status.st_mode)
    bits = needed_bits(kind)
    if status.st_uid != uid or status.st_mode & bits == bits:
        return
    os.chmod(f"/proc/self/fd/{pinned}", stat.S_IMODE(status.st_mode) | bits)
    fd = os.open(f"/proc/self/fd/{pinned}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        old = shown(status, read(fd))
        give(fd, old.st_uid, old.st_gid, stat.S_IMODE(status.st_mode), bound=True)
    finally:
        os.close(fd)
