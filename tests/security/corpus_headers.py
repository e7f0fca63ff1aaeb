"""Headers that lie: numbers, checksums, extension headers, sparse maps."""

from cases import Case, Refused, Tree, base256, file, folder, layer, symlink
from rawtars import END, header, member, pax

from graphdrivers.errors import LimitExceeded, MalformedArchive
from graphdrivers.model import Limits

BLOCKS = bytes(1024)
LONG_NAME, LONG_LINK, GLOBAL = b"L", b"K", b"g"


def sparse(*records: tuple[bytes, bytes]) -> bytes:
    """Make the extended header of a sparse file."""
    return pax(*((b"GNU.sparse." + key, value) for key, value in records))


def sparse_1_0(real: int) -> bytes:
    """Make the extended header of a sparse file whose map stands in front of its data."""
    return sparse((b"major", b"1"), (b"minor", b"0"), (b"realsize", b"%d" % real))


def old_sparse(
    name: bytes, regions: list[tuple[int, int]], real: int, payload: bytes, *, extended: bool = False
) -> bytes:
    """Make the header of an old GNU sparse file, with its payload."""
    slots = b"".join(b"%011o\0%011o\0" % region for region in regions).ljust(96, b"\0")
    tail = bytes(41) + slots + (b"\1" if extended else b"\0") + b"%011o\0" % real
    return (
        header(name, kind=b"S", size=len(payload), tail=tail, magic=b"ustar  \0") + payload + bytes(-len(payload) % 512)
    )


NUMBERS: dict[str, tuple[str, bytes]] = {
    "negative size in base-256": ("CVE-2025-8194", header(size=b"\xff" * 12)),
    "negative size in octal": ("CVE-2025-8194", header(size=b"-0000000010\0")),
    "size with an underscore": ("rule: junk in octal", header(size=b"0000000_010\0")),
    "size with an eight": ("rule: junk in octal", header(size=b"00000000080\0")),
    "size of 2^63": ("rule: sizes", header(size=base256(2**63, 12))),
    "size of letters": ("rule: junk in octal", header(size=b"garbage\0\0\0\0\0")),
    "digits behind a space": ("rule: junk in octal", header(size=b"0000 000010\0")),
    "PAX size negative": ("CVE-2025-8194", pax((b"size", b"-1")) + header()),
    "PAX size 2^63": ("rule: sizes", pax((b"size", b"9223372036854775808")) + header()),
    "PAX size in hexadecimal": ("rule: junk in PAX", pax((b"size", b"0x10")) + header()),
    "PAX size of 5,000 digits": ("rule: junk in PAX", pax((b"size", b"1" * 5000)) + header()),
    "PAX mtime nan": ("rule: junk in PAX", pax((b"mtime", b"nan")) + header()),
    "PAX mtime 1e99": ("rule: junk in PAX", pax((b"mtime", b"1e99")) + header()),
    "time junk": ("rule: junk in octal", header(mtime=b"yesterday\0\0\0")),
    "wrong checksum": ("rule: checksums", header(checksum=b"000001\0 ")),
    "checksum junk": ("rule: checksums", header(checksum=b"\x80junkju ")),
    "no checksum": ("rule: checksums", header(checksum=bytes(8))),
    "unknown type": ("rule: unknown kinds", header(kind=b"Z")),
    "part of a multi-volume archive": ("rule: unknown kinds", header(kind=b"M")),
}

PAX_JUNK = {
    "length 0": ("CVE-2019-20907", b"0 path=f\n"),
    "length 0 and nothing": ("CVE-2019-20907", b"0 "),
    "negative length": ("CVE-2019-20907", b"-9 path=f\n"),
    "length too large": ("CVE-2019-20907", b"99 path=f\n"),
    "length too small": ("CVE-2019-20907", b"3 path=f\n"),
    "length of 5,000 digits": ("CVE-2024-6232", b"1" * 5000 + b" path=f\n"),
    "digits without end": ("CVE-2024-6232", b"1" * 100_000),
    "spaces without end": ("CVE-2024-6232", b" " * 100_000),
    "length in other digits": ("rule: junk in PAX", "\u0661\u0660 path=f\n".encode()),
    "no equals": ("rule: junk in PAX", b"7 path\n"),
    "no keyword": ("rule: junk in PAX", b"5 =f\n"),
    "no newline": ("rule: junk in PAX", b"10 path=ff"),
    "NUL in the keyword": ("rule: junk in PAX", b"11 pa\0th=f\n"),
    "second record is junk": ("rule: junk in PAX", b"10 path=f\nx"),
}

