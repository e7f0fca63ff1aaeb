"""Members that are meant to be written, or found, through symbolic links."""

from cases import INSIDE, OUTSIDE, Case, Refused, file, folder, hardlink, implied, layer, like, symlink

from graphdrivers.errors import MalformedArchive, UnsafePath, UnsupportedEntry

ETC = layer(folder(b"etc"), file(b"etc/passwd", b"root", mode=b"0000600\0"))
"""A layer with a file that later ones would like to reach."""

INTO = {**implied(INSIDE + "/x"), INSIDE: "/"}
"""What a layer that follows `OUTSIDE` makes: the same path below its own root."""


_GO_ARCHIVE_SOURCE = "ApplyLayerInvalidSymlink"
_GO_ARCHIVE_UP = b"../victim"
_GO_ARCHIVE = [
    Case(
        name="symlink to a file above",
        source=_GO_ARCHIVE_SOURCE,
        tar=layer(symlink(b"l", b"../victim/hello")),
        outcome={"l": "-> ../victim/hello"},
    ),
    Case(
        name="symlink to a file above the slash",
        source=_GO_ARCHIVE_SOURCE,
        tar=layer(symlink(b"l", b"/../victim/hello")),
        outcome={"l": "-> /../victim/hello"},
    ),
    Case(
        name="symlink to a folder above, then below it",
        source=_GO_ARCHIVE_SOURCE,
        tar=layer(symlink(b"l", _GO_ARCHIVE_UP), file(b"l/hello", b"mine"), file(b"l/file", b"new")),
        outcome={"l": "-> ../victim", "victim": "/", "victim/hello": "mine", "victim/file": "new"},
    ),
    Case(
        name="symlink to a folder above, then a symlink through it",
        source=_GO_ARCHIVE_SOURCE,
        tar=layer(symlink(b"l", _GO_ARCHIVE_UP), symlink(b"s", b"l/hello")),
        outcome={"l": "-> ../victim", "s": "-> l/hello"},
    ),
    Case(
        name="symlink to a folder above, then a hard link through it",
        source=_GO_ARCHIVE_SOURCE,
        tar=layer(symlink(b"l", _GO_ARCHIVE_UP), hardlink(b"h", b"l/hello")),
        outcome=Refused(MalformedArchive, "h"),
    ),
    Case(
        name="symlink to a folder above, then replaced",
        source=_GO_ARCHIVE_SOURCE,
        tar=layer(symlink(b"l", _GO_ARCHIVE_UP), folder(b"l"), file(b"l/hello", b"mine")),
        outcome={"l": "/", "l/hello": "mine"},
    ),
]
"""The six of UntarInvalidSymlink and ApplyLayerInvalidSymlink: contained, as in a chroot."""


