"""Markers that delete too much, too early, outside, or that are no markers."""

from cases import (
    INSIDE,
    OUTSIDE,
    Case,
    Refused,
    file,
    folder,
    hardlink,
    implied,
    layer,
    like,
    opaque,
    symlink,
    whiteout,
)
from corpus_symlinks import ETC

from graphdrivers.errors import UnsafePath, UnsupportedEntry

INVALID = {
    b".wh.": "OverlayUntarInvalidWhiteoutNames",
    b".wh..": "WhiteoutRoot",
    b".wh...": "WhiteoutRootParent",
    b"etc/.wh.": "OverlayUntarInvalidWhiteoutNames",
    b"etc/.wh..": "WhiteoutCurrentDirectory",
    b"etc/.wh...": "WhiteoutParent",
    b"./etc//.wh...": "WhiteoutParent",
}

LOWER = layer(folder(b"d"), file(b"d/a", b"1"), file(b"d/s/b", b"2"), file(b"f", b"3"))
BELOW = {"d": "/", "d/a": "1", "d/s": "/", "d/s/b": "2", "f": "3"}


_CONTAINERD_PLAIN = {"etc": "/", "etc/passwd": like("root", mode=0o600)}
_CONTAINERD = [
    Case(
        name="WhiteoutSymlink",
        source="WhiteoutSymlink",
        parents=(layer(folder(b"etc"), file(b"etc/unbroken"), symlink(b"localetc", b"/etc")),),
        tar=layer(whiteout(b"localetc")),
        outcome={"etc": "/", "etc/unbroken": "x"},
    ),
    Case(
        name="WhiteoutSymlinkPath",
        source="WhiteoutSymlinkPath",
        parents=(layer(folder(b"etc"), file(b"etc/out"), symlink(b"localetc", b"/etc")),),
        tar=layer(whiteout(b"localetc/out")),
        outcome={"etc": "/", "localetc": "-> /etc"},
    ),
    Case(
        name="WhiteoutDirectoryName",
        source="WhiteoutDirectoryName",
        parents=(ETC,),
        tar=layer(file(b".wh.etc/passwd"), folder(b".wh.etc/d"), symlink(b".wh.etc/l", OUTSIDE)),
        outcome=_CONTAINERD_PLAIN,
    ),
    Case(
        name="WhiteoutDeadSymlinkParent",
        source="WhiteoutDeadSymlinkParent",
        parents=(layer(symlink(b"l", b"/dne")),),
        tar=layer(whiteout(b"l/etc")),
        outcome={"l": "-> /dne"},
    ),
    Case(
        name="WhiteoutRelativePath",
        source="WhiteoutRelativePath",
        parents=(ETC,),
        tar=layer(whiteout(b"dne/../etc")),
        outcome={},
    ),
    Case(
        name="whiteout above the root",
        source="CVE-2007-4559",
        tar=layer(whiteout(b"../victim/hello")),
        outcome=Refused(UnsafePath, "../victim/.wh.hello"),
    ),
    Case(
        name="whiteout through an absolute link",
        source="WhiteoutSymlinkPath",
        parents=(layer(symlink(b"l", OUTSIDE)),),
        tar=layer(whiteout(b"l/hello"), opaque(b"l")),
        outcome={"l": f"-> {OUTSIDE.decode()}"},
    ),
    Case(
        name="opaque through an absolute link",
        source="UnpackOpaqueWhiteout",
        parents=(layer(symlink(b"l", OUTSIDE), file(OUTSIDE + b"/lost")),),
        tar=layer(opaque(b"l"), file(b"l/x")),
        outcome={"l": f"-> {OUTSIDE.decode()}", **implied(INSIDE + "/x"), INSIDE + "/x": "x"},
    ),
    Case(
        name="opaque above the root",
        source="CVE-2007-4559",
        tar=layer(opaque(b"../victim")),
        outcome=Refused(UnsafePath, "../victim/.wh..wh..opq"),
    ),
]


