"""PAX extended-header records, as the writer makes them.

Source: POSIX.1-2017, *pax*, heading *pax Extended Header*. Attribute keys follow
star and GNU tar (``SCHILY.xattr.``) and, for names those cannot carry, libarchive
(``LIBARCHIVE.xattr.``).
"""

import base64
import os
import urllib.parse
from collections.abc import Iterable, Mapping

NS = 1_000_000_000
"""Nanoseconds in a second."""


def record(key: bytes, value: bytes) -> bytes:
    r"""Return one record, ``LENGTH KEY=VALUE\n``, whose decimal length counts its own digits."""
    length = len(key) + len(value) + 5  # with two digits, as nearly always
    if not 10 <= length <= 99:
        rest = length - 2
        length = rest + len(str(rest))
        length = rest + len(str(length))  # once more: the digits themselves can add a digit
    return b"%d %b=%b\n" % (length, key, value)


def timestamp(time: int) -> bytes:
    """Return ``time`` (ns since the epoch, may be negative) in decimal seconds without trailing zeros."""
    if time < 0:
        return b"-" + timestamp(-time)
    return (b"%d.%09d" % divmod(time, NS)).rstrip(b"0").rstrip(b".")


def text(pairs: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Return records for names and link targets; where one is not UTF-8, the header is declared ``BINARY``.

    ``hdrcharset`` governs what follows it, so it comes first.
    """
    chosen = tuple(pairs)
    body = b"".join(record(key, value) for key, value in chosen)
    if all(_is_utf8(value) for _, value in chosen):
        return body
    return record(b"hdrcharset", b"BINARY") + body


def attributes(xattrs: Mapping[str, bytes]) -> bytes:
    """Return one record for each extended attribute, sorted by name bytes.

    POSIX ACLs are the attributes ``system.posix_acl_access`` and
    ``system.posix_acl_default``, in the kernel's own format.
    """
    return b"".join(_attribute(key, xattrs[os.fsdecode(key)]) for key in sorted(map(os.fsencode, xattrs)))


def _attribute(key: bytes, value: bytes) -> bytes:
    # Danger: "=" ends a PAX key, and GNU tar reads "%3D" in one as "=" while Go and libarchive do not. Such rare
    # names are written the one way that every reader which knows it reads alike.
    if b"=" in key or b"%" in key:
        quoted = urllib.parse.quote_from_bytes(key, safe="").encode()
        return record(b"LIBARCHIVE.xattr." + quoted, base64.b64encode(value))
    return record(b"SCHILY.xattr." + key, value)


def _is_utf8(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True
