"""Hard links to what they must not reach, and to what they may."""

from cases import (
    INSIDE,
    OUTSIDE,
    Case,
    Refused,
    device,
    fifo,
    file,
    folder,
    hardlink,
    implied,
    layer,
    like,
    symlink,
    whiteout,
    xattr,
)
from corpus_symlinks import ETC
from rawtars import pax

from graphdrivers.errors import MalformedArchive, UnsafePath, UnsupportedEntry

OUT = OUTSIDE.decode()
PASSWD = {"etc": "/", "etc/passwd": like("root", mode=0o600)}


_GO_ARCHIVE_SOURCE = "ApplyLayerInvalidHardlink"
_GO_ARCHIVE = [
    Case(
        name="hard link to a file above",
        source=_GO_ARCHIVE_SOURCE,
        tar=layer(hardlink(b"h", b"../victim/hello")),
        outcome=Refused(UnsafePath, "h"),
    ),
    Case(
        name="hard link to a file above the slash",
        source=_GO_ARCHIVE_SOURCE,
        tar=layer(hardlink(b"h", b"/../victim/hello")),
        outcome=Refused(UnsafePath, "h"),
    ),
    Case(
        name="hard link to a folder above, then below it",
        source=_GO_ARCHIVE_SOURCE,
        tar=layer(hardlink(b"h", b"../victim"), file(b"h/file")),
        outcome=Refused(UnsafePath, "h"),
    ),
    Case(
        name="hard link, then a symlink through it",
        source=_GO_ARCHIVE_SOURCE,
        tar=layer(hardlink(b"h", b"../victim"), symlink(b"s", b"h/hello")),
        outcome=Refused(UnsafePath, "h"),
    ),
    Case(
        name="hard link, then a hard link through it",
        source=_GO_ARCHIVE_SOURCE,
        tar=layer(hardlink(b"h", b"../victim"), hardlink(b"k", b"h/hello")),
        outcome=Refused(UnsafePath, "h"),
    ),
    Case(
        name="hard link, then replaced",
        source=_GO_ARCHIVE_SOURCE,
        tar=layer(hardlink(b"h", b"../victim"), folder(b"h")),
        outcome=Refused(UnsafePath, "h"),
    ),
    Case(
        name="hard link to a sibling of like name",
        source="UntarSiblingPrefixContained",
        tar=layer(hardlink(b"h", b"../dest-evil/secret")),
        outcome=Refused(UnsafePath, "h"),
    ),
    Case(
        name="hard link to an absolute name that is not there",
        source="UntarAbsoluteHardlink",
        tar=layer(hardlink(b"h", OUTSIDE + b"/hello")),
        outcome=Refused(MalformedArchive, "h"),
    ),
    Case(
        name="hard link to an absolute name inside",
        source="UntarAbsoluteHardlink",
        tar=layer(file(OUTSIDE + b"/hello", b"mine"), hardlink(b"a", OUTSIDE + b"/hello")),
        outcome={"a": "mine", **implied(INSIDE + "/x"), INSIDE + "/hello": "= a"},
    ),
    Case(
        name="PAX linkpath climbs",
        source="CVE-2014-6407",
        tar=layer(pax((b"linkpath", b"../victim/hello")), hardlink(b"h", b"harmless")),
        outcome=Refused(UnsafePath, "h"),
    ),
]
"""The six of UntarInvalidHardlink and ApplyLayerInvalidHardlink."""


