"""Tars of every maker keep what they say: formats, owners, times, modes, links, whatever the umask."""

import errno
import io
import os
import stat
import tarfile
from collections.abc import Iterator, Mapping
from typing import BinaryIO

import pytest

from graphdrivers import errors
from graphdrivers.conformance.observe import assert_same
from graphdrivers.conformance.workbench import Member, Workbench, directory, layer_tar, names_in, opaque, whiteout
from graphdrivers.edits import Chmod, Chown, Create, Edit, Link, Mkdir, Mknod, Remove, Symlink, Utime, Write
from graphdrivers.linux import namespaces

_FORMATS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}

_CAPABILITY = bytes.fromhex("0100000201000000000000000000000000000000")


def _tar(*members: tarfile.TarInfo, form: int = tarfile.PAX_FORMAT, records: Mapping[str, str] | None = None) -> bytes:
    """Write headers as they are given; the content of a file is zero bytes."""
    buffer = io.BytesIO()
    with tarfile.open(
        fileobj=buffer, mode="w", format=form, errors="surrogateescape", pax_headers=dict(records or {})
    ) as tar:
        for member in members:
            tar.addfile(member, io.BytesIO(bytes(member.size)))
    return buffer.getvalue()


def _header(name: str, kind: bytes = tarfile.REGTYPE, **fields: object) -> tarfile.TarInfo:
    header = tarfile.TarInfo(name)
    header.type = kind
    header.uid, header.gid = os.geteuid(), os.getegid()
    header.mode = 0o755 if kind == tarfile.DIRTYPE else 0o644
    for key, value in fields.items():
        setattr(header, key, value)
    return header


@pytest.mark.parametrize("form", _FORMATS)
def test_formats(bench: Workbench, form: str) -> None:
    """Ustar, GNU and PAX archives of the same members give the same tree, long names and targets included."""
    deep = "/".join(["directory-with-a-name"] * 6)
    long = "n" * (90 if form == "ustar" else 250)
    target = "t" * (100 if form == "ustar" else 1000)
    members = [
        _header("./dir/", tarfile.DIRTYPE, mode=0o1750, mtime=1_000_000_000),
        _header("./dir/file", size=5000, mode=0o640, mtime=1_234_567_890),
        _header("dir/link", tarfile.SYMTYPE, linkname=target),
        _header("dir/hard", tarfile.LNKTYPE, linkname="./dir/file"),
        _header("dir/fifo", tarfile.FIFOTYPE),
        _header(f"{deep}/{long}", size=7),
    ]
    bench.applied("layer", None, _tar(*members, form=_FORMATS[form]))
    tree = bench.tree("layer")

    assert (tree["dir"].mode, tree["dir"].mtime) == (0o1750, 10**18)
    assert (tree["dir/file"].mode, tree["dir/file"].mtime, tree["dir/file"].size) == (
        0o640,
        1_234_567_890 * 10**9,
        5000,
    )
    assert tree["dir/file"].names == {"dir/file", "dir/hard"}
    assert (tree["dir/link"].target, tree["dir/fifo"].kind) == (target, stat.S_IFIFO)
    assert tree[f"{deep}/{long}"].size == 7


def test_older_types_of_members(bench: Workbench) -> None:
    """The type of old archives, of contiguous files, and a V7 directory known by its slash alone."""
    members = [_header("old", tarfile.AREGTYPE, size=3), _header("contiguous", tarfile.CONTTYPE, size=4)]
    bench.applied("layer", None, _tar(*members, _header("dir/", tarfile.AREGTYPE), form=tarfile.USTAR_FORMAT))
    tree = bench.tree("layer")

    assert {path: (tree[path].kind, tree[path].size) for path in tree if path != "."} == {
        "old": (stat.S_IFREG, 3),
        "contiguous": (stat.S_IFREG, 4),
        "dir": (stat.S_IFDIR, 0),
    }