_SCOPE_NESTED = layer(file(b"a/b/c/d", b"1"), file(b"a/x", b"2"))
_SCOPE = [
    Case(
        name="whiteout of the layer's own file",
        source="rule: lower layers only",
        tar=layer(file(b"f", b"1"), whiteout(b"f")),
        outcome={"f": "1"},
    ),
    Case(
        name="whiteout before and behind",
        source="ApplyLayerWhiteouts",
        parents=(LOWER,),
        tar=layer(whiteout(b"f"), file(b"f", b"new"), file(b"d/new"), opaque(b"d"), file(b"d/s/new")),
        outcome={"d": "/", "d/new": "x", "d/s": "/", "d/s/new": "x", "f": "new"},
    ),
    Case(
        name="opaque root",
        source="ApplyLayerWhiteouts",
        parents=(LOWER,),
        tar=layer(file(b"one"), opaque(b""), file(b"two")),
        outcome={"one": "x", "two": "x"},
    ),
    Case(
        name="whiteout of a dotfile",
        source="ApplyLayerWhiteouts",
        parents=(layer(file(b".baz"), file(b"baz")),),
        tar=layer(whiteout(b".baz")),
        outcome={"baz": "x"},
    ),
    Case(
        name="whiteout of nothing",
        source="rule: no trace",
        parents=(LOWER,),
        tar=layer(whiteout(b"no"), whiteout(b"no/no"), opaque(b"no"), whiteout(b"f/no")),
        outcome=BELOW,
    ),
    Case(
        name="whiteout of a name that no file can have",
        source="rule: no trace",
        parents=(LOWER,),
        tar=layer(
            whiteout(b"n" * 256), whiteout(b"n" * 256 + b"/x"), opaque(b"n" * 256), whiteout(b"d/" + b"n" * 5000)
        ),
        outcome=BELOW,
    ),
    Case(
        name="whiteout of a name of 255 bytes",
        source="rule: whiteouts",
        parents=(layer(file(b"n" * 255), file(b"f")),),
        tar=layer(whiteout(b"n" * 255)),
        outcome={"f": "x"},
    ),
    Case(
        name="nested whiteouts",
        source="NestedOverlayWhiteouts",
        parents=(_SCOPE_NESTED,),
        tar=layer(whiteout(b"a/b/c/d"), whiteout(b"a/b"), whiteout(b"a/b/c"), file(b"a/b/new")),
        outcome={"a": "/", "a/b": "/", "a/b/new": "x", "a/x": "2"},
    ),
    Case(
        name="three layers",
        source="ApplyLayerWhiteouts",
        parents=(LOWER, layer(whiteout(b"d")), layer(file(b"d/c"))),
        tar=layer(whiteout(b"d/c")),
        outcome={"d": "/", "f": "3"},
    ),
    Case(
        name="markers of every kind",
        source="rule: only the name counts",
        parents=(layer(*(file(b"%c" % name) for name in b"abcde")),),
        tar=layer(
            file(b".wh.a", b"payload"),
            folder(b".wh.b"),
            symlink(b".wh.c", OUTSIDE),
            hardlink(b".wh.d", OUTSIDE + b"/hello"),
            folder(b".wh.e/"),
        ),
        outcome={},
    ),
    Case(
        name="whiteout behind a member that went through its link",
        source="rule: order of work",
        parents=(layer(folder(b"t"), symlink(b"l", b"t")),),
        tar=layer(file(b"l/x"), whiteout(b"l")),
        outcome=Refused(UnsupportedEntry, ".wh.l"),
    ),
    Case(
        name="bookkeeping of aufs",
        source="rule: skipped",
        parents=(LOWER,),
        tar=layer(
            folder(b".wh..wh.plnk"),
            file(b".wh..wh.plnk/12.34"),
            file(b".wh..wh.aufs"),
            folder(b".wh..wh.orph"),
            hardlink(b"d/.wh..wh.x", b"no"),
        ),
        outcome=BELOW,
    ),
    Case(
        name="file over a lower directory",
        source="DirectoryReplace",
        parents=(LOWER,),
        tar=layer(file(b"d", b"new")),
        outcome={"d": "new", "f": "3"},
    ),
    Case(
        name="directory over a file of its own layer",
        source="rule: nothing shows through",
        parents=(LOWER,),
        tar=layer(file(b"d"), folder(b"d")),
        outcome={"d": "/", "f": "3"},
    ),
]
"""Whiteouts hide lower layers only."""


def cases() -> list[Case]:
    """Give the group."""
    invalid = [
        Case(
            name=f"marker {name.decode()}",
            source=source,
            parents=(ETC,),
            tar=layer(file(name)),
            outcome=Refused(UnsafePath, name.decode().removeprefix("./").replace("//", "/")),
        )
        for name, source in INVALID.items()
    ]
    return invalid + _CONTAINERD + _SCOPE