CHAINS: dict[str, tuple[str, bytes, Refused | Tree]] = {
    "two extended headers": (
        "decision: two readers",
        pax((b"path", b"f")) + pax((b"size", b"0")) + header(),
        Refused(MalformedArchive, "pax"),
    ),
    "names that differ": (
        "decision: two readers",
        member(b"l", b"a\0", kind=LONG_NAME) + pax((b"path", b"b")) + header(),
        Refused(MalformedArchive, "f"),
    ),
    "link names that differ": (
        "decision: two readers",
        member(b"l", b"a\0", kind=LONG_LINK) + pax((b"linkpath", b"b")) + header(kind=b"2"),
        Refused(MalformedArchive, "f"),
    ),
    "global path": (
        "decision: two readers",
        pax((b"path", b"g"), kind=GLOBAL) + header(),
        Refused(MalformedArchive, "pax"),
    ),
    "global size": (
        "decision: two readers",
        pax((b"size", b"0"), kind=GLOBAL) + header(),
        Refused(MalformedArchive, "pax"),
    ),
    "global attribute": (
        "decision: two readers",
        pax((b"SCHILY.xattr.user.x", b""), kind=GLOBAL) + header(),
        Refused(MalformedArchive, "pax"),
    ),
    "global sparse map": (
        "decision: two readers",
        pax((b"GNU.sparse.map", b"0,1"), kind=GLOBAL) + header(),
        Refused(MalformedArchive, "pax"),
    ),
    "global comment": (
        "TypeXGlobalHeaderDoesNotFail",
        pax((b"comment", b"hello"), kind=GLOBAL) + file(b"f"),
        {"f": "x"},
    ),
    "global header alone": ("XGlobalNoParent", pax((b"comment", b"hello"), kind=GLOBAL), {}),
    "extended header alone": ("rule: truncation", pax((b"path", b"f")), Refused(MalformedArchive, "")),
    "long name alone": ("rule: truncation", member(b"l", b"a\0", kind=LONG_NAME), Refused(MalformedArchive, "")),
    "duplicate records, the last wins": (
        "rule: duplicates",
        pax((b"path", b"a"), (b"path", b"b")) + file(b"f"),
        {"b": "x"},
    ),
    "empty record takes back": ("rule: duplicates", pax((b"path", b"a"), (b"path", b"")) + file(b"f"), {"f": "x"}),
    "size hides a member": (
        "UntarUstarGnuConflict",
        pax((b"size", b"1024")) + header(b"outer", size=0) + file(b"inner", b"") + bytes(512),
        {"outer": "1024 bytes"},
    ),
    "directory with a size": (
        "decision: two readers",
        header(b"d", kind=b"5", size=512) + file(b"f"),
        {"d": "/", "f": "x"},
    ),
    "prefix of GNU's magic": ("UntarUstarGnuConflict", header(b"f", magic=b"ustar  \0", tail=b"prefix"), {"f": ""}),
    "prefix of POSIX's magic": ("PrefixHeaderReadable", header(b"f", tail=b"prefix"), {"prefix": "/", "prefix/f": ""}),
    "lone zero block": ("decision: two readers", file(b"f") + bytes(512) + file(b"g"), Refused(MalformedArchive, "")),
    "member behind the end": ("rule: the end is the end", file(b"f") + END + file(b"g"), {"f": "x"}),
    "volume label": ("rule: unknown kinds", header(b"label", kind=b"V") + file(b"f"), {"f": "x"}),
    "no tar at all": (
        "apply-junk",
        b"this is no tar\n" * 1000,
        Refused(MalformedArchive, "this is no tar\n" * 6 + "this is no"),
    ),
    "nothing at all": ("UntarEmptyArchive", b"", {}),
    "zeros": ("UntarEmptyArchive", BLOCKS * 3, {}),
    "one zero block": ("UntarEmptyArchive", bytes(512), {}),
    "fewer than 512 bytes": ("apply-junk", b"x" * 511, Refused(MalformedArchive, "")),
}

