"""Write differences between two trees as an OCI layer tar.

The same differences give the same bytes, whatever driver and file system they
come from. Names are relative without a leading ``./``, a directory's ends in
``/``, the root is ``./``. A deletion is an empty file ``.wh.NAME`` (OCI
image-spec, ``layer.md``, heading *Whiteouts*). The first name of a file with
several carries its content, the later ones are hard links to that name.
Sockets are left out, as every other tool does.
"""

import os
import stat
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from typing import BinaryIO, cast

from graphdrivers import errors
from graphdrivers.archive import holes
from graphdrivers.archive.entries import (
    BLOCK,
    BLOCKDEV,
    CHARDEV,
    DIRECTORY,
    FIFO,
    HARDLINK,
    REGULAR,
    SYMLINK,
    Difference,
    Node,
)
from graphdrivers.archive.stream import ChunkStream
from graphdrivers.archive.writer import NO_DEVICE, TarWriter
from graphdrivers.model import Profile

CHUNK = 512 << 10
"""Bytes in a chunk of the stream, seldom more; the allocator reuses blocks of this size, larger ones it maps anew."""

_FULL = CHUNK - holes.MIN_HOLE - 4096  # another small file still fits below this

_WHOLE = holes.MIN_HOLE - 1  # a file up to this size takes one read and cannot have holes
_SECOND = 1_000_000_000
_MARKER = b".wh."
_RESERVED = "a name that begins with '.wh.' means a deletion in a layer"
_CAPABILITY = "security.capability"
_KINDS = {
    stat.S_IFLNK: SYMLINK,
    stat.S_IFCHR: CHARDEV,
    stat.S_IFBLK: BLOCKDEV,
    stat.S_IFDIR: DIRECTORY,
    stat.S_IFIFO: FIFO,
}
_DEVICES = {CHARDEV, BLOCKDEV}


def produce(
    differences: Iterable[Difference], *, profile: Profile = Profile.FULL, source_date_epoch: int | None = None
) -> BinaryIO:
    """Return an uncompressed layer tar of ``differences``, made while it is read.

    The stream is raw: a read may give less than was asked for, and nothing only
    at the end. Its end, an error and closing it all close ``differences``.

    Args:
        differences: parents before children, whiteouts first in each directory.
        profile: how much of each file is carried.
        source_date_epoch: in seconds; later modification times become this one.
            Source: https://reproducible-builds.org/specs/source-date-epoch/

    Raises (while reading; every further read raises the same):
        FileChanged: a file's length is not that of its ``stat``, or it was written to meanwhile.
        UnsupportedEntry: a name begins with ``.wh.``, which readers would take for a deletion.
        OSError: a file cannot be read, or is gone.
    """
    production = _Production(profile, source_date_epoch)
    close = getattr(differences, "close", None)
    stream = ChunkStream(production.chunks(differences), close or bool)
    return cast("BinaryIO", stream)


