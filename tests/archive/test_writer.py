"""The tar writer: every field it can write comes back from an independent reader, and bytes never vary."""

import io
import tarfile

import pytest

from graphdrivers.archive import entries, paxwriter
from graphdrivers.archive.writer import TarWriter

NS = 1_000_000_000
OWNER = (0o644, 0, 0)


def written(*args: object, content: bytes = b"", **more: object) -> bytes:
    """Return an archive of one member."""
    pieces: list[bytes] = []
    writer = TarWriter(pieces.append)
    writer.header(*args, **more)  # type: ignore[arg-type]
    writer.payload(content)
    writer.pad(len(content))
    writer.close()
    return b"".join(pieces)


def read(archive: bytes) -> tarfile.TarInfo:
    """Read the only member with the standard library."""
    with tarfile.open(fileobj=io.BytesIO(archive), errors="surrogateescape") as tar:
        (member,) = tar.getmembers()
    return member


def test_plain_member_is_one_block_of_ustar() -> None:
    """What ustar can say is said in ustar, byte for byte as POSIX has it."""
    archive = written(b"etc/motd", entries.REGULAR, (0o4755, 12, 34), 5, 7 * NS, content=b"hello")

    assert len(archive) == 512 + 512 + 1024
    assert archive[:8] == b"etc/motd"
    assert archive[100:148] == b"0004755\x000000014\x000000042\x0000000000005\x0000000000007\x00"
    assert archive[148:156] == b"%06o\0 " % (sum(archive[:148]) + 8 * 32 + sum(archive[156:512]))
    assert archive[156:157] == b"0"
    assert archive[257:265] == b"ustar\x0000"
    assert archive[265:329] == bytes(64), "user and group names stay empty"
    assert archive[329:345] == b"0000000\x000000000\x00"
    assert archive[512:1024] == b"hello".ljust(512, b"\0")
    assert archive[1024:] == bytes(1024)


@pytest.mark.parametrize(
    ("name", "kind"),
    [(b"d/", entries.DIRECTORY), (b"f", entries.FIFO), (b"./", entries.DIRECTORY), (b"c", entries.CHARDEV)],
)
def test_kinds(name: bytes, kind: bytes) -> None:
    """Each kind keeps its flag and its name."""
    member = read(written(name, kind, (0o1777, 0, 0), 0, 0))

    assert (member.name, member.type, member.mode) == (name.decode().rstrip("/"), kind, 0o1777)


def test_device_numbers() -> None:
    """The largest device numbers of Linux survive."""
    member = read(written(b"sda", entries.BLOCKDEV, OWNER, 0, 0, device=(0xFFF, 0xFFFFF)))

    assert (member.type, member.devmajor, member.devminor) == (entries.BLOCKDEV, 0xFFF, 0xFFFFF)


@pytest.mark.parametrize("length", [1, 99, 100, 101, 155, 156, 256, 4095, 70_000])
@pytest.mark.parametrize("kind", [entries.SYMLINK, entries.HARDLINK])
def test_long_names_and_links(length: int, kind: bytes) -> None:
    """Names and targets of every length come back; up to 100 bytes without an extended header."""
    name, target = b"n" * length, b"t" * length
    archive = written(name, kind, OWNER, 0, 0, linkname=target)
    member = read(archive)

    assert (member.name, member.linkname) == (name.decode(), target.decode())
    assert (archive[156:157] == b"x") == (length > 100)


def test_long_name_cut_behind_a_slash_is_still_a_file() -> None:
    """The short name in the ustar field may end in a slash; the file stays a file."""
    name = b"d" * 99 + b"/" + b"f"

    assert read(written(name, entries.REGULAR, OWNER, 0, 0)).isreg()


@pytest.mark.parametrize("name", ["é".encode(), b"\xff\xfe", b"new\nline", b"\\x", b"-rf", b" ", b"a\xffb" * 60])
def test_names_in_any_bytes(name: bytes) -> None:
    """UTF-8 is declared by PAX, other bytes are declared binary; the raw name is in the ustar field too."""
    archive = written(name, entries.REGULAR, OWNER, 0, 0)

    assert read(archive).name.encode(errors="surrogateescape") == name
    assert (b"hdrcharset=BINARY\n" in archive) == (b"\xff" in name)
    assert archive[-1536:-1436].rstrip(b"\0") == name[:100]


@pytest.mark.parametrize("number", [0o7777777, 0o7777777 + 1, 2**32 - 1])
def test_owners(number: int) -> None:
    """Owners up to 32 bits come back, the first time and every time."""
    for _ in range(2):
        member = read(written(b"f", entries.REGULAR, (0o644, number, number), 0, 0))

        assert (member.uid, member.gid) == (number, number)