OVERLAPS: dict[str, tuple[str, bytes, Refused | Tree]] = {
    "holes": (
        "CVE-2025-58183",
        sparse((b"size", b"9"), (b"map", b"1,1,5,2")) + file(b"f", b"abc"),
        {"f": "\0a\0\0\0bc\0\0"},
    ),
    "overlap": (
        "CVE-2025-58183",
        sparse((b"size", b"9"), (b"map", b"0,2,1,1")) + file(b"f", b"abc"),
        Refused(MalformedArchive, "f"),
    ),
    "backwards": (
        "CVE-2025-58183",
        sparse((b"size", b"9"), (b"map", b"5,1,0,2")) + file(b"f", b"abc"),
        Refused(MalformedArchive, "f"),
    ),
    "beyond the end": (
        "CVE-2025-58183",
        sparse((b"size", b"2"), (b"map", b"0,3")) + file(b"f", b"abc"),
        Refused(MalformedArchive, "f"),
    ),
    "more than stored": (
        "CVE-2025-58183",
        sparse((b"size", b"9"), (b"map", b"0,4")) + file(b"f", b"abc"),
        Refused(MalformedArchive, "f"),
    ),
    "less than stored": (
        "CVE-2025-58183",
        sparse((b"size", b"9"), (b"map", b"0,2")) + file(b"f", b"abc"),
        Refused(MalformedArchive, "f"),
    ),
    "odd numbers": (
        "CVE-2025-58183",
        sparse((b"size", b"9"), (b"map", b"0,3,1")) + file(b"f", b"abc"),
        Refused(MalformedArchive, "f"),
    ),
    "junk": (
        "CVE-2025-58183",
        sparse((b"size", b"9"), (b"map", b"0,-3")) + file(b"f", b"abc"),
        Refused(MalformedArchive, "f"),
    ),
    "no size": ("CVE-2025-58183", sparse((b"map", b"0,3")) + file(b"f", b"abc"), Refused(MalformedArchive, "f")),
    "unknown version": (
        "CVE-2025-58183",
        sparse((b"major", b"2"), (b"minor", b"0")) + file(b"f", b"abc"),
        Refused(MalformedArchive, "f"),
    ),
    "1.0 map without end": ("CVE-2025-58183", sparse_1_0(9) + file(b"f", b"1" * 4096), Refused(MalformedArchive, "f")),
    "1.0 map longer than the member": (
        "CVE-2025-58183",
        sparse_1_0(9) + file(b"f", b"9\n0\n"),
        Refused(MalformedArchive, "f"),
    ),
    "1.0 claims 10^14 entries": (
        "CVE-2025-58183",
        sparse_1_0(9) + file(b"f", b"99999999999999\n".ljust(512, b"\0")),
        Refused(LimitExceeded, "f", "sparse_entries"),
    ),
    "old map": ("CVE-2026-32288", old_sparse(b"f", [(0, 2), (4, 1)], 5, b"abc"), {"f": "ab\0\0c"}),
    "old map overlaps": (
        "CVE-2026-32288",
        old_sparse(b"f", [(0, 2), (1, 1)], 5, b"abc"),
        Refused(MalformedArchive, "f"),
    ),
    "old map beyond the end": ("CVE-2026-32288", old_sparse(b"f", [(9, 3)], 5, b"abc"), Refused(MalformedArchive, "f")),
    "hole of 2^62 bytes": (
        "CVE-2025-58183",
        sparse((b"size", b"4611686018427387904"), (b"map", b"0,3")) + file(b"f", b"abc"),
        Refused(LimitExceeded, "f", ""),
    ),
}