class _Production:
    """The state of one diff being written."""

    def __init__(self, profile: Profile, source_date_epoch: int | None) -> None:
        self._full = profile is Profile.FULL
        self._latest = None if source_date_epoch is None else source_date_epoch * _SECOND
        self._exact = self._full and self._latest is None
        self._pieces: list[bytes] = []
        self._tar = TarWriter(self._pieces.append)
        self._filled = 0  # about: what is in the pieces, without extension headers
        self._first_names: dict[tuple[int, int], bytes] = {}

    def chunks(self, differences: Iterable[Difference]) -> Generator[bytes]:
        """Yield the archive in chunks, none of them empty."""
        for difference in differences:
            path = difference.path
            node = difference.upper
            if _MARKER in path and _is_marker(path):
                raise errors.UnsupportedEntry(_RESERVED, os.fsdecode(path))
            if node is None:
                self._whiteout(path)
            else:
                status = node.stat
                if status.st_nlink > 1 and self._link(path, status):
                    pass
                elif not stat.S_ISREG(status.st_mode):
                    self._special(path, node, status)
                elif status.st_size <= _WHOLE:
                    self._small(path, node, status)
                else:
                    yield from self._large(path, node, status)
            if self._filled >= _FULL:
                yield self._flush()
        self._tar.close()
        yield self._flush()

    def _flush(self) -> bytes:
        chunk = b"".join(self._pieces)
        self._pieces.clear()
        self._filled = 0
        return chunk

    def _whiteout(self, path: bytes) -> None:
        """Write a deletion, with a fixed time: when something was deleted is recorded nowhere."""
        parent, slash, name = path.rpartition(b"/")
        mtime = 0 if self._latest is None else min(0, self._latest)
        self._tar.header(parent + slash + _MARKER + name, REGULAR, (0, 0, 0), 0, mtime)
        self._filled += BLOCK

    def _small(self, path: bytes, node: Node, status: os.stat_result) -> None:
        """Write a regular file with one read; tens of thousands of them are what a large layer consists of."""
        size = status.st_size
        fd = node.open()
        try:
            content = os.read(fd, size + 1)  # a byte more, to see that there is none
            if len(content) != size:
                content = _read_on(fd, path, content, size)
            xattrs = node.xattrs()
        finally:
            os.close(fd)
        if xattrs and not self._full:
            xattrs = _pushed(xattrs)
        mtime = status.st_mtime_ns if self._exact else self._time(status)
        self._tar.file(path, (status.st_mode, status.st_uid, status.st_gid), mtime, content, xattrs)
        self._filled += size + 2 * BLOCK

    def _time(self, status: os.stat_result) -> int:
        mtime = status.st_mtime_ns
        if self._latest is not None and mtime > self._latest:
            mtime = self._latest
        return mtime if self._full else mtime - mtime % _SECOND

    def _xattrs(self, node: Node) -> Mapping[str, bytes]:
        xattrs = node.xattrs()
        return xattrs if self._full else _pushed(xattrs)

    def _link(self, path: bytes, status: os.stat_result) -> bool:
        """Write a hard link, if another name of the file is in the archive already."""
        if stat.S_ISDIR(status.st_mode) or stat.S_ISSOCK(status.st_mode):
            return False
        first = self._first_names.setdefault((status.st_dev, status.st_ino), path)
        if first is path:
            return False
        # Times too: Go tools set those of a link's header on the file it leads to.
        self._tar.header(path, HARDLINK, _owner(status), 0, self._time(status), linkname=first)
        self._filled += BLOCK
        return True

    def _special(self, path: bytes, node: Node, status: os.stat_result) -> None:
        """Write a directory, symbolic link, device or FIFO; leave out a socket."""
        kind = _KINDS.get(stat.S_IFMT(status.st_mode))
        if kind is None:
            return
        self._tar.header(
            path + b"/" if kind == DIRECTORY and path else path or b"./",
            kind,
            _owner(status),
            0,
            self._time(status),
            linkname=node.readlink() if kind == SYMLINK else b"",
            device=(os.major(status.st_rdev), os.minor(status.st_rdev)) if kind in _DEVICES else NO_DEVICE,
            xattrs=self._xattrs(node),
        )
        self._filled += BLOCK

    def _large(self, path: bytes, node: Node, status: os.stat_result) -> Generator[bytes]:
        """Write a file too big for one read, with its holes in the full profile."""
        size = status.st_size
        fd = node.open()
        try:
            before = os.fstat(fd)
            if before.st_size != size:
                raise errors.FileChanged(f"it has {before.st_size} bytes instead of {size}", os.fsdecode(path))
            regions = holes.data_regions(fd, size) if self._full else None
            stored = self._large_header(path, node, status, regions)
            for offset, length in ((0, size),) if regions is None else regions:
                yield from self._region(fd, path, offset, length)
            self._tar.pad(stored)
            _check_unchanged(path, before, os.fstat(fd))
        finally:
            os.close(fd)

    def _large_header(
        self, path: bytes, node: Node, status: os.stat_result, regions: Sequence[holes.Region] | None
    ) -> int:
        size, time, xattrs = status.st_size, self._time(status), self._xattrs(node)
        if regions is not None:
            return self._tar.sparse_header(path, _owner(status), size, time, regions=regions, xattrs=xattrs)
        self._tar.header(path, REGULAR, _owner(status), size, time, xattrs=xattrs)
        return size

    def _region(self, fd: int, path: bytes, offset: int, length: int) -> Iterator[bytes]:
        """Copy a part of a large file."""
        end = offset + length
        while offset < end:
            piece = os.pread(fd, min(CHUNK - self._filled, end - offset), offset)
            if not piece:
                raise errors.FileChanged(f"it ends at byte {offset}", os.fsdecode(path))
            offset += len(piece)
            self._pieces.append(piece)
            self._filled += len(piece)
            if self._filled >= _FULL:
                yield self._flush()


def _pushed(xattrs: Mapping[str, bytes]) -> dict[str, bytes]:
    """Return the xattrs that the ``oci`` profile carries."""
    return {key: value for key, value in xattrs.items() if key == _CAPABILITY}


def _owner(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_mode, status.st_uid, status.st_gid


def _read_on(fd: int, path: bytes, content: bytes, size: int) -> bytes:
    """Read on after a short read, as network file systems may give when a signal comes; refuse a wrong length."""
    while len(content) < size:
        more = os.read(fd, size + 1 - len(content))
        if not more:
            break
        content += more
    if len(content) != size:
        found = f"more than {size}" if len(content) > size else f"{len(content)} instead of {size}"
        raise errors.FileChanged(f"it has {found} bytes", os.fsdecode(path))
    return content


def _check_unchanged(path: bytes, before: os.stat_result, after: os.stat_result) -> None:
    """A file that was written to while several reads went over it is a mix of two states."""
    for field in ("st_size", "st_mtime_ns", "st_ctime_ns"):
        if getattr(before, field) != getattr(after, field):
            raise errors.FileChanged("it was written to", os.fsdecode(path))


def _is_marker(path: bytes) -> bool:
    """Tell whether readers of layers take a name, or a parent's, for a deletion."""
    return path.startswith(_MARKER) or b"/" + _MARKER in path
