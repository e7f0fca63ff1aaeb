"""Special files, and attributes that a kernel or an overlay would take for instructions."""

from cases import Case, Refused, base256, device, fifo, file, folder, hardlink, layer, like, symlink, xattr
from corpus_symlinks import ETC
from rawtars import header, pax

from graphdrivers.errors import MalformedArchive, UnsupportedEntry

PRIVATE = {
    b"trusted.overlay.opaque": b"y",
    b"trusted.overlay.opaque ": b"y",
    b"trusted.overlay.redirect": b"/etc",
    b"trusted.overlay.metacopy": b"",
    b"trusted.overlay.origin": b"\0\xfb!",
    b"trusted.overlay.whiteout": b"y",
    b"trusted.overlay.overlay.opaque": b"y",
    b"user.overlay.opaque": b"y",
    b"user.overlay.whiteout": b"y",
    b"user.fuseoverlayfs.opaque": b"y",
    b"user.containers.override_stat": b"0:0:0755",
    b"security.capability": b"\1\0\0\2\0\4\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
}
OWNERS = {
    "-1 as octal": b"-000001\0",
    "-1 in base-256": b"\xff" * 8,
    "2^40": base256(2**40, 8),
    "2^32 - 1": base256(2**32 - 1, 8),
    "an eight": b"0000080\0",
    "a letter": b"00000a0\0",
    "a hexadecimal prefix": b"0x00010\0",
}

TIMES = {
    "zero": (b"00000000000\0", 0),
    "2038": (b"20000000000\0", 2**31),
    "2106": (b"40000000000\0", 2**32),
    "1901": (base256(-(2**31), 12), -(2**31)),
}


_SPECIAL = [
    Case(
        name="devices and FIFOs",
        source="TarWithBlockCharFifo",
        needs="devices",
        lacking="c",
        tar=layer(
            device(b"c", b"3", 1, 3, mode=b"0000666\0"),
            device(b"b", b"4", 7, 200),
            fifo(b"p"),
            device(b"max", b"3", 4095, 0o3777777),
        ),
        outcome={"c": like("c 1:3", mode=0o666), "b": "b 7:200", "p": "p", "max": "c 4095:1048575"},
    ),
    Case(
        name="character device 0:0",
        source="overlay whiteouts in tars",
        needs="char_0_0",
        lacking="d/a",
        parents=(layer(file(b"d/a", b"1"), file(b"d/b", b"2")),),
        tar=layer(device(b"d/a", b"3", 0, 0)),
        outcome={"d": "/", "d/a": "c 0:0", "d/b": "2"},
    ),
    Case(
        name="block device 0:0 is no whiteout",
        source="overlay whiteouts in tars",
        needs="devices",
        lacking="f",
        parents=(layer(file(b"f")),),
        tar=layer(device(b"f", b"4", 0, 0)),
        outcome={"f": "b 0:0"},
    ),
    Case(
        name="character device 0:1 is no whiteout",
        source="overlay whiteouts in tars",
        needs="devices",
        lacking="f",
        parents=(layer(file(b"f")),),
        tar=layer(device(b"f", b"3", 0, 1)),
        outcome={"f": "c 0:1"},
    ),
    Case(
        name="major out of range",
        source="HandleTarTypeBlockCharFifoDeviceRange",
        tar=layer(device(b"c", b"3", 4096, 0)),
        outcome=Refused(MalformedArchive, "c"),
    ),
    Case(
        name="minor out of range",
        source="HandleTarTypeBlockCharFifoDeviceRange",
        tar=layer(device(b"c", b"4", 1, 0o4000000)),
        outcome=Refused(MalformedArchive, "c"),
    ),
    Case(
        name="negative device",
        source="HandleTarTypeBlockCharFifoDeviceRange",
        tar=layer(header(b"c", kind=b"3", devices=b"\xff" * 16)),
        outcome=Refused(MalformedArchive, "c"),
    ),
    Case(
        name="major beyond 32 bits in PAX",
        source="HandleTarTypeBlockCharFifoDeviceRange",
        tar=layer(pax((b"SCHILY.devmajor", b"4294967297")), device(b"c", b"3", 1, 3)),
        outcome=Refused(MalformedArchive, "pax"),
    ),
    Case(
        name="device junk in a file is not looked at",
        source="rule: fields of other kinds",
        tar=layer(header(b"f", devices=b"\xff" * 16)),
        outcome={"f": ""},
    ),
    Case(
        name="FIFO with a size carries no payload",
        source="CVE-2024-9676",
        tar=layer(fifo(b"p", size=3), file(b"f")),
        outcome={"p": "p", "f": "x"},
    ),
    Case(
        name="FIFO where a directory is needed",
        source="CVE-2024-9676",
        tar=layer(fifo(b"p"), file(b"p/f")),
        outcome={"p": "/", "p/f": "x"},
    ),
    Case(
        name="FIFO of a lower layer is not opened",
        source="CVE-2024-9676",
        parents=(layer(fifo(b"p")),),
        tar=layer(file(b"p", b"1"), hardlink(b"q", b"p")),
        outcome={"p": "1", "q": "= p"},
    ),
    Case(
        name="member type of a socket",
        source="rule: unknown kinds",
        tar=layer(header(b"s", kind=b"s")),
        outcome=Refused(MalformedArchive, "s"),
    ),
    Case(
        name="set-id bits of special files",
        source="UnpackEntryMap",
        needs="devices",
        lacking="c",
        tar=layer(
            fifo(b"p", mode=b"0006755\0", uid=b"0000007\0"),
            device(b"c", b"3", 1, 3, mode=b"0006666\0", uid=b"0000007\0"),
        ),
        outcome={"p": like("p", mode=0o6755, uid=7), "c": like("c 1:3", mode=0o6666, uid=7)},
    ),
]


