"""Subvolumes with what is in them: made, deleted with those inside, or turned into plain directories.

A container can make subvolumes in its layer (systemd does at boot, where the
root is one). A snapshot leaves them out, and deletion refuses what holds one. So
a layer at rest has none: they become directories, which share their blocks.
"""

import contextlib
import ctypes
import errno
import os
import stat
from collections.abc import Iterable, Iterator

from graphdrivers.errors import SyscallError
from graphdrivers.kit import layerdirs
from graphdrivers.linux import copying, filesystems, resolve, trees
from graphdrivers.linux.libc import c_string, check, function
from graphdrivers_btrfs import ioctls

UNFINISHED = b".wh..graphdrivers-plain-"
"""What the name of a directory begins with that is to take a subvolume's place; it is reserved, so nobody's content."""

_HOISTED = b"inside-"
"""What the name of a subvolume begins with that was taken out of one which is deleted."""

_RENAME_EXCHANGE = 2

_renameat2 = function("renameat2", ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)


def is_root(status: os.stat_result) -> bool:
    """Say whether what was looked at is the root of a subvolume, given that it is on btrfs."""
    return stat.S_ISDIR(status.st_mode) and status.st_ino == ioctls.FIRST_INODE


@contextlib.contextmanager
def opened(directory: int, path: bytes) -> Iterator[int]:
    """Open a directory below another for the time of a block; no symbolic link is followed, any length will do."""
    fd = resolve.open_beneath(directory, path or b".", os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield fd
    finally:
        os.close(fd)


def remove_all(folder: str) -> None:
    """Delete the subvolumes that lie directly in a folder, with everything in them. Idempotent.

    Nothing is done where there is no folder, or one on another file system.
    """
    while found := _roots_in(folder):
        with layerdirs.directory(folder) as fd:
            for name in found:
                with contextlib.suppress(FileNotFoundError):  # another process deletes the same
                    _remove(fd, name)


def paths_inside(root: int) -> list[bytes]:
    """Give the paths of all subvolumes below the root of one, those that hold others first."""
    found: list[bytes] = []
    pending = [b""]
    while pending:
        above = pending.pop()
        with opened(root, above) as fd:
            inside = [b"%s/%s" % (above, path) if above else path for path in _directly_in(fd)]
        found += inside
        pending += inside
    return sorted(found, key=lambda path: path.count(b"/"))


def flatten(tree: str) -> None:
    """Turn all subvolumes below the root of a writable one into directories with the same content. Idempotent.

    A killed process leaves each of them as it was, or as it is to be; and perhaps a directory that is `UNFINISHED`.
    """
    with layerdirs.directory(tree) as root:
        paths = paths_inside(root)
        for path in paths:
            with opened(root, path) as inside:
                ioctls.set_readonly(inside, False)
        for path in reversed(paths):
            above, _, name = path.rpartition(b"/")
            with opened(root, above) as parent, times_kept(parent):
                _make_plain(parent, name)


def copy_inside(tree: str, snapshot: str, known: Iterable[bytes]) -> None:
    """Put what the subvolumes of a tree hold into its writable snapshot, where empty directories stand for them.

    Each of them is copied as of one moment, shortly after that of the snapshot. One that was deleted since leaves an
    empty directory.

    Args:
        tree: the root of a subvolume that others may be writing to.
        snapshot: its snapshot, which is nobody's yet, in a folder for more of them.
        known: paths of subvolumes that were there just before the snapshot was made; later ones are looked for here.
    """
    with (
        layerdirs.directory(tree) as source,
        layerdirs.directory(os.path.dirname(snapshot)) as place,
        layerdirs.directory(snapshot) as target,
    ):
        pending = _replace_stubs(target, {*known, *_directly_in(source)})
        while pending:
            path = pending.pop()
            with contextlib.suppress(FileNotFoundError):  # it is gone by now
                pending += [b"%s/%s" % (path, inside) for inside in _copy_one(source, path, target, place)]


def _copy_one(source: int, path: bytes, target: int, place: int) -> list[bytes]:
    """Copy one subvolume into the directory of the same path; give the paths of those in it, left empty."""
    frozen = _HOISTED + os.urandom(8).hex().encode()
    with opened(source, path) as inside:
        known = _directly_in(inside)
        ioctls.make_snapshot(inside, place, frozen)
        known += _directly_in(inside)
    try:
        with opened(place, frozen) as content, opened(target, path) as copy:
            left = _replace_stubs(content, set(known))
            copying.copy_tree(content, copy)
    finally:
        _delete(place, frozen)
    return left


def _replace_stubs(root: int, paths: Iterable[bytes]) -> list[bytes]:
    """Make plain directories of those that stand for subvolumes in a snapshot; give their paths.

    Where a path leads to none, the subvolume was made, moved or replaced at the time of the snapshot.
    """
    replaced = []
    for path in paths:
        above, _, name = path.rpartition(b"/")
        with contextlib.suppress(FileNotFoundError, NotADirectoryError), opened(root, above) as parent:
            if os.lstat(name, dir_fd=parent).st_ino == ioctls.STUB_INODE:
                with times_kept(parent):
                    os.rmdir(name, dir_fd=parent)
                    os.mkdir(name, 0o755, dir_fd=parent)
                replaced.append(path)
    return replaced


def _make_plain(parent: int, name: bytes) -> None:
    """Put a copy in the place of a subvolume, which holds no other."""
    unfinished = UNFINISHED + os.urandom(8).hex().encode()
    os.mkdir(unfinished, 0o700, dir_fd=parent)
    with opened(parent, name) as inside, opened(parent, unfinished) as copy:
        copying.copy_tree(inside, copy)
    check(_renameat2(parent, c_string(name), parent, c_string(unfinished), _RENAME_EXCHANGE), "renameat2", name)
    _delete(parent, unfinished)


def _remove(folder: int, name: bytes) -> None:
    """Delete a subvolume in a folder; those inside are taken out of it, into the folder, to be deleted next."""
    with opened(folder, name) as root:
        inside = _directly_in(root)
        if inside:
            ioctls.set_readonly(root, False)
        for path in inside:
            above, _, last = path.rpartition(b"/")
            with opened(root, above) as parent:
                with opened(parent, last) as moving:
                    ioctls.set_readonly(moving, False)  # a directory that changes its parent is written to
                os.rename(last, _HOISTED + os.urandom(8).hex().encode(), src_dir_fd=parent, dst_dir_fd=folder)
    _delete(folder, name)


def _delete(directory: int, name: bytes) -> None:
    """Delete a subvolume that holds no other; where this user may not, what is in it and then itself."""
    try:
        ioctls.destroy(directory, name)
    except SyscallError as error:
        if error.errno not in {errno.EPERM, errno.EACCES, errno.EROFS}:
            raise
    else:
        return
    with opened(directory, name) as root:
        ioctls.set_readonly(root, False)
        for entry in os.listdir(root):
            trees.remove_tree(root, os.fsencode(entry))
    os.rmdir(name, dir_fd=directory)


def _directly_in(root: int) -> list[bytes]:
    """Give the paths of the subvolumes in one, not those in them."""
    found = []
    for number, directory in ioctls.subvolumes_in(root):
        try:
            found.append(ioctls.path_of(root, number, directory))
        except FileNotFoundError:
            continue
        except SyscallError as error:
            if error.errno not in {errno.ENAMETOOLONG, errno.EACCES}:
                raise
            return list(_searched(root))
    return found


def _searched(root: int) -> Iterator[bytes]:
    """Find the subvolumes in one by looking at everything."""
    with trees.DirStack(root) as stack:
        for inside in stack.visit():
            with os.scandir(stack.fd) as entries:
                for entry in entries:
                    name = os.fsencode(entry.name)
                    if not entry.is_dir(follow_symlinks=False):
                        continue
                    if is_root(entry.stat(follow_symlinks=False)):
                        yield stack.path(name)
                    else:
                        inside.append(name)


def _roots_in(folder: str) -> list[bytes]:
    """Find the subvolumes directly in a folder.

    It is opened each time: since Linux 6.5 an open directory of btrfs does not show what was made in it after it was
    opened or last wound back.
    """
    try:
        with layerdirs.directory(folder) as fd:
            if filesystems.fs_type(fd) != "btrfs":
                return []
            device = os.fstat(fd).st_dev
            with os.scandir(fd) as entries:
                listed = [(os.fsencode(entry.name), entry.stat(follow_symlinks=False)) for entry in entries]
    except (FileNotFoundError, NotADirectoryError):
        return []
    return [name for name, status in listed if is_root(status) and status.st_dev != device]


@contextlib.contextmanager
def times_kept(directory: int) -> Iterator[None]:
    """Give a directory, after a block that changes its entries, the times that it had."""
    before = os.fstat(directory)
    yield
    os.utime(directory, ns=(before.st_atime_ns, before.st_mtime_ns))
