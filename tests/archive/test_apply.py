"""Applying layers: the rules, each tried on a flat tree and on overlay directories with the same outcome."""

import io
import os
import random
import sys
from pathlib import Path

import pytest

from graphdrivers import errors, model
from graphdrivers.archive import apply as applying
from graphdrivers.archive.whiteouts import PLAIN
from graphdrivers.linux import filesystems

sys.path.insert(0, os.path.dirname(__file__))
from layertars import ALL, Stack, chain, member, names, pack

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="owners and whiteout devices need root")

DIR_D = member("d", "dir")


def shown(root: Path, *layers: list[tuple[object, bytes]]) -> list[str]:
    """Paths that both ways, and the kernel, show after the layers; fails where they differ in anything."""
    stack = chain(root, *layers)
    flat, layered = stack.snapshots()
    assert flat == layered
    if len(layers) > 1:
        assert flat == stack.mounted()

    return names(flat)


MERGES = {
    "a file in the place of a link that was followed": (
        [member("a", "symlink", linkname="b"), member("b", "dir")],
        [member("a/1"), member("a"), member("a/2")],
        ["/a", "/a/2", "/b", "/b/1"],
    ),
    "W1 file": ([member("f")], [member(".wh.f")], []),
    "W1 tree": ([DIR_D, member("d/x"), member("d/s", "dir"), member("d/s/y")], [member(".wh.d")], []),
    "W1 symlink": (
        [member("t", "dir"), member("t/x"), member("l", "symlink", linkname="t")],
        [member(".wh.l")],
        ["/t", "/t/x"],
    ),
    "W2 marker first": ([member("f", content=b"old")], [member(".wh.f"), member("f", content=b"new")], ["/f"]),
    "W2 marker last": ([member("f", content=b"old")], [member("f", content=b"new"), member(".wh.f")], ["/f"]),
    "W3 marker first": ([DIR_D, member("d/old")], [member(".wh.d"), DIR_D, member("d/new")], ["/d", "/d/new"]),
    "W3 marker last": ([DIR_D, member("d/old")], [DIR_D, member("d/new"), member(".wh.d")], ["/d", "/d/new"]),
    "W3 implied": ([DIR_D, member("d/old")], [member("d/new"), member(".wh.d")], ["/d", "/d/new"]),
    "W4 nothing there": ([member("f")], [member(".wh.gone"), member("no/.wh.x")], ["/f"]),
    "W4 in own directory": ([], [DIR_D, member("d/.wh.x")], ["/d"]),
    "W4 parent is a file": ([member("f")], [member("f/.wh.x")], ["/f"]),
    "W5 opaque first": (
        [DIR_D, member("d/a"), member("d/s", "dir"), member("d/s/u")],
        [DIR_D, member("d/.wh..wh..opq"), member("d/s/t")],
        ["/d", "/d/s", "/d/s/t"],
    ),
    "W5 opaque last": (
        [DIR_D, member("d/a"), member("d/s", "dir", mode=0o700), member("d/s/u")],
        [DIR_D, member("d/s/t"), member("d/.wh.a"), member("d/.wh..wh..opq")],
        ["/d", "/d/s", "/d/s/t"],
    ),
    "W6 no lower": ([], [DIR_D, member("d/.wh..wh..opq"), member("e/.wh..wh..opq")], ["/d"]),
    "W6 root": ([DIR_D, member("d/x"), member("f")], [member(".wh..wh..opq"), member("n"), member("d/y")], None),
    "W7 file below": ([member("d")], [member("d/.wh..wh..opq")], ["/d"]),
    "W8 file over directory": ([DIR_D, member("d/x")], [member("d", content=b"f")], ["/d"]),
    "W8 directory over file": ([member("d")], [DIR_D, member("d/x")], ["/d", "/d/x"]),
    "W8 directory over link": (
        [member("t", "dir"), member("d", "symlink", linkname="t")],
        [DIR_D, member("d/x")],
        ["/d", "/d/x", "/t"],
    ),
    "W8 link over directory": (
        [DIR_D, member("d/x"), member("t", "dir")],
        [member("d", "symlink", linkname="t"), member("d/y")],
        ["/d", "/t", "/t/y"],
    ),
    "W10": ([DIR_D, member("d/old")], [member(".wh.d"), member("d/.wh.x"), member("d/n")], ["/d", "/d/n"]),
    "W11": ([member("d", "dir", mode=0o700, uid=5)], [member("d", "dir", mode=0o711, gid=6)], ["/d"]),
    "W14": ([member(".hidden"), member(".opq")], [member(".wh..hidden"), member(".wh..opq")], []),
    "W14 reserved": ([DIR_D, member("d/x")], [member("d/.wh..wh.foo"), member(".wh..wh.plnk/1.2")], ["/d", "/d/x"]),
    "W15 any type": (
        [member("a"), member("b"), member("c"), member("e")],
        [
            member(".wh.a", "link", linkname=".wh.zzz"),
            member(".wh.b", "symlink", linkname="/etc"),
            member(".wh.c", "dir"),
            member(".wh.e", content=b"payload"),
        ],
        [],
    ),
    "W19 odd names": (
        [member("a\nb:,=\\ -"), member(".WH.x"), member(".whx")],
        [],
        ["/.WH.x", "/.whx", "/a\nb:,=\\ -"],
    ),
    "W16 pseudo links": (
        [member("a", content=b"old")],
        [
            member(".wh..wh.plnk", "dir"),
            member(".wh..wh.plnk/1.2", content=b"linked"),
            member(".wh..wh.plnk/3.4", content=b"never linked"),
            member("a", "link", linkname=".wh..wh.plnk/1.2"),
            member("d", "dir"),
            member("d/b", "link", linkname="/.wh..wh.plnk/1.2"),
        ],
        ["/a", "/d", "/d/b"],
    ),
    "W20 too long": ([member("n" * 255), member("f")], [member(".wh." + "n" * 255)], ["/f"]),
    "W20 long": ([member("n" * 251)], [member(".wh." + "n" * 251)], []),
    "W21 other name stays": ([member("a", content=b"x"), member("b", "link", linkname="a")], [member(".wh.a")], ["/b"]),
    "W23 implied parent": ([member("a", "dir", mode=0o711, uid=7), member("a/b")], [member("a/.wh.b")], ["/a"]),
    "W26 last wins": ([], [member("f", content=b"1"), member("f", content=b"22")], ["/f"]),
    "file, then directory": ([DIR_D, member("d/x")], [member("d"), DIR_D], ["/d"]),
    "directory, then file": ([DIR_D, member("d/x")], [DIR_D, member("d/y"), member("d")], ["/d"]),
    "implied over file": ([member("f")], [member("f/x")], ["/f", "/f/x"]),
    "symlinked parent below": (
        [member("usr/lib", "dir"), member("lib", "symlink", linkname="usr/lib"), member("usr/lib/old")],
        [member("lib/x"), member("lib/.wh.old")],
        ["/lib", "/usr", "/usr/lib", "/usr/lib/x"],
    ),
    "absolute link": (
        [member("run", "dir"), member("var", "dir"), member("var/run", "symlink", linkname="/run")],
        [member("var/run/x")],
        ["/run", "/run/x", "/var", "/var/run"],
    ),
    "upward link": (
        [member("l", "symlink", linkname="../../../../e"), member("e", "dir")],
        [member("l/x")],
        ["/e", "/e/x", "/l"],
    ),
    "dangling link": ([member("l", "symlink", linkname="no/where")], [member("l/x")], None),
    "dots": ([], [member("./a//./b"), member("/c"), member("a/../e")], ["/a", "/a/b", "/c", "/e"]),
    "root member": ([member(".", "dir", mode=0o700, mtime=5)], [member("x")], ["/x"]),
    "devices": (
        [],
        [member("c", "char", devmajor=1, devminor=3), member("b", "block", devmajor=7), member("p", "fifo")],
        None,
    ),
    "hard link to a symlink": (
        [],
        [member("l", "symlink", linkname="/etc"), member("k", "link", linkname="l")],
        ["/k", "/l"],
    ),
    "hard link to itself": ([], [member("f", content=b"x"), member("f", "link", linkname="f")], ["/f"]),
    "hard link below": (
        [member("a/f", content=b"x", mode=0o600)],
        [member("b", "link", linkname="a/f")],
        ["/a", "/a/f", "/b"],
    ),
    "hard link through a link": (
        [member("usr/bin", "dir"), member("bin", "symlink", linkname="usr/bin"), member("usr/bin/a", content=b"a")],
        [member("bin/b", "link", linkname="/bin/a")],
        None,
    ),
    "setgid directory": ([member("d", "dir", mode=0o2775, gid=50)], [member("d/f"), member("d/s", "dir")], None),
    "set-id file": ([], [member("su", mode=0o6755, uid=3, gid=4)], ["/su"]),
    "closed directory": ([], [member("d", "dir", mode=0), member("d/x")], ["/d", "/d/x"]),
    "marker, then member through it": (
        [member("t", "dir"), member("l", "symlink", linkname="t")],
        [member(".wh.l"), member("l/x")],
        ["/l", "/l/x", "/t"],
    ),
    "marker below what becomes a link": (
        [DIR_D, member("d/x"), member("e", "dir"), member("e/x")],
        [member("d/.wh.x"), member("d", "symlink", linkname="e")],
        ["/d", "/e", "/e/x"],
    ),
}


