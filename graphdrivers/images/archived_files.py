"""The files inside an image's outer tar, read in place: indexed once, never unpacked."""

import io
import os
from typing import BinaryIO

import attrs

from graphdrivers import errors
from graphdrivers.archive.entries import BLOCK, HARDLINK, REGULAR, SYMLINK, Entry
from graphdrivers.archive.reader import TarReader
from graphdrivers.images.files import clean, refuse_kind
from graphdrivers.model import Limits

MEMBERS_MAX = 1 << 20
"""Members of one outer tar: a file per blob, so even a large layout has far fewer."""

BUFFER = 64 << 10
"""Bytes read at a time; payloads larger than this are hopped over while indexing."""


class Section(io.RawIOBase):
    """A stretch of a file, read by position: any number of them share one file without a lock."""

    def __init__(self, descriptor: int, offset: int, size: int) -> None:
        """Read ``size`` bytes from ``offset`` on, through a copy of ``descriptor``."""
        super().__init__()
        self._descriptor = os.dup(descriptor)
        self._position = offset
        self._end = offset + size

    def readable(self) -> bool:
        """Say yes."""
        return True

    def readinto(self, buffer: memoryview | bytearray, /) -> int:  # type: ignore[override] # what io hands over
        """Fill the buffer from where the last read ended; less at the end, also of a file that was cut."""
        view = memoryview(buffer)[: self._end - self._position]
        count = os.preadv(self._descriptor, [view], self._position) if view else 0
        self._position += count
        return count

    def close(self) -> None:
        """Close the copy of the descriptor. Idempotent."""
        if not self.closed:
            os.close(self._descriptor)
        super().close()


@attrs.frozen
class _Member:
    """Where a file's bytes are; or the target of a symbolic link; or neither, for everything else."""

    offset: int = 0
    size: int = 0
    regular: bool = False
    target: str | None = None


class TarFiles:
    """The members of an uncompressed tar, by name; of one name that comes twice the last, as unpacking would leave."""

    def __init__(self, tar: BinaryIO, source: str, limits: Limits) -> None:
        """Index ``tar``, a seekable file with a descriptor, which is taken over.

        Raises:
            MalformedArchive, LimitExceeded: it is no tar, or asks for too much.
            UnsupportedEntry: a member is sparse.
        """
        self.source = source
        self._tar = tar
        self._size = os.fstat(tar.fileno()).st_size
        self._members: dict[str, _Member] = {}
        self._repeated: set[str] = set()
        start: int | None = 0
        while start is not None:
            start = self._index(start, limits)

    def names(self) -> list[str]:
        """List what is at the top."""
        return sorted({name.partition("/")[0] for name in self._members})

    def has(self, name: str) -> bool:
        """Look in the index."""
        return name in self._members

    def repeats(self, name: str) -> bool:
        """Look in the index."""
        return name in self._repeated

    def link(self, name: str) -> str | None:
        """Look in the index."""
        member = self._members.get(name)
        return member.target if member else None

    def open(self, name: str) -> tuple[BinaryIO, int]:
        """Give the member's stretch of the tar."""
        member = self._members.get(name)
        if member is None:
            raise errors.BlobNotFound(self.source, f"there is no {name!r}")
        if not member.regular:
            refuse_kind(self.source, name)
        section = Section(self._tar.fileno(), member.offset, member.size)
        return io.BufferedReader(section, BUFFER), member.size

    def whole(self) -> BinaryIO:
        """Give the tar itself, from its beginning. It is the caller's from now on; nothing else here may be used."""
        self._tar.seek(0)
        return self._tar

    def close(self) -> None:
        """Close the tar."""
        self._tar.close()

    def _index(self, start: int, limits: Limits) -> int | None:
        """Index from ``start`` up to a large payload; returns where that ends, ``None`` at the archive's end."""
        with Section(self._tar.fileno(), start, max(0, self._size - start)) as rest:
            reader = TarReader(rest, limits, chunk=BUFFER)
            while (entry := self._next(reader, start)) is not None:
                payload = start + reader.consumed
                self._add(entry, payload)
                end = payload + entry.size
                if end > self._size:
                    raise errors.MalformedArchive("it ends inside a member", os.fsdecode(entry.name), payload)
                if entry.size > BUFFER:
                    return end + -end % BLOCK
        return None

    def _next(self, reader: TarReader, start: int) -> Entry | None:
        """Read one member's headers; the offset in an error counts from the archive's beginning."""
        try:
            return reader.next()
        except errors.ArchiveError as error:
            error.offset += start if error.offset >= 0 else 0
            raise

    def _add(self, entry: Entry, payload: int) -> None:
        if entry.sparse is not None:
            reason = "sparse members are not read inside an image archive; make it without --sparse"
            raise errors.UnsupportedEntry(reason, os.fsdecode(entry.name), payload)
        name = clean(os.fsdecode(entry.name).lstrip("/"))
        if name is None:
            return
        if name in self._members:
            self._repeated.add(name)
        self._members[name] = self._describe(entry, payload)
        if len(self._members) > MEMBERS_MAX:
            raise errors.InvalidManifest(self.source, f"the archive has more than {MEMBERS_MAX} members")

    def _describe(self, entry: Entry, payload: int) -> _Member:
        if entry.kind == REGULAR:
            return _Member(payload, entry.size, regular=True)
        if entry.kind == HARDLINK:
            target = clean(os.fsdecode(entry.linkname).lstrip("/"))
            return self._members.get(target or "", _Member())
        if entry.kind == SYMLINK:
            return _Member(target=os.fsdecode(entry.linkname))
        return _Member()
