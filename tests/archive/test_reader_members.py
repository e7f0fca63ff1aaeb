"""What the tar reader makes of unusual but legal headers."""

import pytest
from rawtars import END, Recording, Seen, Trickle, header, member, pax

from graphdrivers.archive.entries import Entry
from graphdrivers.archive.reader import TarReader


def only(tar: bytes) -> Entry:
    """Read a tar of one member."""
    (entry,) = Seen.of(tar + END).entries
    return entry


def test_signed_checksum() -> None:
    """Historic tars added up signed characters."""
    assert only(header(b"caf\xe9", signed=True)).name == b"caf\xe9"


def test_ustar_prefix_and_star_prefix() -> None:
    """The prefix is used under the POSIX magic only, and ends early in star's headers."""
    star = b"p" * 131 + b"00000000000 00000000000 " + bytes(8) + b"tar\0"

    assert only(header(b"n", tail=b"p/q")).name == b"p/q/n"
    assert only(header(b"n", tail=star)).name == b"p" * 131 + b"/n"
    assert only(header(b"n", tail=b"00000000000\0", magic=b"ustar  \0")).name == b"n"
    assert only(header(b"n", tail=b"junk", magic=bytes(8))).name == b"n"


def test_names_fill_their_fields() -> None:
    """A name of 100 bytes has no NUL behind it, a prefix of 155 neither, a link neither."""
    entry = only(header(b"n" * 100, tail=b"p" * 155, kind=b"2", link=b"t" * 100))

    assert (entry.name, entry.linkname) == (b"p" * 155 + b"/" + b"n" * 100, b"t" * 100)


@pytest.mark.parametrize("kind", [b"\0", b"0", b"7"])
def test_old_and_contiguous_files(kind: bytes) -> None:
    """Regular files have had three types; each becomes ``REGULAR`` and has its content."""
    seen = Seen.of(member(b"f", b"content", kind=kind) + END)

    assert seen.entries[0].kind == b"0"
    assert seen.content(b"f") == b"content"


def test_trailing_slash_is_a_directory() -> None:
    """A v7 directory is a file whose name ends with a slash; what it stores is passed over, as Go does."""
    seen = Seen.of(member(b"d/", b"unused", kind=b"\0", magic=bytes(8)) + member(b"f", b"next") + END)

    assert [(e.name, e.kind, e.size) for e in seen.entries] == [(b"d/", b"5", 0), (b"f", b"0", 4)]
    assert seen.content(b"f") == b"next"


@pytest.mark.parametrize("kind", [b"1", b"2", b"3", b"4", b"5", b"6"])
def test_headers_only(kind: bytes) -> None:
    """Links, devices, directories and fifos store nothing, whatever their size says (as Go's archive/tar)."""
    seen = Seen.of(header(b"x", kind=kind, size=512) + member(b"f", b"next") + END)

    assert [(e.name, e.size) for e in seen.entries] == [(b"x", 0), (b"f", 4)]


def test_dump_directory_and_volume_label() -> None:
    """Of GNU's old types, a dumped directory is a directory, and a volume label nothing at all."""
    tar = header(b"label", kind=b"V") + member(b"d/", b"Yfile\0\0", kind=b"D") + member(b"f", b"next") + END
    seen = Seen.of(tar)

    assert [(e.name, e.kind, e.size) for e in seen.entries] == [(b"d/", b"5", 0), (b"f", b"0", 4)]
    assert seen.recording.tar(seen.files) == tar


def test_number_fields() -> None:
    """Octal may have spaces around it or be empty, modes may have a file type, base-256 may be negative."""
    spaced = only(header(mode=b" 100644 ", uid=b"   17 \0 ", mtime=b"           \0"))
    binary = only(header(uid=b"\x80" + bytes(3) + b"\xff\xff\xff\xfe", mtime=b"\xff" * 12))
    blank = only(header(mode=bytes(8), uid=b"0000017\0", size=bytes(12)))

    assert (spaced.mode, spaced.uid, spaced.mtime) == (0o644, 0o17, 0)
    assert (binary.uid, binary.mtime) == (2**32 - 2, -(10**9))
    assert (blank.mode, blank.uid, blank.size) == (0, 0o17, 0)


def test_devices() -> None:
    """The largest device numbers of Linux are read; other types ignore the fields, junk or not."""
    assert only(header(kind=b"3", devices=b"0007777\0" + b"3777777\0")).device == (2**12 - 1, 2**20 - 1)
    assert only(pax((b"SCHILY.devmajor", b"8"), (b"SCHILY.devminor", b"1")) + header(kind=b"4")).device == (8, 1)
    assert only(header(devices=b"junk".ljust(16))).device == (0, 0)


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        (b"1", 10**9),
        (b"1.5", 1_500_000_000),
        (b"0.123456789", 123_456_789),
        (b"0.1234567899", 123_456_789),
        (b"-1.5", -1_500_000_000),
        (b"-0.0000000001", -1),
        (b"-0.000000001", -1),
        (b"9223372035.999999999", 9_223_372_035_999_999_999),
    ],
)
def test_pax_times(text: bytes, ns: int) -> None:
    """Times have nanoseconds, a sign, and are rounded down."""
    assert only(pax((b"mtime", text)) + header()).mtime == ns


