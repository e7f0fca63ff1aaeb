"""Tars that are wrong: each is refused by an ``ArchiveError`` that names the member, and costs little."""

import contextlib
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rawtars import END, Seen, Trickle, header, member, pax, record

from graphdrivers import errors
from graphdrivers.archive.reader import TarReader
from graphdrivers.model import Limits

EIGHTS = b"\xff" * 8
BIG = b"\x80" + bytes(3) + b"\x01" + bytes(3)

SPARSE_1_0 = pax((b"GNU.sparse.major", b"1"), (b"GNU.sparse.minor", b"0"), (b"GNU.sparse.realsize", b"9"))


def read(tar: bytes, limits: Limits = Limits(), *, payloads: bool = True, chunk: int = 1 << 20) -> int:
    """Read a whole tar without keeping anything; return the number of members."""
    reader = TarReader(Trickle(tar, (chunk,)), limits, chunk=chunk)
    members = 0
    while (entry := reader.next()) is not None:
        members += 1
        if payloads and entry.kind == b"0" and reader.stored(None) is None:
            end = 0
            for offset, piece in reader.pieces(None):
                assert end <= offset <= offset + len(piece) <= entry.size
                end = offset + len(piece)
    reader.drain()
    return members


@pytest.mark.parametrize(
    "wrong",
    {
        "negative size": header(size=b"\xff" * 12),
        "octal with a sign": header(size=b"-0000000010\0"),
        "octal with an underscore": header(size=b"00000000_10\0"),
        "octal with an eight": header(size=b"00000000080\0"),
        "octal with a prefix": header(size=b"0o000000010\0"),
        "octal with a letter": header(mode=b"000064x\0"),
        "digits behind a space": header(mode=b"00 0644\0"),
        "size above 63 bits": header(size=b"\x80" + bytes(2) + b"\xff" * 9),
        "negative uid": header(uid=EIGHTS),
        "uid of 2**32 - 1": header(uid=b"\x80" + bytes(3) + b"\xff" * 4),
        "uid of 2**40": header(uid=b"\x80" + bytes(1) + b"\x01" + bytes(5)),
        "time beyond 64 bits of nanoseconds": header(mtime=b"\x80" + bytes(4) + b"\xff" * 7),
        "device major of 2**12": header(kind=b"3", devices=b"0010000\0" + b"0000000\0"),
        "device minor of 2**20": header(kind=b"4", devices=b"0000001\0" + b"4000000\0"),
        "negative device": header(kind=b"4", devices=EIGHTS * 2),
        "wrong checksum": header(checksum=b"000001\0 "),
        "checksum of junk": header(checksum=b"zzzzzz\0 "),
        "unknown type": header(kind=b"Z"),
        "multi-volume": header(kind=b"M"),
        "lone zero block": bytes(512) + header(),
        "text": b"this is not a tar\n" * 100,
        "cut header": header()[:300],
        "PAX without length": member(payload=b"path=f\n", kind=b"x"),
        "PAX with length 0": member(payload=b"0 path=f\n", kind=b"x"),
        "PAX with a negative length": member(payload=b"-9 path=f\n", kind=b"x"),
        "PAX with a length too large": member(payload=b"99 path=f\n", kind=b"x"),
        "PAX with a length of 5,000 digits": member(payload=b"1" * 5000 + b" path=f\n", kind=b"x"),
        "PAX with a length in letters": member(payload=b"\xd9\xa1 path=f\n", kind=b"x"),
        "PAX without equals": member(payload=b"7 path\n", kind=b"x"),
        "PAX without keyword": member(payload=b"5 =f\n", kind=b"x"),
        "PAX without newline": member(payload=b"10 path=ff", kind=b"x"),
        "PAX path with NUL": pax((b"path", b"a\0b")) + header(),
        "PAX size with a sign": pax((b"size", b"+1")) + header(),
        "PAX size that is negative": pax((b"size", b"-1")) + header(),
        "PAX size above 63 bits": pax((b"size", b"9223372036854775808")) + header(),
        "PAX size of 5,000 digits": pax((b"size", b"1" * 5000)) + header(),
        "PAX uid of 2**32 - 1": pax((b"uid", b"4294967295")) + header(),
        "PAX gid in octal notation": pax((b"gid", b"0o17")) + header(),
        "PAX time in words": pax((b"mtime", b"nan")) + header(),
        "PAX time beyond 64 bits": pax((b"mtime", b"99999999999")) + header(),
        "PAX device beyond its bits": pax((b"SCHILY.devmajor", b"4096")) + header(kind=b"3"),
        "xattr without name": pax((b"SCHILY.xattr.", b"v")) + header(),
        "xattr that is not base64": pax((b"LIBARCHIVE.xattr.user.x", b"%%%")) + header(),
        "xattr with NUL in its name": pax((b"LIBARCHIVE.xattr.user.%00", b"")) + header(),
        "dangling PAX": pax((b"path", b"f")),
        "dangling long name": member(payload=b"name\0", kind=b"L"),
        "two extended headers": pax((b"path", b"f")) + pax((b"size", b"0")) + header(),
        "long name and path that differ": member(payload=b"a\0", kind=b"L") + pax((b"path", b"b")) + header(),
        "long link and linkpath that differ": member(payload=b"a\0", kind=b"K")
        + pax((b"linkpath", b"b"))
        + header(kind=b"2"),
        "global path": pax((b"path", b"f"), kind=b"g") + header(),
        "global size": pax((b"size", b"0"), kind=b"g") + header(),
        "global xattr": pax((b"SCHILY.xattr.user.x", b"0"), kind=b"g") + header(),
        "global sparse map": pax((b"GNU.sparse.map", b"0,0"), kind=b"g") + header(),
    }.items(),
    ids=lambda pair: pair[0],
)
def test_refused(wrong: tuple[str, bytes]) -> None:
    """Every lying field is a ``MalformedArchive`` that says where."""
    front = member(b"before", b"content") + wrong[1]
    tar = front + (header() if wrong[0].startswith("PAX") else b"") + END
    if "dangling" not in wrong[0] and "cut" not in wrong[0]:
        tar += member(b"behind")
    elif "cut" in wrong[0]:
        tar = tar[: -len(END)]

    with pytest.raises(errors.MalformedArchive) as caught:
        read(tar)

    assert caught.value.offset == 1024
    assert str(caught.value)


