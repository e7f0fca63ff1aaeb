"""Copies of files and trees: shared blocks where the file system can, holes kept, nothing lost."""

import contextlib
import errno
import fcntl
import os
import stat
from collections.abc import Callable, Iterator

from graphdrivers.linux import resolve, trees, xattrs

FICLONE = 0x40049409
"""``_IOW(0x94, 9, int)`` of ``linux/fs.h``."""

_CHUNK = 1 << 20
_RANGE = 1 << 30
_CLONE_TRIES = 8
"""Files in a row that refuse `clone` before a tree copy stops asking: single ones may, for reasons of their own."""
_NO_CLONE = frozenset({errno.EOPNOTSUPP, errno.EXDEV, errno.EINVAL, errno.ENOTTY, errno.ENOSYS, errno.EPERM})
_NO_RANGE = frozenset({errno.ENOSYS, errno.EXDEV, errno.EINVAL, errno.EOPNOTSUPP, errno.EPERM})


def clone(src_fd: int, dst_fd: int) -> bool:
    """Let ``dst_fd`` share all blocks of ``src_fd``; False where the file system cannot.

    Source: ioctl_ficlone(2).
    """
    try:
        fcntl.ioctl(dst_fd, FICLONE, src_fd)
    except OSError as error:
        if error.errno in _NO_CLONE:
            return False
        raise
    return True