_ABSOLUTE_OUT = OUTSIDE.decode()
_ABSOLUTE = [
    Case(
        name="write through an absolute link",
        source="CVE-2014-9356",
        tar=layer(symlink(b"l", OUTSIDE), file(b"l/hello", b"mine")),
        outcome={"l": f"-> {_ABSOLUTE_OUT}", **INTO, INSIDE + "/hello": "mine"},
    ),
    Case(
        name="replace through an absolute link",
        source="CVE-2007-4559",
        tar=layer(symlink(b"l", OUTSIDE + b"/hello"), file(b"l", b"mine", mode=b"0000777\0")),
        outcome={"l": like("mine", mode=0o777)},
    ),
    Case(
        name="write through an absolute link of a lower layer",
        source="CVE-2014-6407",
        parents=(layer(symlink(b"l", OUTSIDE)),),
        tar=layer(file(b"l/hello", b"mine")),
        outcome={"l": f"-> {_ABSOLUTE_OUT}", **INTO, INSIDE + "/hello": "mine"},
    ),
    Case(
        name="a directory over an absolute link",
        source="DirectoryOverrideSymlink",
        parents=(layer(symlink(b"l", OUTSIDE)),),
        tar=layer(folder(b"l", mode=b"0000700\0"), file(b"l/hello")),
        outcome={"l": like("/", mode=0o700), "l/hello": "x"},
    ),
    Case(
        name="var/run in a lower layer",
        source="UntarThroughAbsoluteSymlink",
        parents=(layer(folder(b"run"), folder(b"var"), symlink(b"var/run", b"/run")),),
        tar=layer(file(b"var/run/x")),
        outcome={"run": "/", "run/x": "x", "var": "/", "var/run": "-> /run"},
    ),
    Case(
        name="var/run to nothing",
        source="UntarThroughAbsoluteSymlink",
        parents=(layer(symlink(b"var/run", b"/run")),),
        tar=layer(file(b"var/run/x")),
        outcome={"run": "/", "run/x": "x", "var": "/", "var/run": "-> /run"},
    ),
    Case(
        name="directories through a lower link",
        source="UnpackLayerCreatesImpliedDirectoriesThroughLowerLayerSymlink",
        parents=(layer(folder(b"usr/lib"), symlink(b"lib", b"usr/lib")),),
        tar=layer(file(b"lib/a/b")),
        outcome={"usr": "/", "usr/lib": "/", "usr/lib/a": "/", "usr/lib/a/b": "x", "lib": "-> usr/lib"},
    ),
    Case(
        name="hard link source through an absolute link",
        source="HardlinkSourceThroughAbsoluteSymlink",
        tar=layer(folder(b"run"), file(b"run/a", b"1"), symlink(b"var", b"/run"), hardlink(b"b", b"var/a")),
        outcome={"run": "/", "run/a": "= b", "b": "1", "var": "-> /run"},
    ),
    Case(
        name="relative escape, then an absolute link",
        source="UnpackRejectsRelativeEscapeBeforeAbsoluteSymlink",
        tar=layer(symlink(b"up", b".."), symlink(b"up/abs", OUTSIDE), file(b"abs/x", b"mine")),
        outcome={"up": "-> ..", "abs": f"-> {_ABSOLUTE_OUT}", **INTO, INSIDE + "/x": "mine"},
    ),
    Case(
        name="/proc/self/root",
        source="rule: no magic links",
        tar=layer(symlink(b"l", b"/proc/self/root" + OUTSIDE), file(b"l/hello", b"mine")),
        outcome={
            "l": f"-> /proc/self/root{_ABSOLUTE_OUT}",
            **implied(f"proc/self/root/{INSIDE}/x"),
            f"proc/self/root/{INSIDE}/hello": "mine",
        },
    ),
]
"""Absolute links resolve inside the root."""