@pytest.mark.parametrize("case", MERGES)
def test_merge(case: str, tmp_path: Path) -> None:
    """A rule of merging holds, on both kinds of target, with equal attributes."""
    lower, upper, expected = MERGES[case]

    found = shown(tmp_path, lower, upper)

    if expected is not None:
        assert expected == found


def test_three_layers(tmp_path: Path) -> None:
    """W9: a directory deleted and made again stays new in layers above."""
    layers = [[DIR_D, member("d/x")], [member(".wh.d")], [member("d/y")], [member("d/.wh.y")]]
    wanted = [["/d", "/d/x"], [], ["/d", "/d/y"], ["/d"]]

    for depth, expected in enumerate(wanted, 1):
        root = tmp_path / str(depth)
        root.mkdir()
        assert expected == shown(root, *layers[:depth])


REFUSED = {
    "climbs": ([member("../x")], "UnsafePath"),
    "climbs inside": ([member("a/../../x")], "UnsafePath"),
    "climbs absolute": ([member("/../x")], "UnsafePath"),
    "root is a link": ([member(".", "symlink", linkname="/etc")], "UnsafePath"),
    "root is a file": ([member("./")], None),
    "W12": ([member("d/.wh.")], "UnsafePath"),
    "W13": ([member(".wh..")], "UnsafePath"),
    "W13 parent": ([member("etc/.wh...")], "UnsafePath"),
    "link loop": ([member("a", "symlink", linkname="a"), member("a/x")], "UnsafePath"),
    "hard link to nothing": ([member("f", "link", linkname="no")], "MalformedArchive"),
    "hard link above": ([member("f", "link", linkname="../../etc/passwd")], "UnsafePath"),
    "hard link to a directory": ([DIR_D, member("f", "link", linkname="d")], "MalformedArchive"),
    "hard link to a lower directory": ([member("f", "link", linkname="t")], "MalformedArchive"),
    "W22": ([member(".wh.low"), member("f", "link", linkname="low")], "MalformedArchive"),
    "W22 late": ([member("f", "link", linkname="low"), member(".wh.low")], "UnsupportedEntry"),
    "late marker of a link gone through": ([member("sym/x"), member(".wh.sym")], "UnsupportedEntry"),
    "name too long": ([member("n" * 256)], None),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case: str, tmp_path: Path) -> None:
    """What breaks a rule is refused, the same way on both kinds of target."""
    members, expected = REFUSED[case]
    stack = chain(tmp_path, [member("low", content=b"low"), member("t", "dir"), member("sym", "symlink", linkname="t")])
    victim = tmp_path / "victim"
    victim.write_text("untouched")

    try:
        flat, layered = stack.refused(pack(*members))
    except OSError:
        assert expected is None
        return

    assert flat == layered
    if expected is not None:
        assert expected == flat
    assert victim.read_text() == "untouched"