def data_regions(fd: int, size: int) -> Iterator[tuple[int, int]]:
    """Give offset and length of the parts of a file that are no holes, in order.

    Source: lseek(2), heading *Seeking file data and holes*. A file system that
    does not know gives one region.
    """
    offset = 0
    while offset < size:
        try:
            start = os.lseek(fd, offset, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # a hole up to the end
                return
            if error.errno not in {errno.EINVAL, errno.EOPNOTSUPP}:
                raise
            start, end = offset, size
        else:
            end = os.lseek(fd, start, os.SEEK_HOLE)
        if start >= size:
            return
        yield start, min(end, size) - start
        offset = end


def copy_file(src_fd: int, dst_fd: int, size: int) -> None:
    """Copy the first ``size`` bytes of a file into an empty one: shared blocks, else data without its holes.

    Raises:
        OSError: ``EIO`` where the source turns out to be shorter.
    """
    if size and clone(src_fd, dst_fd):
        os.ftruncate(dst_fd, size)  # it may have grown
        _require(src_fd, size)
        return
    copy_data(src_fd, dst_fd, size)


def copy_data(src_fd: int, dst_fd: int, size: int) -> None:
    """Copy as `copy_file` does, never sharing blocks by ``FICLONE``."""
    end = 0
    for offset, length in data_regions(src_fd, size):
        _copy_range(src_fd, dst_fd, offset, length)
        end = offset + length
    if end < size:
        os.ftruncate(dst_fd, size)
        _require(src_fd, size)  # else it was the end of the file that looked like a hole


def copy_metadata(src: int | bytes, dst: int | bytes, status: os.stat_result) -> None:
    """Give ``dst`` owner, xattrs, mode and times that ``src`` has.

    The order matters: a change of owner clears set-user-ID bits and file
    capabilities, and the times come last because the others would not keep them.

    Args:
        src: open file, or path that is not followed, whose xattrs are read.
        dst: open file, or path that is not followed.
        status: the source's ``lstat``.
    """
    by_fd = isinstance(dst, int)
    os.chown(dst, status.st_uid, status.st_gid, follow_symlinks=by_fd)
    xattrs.write_all(dst, xattrs.read_all(src))
    if not stat.S_ISLNK(status.st_mode):
        os.chmod(dst, stat.S_IMODE(status.st_mode))
    os.utime(dst, ns=(status.st_atime_ns, status.st_mtime_ns), follow_symlinks=by_fd)


def copy_tree(src_fd: int, dst_fd: int, *, record: Callable[[int, int], object] | None = None) -> None:
    """Copy everything in one directory into another, empty one, attributes of the directory itself included.

    Owners, modes, times (ns), xattrs, hard links inside the tree, devices,
    sockets and holes are kept. Never leaves the source's file system.

    Args:
        src_fd: directory that nobody changes meanwhile.
        dst_fd: empty directory, not inside the source: that copy would never end.
        record: called once for each inode made, with its number and its final
            ctime in ns; later changes of the inode can be told by them.

    Raises:
        OSError: ``EXDEV`` where something is mounted in the source; what the
            copy needs and may not do (owners, devices) is ``EPERM``.
    """
    _TreeCopy(src_fd, dst_fd, record).run()


class _TreeCopy:
    """One copy under way, depth first; a directory's attributes are set when it is left."""

    def __init__(self, src_fd: int, dst_fd: int, record: Callable[[int, int], object] | None) -> None:
        self.src_root = src_fd
        self.dst_root = dst_fd
        self.record = record
        self.clones_failed = 0
        self.links: dict[tuple[int, int], bytes] = {}

    def run(self) -> None:
        """Copy the whole tree."""
        _forbid_inheritance(self.dst_root)
        with trees.DirStack(self.src_root) as src, trees.DirStack(self.dst_root) as dst:
            pending = [self._copy_entries(src, dst)]
            while True:
                if pending[-1]:
                    name = pending[-1].pop()
                    os.mkdir(name, 0o700, dir_fd=dst.fd)
                    src.enter(name)
                    dst.enter(name)
                    pending.append(self._copy_entries(src, dst))
                    continue
                pending.pop()
                if not pending:
                    break
                self._finish_directory(src.leave(), dst.leave())
            self._finish_directory(os.dup(src.fd), os.dup(dst.fd))
        self._record_links()

    def _copy_entries(self, src: trees.DirStack, dst: trees.DirStack) -> list[bytes]:
        """Copy all but the directories of the current directory; return those."""
        directories = []
        with os.scandir(src.fd) as entries:
            for entry in entries:
                name = os.fsencode(entry.name)
                if entry.is_dir(follow_symlinks=False):
                    directories.append(name)
                else:
                    self._copy_entry(src, dst, name, entry.stat(follow_symlinks=False))
        return directories

    def _copy_entry(self, src: trees.DirStack, dst: trees.DirStack, name: bytes, status: os.stat_result) -> None:
        if status.st_nlink > 1:
            key = (status.st_dev, status.st_ino)
            if (first := self.links.get(key)) is not None:
                self._link(first, dst.fd, name)
                return
            self.links[key] = dst.path(name)
        if stat.S_ISREG(status.st_mode):
            self._copy_regular(src.fd, dst.fd, name, status)
        else:
            self._copy_special(src.fd, dst.fd, name, status)

    def _copy_regular(self, src_dir: int, dst_dir: int, name: bytes, status: os.stat_result) -> None:
        src = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=src_dir)
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            dst = os.open(name, flags, status.st_mode & 0o777, dir_fd=dst_dir)
            try:
                self._copy_content(src, dst, status)
                self._copy_attributes(src, dst, status)
            finally:
                os.close(dst)
        finally:
            os.close(src)

    def _copy_content(self, src: int, dst: int, status: os.stat_result) -> None:
        size = status.st_size
        if not size:
            return
        if self.clones_failed < _CLONE_TRIES:
            if clone(src, dst):
                self.clones_failed = 0
                return
            self.clones_failed += 1
        if size <= _CHUNK and status.st_blocks * 512 >= size:
            content = os.read(src, size)
            if len(content) == size and os.write(dst, content) == size:
                return
            os.ftruncate(dst, 0)
        copy_data(src, dst, size)

    def _copy_attributes(self, src: int, dst: int, status: os.stat_result) -> None:
        attributes = xattrs.read_all(src)
        if attributes:
            os.fchown(dst, status.st_uid, status.st_gid)
            if not status.st_mode & stat.S_IWUSR:
                os.fchmod(dst, stat.S_IRUSR | stat.S_IWUSR)  # without privileges, writing xattrs takes it
            xattrs.write_all(dst, attributes)
        os.utime(dst, ns=(status.st_atime_ns, status.st_mtime_ns))
        made = os.fstat(dst)
        if made.st_size != status.st_size:
            raise _changed()
        # The umask, a set-group-ID parent or a default ACL decide what a new file gets: look, then repair.
        if (made.st_mode, made.st_uid, made.st_gid) != (status.st_mode, status.st_uid, status.st_gid):
            if (made.st_uid, made.st_gid) != (status.st_uid, status.st_gid):
                os.fchown(dst, status.st_uid, status.st_gid)
            os.fchmod(dst, stat.S_IMODE(status.st_mode))
            made = os.fstat(dst)
        self._note(made, status.st_nlink)

    def _copy_special(self, src_dir: int, dst_dir: int, name: bytes, status: os.stat_result) -> None:
        if stat.S_ISLNK(status.st_mode):
            os.symlink(os.readlink(name, dir_fd=src_dir), name, dir_fd=dst_dir)
        else:
            os.mknod(name, status.st_mode, status.st_rdev, dir_fd=dst_dir)
        copy_metadata(xattrs.at(src_dir, name), xattrs.at(dst_dir, name), status)
        if self.record is not None:
            self._note(os.stat(name, dir_fd=dst_dir, follow_symlinks=False), status.st_nlink)

    def _finish_directory(self, src: int, dst: int) -> None:
        try:
            copy_metadata(src, dst, os.fstat(src))
            if self.record is not None:
                self._note(os.fstat(dst), 1)
        finally:
            os.close(src)
            os.close(dst)

    def _link(self, first: bytes, dst_dir: int, name: bytes) -> None:
        with _parent(self.dst_root, first) as (parent_fd, last):
            os.link(last, name, src_dir_fd=parent_fd, dst_dir_fd=dst_dir, follow_symlinks=False)

    def _note(self, made: os.stat_result, links: int) -> None:
        """Record an inode; one with several names only at the end: each new link changes its ctime."""
        if self.record is not None and links == 1:
            self.record(made.st_ino, made.st_ctime_ns)

    def _record_links(self) -> None:
        if self.record is None:
            return
        for first in self.links.values():
            with _parent(self.dst_root, first) as (parent_fd, last):
                made = os.stat(last, dir_fd=parent_fd, follow_symlinks=False)
            self.record(made.st_ino, made.st_ctime_ns)