_MODES_AND_TIMES = [
    Case(
        name="set-id bits survive the owner",
        source="umoci setuid",
        tar=layer(file(b"f", mode=b"0006755\0", uid=b"0000007\0"), folder(b"d", mode=b"0003777\0", uid=b"0000007\0")),
        outcome={"f": like("x", mode=0o6755, uid=7), "d": like("/", mode=0o3777, uid=7)},
    ),
    Case(
        name="file type in the mode field",
        source="rule: only permission bits",
        tar=layer(file(b"f", mode=b"0120644\0"), folder(b"d", mode=b"0100755\0")),
        outcome={"f": like("x", mode=0o644), "d": like("/", mode=0o755)},
    ),
    Case(
        name="mode with junk",
        source="rule: junk in octal",
        tar=layer(file(b"f", mode=b"000064x\0")),
        outcome=Refused(MalformedArchive, "f"),
    ),
    Case(
        name="negative mode",
        source="rule: junk in octal",
        tar=layer(file(b"f", mode=b"-000644\0")),
        outcome=Refused(MalformedArchive, "f"),
    ),
    Case(
        name="mode in base-256 keeps permission bits only",
        source="rule: only permission bits",
        tar=layer(file(b"f", mode=b"\xff" * 8)),
        outcome={"f": like("x", mode=0o7777)},
    ),
    Case(
        name="owner of 2^32 - 2",
        source="rule: owners",
        tar=layer(file(b"f", uid=base256(2**32 - 2, 8), gid=base256(2**32 - 2, 8))),
        outcome={"f": like("x", uid=2**32 - 2, gid=2**32 - 2)},
    ),
    Case(
        name="owner's name is not looked up",
        source="CVE-2026-46680",
        tar=layer(pax((b"uname", b"root"), (b"gname", b"root")), file(b"f", uid=b"0001750\0", gid=b"0001750\0")),
        outcome={"f": like("x", uid=1000, gid=1000)},
    ),
    Case(
        name="mode of a directory that is closed to its owner",
        source="UnpackEntryParentDir",
        tar=layer(folder(b"d", mode=b"0000000\0", mtime=b"00000000001\0"), file(b"d/f")),
        outcome={"d": like("/", mode=0, mtime=10**9), "d/f": "x"},
    ),
    Case(
        name="fraction of a second",
        source="rule: times",
        tar=layer(pax((b"mtime", b"-1.9999999999")), file(b"f")),
        outcome={"f": like("x", mtime=-2 * 10**9)},
    ),
    Case(
        name="time beyond 64 bits",
        source="rule: times",
        tar=layer(file(b"f", mtime=base256(2**34, 12))),
        outcome=Refused(MalformedArchive, "f"),
    ),
    Case(
        name="time far before the epoch",
        source="rule: times",
        tar=layer(file(b"f", mtime=base256(-(2**63), 12))),
        outcome=Refused(MalformedArchive, "f"),
    ),
]