_LIMITS_ENDLESS = b"".join(b"%011o\0%011o\0" % (at, 0) for at in range(21)).ljust(504, b"\0") + b"\1" + bytes(7)
_LIMITS = [
    Case(
        name="extended header of 1 MiB and one",
        source="rule: limits",
        tar=layer(header(b"h", kind=b"x", size=(1 << 20) + 1)),
        outcome=Refused(LimitExceeded, "h", "header_chain"),
    ),
    Case(
        name="extended header of 2^62",
        source="CVE-2017-14992",
        tar=layer(header(b"h", kind=b"x", size=base256(2**62, 12))),
        outcome=Refused(LimitExceeded, "h", "header_chain"),
    ),
    Case(
        name="long name of 4 GiB",
        source="CVE-2017-14992",
        tar=layer(header(b"h", kind=LONG_NAME, size=2**32)),
        outcome=Refused(LimitExceeded, "h", "header_chain"),
    ),
    Case(
        name="many long names",
        source="CVE-2024-6232",
        tar=layer(member(b"h", b"n" * 9000, kind=LONG_NAME) * 120),
        outcome=Refused(LimitExceeded, "h", "header_chain"),
    ),
    Case(
        name="many global headers",
        source="CVE-2024-6232",
        tar=layer(pax((b"comment", b"0" * 400), kind=GLOBAL) * 2000),
        outcome=Refused(LimitExceeded, "pax", "header_chain"),
    ),
    Case(
        name="link of 16 KiB and one",
        source="rule: limits",
        tar=layer(pax((b"linkpath", b"n" * ((16 << 10) + 1))), symlink(b"l", b"t")),
        outcome=Refused(LimitExceeded, "l", "path"),
    ),
    Case(
        name="more attributes than allowed",
        source="rule: limits",
        limits=Limits(xattrs=50_000),
        tar=layer(pax(*((b"SCHILY.xattr.user.%d" % at, bytes(1000)) for at in range(60))), file(b"f")),
        outcome=Refused(LimitExceeded, "pax", "xattrs"),
    ),
    Case(
        name="more members than allowed",
        source="rule: limits",
        limits=Limits(members=10),
        tar=layer(*[file(b"f")] * 11),
        outcome=Refused(LimitExceeded, "f", "members"),
    ),
    Case(
        name="more implied directories than members are allowed",
        source="rule: inodes per layer",
        limits=Limits(members=100),
        tar=layer(file(b"d/" * 200 + b"f")),
        outcome=Refused(LimitExceeded, "d/" * 200 + "f", "members"),
    ),
    Case(
        name="more bytes than allowed",
        source="rule: limits",
        limits=Limits(size=1000),
        tar=layer(file(b"f", bytes(1001))),
        outcome=Refused(LimitExceeded, "f", "size"),
    ),
    Case(
        name="more bytes than there is room",
        source="rule: limits",
        tar=layer(header(b"f", size=base256(2**60, 12))),
        outcome=Refused(LimitExceeded, "f", ""),
    ),
    Case(
        name="old sparse map without end",
        source="CVE-2026-32288",
        limits=Limits(sparse_entries=1000),
        tar=layer(old_sparse(b"f", [(0, 0)] * 4, 5, b"", extended=True), _LIMITS_ENDLESS * 100),
        outcome=Refused(LimitExceeded, "f", "sparse_entries"),
    ),
    Case(
        name="sparse map of too many entries",
        source="CVE-2025-58183",
        limits=Limits(sparse_entries=1000),
        tar=layer(sparse((b"size", b"9"), (b"map", b"0,0," * 1001 + b"9,0")), file(b"f", b"")),
        outcome=Refused(LimitExceeded, "f", "sparse_entries"),
    ),
]
"""Asking for too much: refused by name, before it is given."""


def cases() -> list[Case]:
    """Give the group."""
    before = file(b"before") + folder(b"d")
    numbers = [
        Case(
            name=name,
            source=source,
            tar=layer(before, wrong),
            outcome=Refused(MalformedArchive, "pax" if name.startswith("PAX") else "f"),
        )
        for name, (source, wrong) in NUMBERS.items()
    ]
    junk = [
        Case(
            name=f"PAX {name}",
            source=source,
            tar=layer(member(b"h", payload, kind=b"x"), file(b"f")),
            outcome=Refused(MalformedArchive, "h"),
        )
        for name, (source, payload) in PAX_JUNK.items()
    ]
    tables = [
        Case(
            name=f"{group} {name}",
            source=source,
            tar=tar + (END if len(tar) % 512 == 0 and tar.strip(b"\0") else b""),
            outcome=outcome,
        )
        for group, table in (("chain:", CHAINS), ("sparse:", OVERLAPS))
        for name, (source, tar, outcome) in table.items()
    ]
    return numbers + junk + tables + _LIMITS