_CONTAINERD_SHAPES = {
    "HardlinkRelative": (b"../../../../etc", b"localetc/passwd"),
    "HardlinkDownAndOut": (b"../../../../etc", b"./localetc/passwd"),
    "HardlinkAbsolute": (b"/etc", b"localetc/passwd"),
    "HardlinkRelativeLong": (b"../../../../../../../etc", b"localetc/passwd"),
    "HardlinkRelativeUpAndOut": (b"dummy/../../../etc", b"localetc/passwd"),
}
_CONTAINERD_FOUND = [
    Case(
        name=name,
        source=name,
        parents=(ETC,),
        tar=layer(folder(b"dummy"), symlink(b"localetc", target), hardlink(b"localpasswd", link)),
        outcome={**PASSWD, "dummy": "/", "localetc": f"-> {target.decode()}", "localpasswd": "= etc/passwd"},
    )
    for name, (target, link) in _CONTAINERD_SHAPES.items()
]
_CONTAINERD = [
    *_CONTAINERD_FOUND,
    Case(
        name="HardlinkDirectRelative",
        source="HardlinkDirectRelative",
        parents=(ETC,),
        tar=layer(hardlink(b"localpasswd", b"../../../../../etc/passwd")),
        outcome=Refused(UnsafePath, "localpasswd"),
    ),
    Case(
        name="HardlinkDirectAbsolute",
        source="HardlinkDirectAbsolute",
        parents=(ETC,),
        tar=layer(hardlink(b"localpasswd", b"/etc/passwd")),
        outcome={**PASSWD, "localpasswd": "= etc/passwd"},
    ),
    Case(
        name="HardlinkSymlinkBeforeCreateTarget",
        source="HardlinkSymlinkBeforeCreateTarget",
        tar=layer(
            folder(b"etc"),
            symlink(b"localpasswd", b"/etc/passwd"),
            hardlink(b"localpasswd-dup", b"localpasswd"),
            file(b"etc/passwd", b"after"),
        ),
        outcome={
            "etc": "/",
            "etc/passwd": "after",
            "localpasswd": "-> /etc/passwd",
            "localpasswd-dup": "= localpasswd",
        },
    ),
    Case(
        name="HardlinkSymlinkRelative",
        source="HardlinkSymlinkRelative",
        parents=(ETC,),
        tar=layer(symlink(b"l", b"../../../../../etc/passwd"), hardlink(b"m", b"l")),
        outcome={**PASSWD, "l": "-> ../../../../../etc/passwd", "m": "= l"},
    ),
    Case(
        name="HardlinkSymlinkAbsolute",
        source="HardlinkSymlinkAbsolute",
        tar=layer(symlink(b"l", OUTSIDE + b"/hello"), hardlink(b"m", b"l")),
        outcome={"l": f"-> {OUT}/hello", "m": "= l"},
    ),
    Case(
        name="HardlinkSymlinkChmod",
        source="HardlinkSymlinkChmod",
        tar=layer(symlink(b"l", OUTSIDE + b"/setuid"), hardlink(b"m", b"l", mode=b"0000777\0", uid=b"0000001\0")),
        outcome={"l": f"-> {OUT}/setuid", "m": "= l"},
    ),
    Case(
        name="hard link to a symlink, reversed",
        source="UntarHardlinkToSymlink",
        tar=layer(hardlink(b"m", b"l"), symlink(b"l", b"f"), file(b"f")),
        outcome=Refused(MalformedArchive, "m"),
    ),
]
"""TestBreakouts: the link is to the root's own ``/etc/passwd``."""


