"""A tar writer whose output depends on nothing but what it is given.

The format is ustar, with a PAX extended header in front of the members that
ustar cannot describe: names of more than 100 bytes or not in ASCII, times with
a fraction or before 1970, big numbers, extended attributes, holes. User and
group names, access times and change times are never written.

Source: POSIX.1-2017, *pax*, headings *ustar Interchange Format* and *pax
Extended Header*; GNU tar manual, *Storing Sparse Files*, heading *PAX Format,
Version 1.0*.
"""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from isal.isal_zlib import adler32

from graphdrivers.archive import paxwriter
from graphdrivers.archive.entries import (
    BLOCK,
    BLOCKDEV,
    CHARDEV,
    DIRECTORY,
    FIFO,
    HARDLINK,
    REGULAR,
    SYMLINK,
)

Region = tuple[int, int]
"""Offset and length of data in a sparse file."""

Owner = tuple[int, int, int]
"""Mode, uid and gid."""

NO_XATTRS: Mapping[str, bytes] = MappingProxyType({})
NO_DEVICE = (0, 0)

_NAME_FIELD = 100
_MAX_OWNER = 0o7777777
_MAX_NUMBER = 0o77777777777
_MAX_TIME = _MAX_NUMBER * paxwriter.NS
_ZEROS = bytes(BLOCK)
_OWNER = b"%07o\0%07o\0%07o\0"
_EXTENSION = b"x"
_EXTENSION_NAME = b"././@PaxHeader"
_KINDS = (REGULAR, HARDLINK, SYMLINK, CHARDEV, BLOCKDEV, DIRECTORY, FIFO, _EXTENSION)
_OWNERS_KEPT = 4096