@contextlib.contextmanager
def _parent(root: int, path: bytes) -> Iterator[tuple[int, bytes]]:
    """Open the directory that a path below ``root`` is in; give it with the last component. Any length of path."""
    directory, _, name = path.rpartition(b"/")
    opened = resolve.open_beneath(root, directory or b".", os.O_PATH | os.O_DIRECTORY)
    try:
        yield opened, name
    finally:
        os.close(opened)


def _forbid_inheritance(dir_fd: int) -> None:
    """Make sure that what is created in a directory gets neither its group nor its default ACL."""
    os.fchmod(dir_fd, 0o700)
    for name in ("system.posix_acl_default", "system.posix_acl_access"):
        try:
            os.removexattr(dir_fd, name)
        except OSError as error:
            if error.errno not in {errno.ENODATA, errno.ENOTSUP}:
                raise


def _require(src_fd: int, size: int) -> None:
    """Raise where a source is shorter than it was."""
    if os.fstat(src_fd).st_size < size:
        raise _changed()


def _changed() -> OSError:
    return OSError(errno.EIO, "the source changed while it was copied")


def _copy_range(src_fd: int, dst_fd: int, offset: int, length: int) -> None:
    """Copy one region to the same place, inside the kernel where it can."""
    end = offset + length
    while offset < end:
        try:
            copied = os.copy_file_range(src_fd, dst_fd, min(end - offset, _RANGE), offset, offset)
        except OSError as error:
            if error.errno not in _NO_RANGE:
                raise
            copied = 0
        if not copied:
            _copy_through(src_fd, dst_fd, offset, end)
            return
        offset += copied


def _copy_through(src_fd: int, dst_fd: int, offset: int, end: int) -> None:
    """Copy through our memory."""
    while offset < end:
        content = memoryview(os.pread(src_fd, min(end - offset, _CHUNK), offset))
        if not content:
            raise _changed()
        while content:
            written = os.pwrite(dst_fd, content, offset)
            content = content[written:]
            offset += written
