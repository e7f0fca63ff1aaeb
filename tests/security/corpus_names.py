"""Members whose names climb, hide, lie or are merely odd."""

from cases import INSIDE, OUTSIDE, Case, Refused, device, fifo, file, folder, hardlink, implied, layer, like, symlink
from rawtars import header, member, pax

from graphdrivers.errors import LimitExceeded, MalformedArchive, UnsafePath, UnsupportedEntry

CLIMBING = {
    b"..": ("UntarParentTraversalContained", ".."),
    b"../pwned": ("UntarParentTraversalContained", "../pwned"),
    b"../../pwned": ("UntarParentTraversalContained", "../../pwned"),
    b"../victim/dotdot": ("UntarInvalidFilenames", "../victim/dotdot"),
    b"/../victim/slash-dotdot": ("UntarInvalidFilenames", "/../victim/slash-dotdot"),
    b"../victim": ("CVE-2007-4559", "../victim"),
    b"../../victim/hello": ("CVE-2007-4559", "../../victim/hello"),
    b"../../../victim/hello": ("CVE-2007-4559", "../../../victim/hello"),
    b"a/../../victim/x": ("CVE-2007-4559", "a/../../victim/x"),
    b"./../victim/x": ("CVE-2007-4559", "./../victim/x"),
    b"a/b/../../../victim/x": ("UnpackEntrySanitiseScoping", "a/b/../../../victim/x"),
    b"//..//victim/x": ("UnpackEntrySanitiseScoping", "//..//victim/x"),
    b"../target-evil/x": ("UntarSiblingPrefixContained", "../target-evil/x"),
    b"../dest-evil/secret": ("UntarSiblingPrefixContained", "../dest-evil/secret"),
    b"a/" + b"../" * 30 + b"etc/passwd": ("UnpackEntrySanitiseScoping", "a/" + "../" * 30 + "etc/passwd"),
}

ROOTS = {
    "symlink": symlink(b".", OUTSIDE),
    "symlink with slash": symlink(b"./", OUTSIDE),
    "symlink called slash": symlink(b"/", OUTSIDE),
    "symlink called slash dot": symlink(b"/.", OUTSIDE),
    "symlink that takes its name back": symlink(b"a/..", OUTSIDE),
    "symlink without a name": symlink(b"", OUTSIDE),
    "hard link": hardlink(b".", b"etc/passwd"),
    "file": file(b"."),
    "file without a name": header(b"", size=1) + bytes(512),
    "FIFO": fifo(b"."),
    "device": device(b".", b"3", 1, 3),
}
ROOT_NAMES = {
    "symlink with slash": "./",
    "symlink called slash": "/",
    "symlink called slash dot": "/.",
    "symlink that takes its name back": "a/..",
    "symlink without a name": "",
    "file without a name": "",
}

ODD = {
    b"..gitme": "ApplyDotDotFile",
    b"...": "ApplyDotDotFile",
    b" ": "rule: every byte is a name",
    b"new\nline": "rule: every byte is a name",
    b"a:b,c=d\\e": "rule: every byte is a name",
    b"-rf": "rule: every byte is a name",
    b"\xff\xfe": "rule: every byte is a name",
    b"\x1b[2J": "rule: every byte is a name",
    b"%2e%2e%2fvictim": "rule: every byte is a name",
    b"..\\victim": "rule: every byte is a name",
    b"n" * 255: "rule: every byte is a name",
}

LONG = b"d" * 247
STEPS = b"abcdefghijklmnop"


def long_chain() -> bytes:
    """Make CVE-2025-4517's layer: a ``..`` behind links whose resolved path is longer than PATH_MAX."""
    members, path = [], b""
    for step in STEPS:
        members += [folder(path + LONG), symlink(path + b"%c" % step, LONG)]
        path += LONG + b"/"
    links = b"/".join(b"%c" % step for step in STEPS) + b"/" + b"l" * 254
    members.append(symlink(links, b"../" * len(STEPS)))
    members.append(symlink(b"escape", links + b"/../../../../.." + OUTSIDE))
    return layer(*members, hardlink(b"grip", b"escape/hello"), file(b"grip", b"pwned"))