@pytest.mark.parametrize(
    ("tar", "limit"),
    [
        (header(kind=b"x", size=(1 << 20) + 1), "header_chain"),
        (header(kind=b"x", size=b"\x80" + bytes(4) + b"\x7f" * 7), "header_chain"),
        (header(kind=b"L", size=1 << 32), "header_chain"),
        (member(payload=b"n" * 9000, kind=b"L") * 120, "header_chain"),
        (pax((b"mtime", b"0" * 17), kind=b"g") * 2100, "header_chain"),
        (member(payload=b"n" * (16 << 10) + b"n", kind=b"L") + header(), "path"),
        (pax((b"path", b"n" * ((16 << 10) + 1))) + header(), "path"),
        (pax((b"linkpath", b"n" * ((16 << 10) + 1))) + header(kind=b"2"), "path"),
        (header() * 11, "members"),
        (pax(*((b"SCHILY.xattr.user.%d" % i, bytes(1000)) for i in range(100))) + header(), "xattrs"),
        (pax((b"GNU.sparse.size", b"9"), (b"GNU.sparse.map", b"0,0," * 2000 + b"0,0")) + header(), "sparse_entries"),
        (SPARSE_1_0 + member(b"f", b"1001\n" + b"0\n0\n" * 1001 + bytes(600)), "sparse_entries"),
    ],
)
def test_limits(tar: bytes, limit: str) -> None:
    """Reaching a limit names the ``Limits`` field, before memory is spent on it."""
    with pytest.raises(errors.LimitExceeded) as caught:
        read(tar + END, Limits(members=10, xattrs=50_000, sparse_entries=1000))

    assert caught.value.limit == limit


def test_sparse_map_and_payload_disagree() -> None:
    """A sparse map that describes more or less than is stored is refused: something would be hidden or made up."""
    for described in (2, 4):
        records = pax((b"GNU.sparse.size", b"9"), (b"GNU.sparse.map", b"1,%d" % described))
        with pytest.raises(errors.MalformedArchive, match="3 are stored"):
            read(records + member(b"f", b"abc") + END)


def test_huge_claims_cost_no_memory() -> None:
    """Sizes that a header only claims are never allocated."""
    sparse_count = member(payload=b"99999999999999\n", kind=b"0")
    tars = [
        header(kind=b"x", size=1 << 32) + bytes(1 << 16),
        header(size=1 << 40) + bytes(1 << 16),
        SPARSE_1_0 + sparse_count,
    ]
    read(member(), chunk=4096)
    tracemalloc.start()
    try:
        for tar in tars:
            with pytest.raises(errors.ArchiveError):
                read(tar, chunk=4096)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def whole_tar() -> tuple[bytes, set[int]]:
    """Make a tar with every kind of header, and tell where it may be cut without harm: between members."""
    parts = [
        member(b"dir/", kind=b"5"),
        member(b"small", b"s" * 700),
        member(payload=b"long" * 100 + b"\0", kind=b"L") + member(b"x", b"content"),
        pax((b"path", b"p"), (b"mtime", b"1.5"), (b"SCHILY.xattr.user.a", b"1")) + member(b"x", b"c" * 513),
        pax((b"uid", b"7"), kind=b"g"),
        member(b"after global"),
        pax(
            (b"GNU.sparse.major", b"1"),
            (b"GNU.sparse.minor", b"0"),
            (b"GNU.sparse.name", b"holes"),
            (b"GNU.sparse.realsize", b"5000"),
        )
        + member(b"x", b"2\n0\n3\n4000\n1000\n".ljust(512, b"\0") + b"abc" + b"d" * 1000),
        member(b"large", b"l" * 70_000),
    ]
    ends, position = {0}, 0
    for part in parts:
        position += len(part)
        ends.add(position)
    return b"".join(parts), ends