_CONTAINERD_PLAIN = {"etc": "/", "etc/passwd": like("root", mode=0o600)}
_CONTAINERD_LOCAL = {**_CONTAINERD_PLAIN, "local": "/"}
_CONTAINERD = [
    Case(
        name="SymlinkAbsolute",
        source="SymlinkAbsolute",
        parents=(ETC,),
        tar=layer(symlink(b"localetc", b"/etc"), file(b"localetc/unbroken")),
        outcome={**_CONTAINERD_PLAIN, "localetc": "-> /etc", "etc/unbroken": "x"},
    ),
    Case(
        name="SymlinkUpAndOut",
        source="SymlinkUpAndOut",
        parents=(ETC,),
        tar=layer(symlink(b"localetc", b"/dummy/../etc"), folder(b"dummy"), file(b"localetc/unbroken")),
        outcome={**_CONTAINERD_PLAIN, "dummy": "/", "localetc": "-> /dummy/../etc", "etc/unbroken": "x"},
    ),
    Case(
        name="SymlinkMultipleAbsolute",
        source="SymlinkMultipleAbsolute",
        parents=(ETC,),
        tar=layer(
            folder(b"dummy"),
            symlink(b"dummy/localetc", b"/dummy/anotherlocaletc/"),
            symlink(b"dummy/anotherlocaletc", b"/etc"),
            file(b"dummy/localetc/unbroken"),
        ),
        outcome={
            **_CONTAINERD_PLAIN,
            "dummy": "/",
            "dummy/localetc": "-> /dummy/anotherlocaletc/",
            "dummy/anotherlocaletc": "-> /etc",
            "etc/unbroken": "x",
        },
    ),
    Case(
        name="SymlinkMultipleRelative",
        source="SymlinkMultipleRelative",
        parents=(ETC,),
        tar=layer(
            folder(b"dummy"),
            symlink(b"dummy/localetc", b"../../../../../../../dummy/anotherlocaletc"),
            symlink(b"dummy/anotherlocaletc", b"../../../../../../../etc"),
            file(b"dummy/localetc/unbroken"),
        ),
        outcome={
            **_CONTAINERD_PLAIN,
            "dummy": "/",
            "dummy/localetc": "-> ../../../../../../../dummy/anotherlocaletc",
            "dummy/anotherlocaletc": "-> ../../../../../../../etc",
            "etc/unbroken": "x",
        },
    ),
    Case(
        name="SymlinkEmptyFile",
        source="SymlinkEmptyFile",
        parents=(layer(file(b"etc/emptied", b"notempty")),),
        tar=layer(symlink(b"localetc", b"/etc"), file(b"localetc/emptied", b"")),
        outcome={"etc": "/", "localetc": "-> /etc", "etc/emptied": ""},
    ),
    Case(
        name="SymlinkParentDirectory",
        source="SymlinkParentDirectory",
        parents=(ETC,),
        tar=layer(folder(b"dummy"), symlink(b"dummy/..", b"/etc")),
        outcome=Refused(UnsafePath, "dummy/.."),
    ),
    Case(
        name="SymlinkEmptyFilename",
        source="SymlinkEmptyFilename",
        parents=(ETC,),
        tar=layer(folder(b"dummy"), symlink(b"", b"/etc")),
        outcome=Refused(UnsafePath, ""),
    ),
    Case(
        name="SymlinkParentRelative",
        source="SymlinkParentRelative",
        parents=(ETC,),
        tar=layer(folder(b"dummy"), symlink(b"local", b"/etc"), symlink(b"local/sub/..", b"/dummy")),
        outcome={**_CONTAINERD_PLAIN, "dummy": "/", "local": "-> /dummy"},
    ),
    Case(
        name="SymlinkSlashEnded",
        source="SymlinkSlashEnded",
        parents=(ETC,),
        tar=layer(folder(b"dummy"), symlink(b"localetc/", b"/etc"), file(b"localetc/unbroken")),
        outcome={**_CONTAINERD_PLAIN, "dummy": "/", "localetc": "-> /etc", "etc/unbroken": "x"},
    ),
    Case(
        name="SymlinkOverrideDirectory",
        source="SymlinkOverrideDirectory",
        parents=(ETC,),
        tar=layer(folder(b"local"), file(b"local/lost"), symlink(b"local", b"etc"), file(b"local/x")),
        outcome={**_CONTAINERD_PLAIN, "local": "-> etc", "etc/x": "x"},
    ),
    Case(
        name="DirectoryOverrideSymlink",
        source="DirectoryOverrideSymlink",
        parents=(ETC,),
        tar=layer(symlink(b"local", b"/etc"), folder(b"local"), file(b"local/passwd", b"new")),
        outcome={**_CONTAINERD_LOCAL, "local/passwd": "new"},
    ),
    Case(
        name="DirectoryOverrideSymlinkAndHardlink",
        source="DirectoryOverrideSymlinkAndHardlink",
        parents=(ETC,),
        tar=layer(
            symlink(b"local", b"etc"),
            hardlink(b"local/hard", b"local/passwd"),
            folder(b"local"),
            file(b"local/passwd", b"new"),
        ),
        outcome={
            **_CONTAINERD_PLAIN,
            "etc/hard": "root",
            "etc/passwd": "= etc/hard",
            "local": "/",
            "local/passwd": "new",
        },
    ),
    Case(
        name="SymlinkOverridePath",
        source="SymlinkOverridePath",
        tar=layer(
            folder(b"a/tmp"),
            symlink(b"a", b"/"),
            folder(b"a/tmp"),
            file(b"a/tmp/one"),
            folder(b"a"),
            folder(b"a/tmp"),
            file(b"a/tmp/two"),
        ),
        outcome={"a": "/", "a/tmp": "/", "a/tmp/two": "x", "tmp": "/", "tmp/one": "x"},
    ),
    Case(
        name="WhiteoutCurrentDirectory through a link",
        source="WhiteoutSymlinkPath",
        parents=(ETC,),
        tar=layer(symlink(b"localetc", b"/etc"), file(b"localetc/.wh.passwd", b"")),
        outcome={"etc": "/", "localetc": "-> /etc"},
    ),
]
"""TestBreakouts: links to a lower ``/etc``."""