def test_many_owners_stay_correct() -> None:
    """More owners than are remembered are still written right, also those that need PAX."""
    pieces: list[bytes] = []
    writer = TarWriter(pieces.append)
    numbers = [*range(5000), 2**31, 3, 2**31]
    for number in numbers:
        writer.header(b"f", entries.REGULAR, (0o644, number, 0), 0, 0)
    writer.close()

    with tarfile.open(fileobj=io.BytesIO(b"".join(pieces))) as tar:
        assert [member.uid for member in tar] == numbers


@pytest.mark.parametrize("size", [0o77777777777, 0o77777777777 + 1, 2**62])
def test_sizes(size: int) -> None:
    """Sizes beyond 8 GiB come back."""
    pieces: list[bytes] = []
    TarWriter(pieces.append).header(b"f", entries.REGULAR, OWNER, size, 0)

    with tarfile.open(fileobj=io.BytesIO(b"".join(pieces)), mode="r:") as tar:
        member = tar.next()

        assert member is not None
        assert member.size == size


@pytest.mark.parametrize(
    ("time", "text"),
    [
        (0, None),
        (NS, None),
        (0o77777777777 * NS, None),
        (0o100000000000 * NS, b"8589934592"),
        (1_700_000_000_123_456_789, b"1700000000.123456789"),
        (1_500_000_000, b"1.5"),
        (1, b"0.000000001"),
        (-1, b"-0.000000001"),
        (-NS, b"-1"),
        (-10 * NS, b"-10"),
        (-1_500_000_000, b"-1.5"),
    ],
)
def test_times(time: int, text: bytes | None) -> None:
    """A time is a PAX record only when ustar cannot hold it exactly, and then without trailing zeros."""
    archive = written(b"f", entries.REGULAR, OWNER, 0, time)

    assert (archive[156:157] == b"x") == (text is not None)
    assert text is None or b" mtime=" + text + b"\n" in archive
    assert read(archive).mtime == pytest.approx(time / NS, abs=1e-6)


def test_xattrs_are_sorted_records() -> None:
    """The order of a mapping does not show, values are raw bytes."""
    forward = {"user.a": b"1", "security.capability": bytes(range(20)), "user.b": b"\n=\0"}
    archive = written(b"f", entries.REGULAR, OWNER, 0, 0, xattrs=forward)
    backward = dict(reversed(forward.items()))

    assert archive == written(b"f", entries.REGULAR, OWNER, 0, 0, xattrs=backward)
    first, last = archive.index(b"SCHILY.xattr.security.capability="), archive.index(b"SCHILY.xattr.user.b=\n=\0\n")
    assert first < archive.index(b"SCHILY.xattr.user.a=1\n") < last


def test_xattr_names_that_pax_keys_cannot_hold() -> None:
    """A name with an equals sign is written in libarchive's encoding, which is unambiguous."""
    record = paxwriter.attributes({"user.a=b": b"value"})

    assert record == b"40 LIBARCHIVE.xattr.user.a%3Db=dmFsdWU=\n"


@pytest.mark.parametrize("size", [*range(80, 100), *range(980, 1000), *range(9980, 10_000)])
def test_records_count_their_own_length(size: int) -> None:
    """The length is right where it gains a digit."""
    record = paxwriter.record(b"k", b"v" * size)

    assert int(record.split(b" ")[0]) == len(record)


@pytest.mark.parametrize("regions", [(), ((0, 3),), ((4096, 5),), ((0, 4096), (1 << 40, 10))])
def test_sparse_files(regions: tuple[tuple[int, int], ...]) -> None:
    """The map, the real size and the real name come back; a reader of old does not see the real name."""
    size = (1 << 40) + 10
    pieces: list[bytes] = []
    writer = TarWriter(pieces.append)
    payload = writer.sparse_header("dir/é".encode(), OWNER, size, NS // 2, regions=regions, xattrs={"user.a": b"b"})
    writer.payload(b"x" * payload)
    writer.pad(payload)
    writer.close()
    member = read(b"".join(pieces))

    assert payload == sum(length for _, length in regions)
    assert (member.name, member.size, member.mtime) == ("dir/é", size, 0.5)
    assert [region for region in tuple(member.sparse or ()) if region[1]] == list(regions)  # type: ignore[index,comparison-overlap]
    assert b"".join(pieces).count("GNUSparseFile.0/é".encode()) == 1


@pytest.mark.parametrize(
    ("regions", "text"),
    [
        (((0, 4096), (8192, 1808)), b"2\n0\n4096\n8192\n1808\n"),
        (((0, 4096),), b"2\n0\n4096\n10000\n0\n"),
        ((), b"1\n10000\n0\n"),
    ],
)
def test_sparse_map_is_that_of_gnu_tar(regions: tuple[tuple[int, int], ...], text: bytes) -> None:
    """A file that ends in a hole has an empty region at its end."""
    pieces: list[bytes] = []
    TarWriter(pieces.append).sparse_header(b"f", OWNER, 10_000, 0, regions=regions)

    assert pieces[-1] == text.ljust(512, b"\0")
