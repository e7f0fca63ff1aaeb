"""Headers that only describe the member behind them: PAX, GNU long names, volume labels.

Where GNU tar and Go's ``archive/tar`` would understand a combination of them
differently, it is refused: a name or size that depends on the reader is how
content is smuggled past an inspection.
"""

import attrs

from graphdrivers import errors
from graphdrivers.archive import fields, pax, sparse
from graphdrivers.archive.blocks import BlockStream
from graphdrivers.archive.entries import BLOCK, HARDLINK, REGULAR, SYMLINK, Entry
from graphdrivers.archive.fields import malformed
from graphdrivers.model import Limits

OLD_SPARSE = b"S"
_PAX, _PAX_SUN, _PAX_GLOBAL = b"x", b"X", b"g"
_LONG_NAME, _LONG_LINK, _VOLUME = b"L", b"K", b"V"


@attrs.define(eq=False)
class _Chain:
    """The extension headers in front of one member."""

    consumed: int = 0
    records: pax.Records | None = None
    name: bytes | None = None
    linkname: bytes | None = None


_NO_CHAIN = _Chain()
_NO_RECORDS = pax.Records()
"""Never changed; most members have none of their own."""


class Extensions:
    """Collect extension headers, and merge them into the entry that follows."""

    def __init__(self, blocks: BlockStream, limits: Limits) -> None:
        """Start with none; payloads are read from ``blocks``."""
        self._blocks = blocks
        self._limits = limits
        self._sizes = fields.FieldCache(fields.size)
        self._chain: _Chain | None = None
        self._global: pax.Records | None = None
        self._global_bytes = 0
        self.wanted = False
        """Whether the next member's entry must be passed to `merge`."""

    @property
    def dangling(self) -> bool:
        """Whether an extension header waits for its member."""
        return self._chain is not None

    def read(self, header: bytes, kind: bytes) -> None:
        """Read the payload of an extension header.

        Raises:
            MalformedArchive: no known type of header, or a wrong payload.
            LimitExceeded: more such headers than the limits allow.
        """
        size = self._sizes[header[fields.SIZE]]
        if kind == _PAX_GLOBAL:
            self._read_global(size)
            return
        if kind == _VOLUME:
            if self._blocks.skip(size + -size % BLOCK):
                raise malformed("the archive ends within a volume label")
            return
        if kind not in {_PAX, _PAX_SUN, _LONG_NAME, _LONG_LINK}:
            raise malformed(f"member type {kind!r} is not known, or part of a multi-volume archive")
        self.wanted = True
        chain = self._chain = self._chain or _Chain()
        chain.consumed += BLOCK + size
        payload = self._payload(size, chain.consumed)
        if kind == _LONG_NAME:
            chain.name = self._long(payload)
        elif kind == _LONG_LINK:
            chain.linkname = self._long(payload)
        elif chain.records is not None:
            raise malformed("two extended headers describe one member")
        else:
            chain.records = pax.parse(payload, pax.Records(), self._limits.xattrs)

    def _read_global(self, size: int) -> None:
        """Read records that hold until they are changed."""
        self._global_bytes += BLOCK + size
        payload = self._payload(size, self._global_bytes)
        self._global = pax.parse_global(payload, self._global or pax.Records())
        self.wanted = True

    def _payload(self, size: int, total: int) -> bytes:
        """Read an extension header's payload; ``total`` counts it and those before it."""
        if total > self._limits.header_chain:
            limit = self._limits.header_chain
            raise errors.LimitExceeded(f"more than {limit} bytes of extension headers", limit="header_chain")
        payload = self._blocks.take(size)
        if len(payload) < size or self._blocks.skip(-size % BLOCK):
            raise malformed("the archive ends within an extension header")
        return payload

    def _long(self, payload: bytes) -> bytes | None:
        """Return the name in a GNU long-name payload."""
        return self._short_enough(fields.text(payload)) or None

    def _short_enough(self, name: bytes) -> bytes:
        if len(name) > self._limits.path:
            raise errors.LimitExceeded(f"a path of {len(name)} bytes", limit="path")
        return name

    def merge(self, entry: Entry, header: bytes) -> int:
        """Merge all that was read into ``entry`` and return the bytes stored for it in the archive.

        The map of a sparse file is read here where it stands in front of the data.
        ``entry.size`` comes in as the header's size field and goes out as the file's size.

        Raises:
            MalformedArchive: the headers contradict each other.
            LimitExceeded: a path or sparse map is too long.
        """
        chain = self._chain or _NO_CHAIN
        self._chain = None
        self.wanted = self._global is not None
        if self._global is not None:
            _merge_owner_and_time(entry, self._global)
        records = chain.records or _NO_RECORDS
        _merge_owner_and_time(entry, records)
        entry.name = self._short_enough(_agreed(chain.name, records.path) or entry.name)
        if entry.kind in {HARDLINK, SYMLINK}:
            entry.linkname = self._short_enough(_agreed(chain.linkname, records.linkpath) or entry.linkname)
        if records.major is not None:
            entry.device = records.major, entry.device[1]
        if records.minor is not None:
            entry.device = entry.device[0], records.minor
        entry.xattrs = records.xattrs
        if records.size is not None:
            entry.size = records.size
        return self._merge_sparse(entry, header, records)

    def _merge_sparse(self, entry: Entry, header: bytes, records: pax.Records) -> int:
        """Read the map of a file with holes, if it is one."""
        stored, limit = entry.size, self._limits.sparse_entries
        found: sparse.SparseMap | None = None
        if header[fields.KIND] == OLD_SPARSE:
            found = sparse.from_old_gnu(header, stored, self._block, limit)
        elif entry.kind is REGULAR:
            found = sparse.from_records(records, stored, self._block, limit)
        if found is None:
            return stored
        entry.size, entry.sparse = found.size, found.regions
        if found.name is not None:
            entry.name = self._short_enough(found.name)
        return found.stored

    def _block(self) -> bytes:
        """Read one block of a sparse map."""
        block = self._blocks.take(BLOCK)
        if len(block) < BLOCK:
            raise malformed("the archive ends within a sparse map")
        return block


def _agreed(long_name: bytes | None, path: bytes | None) -> bytes | None:
    """Choose between a GNU long name and a PAX path: Go takes the first, GNU tar the second."""
    if long_name is not None and path is not None and long_name != path:
        raise malformed("two extension headers name one member differently")
    return path if long_name is None else long_name


def _merge_owner_and_time(entry: Entry, records: pax.Records) -> None:
    if records.uid is not None:
        entry.uid = records.uid
    if records.gid is not None:
        entry.gid = records.gid
    if records.mtime is not None:
        entry.mtime = records.mtime