_NAMES = [
    Case(
        name="absolute name",
        source="CVE-2007-4559",
        tar=layer(file(OUTSIDE + b"/hello", b"mine")),
        outcome={**implied(INSIDE + "/hello"), INSIDE + "/hello": "mine"},
    ),
    Case(
        name="doubled slashes and dots",
        source="rule: one name has one form",
        tar=layer(file(b"//a///.//b", b"1"), file(b"./c/./d", b"2"), file(b"e/../f", b"3"), folder(b"g//")),
        outcome={"a": "/", "a/b": "1", "c": "/", "c/d": "2", "f": "3", "g": "/"},
    ),
    Case(
        name="dots inside the root",
        source="UnpackEntrySanitiseScoping",
        tar=layer(file(b"a/b/../../c/x", b"1")),
        outcome={"c": "/", "c/x": "1"},
    ),
    Case(
        name="the root as a directory",
        source="rule: the root is a directory",
        tar=layer(
            folder(b".", mode=b"0000711\0"),
            folder(b"/", mode=b"0000700\0"),
            folder(b"", mode=b"0000750\0"),
            file(b"f"),
        ),
        outcome={"f": "x"},
    ),
    Case(
        name="file with a trailing slash",
        source="rule: v7 directories",
        tar=layer(file(b"d/", b"")),
        outcome={"d": "/"},
    ),
    Case(
        name="NUL in a header's name",
        source="rule: a name ends at NUL",
        tar=layer(member(b"a\0/../../victim/x", b"1")),
        outcome={"a": "1"},
    ),
    Case(
        name="NUL in a PAX path",
        source="rule: NUL in names",
        tar=layer(pax((b"path", b"a\0b")), file(b"harmless")),
        outcome=Refused(MalformedArchive, "pax"),
    ),
    Case(
        name="NUL in a PAX linkpath",
        source="rule: NUL in names",
        tar=layer(pax((b"linkpath", b"a\0b")), symlink(b"harmless", b"t")),
        outcome=Refused(MalformedArchive, "pax"),
    ),
    Case(
        name="PAX path climbs",
        source="CVE-2007-4559",
        tar=layer(pax((b"path", b"../victim/x")), file(b"harmless")),
        outcome=Refused(UnsafePath, "../victim/x"),
    ),
    Case(
        name="GNU long name climbs",
        source="CVE-2007-4559",
        tar=layer(member(b"l", b"../victim/x\0", kind=b"L"), file(b"harmless")),
        outcome=Refused(UnsafePath, "../victim/x"),
    ),
    Case(
        name="ustar prefix climbs",
        source="CVE-2007-4559",
        tar=layer(header(b"victim/x", tail=b"..")),
        outcome=Refused(UnsafePath, "../victim/x"),
    ),
    Case(
        name="ustar prefix and name climb together",
        source="CVE-2007-4559",
        tar=layer(header(b"../../victim", tail=b"a")),
        outcome=Refused(UnsafePath, "a/../../victim"),
    ),
    Case(
        name="sparse name climbs",
        source="CVE-2007-4559",
        tar=layer(
            pax((b"GNU.sparse.name", b"../victim/x"), (b"GNU.sparse.size", b"1"), (b"GNU.sparse.map", b"0,1")),
            file(b"harmless"),
        ),
        outcome=Refused(UnsafePath, "../victim/x"),
    ),
    Case(
        name="component of 256 bytes",
        source="rule: errors name the member",
        tar=layer(file(b"n" * 256)),
        outcome=Refused(UnsupportedEntry, "n" * 256),
    ),
    Case(
        name="parent of 256 bytes",
        source="rule: errors name the member",
        tar=layer(file(b"n" * 256 + b"/x")),
        outcome=Refused(UnsupportedEntry, "n" * 256 + "/x"),
    ),
    Case(
        name="path of 16 KiB and one",
        source="rule: limits",
        tar=layer(file(b"n/" * 8192 + b"n")),
        outcome=Refused(LimitExceeded, "long", "path"),
    ),
    Case(
        name="parent named by a file",
        source="UnpackEntryNonDirParent",
        tar=layer(file(b"f", b"1"), file(b"f/g", b"2")),
        outcome={"f": "/", "f/g": "2"},
    ),
    Case(
        name="parent is a lower file",
        source="UnpackEntryNonDirParent",
        parents=(layer(file(b"f", b"1")),),
        tar=layer(file(b"f/g", b"2")),
        outcome={"f": "/", "f/g": "2"},
    ),
    Case(
        name="duplicates, the last wins",
        source="rule: duplicates",
        tar=layer(file(b"f", b"1"), folder(b"f"), symlink(b"f", OUTSIDE), file(b"f", b"2")),
        outcome={"f": "2"},
    ),
    Case(
        name="dots hidden behind long links",
        source="CVE-2025-4517",
        tar=long_chain(),
        outcome=Refused(MalformedArchive, "grip"),
    ),
    Case(
        name="implied directories are 0755 and root's",
        source="ImpliedDirectoryPermissions",
        tar=layer(file(b"a/b/c"), folder(b"e", mode=b"0000700\0"), file(b"e/f")),
        outcome={
            "a": like("/", mode=0o755, uid=0, mtime=0),
            "a/b": like("/", mode=0o755),
            "a/b/c": "x",
            "e": like("/", mode=0o700),
            "e/f": "x",
        },
    ),
    Case(
        name="implied directories keep what the parents say",
        source="UntarParentPathPermissions",
        parents=(layer(folder(b"a", mode=b"0001711\0", uid=b"0000007\0", mtime=b"00000000011\0")),),
        tar=layer(file(b"a/b")),
        outcome={"a": like("/", mode=0o1711, uid=7, mtime=9 * 10**9), "a/b": "x"},
    ),
]


def cases() -> list[Case]:
    """Give the group."""
    climbing = [
        Case(
            name=f"name {member}",
            source=source,
            tar=layer(file(b"ok"), file(name)),
            outcome=Refused(UnsafePath, member),
        )
        for name, (source, member) in CLIMBING.items()
    ]
    climbing += [
        Case(name=f"directory {member}", source=source, tar=layer(folder(name)), outcome=Refused(UnsafePath, member))
        for name, (source, member) in CLIMBING.items()
    ]
    roots = [
        Case(
            name=f"the root as {kind}",
            source="CVE-2021-29136",
            tar=layer(file(b"etc/passwd"), tar),
            outcome=Refused(UnsafePath, ROOT_NAMES.get(kind, ".")),
        )
        for kind, tar in ROOTS.items()
    ]
    odd = [
        Case(
            name=f"odd name {name!r}",
            source=source,
            tar=layer(file(name), folder(b"d"), file(b"d/" + name)),
            outcome={"d": "/", text: "x", "d/" + text: "x"},
        )
        for name, source in ODD.items()
        if (text := name.decode("utf-8", "surrogateescape"))
    ]
    return climbing + roots + odd + _NAMES