@pytest.mark.parametrize("records", [{"comment": "of git archive"}, {}], ids=["comment", "none"])
def test_global_headers(bench: Workbench, records: dict[str, str]) -> None:
    """A global PAX header is no member, needs no parent, and does no harm."""
    tar = _tar(_header("dir/file", size=1), records=records)
    bench.applied("layer", None, tar)

    assert sorted(bench.tree("layer")) == [".", "dir", "dir/file"]


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("./a", "a"),
        ("/a", "a"),
        ("dir//b", "dir/b"),
        ("dir/./c", "dir/c"),
        ("dir/../d", "d"),
        ("..gitme", "..gitme"),
        ("...", "..."),
        ("dir/..e", "dir/..e"),
    ],
)
def test_names_are_made_plain(bench: Workbench, name: str, path: str) -> None:
    """Leading and doubled slashes and dots mean what they mean to the kernel; names that begin with dots are names."""
    bench.applied("layer", None, layer_tar(["dir/", Member(name, b"1")]))

    assert bench.contents("layer") == {"dir": "/", path: "1"}


@pytest.mark.parametrize("umask", [0o000, 0o077, 0o777])
def test_modes_do_not_depend_on_the_umask(bench: Workbench, umask: int) -> None:
    """Explicit modes are kept and implied directories are 0755, whatever the umask of the process."""
    if bench.bound:
        umask &= 0o077  # one that takes its own files away from it leaves a plain user nothing to work with
    members = [Member("implied/deep/file", b"1", mode=0o666), directory("dir", 0o777), Member("dir/run", mode=0o4755)]
    before = os.umask(umask)
    try:
        bench.applied("base", None, layer_tar(members))
        bench.applied("layer", "base", layer_tar(["dir/more/file", whiteout("implied/deep/file")]))
    finally:
        os.umask(before)
    modes = {path: item.mode for path, item in bench.tree("layer").items()}

    assert modes == {
        ".": 0o755,
        "implied": 0o755,
        "implied/deep": 0o755,
        "dir": 0o777,
        "dir/run": 0o4755,
        "dir/more": 0o755,
        "dir/more/file": 0o644,
    }


def test_owners_of_any_size(bench: Workbench) -> None:
    """Owners that need PAX records or GNU's binary fields are kept; names of owners mean nothing."""
    bench.needs("ownership")
    numbers = [1, 2_097_151, 2_097_152, 2_147_483_648, 4_294_967_294]
    numbers = [number for number in numbers if namespaces.maps_owner(number, number - 1)]
    for form in ("gnu", "pax"):
        members = [_header(f"f{number}", uid=number, gid=number - 1, uname="nobody-here") for number in numbers]
        bench.applied(form, None, _tar(*members, form=_FORMATS[form]))
        tree = bench.tree(form)

        assert [(tree[f"f{number}"].uid, tree[f"f{number}"].gid) for number in numbers] == [(n, n - 1) for n in numbers]


def test_setuid_and_capabilities_outlive_the_owner(bench: Workbench) -> None:
    """Set-user-ID bits, and file capabilities, of files with another owner are kept though chown(2) clears them."""
    bench.needs("ownership")
    bench.needs("security_xattrs")
    text = {"SCHILY.xattr.security.capability": _CAPABILITY.decode("latin-1")}
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT, encoding="latin-1") as tar:
        tar.addfile(_header("suid", uid=7, gid=8, mode=0o6755))
        tar.addfile(_header("capable", uid=7, gid=8, pax_headers=text))
    bench.applied("base", None, buffer.getvalue())
    for layer in ("base", bench.applied("again", None, bench.diff("base"))):
        tree = bench.tree(layer)
        assert (tree["suid"].mode, tree["suid"].uid) == (0o6755, 7)
        assert (tree["capable"].xattrs, tree["capable"].gid) == ({"security.capability": _CAPABILITY}, 8)