def test_pax_overrides() -> None:
    """Records win over the header; an empty one takes back an earlier one; unknown ones are passed over."""
    records = pax(
        (b"hdrcharset", b"BINARY"),
        (b"path", b"raw \xff name"),
        (b"uid", b"3000000000"),
        (b"gid", b"5"),
        (b"gid", b""),
        (b"size", b"3"),
        (b"comment", b"anything"),
        (b"VENDOR.key", b"\0\xff\n"),
    )
    seen = Seen.of(records + header(b"f", size=9999) + b"abc".ljust(512, b"\0") + member(b"next") + END)

    entry = seen.entries[0]
    assert (entry.name, entry.uid, entry.gid, entry.size) == (b"raw \xff name", 3_000_000_000, 0, 3)
    assert [e.name for e in seen.entries] == [b"raw \xff name", b"next"]


def test_pax_padding_is_counted_by_some() -> None:
    """An extended header may be padded with NUL within its size."""
    payload = b"10 path=f\n" + bytes(502)

    assert only(member(payload=payload, kind=b"x") + header(b"g")).name == b"f"


def test_long_names() -> None:
    """GNU's long names end at their first NUL, and may say the same as a PAX path beside them."""
    long = b"n" * 300
    gnu = member(payload=long + b"\0junk", kind=b"L") + member(payload=b"target\0", kind=b"K")

    entry = only(gnu + header(kind=b"2", link=b"short"))
    assert (entry.name, entry.linkname) == (long, b"target")
    assert only(gnu + pax((b"path", long)) + header()).name == long
    assert only(pax((b"path", long), kind=b"X") + header()).name == long


def test_global_records_hold_until_changed() -> None:
    """Records of a global header are defaults for all that follows; a member's own win."""
    tar = (
        pax((b"comment", b"a commit"), (b"uid", b"7"), (b"mtime", b"1.5"), kind=b"g")
        + header(b"a")
        + header(b"a too")
        + pax((b"uid", b"8"))
        + header(b"b")
        + pax((b"mtime", b"2"), kind=b"g")
        + header(b"c")
        + pax((b"uid", b""), kind=b"g")
        + header(b"d")
        + END
    )

    found = [(e.name, e.uid, e.mtime) for e in Seen.of(tar).entries]
    assert found == [
        (b"a", 7, 1_500_000_000),
        (b"a too", 7, 1_500_000_000),
        (b"b", 8, 1_500_000_000),
        (b"c", 7, 2 * 10**9),
        (b"d", 0, 2 * 10**9),
    ]


def test_xattr_forms() -> None:
    """Star's attributes are read as they are, libarchive's are decoded, and star's win where both are given."""
    records = pax(
        (b"LIBARCHIVE.xattr.user.both", b"b2xk"),
        (b"SCHILY.xattr.user.both", b"raw=\n\0"),
        (b"LIBARCHIVE.xattr.user.both", b"b2xk"),
        (b"LIBARCHIVE.xattr.user.a%3Db%25", b"AP8"),
        (b"SCHILY.xattr.user.100%25", b""),
        (b"SCHILY.xattr.user.\xff", b"v"),
    )

    assert only(records + header()).xattrs == {
        "user.both": b"raw=\n\0",
        "user.a=b%": b"\0\xff",
        "user.100%25": b"",
        "user.\udcff": b"v",
    }


def test_offsets_count_extension_headers() -> None:
    """A member begins where its first extension header does."""
    seen = Seen.of(member(b"a", b"x") + pax((b"path", b"b")) + header() + END)

    assert [entry.offset for entry in seen.entries] == [0, 1024]


def test_ends() -> None:
    """The end is two zero blocks, one at the end of the stream, none, or padding that is missing."""
    whole = member(b"f", b"content")

    for end in (END, bytes(512), b"", END + b"trailing garbage" * 100):
        seen = Seen.of(whole + end)
        assert seen.content(b"f") == b"content"
        assert seen.tapped == whole + end
        assert seen.recording.tar(seen.files) == whole + end
    assert Seen.of(whole[: 512 + len(b"content")]).content(b"f") == b"content"
    assert Seen.of(b"").entries == []


def test_literal_or_content() -> None:
    """A payload read without a path, or not read at all, is literal in the record."""
    tar = member(b"f", b"content" * 1000) + END
    seen = Seen.of(tar)
    assert (b"1", 0, 7000) in seen.recording.pieces

    for ask in (True, False):
        recording = Recording()
        reader = TarReader(Trickle(tar), recorder=recording)
        assert reader.next() is not None
        if ask:
            stored = reader.stored(None)
            assert stored is not None
            assert bytes(stored) == b"content" * 1000
        assert reader.next() is None
        reader.drain()
        assert recording.tar({}) == tar
