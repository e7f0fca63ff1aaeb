"""Records of PAX extended headers.

Source: POSIX.1-2017, *pax*, heading *pax Extended Header*; the vendor keywords
of star (``SCHILY.``), libarchive (``LIBARCHIVE.``) and GNU tar (``GNU.sparse.``).
"""

import base64
import binascii
import os
import urllib.parse
from collections.abc import Iterator

import attrs

from graphdrivers import errors
from graphdrivers.archive import acls
from graphdrivers.archive.fields import (
    MAX_MAJOR,
    MAX_MINOR,
    MAX_OWNER,
    MAX_SECONDS,
    MAX_SIZE,
    SECOND,
    in_range,
    malformed,
)

_SCHILY_XATTR = b"SCHILY.xattr."
_LIBARCHIVE_XATTR = b"LIBARCHIVE.xattr."
_SPARSE = b"GNU.sparse."
_ACL = b"SCHILY.acl."

NO_XATTRS: dict[str, bytes] = {}
"""Shared by all members without any; never changed."""

_DIGITS = 20
"""Decimal digits of the longest number that 64 bits need."""


@attrs.define(eq=False)
class Records:
    """What the extended headers in front of a member say, decoded; ``None`` where they are silent."""

    path: bytes | None = None
    linkpath: bytes | None = None
    size: int | None = None
    uid: int | None = None
    gid: int | None = None
    mtime: int | None = None
    """ns since the epoch."""
    major: int | None = None
    minor: int | None = None
    xattrs: dict[str, bytes] = NO_XATTRS
    xattr_bytes: int = 0
    sparse: dict[bytes, bytes] | None = None
    """``GNU.sparse.*`` records without that prefix (versions 0.1 and 1.0)."""
    sparse_map: list[int] | None = None
    """Numbers of the repeated ``GNU.sparse.offset`` and ``.numbytes`` records (version 0.0)."""


def parse(payload: bytes, records: Records, xattr_limit: int) -> Records:
    """Decode an extended header's payload into ``records``, later records winning, and return it.

    Raises:
        MalformedArchive: bytes that are no record, or a value that its keyword does not allow.
        LimitExceeded: more than ``xattr_limit`` bytes of extended attributes.
    """
    for keyword, value in _split(payload):
        decode = _KEYWORDS.get(keyword)
        if decode is not None:
            attribute, convert = decode
            # An empty value takes back an earlier record (POSIX, pax Extended Header).
            setattr(records, attribute, convert(value) if value else None)
        elif keyword.startswith((_SCHILY_XATTR, _LIBARCHIVE_XATTR)):
            _add_xattr(records, keyword, value, xattr_limit)
        elif keyword.startswith(_SPARSE):
            _add_sparse(records, keyword[len(_SPARSE) :], value)
        elif keyword in _ACLS:
            _add_acl(records, _ACLS[keyword], value)
    return records


def parse_global(payload: bytes, records: Records) -> Records:
    """Decode a global header's payload, valid until the archive's end, into ``records`` and return it.

    Raises:
        MalformedArchive: a record that can only be meant for one member (its name,
            its size): readers disagree about these, so no reading of them is safe.
    """
    for keyword, value in _split(payload):
        if keyword in _GLOBAL:
            attribute, convert = _KEYWORDS[keyword]
            setattr(records, attribute, convert(value) if value else None)
        elif keyword in _KEYWORDS or keyword.startswith((_SCHILY_XATTR, _LIBARCHIVE_XATTR, _SPARSE, _ACL)):
            raise malformed(f"a global header sets {keyword!r}, which belongs to one member")
    return records