_TURNING_MANY = [symlink(b"l%d" % at, b"l%d" % (at + 1)) for at in range(50)]
_TURNING = [
    Case(
        name="CopyEscape",
        source="CVE-2026-17106",
        tar=layer(
            folder(b"inner"),
            symlink(b"inner/go_up", b".."),
            symlink(b"inner/go_up/escape", b"../victim"),
            file(b"inner/go_up/escape/pwned"),
        ),
        outcome={
            "inner": "/",
            "inner/go_up": "-> ..",
            "escape": "-> ../victim",
            "victim": "/",
            "victim/pwned": "x",
        },
    ),
    Case(
        name="directory becomes a link between its members",
        source="CVE-2025-47290",
        tar=layer(folder(b"d"), file(b"d/one"), symlink(b"d", OUTSIDE), file(b"d/hello", b"mine")),
        outcome={"d": f"-> {OUTSIDE.decode()}", **INTO, INSIDE + "/hello": "mine"},
    ),
    Case(
        name="directory above becomes a link between members",
        source="CVE-2025-47290",
        tar=layer(folder(b"d/e/f"), file(b"d/e/f/one"), symlink(b"d/e", OUTSIDE), file(b"d/e/f/two")),
        outcome={"d": "/", "d/e": f"-> {OUTSIDE.decode()}", **INTO, INSIDE + "/f": "/", INSIDE + "/f/two": "x"},
    ),
    Case(
        name="a link changes its target between members",
        source="CVE-2025-47290",
        tar=layer(symlink(b"l", b"a"), file(b"l/x", b"1"), symlink(b"l", b"b"), file(b"l/x", b"2")),
        outcome={"l": "-> b", "a": "/", "a/x": "1", "b": "/", "b/x": "2"},
    ),
    Case(
        name="a link becomes a directory between members",
        source="CVE-2025-47290",
        tar=layer(symlink(b"l", b"a"), file(b"l/x", b"1"), folder(b"l"), file(b"l/x", b"2")),
        outcome={"l": "/", "l/x": "2", "a": "/", "a/x": "1"},
    ),
    Case(
        name="exit and come in again",
        source="CPython gh-155999",
        tar=layer(symlink(b"x", b"../target"), file(b"x/../../d/f")),
        outcome=Refused(UnsafePath, "x/../../d/f"),
    ),
    Case(
        name="link to itself",
        source="rule: 40 links",
        tar=layer(symlink(b"l", b"l"), file(b"l/x")),
        outcome=Refused(UnsafePath, "l"),
    ),
    Case(
        name="links in a circle",
        source="rule: 40 links",
        tar=layer(symlink(b"a", b"b/c"), symlink(b"b", b"a/c"), file(b"a/x")),
        outcome=Refused(UnsafePath, "a"),
    ),
    Case(
        name="fifty links in a row",
        source="rule: 40 links",
        tar=layer(*_TURNING_MANY, file(b"l0/x")),
        outcome=Refused(UnsafePath, "l0"),
    ),
    Case(
        name="link without a target",
        source="rule: links",
        tar=layer(symlink(b"l", b"")),
        outcome=Refused(MalformedArchive, "l"),
    ),
    Case(
        name="link with a target of 4,096 bytes",
        source="rule: errors name the member",
        tar=layer(symlink(b"l", b"t" * 4096)),
        outcome=Refused(UnsupportedEntry, "l"),
    ),
    Case(
        name="mode of a link changes nothing behind it",
        source="CVE-2021-32760",
        tar=layer(
            symlink(b"l", OUTSIDE + b"/hello", mode=b"0004777\0", uid=b"0000001\0"),
            symlink(b"k", b"f", mode=b"0000777\0", uid=b"0000001\0"),
            file(b"f", mode=b"0000600\0"),
        ),
        outcome={
            "l": like(f"-> {OUTSIDE.decode()}/hello", uid=1),
            "k": like("-> f", uid=1),
            "f": like("x", mode=0o600, uid=0),
        },
    ),
    Case(
        name="links into reserved names",
        source="rule: a marker is never content",
        parents=(layer(file(b"passwd")),),
        tar=layer(symlink(b"l", b".wh.passwd"), file(b"l/x")),
        outcome=Refused(UnsafePath, "l/x"),
    ),
    Case(
        name="lower links into reserved names",
        source="rule: a marker is never content",
        parents=(layer(file(b"passwd"), symlink(b"l", b"a/.wh..wh..opq")),),
        tar=layer(file(b"l/x")),
        outcome=Refused(UnsafePath, "l/x"),
    ),
]
"""Links that change while members go through them, and that go in circles."""


def cases() -> list[Case]:
    """Give the group."""
    return _GO_ARCHIVE + _ABSOLUTE + _CONTAINERD + _TURNING
