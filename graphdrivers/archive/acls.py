"""POSIX ACLs: from the text that star, GNU tar and libarchive keep in a header to the bytes of the kernel's xattr.

Source: acl(5), heading *ACL TEXT FORMS*; ``include/uapi/linux/posix_acl_xattr.h``;
star(5), ``SCHILY.acl.access``.
"""

import struct

from graphdrivers.archive.fields import malformed

ACCESS, DEFAULT = "system.posix_acl_access", "system.posix_acl_default"

_HEADER = struct.pack("<I", 2)
_ENTRY = struct.Struct("<HHI")
_UNDEFINED = 0xFFFFFFFF
_TAGS = {
    b"user": (0x01, 0x02),
    b"u": (0x01, 0x02),
    b"group": (0x04, 0x08),
    b"g": (0x04, 0x08),
    b"mask": (0x10, 0x10),
    b"m": (0x10, 0x10),
    b"other": (0x20, 0x20),
    b"o": (0x20, 0x20),
}
"""Tag of the file's own entry and of a named one."""
_MINIMAL = 3


def from_text(text: bytes, *, default: bool = False) -> bytes:
    """Encode an ACL text; empty where an access ACL says no more than the mode does.

    Raises:
        MalformedArchive: not an ACL, or a user or group named without its number
            (names mean nothing on another machine).
    """
    entries = sorted(_entry(part) for part in text.replace(b"\n", b",").split(b",") if part.strip())
    if len(entries) <= _MINIMAL and not default:
        return b""
    return _HEADER + b"".join(_ENTRY.pack(tag, permissions, owner) for tag, owner, permissions in entries)


def _entry(part: bytes) -> tuple[int, int, int]:
    """Decode ``type:[name]:permissions[:number]``; gives tag, owner, permissions, which is the kernel's order."""
    fields = part.split(b"#")[0].strip().split(b":")
    if fields[0] in {b"other", b"o", b"mask", b"m"} and len(fields) == 2:
        fields.insert(1, b"")
    if fields[0] not in _TAGS or len(fields) not in {3, 4}:
        raise malformed(f"not an entry of an ACL: {part[:60]!r}")
    own, named = _TAGS[fields[0]]
    letters = fields[2]
    if len(letters) > 3 or letters.strip(b"rwx-"):
        raise malformed(f"not the permissions of an ACL entry: {part[:60]!r}")
    permissions = 4 * (b"r" in letters) + 2 * (b"w" in letters) + (b"x" in letters)
    if not fields[1]:
        return own, _UNDEFINED, permissions
    number = fields[-1] if len(fields) == 4 else fields[1]
    if not number.isdigit() or int(number) >= _UNDEFINED:
        raise malformed(f"an ACL names an owner without its number: {part[:60]!r}")
    return named, int(number), permissions