def test_times_of_any_size(bench: Workbench) -> None:
    """Times with fractions, before 1970 and after 2038 are kept as finely as the driver claims."""
    times = {"a": "1.5", "b": "-1.25", "c": "4294967296.123456789", "d": "0", "e": "1700000000.000000001"}
    wanted = {"a": 1_500_000_000, "b": -1_250_000_000, "c": 4_294_967_296_123_456_789, "d": 0}
    wanted["e"] = 1_700_000_000_000_000_001
    bench.applied("layer", None, _tar(*(_header(name, pax_headers={"mtime": text}) for name, text in times.items())))
    tree = bench.tree("layer")
    coarse = bench.can.time_resolution

    assert {name: tree[name].mtime for name in times} == {n: time // coarse * coarse for n, time in wanted.items()}


def test_times_of_directories(bench: Workbench) -> None:
    """A directory has its member's time though its content was unpacked later, and deletions leave it alone."""
    bench.applied("base", None, layer_tar([directory("dir"), "dir/a", "dir/b", directory("dir/sub"), "dir/sub/c"]))
    before = bench.tree("base")
    bench.applied("layer", "base", layer_tar([whiteout("dir/a"), opaque("dir/sub"), "dir/sub/d"]))
    after = bench.tree("layer")

    assert {before[path].mtime for path in ("dir", "dir/sub")} == {1_600_000_000 * 10**9}
    assert sorted(after) == [".", "dir", "dir/b", "dir/sub", "dir/sub/d"]
    assert (after["dir"].mtime, after["dir/sub"].mtime) == (before["dir"].mtime, before["dir/sub"].mtime)


@pytest.mark.parametrize("target", ["file", "dangling", "dir"])
def test_a_hard_link_to_a_symbolic_link(bench: Workbench, target: str) -> None:
    """The link itself gets a second name; what it points to is not touched, and need not exist."""
    way = Member("way", kind=tarfile.SYMTYPE, target=target)
    members = [directory("dir"), Member("file", b"1", mode=0o600), way]
    bench.applied("base", None, layer_tar(members))
    bench.applied("one", None, layer_tar([*members, Member("hard", kind=tarfile.LNKTYPE, target="way", mode=0o777)]))
    bench.applied("two", "base", layer_tar([Member("hard", kind=tarfile.LNKTYPE, target="way", mode=0o777)]))
    for layer in ("one", "two"):
        tree = bench.tree(layer)
        assert (tree["hard"].kind, tree["hard"].target) == (stat.S_IFLNK, target)
        assert tree["file"].mode == 0o600
    assert bench.tree("one")["hard"].names == {"hard", "way"}


@pytest.mark.parametrize("device", [(1 << 12, 0), (0, 1 << 20), (1 << 20, 1 << 20)], ids=str)
@pytest.mark.parametrize("kind", [tarfile.CHRTYPE, tarfile.BLKTYPE], ids=["character", "block"])
def test_devices_out_of_range(bench: Workbench, kind: bytes, device: tuple[int, int]) -> None:
    """A device number that the kernel would cut to another device refuses the layer, naming the member."""
    bench.driver.create("layer")
    with pytest.raises(errors.ArchiveError) as caught:
        bench.driver.apply("layer", io.BytesIO(layer_tar([Member("node", kind=kind, device=device)])))

    assert caught.value.member == "node"
    bench.driver.remove("layer")


def test_large_device_numbers(bench: Workbench) -> None:
    """The largest device numbers are kept, through a tar too."""
    bench.needs("devices")
    folder = bench.flat()
    wanted = [(4095, 1_048_575), (511, 262_143), (511, 256), (8, 65_536)]
    numbers = [number for number in wanted if _takes_device(folder, number)]
    assert (8, 65_536) in numbers
    members = [Member(f"n{n}", kind=tarfile.BLKTYPE, device=number, mode=0o600) for n, number in enumerate(numbers)]
    bench.applied("layer", None, layer_tar(members))
    for layer in ("layer", bench.applied("copy", None, bench.diff("layer"))):
        tree = bench.tree(layer)
        found = [(os.major(tree[f"n{n}"].device), os.minor(tree[f"n{n}"].device)) for n in range(len(numbers))]
        assert found == numbers


def _takes_device(folder: str, number: tuple[int, int]) -> bool:
    """Try whether the file system has room for a device number; xfs keeps 9 bits and 18 bits of it."""
    path = os.path.join(folder, "node")
    try:
        os.mknod(path, stat.S_IFBLK | 0o600, os.makedev(*number))
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return False
    os.unlink(path)
    return True


class _Slow(io.RawIOBase):
    """Gives a byte now and two then, as a network does."""

    def __init__(self, content: bytes) -> None:
        super().__init__()
        self._pieces = self._cut(content)

    @staticmethod
    def _cut(content: bytes) -> Iterator[bytes]:
        place = 0
        while place < len(content):
            size = 1 + place % 7
            yield content[place : place + size]
            place += size

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        """Give the next piece, however much is asked for."""
        piece = next(self._pieces, b"")[: len(buffer)]
        buffer[: len(piece)] = piece
        return len(piece)

    def read(self, size: int = -1) -> bytes:
        """Give the next piece; all that is left where no size is asked for."""
        return b"".join(self._pieces) if size < 0 else next(self._pieces, b"")


def test_a_slow_stream(bench: Workbench) -> None:
    """A stream that gives a few bytes at a time is read to its end."""
    tar = layer_tar(["dir/", "dir/file", Member("large", b"x" * 20_000)])
    stream: BinaryIO = _Slow(tar)  # type: ignore[assignment]
    bench.driver.create("layer")
    applied = bench.driver.apply("layer", stream)
    bench.driver.seal("layer")

    assert applied.entries == 3
    assert bench.contents("layer") == {"dir": "/", "dir/file": "dir/file", "large": "x" * 20_000}


class _Breaking(io.BytesIO):
    """Fails like a network or a disk, once some bytes were read."""

    def __init__(self, content: bytes, good: int) -> None:
        super().__init__(content[:good])

    def read(self, size: int | None = -1) -> bytes:
        """Give what is good, then fail."""
        found = super().read(size)
        if not found and size:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return found


def _unpacked_again(bench: Workbench, tar: bytes) -> None:
    """Check that a layer that failed can be removed and made again, and that its parent is as it was."""
    bench.driver.remove("layer")
    shown = bench.contents(bench.applied("layer", "base", tar))
    assert sorted(shown) == ["dir", "dir/large", "dir/new"]
    assert bench.contents("base") == {"dir": "/", "dir/old": "dir/old"}
    bench.driver.remove("layer")


_REPLACING: list[Member | str] = ["dir/", whiteout("dir/old"), "dir/new", Member("dir/large", b"l" * 3_000_000)]


@pytest.mark.parametrize("good", [0, 700, 2000, 1_500_000])
def test_a_stream_that_breaks(bench: Workbench, good: int) -> None:
    """An error of the stream is passed on as it is; the layer can be removed, and its parent is whole."""
    bench.applied("base", None, layer_tar(["dir/", "dir/old"]))
    tar = layer_tar(_REPLACING)
    bench.driver.create("layer", "base")
    with pytest.raises(OSError, match="Input/output") as caught:
        bench.driver.apply("layer", _Breaking(tar, good))

    assert caught.value.errno == errno.EIO
    _unpacked_again(bench, tar)


def test_an_apply_is_cancelled(bench: Workbench) -> None:
    """What the caller raises when it is told of progress ends the work, and comes back to it."""

    class _EnoughError(Exception):
        pass

    def stop(consumed: int) -> None:
        assert consumed > 0
        raise _EnoughError

    bench.applied("base", None, layer_tar(["dir/", "dir/old"]))
    tar = layer_tar(_REPLACING)
    bench.driver.create("layer", "base")
    with pytest.raises(_EnoughError):
        bench.driver.apply("layer", io.BytesIO(tar), progress=stop)

    _unpacked_again(bench, tar)


def test_a_change_of_the_root_travels(bench: Workbench) -> None:
    """Mode, owner and time of the root itself are in the diff and come back."""
    bench.layer("base", None, [Mkdir("dir")])
    owner: list[Edit] = [Chown("", 5, 6)] if bench.can.ownership else []
    bench.layer("child", "base", [Chmod("", 0o1711), *owner, Utime("", 86_400 * 10**9)])
    bench.applied("copy", "base", bench.diff("child"))

    assert names_in(bench.diff("child")) == ["./"]
    assert_same(bench.tree("child"), bench.tree("copy"))
    assert bench.tree("copy")["."].mode == 0o1711


def test_parents_in_a_diff(bench: Workbench) -> None:
    """The directories above a change, a deletion and a new name are members, with their attributes as they are."""
    base: list[Edit] = [
        Mkdir("a", 0o711),
        Mkdir("a/b", 0o1777),
        Create("a/b/gone"),
        Create("a/b/old"),
        Mkdir("z", 0o700),
    ]
    bench.layer("base", None, [*base, Create("z/file")])
    changes: dict[str, Edit] = {"deleted": Remove("a/b/gone"), "linked": Link("a/b/old", "a/b/new")}
    for name, edit in changes.items():
        bench.layer(name, "base", [edit, Utime("a/b", 7)])
        with tarfile.open(fileobj=io.BytesIO(bench.diff(name))) as tar:
            modes = {member.name: member.mode for member in tar if member.isdir()}
        assert modes == {"a": 0o711, "a/b": 0o1777}


def test_links_in_a_diff(bench: Workbench) -> None:
    """The first name of a linked file, by its bytes, is the file; later ones are links to it, made in any order."""
    bench.layer("base", None, [Create("m", b"1"), Link("m", "a"), Mkdir("d"), Link("a", "d/z")])
    with tarfile.open(fileobj=io.BytesIO(bench.diff("base"))) as tar:
        links = [(member.name, member.linkname) for member in tar if not member.isdir()]

    assert links == [("a", ""), ("d/z", "a"), ("m", "a")]


def test_links_to_what_did_not_change(bench: Workbench) -> None:
    """New names of a parent's file, and a changed file with new names, are whole when they are applied elsewhere."""
    bench.layer("base", None, [Create("old", b"1"), Create("changed", b"2"), Mkdir("d")])
    edits: list[Edit] = [Link("old", "d/new"), Write("changed", b"22"), Link("changed", "a")]
    bench.layer("child", "base", edits)
    bench.applied("copy", "base", bench.diff("child"))
    tree = bench.tree("copy")

    assert bench.contents("copy") == {"old": "1", "d": "/", "d/new": "1", "changed": "22", "a": "22"}
    assert_same(bench.tree("child"), tree)


def test_sockets_stay_behind(bench: Workbench) -> None:
    """A socket is in no diff, and no reason to fail: whoever needs it makes it."""
    bench.layer("base", None, [Create("file"), Mknod("socket", stat.S_IFSOCK | 0o600), Symlink("link", "socket")])

    assert names_in(bench.diff("base"))[-2:] == ["file", "link"]
    assert sorted(bench.contents(bench.applied("copy", None, bench.diff("base")))) == ["file", "link"]


def test_a_source_date_epoch(bench: Workbench) -> None:
    """Later times become the given one, earlier ones stay, and the bytes are the same every time."""
    bench.layer("base", None, [Create("late"), Create("early"), Utime("early", 10**9), Utime("late", 10**18)])

    def read() -> bytes:
        with bench.driver.diff("base", source_date_epoch=1_000_000) as stream:
            return b"".join(iter(lambda: stream.read(1 << 16), b""))

    tar = read()
    with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
        times = {member.name: member.mtime for member in archive}

    assert (times["late"], times["early"]) == (1_000_000, 1)
    assert max(times.values()) <= 1_000_000
    assert {read() for _ in range(10)} == {tar}