def test_error_names_the_member(tmp_path: Path) -> None:
    """The error says which member, and where in the tar its header is."""
    root = os.open(tmp_path, os.O_RDONLY)

    with pytest.raises(errors.UnsafePath) as caught:
        applying.apply(pack(member("ok"), member("../bad")), applying.Target(root, PLAIN, None, ALL))

    os.close(root)
    assert (caught.value.member, caught.value.offset) == ("../bad", 512)


def test_limits(tmp_path: Path) -> None:
    """Members and bytes are bounded before they are written."""
    root = os.open(tmp_path, os.O_RDONLY)
    target = applying.Target(root, PLAIN, None, ALL)

    with pytest.raises(errors.LimitExceeded) as members:
        applying.apply(pack(member("a"), member("b")), target, limits=model.Limits(members=1))
    with pytest.raises(errors.LimitExceeded) as size:
        applying.apply(pack(member("c", content=b"12345")), target, limits=model.Limits(size=4))

    os.close(root)
    assert (members.value.limit, size.value.limit) == ("members", "size")


def test_more_than_is_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nobody set a limit it is what is free, and then room is needed, not another limit."""
    monkeypatch.setattr(filesystems, "free_bytes", lambda _fd: 4)
    root = os.open(tmp_path, os.O_RDONLY)
    with pytest.raises(errors.LimitExceeded, match=r"free there \(4\).*; free some space there") as caught:
        applying.apply(pack(member("c", content=b"12345")), applying.Target(root, PLAIN, None, ALL))
    os.close(root)

    assert caught.value.limit == ""


def test_unprivileged_owner_is_noted(tmp_path: Path) -> None:
    """Where owners cannot be kept, the layer is applied and the number of such members is told."""
    root = os.open(tmp_path, os.O_RDONLY)

    applied = applying.apply(
        pack(member("a", uid=7), member("b", uid=os.geteuid(), gid=os.getegid())),
        applying.Target(root, PLAIN, None, model.Capabilities()),
    )

    os.close(root)
    assert applied.notes == ("1 x owner not kept: the file belongs to the caller",)
    assert os.stat(tmp_path / "a").st_uid == os.geteuid()


def random_layer(rng: random.Random) -> list[tuple[object, bytes]]:
    """A layer of random members over a few names, so that they meet in every combination."""

    def name() -> str:
        return "/".join(rng.choice("abc") for _ in range(rng.randint(1, 3)))

    def one() -> tuple[object, bytes]:
        at = name()
        head, _, base = at.rpartition("/")
        head += "/" if head else ""
        mode = rng.choice([0o700, 0o755, 0o777])
        roll = rng.random()
        if roll < 0.3:
            return member(at, "dir", mode=mode, mtime=rng.randrange(9), uid=rng.randrange(3))
        if roll < 0.55:
            return member(at, content=rng.randbytes(3), mode=mode, mtime=rng.randrange(9))
        if roll < 0.65:
            return member(at, "symlink", linkname=rng.choice(["", "/", "../"]) + name())
        if roll < 0.9:
            return member(f"{head}.wh.{base}")
        return member(f"{head}.wh..wh..opq")

    return [one() for _ in range(rng.randint(1, 7))]


@pytest.mark.parametrize("seed", range(300))
def test_random_stacks(seed: int, tmp_path: Path) -> None:
    """Random stacks give the same tree flat and layered, or are refused by both."""
    rng = random.Random(seed)
    stack = Stack(tmp_path)
    for _ in range(rng.randint(2, 4)):
        layer = random_layer(rng)
        try:
            stack.add(pack(*layer))
        except errors.ArchiveError:
            return
        flat, layered = stack.snapshots()

        assert flat == layered, [m[0].name for m in layer]
    assert flat == stack.mounted()


def test_reads_to_the_last_byte(tmp_path: Path) -> None:
    """The DiffID covers what follows the end of the archive too."""
    tar = pack(member("a")).getvalue() + b"\0" * 5000
    root = os.open(tmp_path, os.O_RDONLY)

    source = io.BytesIO(tar)
    applied = applying.apply(source, applying.Target(root, PLAIN, None, ALL))

    os.close(root)
    assert source.read() == b""
    assert applied.entries == 1


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_modes_and_owners_whatever_the_umask(umask: int, tmp_path: Path) -> None:
    """Each file has its mode, set-id bits too, and its owner, though chown(2) clears bits and the umask others."""
    wanted = [(mode, owner) for mode in (0o600, 0o644, 0o666, 0o777, 0o4755, 0o2755, 0o1644) for owner in (0, 1234)]
    files = [member(f"d/{mode:o}-{owner}", mode=mode, uid=owner, gid=owner) for mode, owner in wanted]
    root = os.open(tmp_path, os.O_RDONLY)

    before = os.umask(umask)
    try:
        applying.apply(pack(DIR_D, *files), applying.Target(root, PLAIN, None, ALL))
    finally:
        os.umask(before)
    os.close(root)

    found = [(tmp_path / entry.name).lstat() for entry, _ in files]
    assert [(one.st_mode & 0o7777, one.st_uid, one.st_gid) for one in found] == [
        (mode, owner, owner) for mode, owner in wanted
    ]