def _split(payload: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Split a payload into keywords and values: ``LENGTH KEYWORD=VALUE`` and a newline, all of it counted."""
    start, end = 0, len(payload)
    while start < end:
        space = payload.find(b" ", start, start + _DIGITS)
        digits = payload[start:space] if space > start else b""
        if not digits.isdigit():
            if not payload[start:].strip(b"\0"):
                return  # some writers pad with NUL and count the padding
            raise malformed("an extended header record does not begin with its length")
        stop = start + int(digits)
        if not space + 2 < stop <= end or payload[stop - 1] != 0x0A:
            raise malformed("an extended header record has a wrong length")
        keyword, equals, value = payload[space + 1 : stop - 1].partition(b"=")
        if not equals or not keyword or b"\0" in keyword:
            raise malformed(f"an extended header record has no keyword: {keyword[:40]!r}")
        yield keyword, value
        start = stop


def decimal(value: bytes, what: str) -> int:
    """Decode an unsigned decimal number of at most 20 digits.

    Raises:
        MalformedArchive: anything else.
    """
    if not value.isdigit() or len(value) > _DIGITS:
        raise malformed(f"{what} is not a decimal number: {value[:40]!r}")
    return int(value)


def _name(value: bytes) -> bytes:
    if b"\0" in value:
        raise malformed("a name in an extended header contains NUL")
    return value


def _owner(value: bytes) -> int:
    return in_range(decimal(value, "an owner"), MAX_OWNER, "owner")


def _size(value: bytes) -> int:
    return in_range(decimal(value, "a size"), MAX_SIZE, "size")


def _major(value: bytes) -> int:
    return in_range(decimal(value, "a device major"), MAX_MAJOR, "device major")


def _minor(value: bytes) -> int:
    return in_range(decimal(value, "a device minor"), MAX_MINOR, "device minor")


def _time(value: bytes) -> int:
    """Decode seconds with an optional sign and fraction to ns, rounded down."""
    sign = value[:1] == b"-"
    seconds, _, fraction = value[sign:].partition(b".")
    if not seconds.isdigit() or len(seconds) > _DIGITS or (fraction and not fraction.isdigit()):
        raise malformed(f"a time is not a decimal number: {value[:40]!r}")
    in_range(int(seconds), MAX_SECONDS, "time")
    ns = int(seconds) * SECOND + int(fraction[:9].ljust(9, b"0"))
    if sign:
        return -ns - bool(fraction[9:].strip(b"0"))
    return ns


def _add_xattr(records: Records, keyword: bytes, value: bytes, limit: int) -> None:
    """Keep one extended attribute; star's form wins over libarchive's, which comes along with it."""
    schily = keyword.startswith(_SCHILY_XATTR)
    raw = keyword[len(_SCHILY_XATTR if schily else _LIBARCHIVE_XATTR) :]
    if not schily:
        raw, value = urllib.parse.unquote_to_bytes(raw), _base64(value)
    if not raw or b"\0" in raw:
        raise malformed("an extended attribute has no name")
    records.xattr_bytes += len(raw) + len(value)
    if records.xattr_bytes > limit:
        raise errors.LimitExceeded(f"more than {limit} bytes of extended attributes", limit="xattrs")
    if not records.xattrs:
        records.xattrs = {}
    name = os.fsdecode(raw)
    if schily or name not in records.xattrs:
        records.xattrs[name] = value


def _add_acl(records: Records, name: str, text: bytes) -> None:
    """Keep an ACL given as text; the same ACL as an xattr wins."""
    encoded = acls.from_text(text, default=name == acls.DEFAULT)
    if encoded:
        if not records.xattrs:
            records.xattrs = {}
        records.xattrs.setdefault(name, encoded)


def _base64(value: bytes) -> bytes:
    """Decode base64 as libarchive writes it, without padding characters."""
    try:
        return base64.b64decode(value.rstrip(b"=\n") + b"=" * (-len(value.rstrip(b"=\n")) % 4), validate=True)
    except binascii.Error as error:
        raise malformed("an extended attribute is not base64") from error


def _add_sparse(records: Records, key: bytes, value: bytes) -> None:
    """Keep a sparse record; the map of version 0.0 is the one place where records repeat and order counts."""
    if key in {b"offset", b"numbytes"}:
        if records.sparse_map is None:
            records.sparse_map = []
        if len(records.sparse_map) % 2 != (key == b"numbytes"):
            raise malformed("a sparse map's offsets and lengths do not alternate")
        records.sparse_map.append(decimal(value, "a sparse map entry"))
        return
    if records.sparse is None:
        records.sparse = {}
    records.sparse[key] = value


_KEYWORDS = {
    b"path": ("path", _name),
    b"linkpath": ("linkpath", _name),
    b"size": ("size", _size),
    b"uid": ("uid", _owner),
    b"gid": ("gid", _owner),
    b"mtime": ("mtime", _time),
    b"SCHILY.devmajor": ("major", _major),
    b"SCHILY.devminor": ("minor", _minor),
}

_ACLS = {b"SCHILY.acl.access": acls.ACCESS, b"SCHILY.acl.default": acls.DEFAULT}

_GLOBAL = frozenset({b"uid", b"gid", b"mtime"})