_OTHERS_SPECIAL = layer(
    fifo(b"p", mode=b"0004755\0", uid=b"0000007\0"),
    device(b"c", b"3", 1, 3, mode=b"0002644\0"),
    xattr(b"trusted.t", b"v"),
    symlink(b"l", b"t"),
    xattr(b"trusted.t", b"v"),
    fifo(b"q"),
    xattr(b"user.u", b"v"),
    file(b"f", b"text", mode=b"0004711\0", mtime=b"00000000007\0"),
)
_OTHERS = [
    Case(
        name="hard link to nothing",
        source="rule: hard links",
        tar=layer(hardlink(b"h", b"no")),
        outcome=Refused(MalformedArchive, "h"),
    ),
    Case(
        name="hard link without a source",
        source="rule: hard links",
        tar=layer(hardlink(b"h", b"")),
        outcome=Refused(MalformedArchive, "h"),
    ),
    Case(
        name="hard link to the root",
        source="rule: hard links",
        tar=layer(hardlink(b"h", b"/")),
        outcome=Refused(MalformedArchive, "h"),
    ),
    Case(
        name="hard link to a directory",
        source="rule: hard links",
        tar=layer(folder(b"d"), hardlink(b"h", b"d")),
        outcome=Refused(MalformedArchive, "h"),
    ),
    Case(
        name="hard link to a lower directory",
        source="rule: hard links",
        parents=(ETC,),
        tar=layer(hardlink(b"h", b"etc")),
        outcome=Refused(MalformedArchive, "h"),
    ),
    Case(
        name="hard link below a file",
        source="rule: hard links",
        tar=layer(file(b"f"), hardlink(b"h", b"f/g")),
        outcome=Refused(MalformedArchive, "h"),
    ),
    Case(
        name="hard link to itself",
        source="rule: hard links",
        tar=layer(file(b"f", b"1"), hardlink(b"f", b"f")),
        outcome={"f": "1"},
    ),
    Case(
        name="hard link over a full directory",
        source="rule: the last wins",
        tar=layer(file(b"f", b"1"), file(b"d/x"), hardlink(b"d", b"f")),
        outcome={"d": "1", "f": "= d"},
    ),
    Case(
        name="file over a hard link does not write through",
        source="ApplyLayerInvalidHardlink",
        tar=layer(file(b"f", b"1"), hardlink(b"h", b"f"), file(b"h", b"22")),
        outcome={"f": "1", "h": "22"},
    ),
    Case(
        name="file over a lower hard link does not write through",
        source="rule: nothing is written through",
        parents=(layer(file(b"f", b"1"), hardlink(b"h", b"f")),),
        tar=layer(file(b"h", b"22", mode=b"0000777\0")),
        outcome={"f": like("1", mode=0o644), "h": like("22", mode=0o777)},
    ),
    Case(
        name="mode of a hard link changes nothing",
        source="CVE-2021-41089",
        tar=layer(file(b"f", b"1", mode=b"0000600\0"), hardlink(b"h", b"f", mode=b"0004777\0", uid=b"0000001\0")),
        outcome={"f": like("1", mode=0o600, uid=0), "h": "= f"},
    ),
    Case(
        name="hard link with a size carries no payload",
        source="rule: links carry none",
        tar=layer(file(b"f", b"1"), hardlink(b"h", b"f", size=5), file(b"g")),
        outcome={"f": "1", "h": "= f", "g": "x"},
    ),
    Case(
        name="hard link to a whited-out file",
        source="rule: hard links",
        parents=(ETC,),
        tar=layer(whiteout(b"etc/passwd"), hardlink(b"h", b"etc/passwd")),
        outcome=Refused(MalformedArchive, "h"),
    ),
    Case(
        name="hard link, then the whiteout of its source",
        source="rule: order of work",
        parents=(ETC,),
        tar=layer(hardlink(b"h", b"etc/passwd"), whiteout(b"etc/passwd")),
        outcome=Refused(UnsupportedEntry, "etc/.wh.passwd"),
    ),
    Case(
        name="hard link to a marker",
        source="rule: a marker is never content",
        parents=(ETC,),
        tar=layer(whiteout(b"etc/passwd"), hardlink(b"h", b"etc/.wh.passwd")),
        outcome=Refused(MalformedArchive, "h"),
    ),
    Case(
        name="hard links to a lower layer's special files",
        source="rule: a lower source is copied up whole",
        parents=(_OTHERS_SPECIAL,),
        needs="devices",
        lacking="c",
        tar=layer(*(hardlink(b"h" + name, name) for name in (b"p", b"c", b"l", b"q", b"f"))),
        outcome={
            "p": "= hp",
            "hp": like("p", mode=0o4755, uid=7),
            "c": "c 1:3",
            "hc": "= c",
            "l": "= hl",
            "hl": like("-> t", xattrs={"trusted.t": b"v"}),
            "q": "= hq",
            "hq": like("p", xattrs={"trusted.t": b"v"}),
            "f": like("text", mode=0o4711, mtime=7 * 10**9, xattrs={"user.u": b"v"}),
            "hf": "= f",
        },
    ),
]
"""Sources of every kind, and writing to a name that is a link."""


def cases() -> list[Case]:
    """Give the group."""
    return _GO_ARCHIVE + _CONTAINERD + _OTHERS