def test_truncation_at_every_block() -> None:
    """A tar cut anywhere but between members is refused; cut there, it has fewer members, as for GNU tar."""
    tar, ends = whole_tar()
    for cut in range(0, len(tar) + 1, 512):
        if cut in ends:
            read(tar[:cut], chunk=4096)
            continue
        with pytest.raises(errors.MalformedArchive, match="ends"):
            read(tar[:cut], chunk=4096)
    for cut in range(1, 3000):
        if cut % 512:
            try:
                read(tar[:cut], chunk=100)
            except errors.MalformedArchive:
                continue
            assert tar[cut : -(-cut // 512) * 512].strip(b"\0") == b""  # only padding is missing


def test_payload_ends_early_names_the_member() -> None:
    """A stream that ends within content is refused by `stored`, by `pieces` and by going on."""
    for size in (600, 100_000):
        tar = header(b"victim", size=size) + bytes(520)
        for payloads in (True, False):
            with pytest.raises(errors.MalformedArchive, match="ends within") as caught:
                read(tar, payloads=payloads)
            assert caught.value.member == "victim"


ALPHABET = st.sampled_from(
    [b"\0", b"\xff", b"\x80", b"0", b"7", b"8", b"9", b"-", b" ", b"\n", b"=", b",", b"x", b"g", b"L", b"S", b"5", b"1"]
)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=2000))
def test_any_bytes(tar: bytes) -> None:
    """Whatever the bytes, nothing but an ``ArchiveError`` comes out."""
    with contextlib.suppress(errors.ArchiveError):
        read(tar)


@settings(max_examples=600, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 7500), ALPHABET), min_size=1, max_size=6), st.booleans())
def test_mutated_tar(changes: list[tuple[int, bytes]], mend: bool) -> None:  # noqa: FBT001 - hypothesis passes it by position
    """A good tar with some bytes changed, checksums mended or not, gives members or an ``ArchiveError``."""
    tar = bytearray(whole_tar()[0][: 7500 + 512])
    for position, byte in changes:
        tar[position : position + 1] = byte
        if mend:
            start = position // 512 * 512
            block = bytes(tar[start : start + 148]) + b" " * 8 + bytes(tar[start + 156 : start + 512])
            if len(block) == 512 and tar[start + 257 : start + 262] == b"ustar":
                tar[start + 148 : start + 156] = b"%06o\0 " % sum(block)
    with contextlib.suppress(errors.ArchiveError):
        read(bytes(tar), Limits(header_chain=1 << 16), chunk=4096)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200))
def test_any_pax_payload(payload: bytes) -> None:
    """Whatever an extended header holds, it is understood or refused."""
    keyed = [record(key, payload) for key in (b"path", b"size", b"mtime", b"SCHILY.xattr.a", b"LIBARCHIVE.xattr.a")]
    for body in (payload, b"9 " + payload, *keyed):
        with contextlib.suppress(errors.ArchiveError):
            read(member(payload=body, kind=b"x") + member())


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.integers(-2, 30), st.integers(-2, 30)), max_size=5), st.integers(0, 60), st.integers(0, 2))
def test_any_sparse_map(regions: list[tuple[int, int]], size: int, form: int) -> None:
    """A sparse map that is accepted gives ordered regions inside the file, with all data in them."""
    stored = sum(length for _, length in regions if length > 0)
    data = bytes(range(1, stored + 1)) if stored < 255 else b"x" * stored
    numbers = [number for region in regions for number in region]
    if form == 2:
        text = b"".join(b"%d\n" % number for number in [len(regions), *numbers])
        keys = [(b"GNU.sparse.major", b"1"), (b"GNU.sparse.minor", b"0"), (b"GNU.sparse.realsize", b"%d" % size)]
        tar = pax(*keys) + member(b"f", text.ljust(512, b"\0") + data)
    elif form == 1:
        keys = [(b"GNU.sparse.size", b"%d" % size), (b"GNU.sparse.map", b",".join(b"%d" % n for n in numbers))]
        tar = pax(*keys) + member(b"f", data)
    else:
        tail = b"".join(b"%011o\0%011o\0" % (max(a, 0), max(b, 0)) for a, b in regions[:4])
        tar = header(b"f", kind=b"S", size=len(data), tail=bytes(41) + tail.ljust(96, b"\0") + b"\0%011o\0" % size)
        tar += data + bytes(-len(data) % 512)
    try:
        seen = Seen.of(tar)
    except errors.MalformedArchive:
        return
    entry = seen.entries[0]
    assert entry.size == size
    assert sum(length for _, length in entry.sparse or ()) == stored
    assert len(seen.files[b"1"]) == size
    assert seen.recording.tar(seen.files) == tar