class TarWriter:
    """Writes members, each a `header`, then its `payload` in pieces, then `pad`; `close` ends the archive.

    The caller keeps its promise about sizes; nothing here counts.
    """

    def __init__(self, write: Callable[[bytes], object]) -> None:
        """Write through ``write``, which must take every byte it is given."""
        self.payload = write
        """Write a piece of the present member's content."""
        # Files of a layer share owner and mode, and few are links: those fields are formatted once.
        self._owners: dict[Owner, bytes] = {}
        self._extensions: dict[int, bytes] = {}
        self._tails = {kind: _Tail(kind, b"", NO_DEVICE) for kind in _KINDS}

    def header(
        self,
        name: bytes,
        kind: bytes,
        owner: Owner,
        size: int,
        mtime: int,
        *,
        linkname: bytes = b"",
        device: tuple[int, int] = NO_DEVICE,
        xattrs: Mapping[str, bytes] = NO_XATTRS,
    ) -> None:
        """Write a member's headers.

        Args:
            name: as it is to stand in the tar; a directory's ends in ``/``.
            kind: a type flag of `entries`.
            owner: mode (bits beyond permissions are cut off), uid and gid (0 to 2**32 - 1).
            size: bytes of content that follow.
            mtime: ns since the epoch; may be negative.
            linkname: target of a symbolic or hard link.
            device: major and minor number, each below 2**21.
            xattrs: everything in it is written, sorted by name.
        """
        seconds, fraction = divmod(mtime, paxwriter.NS)
        fields = self._owners.get(owner)
        # Nearly every member of nearly every layer passes this line; it is what a diff's speed hangs on.
        plain = fields and not (fraction or xattrs or linkname) and len(name) <= _NAME_FIELD and name.isascii()
        if not plain or not 0 <= seconds <= _MAX_NUMBER or size > _MAX_NUMBER:
            records = _records(name, linkname, owner, size, mtime)
            self._extend(records + paxwriter.attributes(xattrs) if xattrs else records)
            name, size, seconds = name[:_NAME_FIELD], _shown(size), _shown(seconds)
        tail = _Tail(kind, linkname, device) if linkname or device != NO_DEVICE else self._tails[kind]
        self.payload(_block(name, fields or self._owner(owner), size, seconds, tail))

    def file(
        self, name: bytes, owner: Owner, mtime: int, content: bytes, xattrs: Mapping[str, bytes] = NO_XATTRS
    ) -> None:
        """Write a whole regular file; the arguments are those of `header`."""
        size = len(content)
        self.header(name, REGULAR, owner, size, mtime, xattrs=xattrs)
        self.payload(content)
        if size % BLOCK:
            self.payload(_ZEROS[size % BLOCK :])

    def sparse_header(
        self,
        name: bytes,
        owner: Owner,
        size: int,
        mtime: int,
        *,
        regions: Sequence[Region],
        xattrs: Mapping[str, bytes] = NO_XATTRS,
    ) -> int:
        """Write the headers and the map of a regular file with holes; only its data regions follow as payload.

        Args:
            name: see `header`, as for the others.
            owner: mode, uid and gid.
            size: bytes of the file, holes counted.
            mtime: ns since the epoch.
            regions: offset and length of the data, in file order, without overlap.
            xattrs: extended attributes.

        Returns:
            The bytes of payload that have to follow.
        """
        sparse_map = _sparse_map(regions, size)
        payload = sum(length for _, length in regions)
        stored = len(sparse_map) + payload
        records = (
            paxwriter.text(((b"GNU.sparse.name", name),))
            + _numbers(owner, stored, mtime)
            + paxwriter.record(b"GNU.sparse.major", b"1")
            + paxwriter.record(b"GNU.sparse.minor", b"0")
            + paxwriter.record(b"GNU.sparse.realsize", b"%d" % size)
            + paxwriter.attributes(xattrs)
        )
        self._extend(records)
        # A reader that does not know sparse files must not put the map under the real name.
        shown = (b"GNUSparseFile.0/" + name.rpartition(b"/")[2])[:_NAME_FIELD]
        seconds = _shown(mtime // paxwriter.NS)
        self.payload(_block(shown, self._owner(owner), _shown(stored), seconds, self._tails[REGULAR]))
        self.payload(sparse_map)
        return payload

    def pad(self, size: int) -> None:
        """Fill the block after a payload of ``size`` bytes."""
        self.payload(_ZEROS[: -size % BLOCK])

    def close(self) -> None:
        """Write the end-of-archive blocks."""
        self.payload(_ZEROS * 2)

    def _extend(self, records: bytes) -> None:
        """Write an extended header, unless there is nothing to say."""
        size = len(records)
        if not size:
            return
        block = self._extensions.get(size)
        if block is None:
            block = _block(_EXTENSION_NAME, _OWNER % (0o644, 0, 0), size, 0, self._tails[_EXTENSION])
            if size <= BLOCK:
                self._extensions[size] = block
        self.payload(block + records + _ZEROS[: -size % BLOCK])

    def _owner(self, owner: Owner) -> bytes:
        """Format the mode, uid and gid fields, and remember them where all fit (`header` relies on that)."""
        mode, uid, gid = owner
        fields = _OWNER % (mode & 0o7777, uid if uid <= _MAX_OWNER else 0, gid if gid <= _MAX_OWNER else 0)
        if max(uid, gid) <= _MAX_OWNER:
            if len(self._owners) == _OWNERS_KEPT:
                self._owners.clear()
            self._owners[owner] = fields
        return fields


def _fits(name: bytes) -> bool:
    return len(name) <= _NAME_FIELD and name.isascii()


def _records(name: bytes, linkname: bytes, owner: Owner, size: int, mtime: int) -> bytes:
    """Return PAX records for the fields that do not fit into ustar."""
    records = b""
    if not (_fits(name) and _fits(linkname)):
        pairs = ((b"path", name), (b"linkpath", linkname))
        records = paxwriter.text(pair for pair in pairs if not _fits(pair[1]))
    return records + _numbers(owner, size, mtime)


def _numbers(owner: Owner, size: int, mtime: int) -> bytes:
    _, uid, gid = owner
    records = b""
    if size > _MAX_NUMBER:
        records += paxwriter.record(b"size", b"%d" % size)
    if uid > _MAX_OWNER:
        records += paxwriter.record(b"uid", b"%d" % uid)
    if gid > _MAX_OWNER:
        records += paxwriter.record(b"gid", b"%d" % gid)
    if mtime % paxwriter.NS or not 0 <= mtime <= _MAX_TIME:
        records += paxwriter.record(b"mtime", paxwriter.timestamp(mtime))
    return records


def _shown(number: int) -> int:
    """Return what its ustar field says of a size or time: 0 where it does not fit and a PAX record has it."""
    return number if 0 <= number <= _MAX_NUMBER else 0


class _Tail:
    """The fields behind the checksum, and what they add to it."""

    __slots__ = ("checksum", "text")

    def __init__(self, kind: bytes, linkname: bytes, device: tuple[int, int]) -> None:
        linkfield = linkname[:_NAME_FIELD].ljust(_NAME_FIELD, b"\0")
        self.text = b"%b%bustar\x0000%b%07o\0%07o\0%b" % (kind, linkfield, bytes(64), *device, bytes(167))
        self.checksum = sum(self.text) + sum(b"        ")  # the checksum field itself counts as blanks


def _block(name: bytes, owner: bytes, size: int, seconds: int, tail: _Tail) -> bytes:
    """Join fields that fit to one header block."""
    front = b"%b%b%011o\0%011o\0" % (name.ljust(_NAME_FIELD, b"\0"), owner, size, seconds)
    # The low half of Adler-32 is 1 plus the sum of the bytes modulo 65521. Here the sum stays below that: 100 bytes
    # up to 255 and 48 ASCII digits.
    return b"%b%06o\0 %b" % (front, (adler32(front) & 0xFFFF) - 1 + tail.checksum, tail.text)


def _sparse_map(regions: Sequence[Region], size: int) -> bytes:
    """Format the map of sparse format 1.0; a file that ends in a hole gets an empty region at its end, as GNU tar's."""
    listed = list(regions)
    if not listed or sum(listed[-1]) < size:
        listed.append((size, 0))
    text = b"%d\n" % len(listed) + b"".join(b"%d\n%d\n" % region for region in listed)
    return text + _ZEROS[: -len(text) % BLOCK]