_XATTRS_ACL = b"\2\0\0\0" + b"\1\0\7\0\xff\xff\xff\xff" * 3
_XATTRS = [
    Case(
        name="attribute that this kernel has no room for",
        source="TarUntarWithXattr",
        tar=layer(xattr(b"user.big", bytes(70_000)), file(b"f")),
        outcome=Refused(UnsupportedEntry, "f"),
    ),
    Case(
        name="attribute name of 256 bytes",
        source="TarUntarWithXattr",
        tar=layer(xattr(b"user." + b"n" * 251, b""), file(b"f")),
        outcome=Refused(UnsupportedEntry, "f"),
    ),
    Case(
        name="attribute of no known namespace",
        source="TarUntarWithXattr",
        tar=layer(xattr(b"bogus.name", b""), file(b"f")),
        outcome=Refused(UnsupportedEntry, "f"),
    ),
    Case(
        name="user attribute on a symlink",
        source="TarUntarWithXattr",
        tar=layer(xattr(b"user.a", b""), symlink(b"l", b"t")),
        outcome=Refused(UnsupportedEntry, "l"),
    ),
    Case(
        name="attribute on a symlink stays on it",
        source="CVE-2021-32760",
        parents=(ETC,),
        tar=layer(xattr(b"trusted.a", b"1"), symlink(b"l", b"etc/passwd")),
        outcome={
            "etc": "/",
            "etc/passwd": like("root", xattrs={}),
            "l": like("-> etc/passwd", xattrs={"trusted.a": b"1"}),
        },
    ),
    Case(
        name="ACL that is none",
        source="rule: attributes",
        tar=layer(xattr(b"system.posix_acl_access", _XATTRS_ACL), file(b"f")),
        outcome=Refused(UnsupportedEntry, "f"),
    ),
    Case(
        name="default ACL on a file",
        source="rule: attributes",
        tar=layer(pax((b"SCHILY.acl.default", b"user::rwx,group::r-x,other::r-x")), file(b"f")),
        outcome=Refused(UnsupportedEntry, "f"),
    ),
    Case(
        name="ACL by a name",
        source="CVE-2026-46680",
        tar=layer(pax((b"SCHILY.acl.access", b"user::rw-,user:root:rw-,group::r--,mask::rw-,other::r--")), file(b"f")),
        outcome=Refused(MalformedArchive, "pax"),
    ),
    Case(
        name="default ACL does not spread",
        source="rule: attributes",
        tar=layer(
            pax((b"SCHILY.acl.default", b"user::rwx,user:7:rwx,group::rwx,mask::rwx,other::rwx")),
            folder(b"d"),
            file(b"d/f", mode=b"0000600\0"),
            folder(b"d/e", mode=b"0000700\0"),
        ),
        outcome={"d": "/", "d/f": like("x", mode=0o600, xattrs={}), "d/e": like("/", mode=0o700, xattrs={})},
    ),
    Case(
        name="overlay's prefix and nothing else",
        source="overlayfs lists it and cannot read it",
        tar=layer(xattr(b"trusted.overlay.", b"y"), file(b"f")),
        outcome=Refused(UnsupportedEntry, "f"),
    ),
    Case(
        name="overlay's user prefix and nothing else",
        source="overlayfs lists it and cannot read it",
        tar=layer(xattr(b"user.overlay.", b"y"), folder(b"d")),
        outcome=Refused(UnsupportedEntry, "d"),
    ),
    Case(
        name="names of attributes with NUL",
        source="rule: NUL in names",
        tar=layer(pax((b"LIBARCHIVE.xattr.user.%00", b"")), file(b"f")),
        outcome=Refused(MalformedArchive, "pax"),
    ),
]


def _private() -> list[Case]:
    """Overlay's private attributes are content of the image, on every driver."""
    found = []
    for name, value in PRIVATE.items():
        text = name.decode()
        seen = {text: value}
        found.append(
            Case(
                name=f"{text} on a directory",
                source="peers set trusted.overlay.* from tars",
                parents=(layer(file(b"d/lower", b"1"), file(b"etc/x", b"2")),),
                tar=layer(xattr(name, value), folder(b"d"), file(b"d/upper")),
                outcome={"d": like("/", xattrs=seen), "d/lower": "1", "d/upper": "x", "etc": "/", "etc/x": "2"},
            )
        )
        found.append(
            Case(
                name=f"{text} on a file",
                source="peers set trusted.overlay.* from tars",
                parents=(layer(file(b"f", b"lower"), file(b"g", b"other")),),
                tar=layer(xattr(name, value), file(b"f", b"upper")),
                outcome={"f": like("upper", xattrs=seen), "g": "other"},
            )
        )
    return found


def cases() -> list[Case]:
    """Give the group."""
    owners = [
        Case(
            name=f"{field} {what}",
            source="CVE-2025-8194",
            tar=layer(file(b"f", **{field: value})),
            outcome=Refused(MalformedArchive, "f"),
        )
        for what, value in OWNERS.items()
        for field in ("uid", "gid")
    ]
    owners += [
        Case(
            name=f"PAX {field} {value.decode()}",
            source="CVE-2025-8194",
            tar=layer(pax((field.encode(), value)), file(b"f")),
            outcome=Refused(MalformedArchive, "pax"),
        )
        for field in ("uid", "gid")
        for value in (b"-1", b"4294967295", b"1099511627776", b"+1", b"1_0", b"0x1", b"1.5", b"root", "\u0661".encode())
    ]
    times = [
        Case(
            name=f"time {what}",
            source="rule: times",
            tar=layer(file(b"f", mtime=field)),
            outcome={"f": like("x", mtime=seconds * 10**9)},
        )
        for what, (field, seconds) in TIMES.items()
    ]
    return _SPECIAL + _MODES_AND_TIMES + owners + times + _XATTRS + _private()
