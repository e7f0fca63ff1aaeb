"""Strategies for hostile tars, and what has to hold for every one of them.

Mutations start from whole layers and know where fields are: what is random all
over is refused by the first checksum and finds nothing behind it.
"""

import contextlib
import io
import os
import stat
import tempfile
from collections.abc import Sequence

from cases import device, file, folder, hardlink, layer, opaque, symlink, whiteout, xattr
from hypothesis import strategies as st
from rawtars import Trickle, member, pax
from stage import Outcome, perform_layer, put_canary, state

from graphdrivers import errors
from graphdrivers.archive.apply import Target, apply
from graphdrivers.archive.compare import compare
from graphdrivers.archive.plain import EmptyTree, PlainTree
from graphdrivers.archive.produce import produce
from graphdrivers.archive.reader import TarReader
from graphdrivers.archive.whiteouts import PLAIN
from graphdrivers.conformance.observe import assert_same
from graphdrivers.driver import Driver
from graphdrivers.model import Capabilities, Limits

LIMITS = Limits(header_chain=1 << 16, path=2000, xattrs=1 << 14, sparse_entries=200, members=200, size=1 << 20)
"""Small, so that examples reach them."""

BASE = layer(
    folder(b"d"),
    file(b"d/f", b"lower"),
    file(b"d/g", b"other"),
    folder(b"d/e"),
    file(b"d/e/x"),
    symlink(b"l", b"d"),
    symlink(b"up", b"../../victim"),
    file(b"low"),
    xattr(b"trusted.t", b"v"),
    symlink(b"h", b"low"),
)
"""What the fuzzed layers are applied over. Without hard links: a link to one of their names is up to the driver."""

CAPABILITIES = Capabilities(
    ownership=True,
    devices=True,
    char_0_0=True,
    user_xattrs=True,
    trusted_xattrs=True,
    security_xattrs=True,
    posix_acls=True,
)

SEEDS = (
    BASE,
    layer(folder(b"d"), file(b"d/a", b"1"), hardlink(b"d/b", b"d/a"), symlink(b"d/s", b"/d"), file(b"d/s/t", b"2")),
    layer(
        whiteout(b"d/f"),
        opaque(b"d/e"),
        file(b"d/e/y"),
        file(b"low"),
        whiteout(b"low"),
        file(b"l/new"),
        folder(b"up"),
        file(b"up/z"),
    ),
    layer(xattr(b"user.a", b"1"), file(b"x"), pax((b"mtime", b"1.5"), (b"path", b"long/name")), file(b"y")),
    layer(
        member(b"l", (b"n" * 120).ljust(400, b"\0"), kind=b"L"),
        file(b"z", b"content"),
        device(b"n", b"3", 1, 3),
        folder(b"."),
    ),
    layer(
        pax((b"GNU.sparse.major", b"1"), (b"GNU.sparse.minor", b"0"), (b"GNU.sparse.realsize", b"50")),
        file(b"s", b"2\n0\n3\n40\n4\n".ljust(512, b"\0") + b"abcdefg"),
        pax((b"GNU.sparse.size", b"9"), (b"GNU.sparse.map", b"1,1,5,2")),
        file(b"t", b"abc"),
    ),
    layer(
        pax((b"uid", b"7"), kind=b"g"),
        hardlink(b"k", b"low"),
        hardlink(b"m", b"l"),
        file(b"d", b"file"),
        file(b"d/f/g"),
    ),
)

FIELDS = {
    "name": (0, 100),
    "mode": (100, 8),
    "uid": (108, 8),
    "gid": (116, 8),
    "size": (124, 12),
    "mtime": (136, 12),
    "checksum": (148, 8),
    "kind": (156, 1),
    "link": (157, 100),
    "magic": (257, 8),
    "major": (329, 8),
    "prefix": (345, 155),
    "sparse": (386, 97),
    "payload": (0, 512),
}

WORDS = st.sampled_from(
    [
        b"",
        b".",
        b"..",
        b"/",
        b"../x",
        b"d",
        b"d/f",
        b"l",
        b"l/f",
        b"up/x",
        b".wh.d",
        b"d/.wh.f",
        b".wh..wh..opq",
        b".wh..",
        b"d/.wh..wh..opq",
        b".wh..wh.aufs",
        b"h",
        b"low",
        b"low/x",
        b"a/b/c",
        b"\xff" * 12,
        b"\x80" + b"\xff" * 11,
        b"-1",
        b"0000010",
        b"99999999999",
        b"7777777",
        b"0",
        b"1",
        b"2",
        b"3",
        b"4",
        b"5",
        b"6",
        b"7",
        b"x",
        b"g",
        b"L",
        b"K",
        b"S",
        b"V",
        b"M",
        b"D",
        b"12 path=..\n",
        b"10 path=f\n",
        b"13 path=d/f/\n",
        b"11 size=99\n",
        b"0 ",
        b"20 linkpath=d/e/x/y\n",
        b"n" * 300,
        b"ustar\00000",
        b"ustar  \0",
        b"30 SCHILY.xattr.user.overlay.=\n",
        b"36 SCHILY.xattr.trusted.overlay.opaque\n",
        b"19 SCHILY.xattr.a=b\n",
    ]
)
"""Values that mean something in one field or another."""

OPERATIONS = st.one_of(
    st.tuples(st.just("set"), st.integers(0, 23), st.sampled_from(sorted(FIELDS)), WORDS | st.binary(max_size=12)),
    st.tuples(st.just("flip"), st.integers(0, 12_000), st.integers(0, 7), st.just(b"")),
    st.tuples(st.just("cut"), st.integers(0, 12_000), st.just(0), st.just(b"")),
    st.tuples(st.just("drop"), st.integers(0, 23), st.integers(1, 3), st.just(b"")),
    st.tuples(st.just("copy"), st.integers(0, 23), st.integers(0, 23), st.just(b"")),
)
Operation = tuple[str, int, int | str, bytes]


def mutated(seed: bytes, other: bytes, operations: Sequence[Operation], mend: bool) -> bytes:  # noqa: FBT001 - hypothesis calls it
    """Change a layer: its blocks, fields and bits, with blocks of another spliced in; checksums mended or not."""
    blocks = [bytearray(seed[at : at + 512]) for at in range(0, len(seed), 512)]
    strange = [bytearray(other[at : at + 512]) for at in range(0, len(other), 512)]
    length: int | None = None
    for what, place, detail, word in operations:
        at = place % (len(blocks) or 1)
        if what == "copy" and isinstance(detail, int):
            blocks.insert(at, bytearray(strange[detail % len(strange)]))
        elif what == "drop" and isinstance(detail, int):
            del blocks[at : at + detail]
        elif what == "set" and isinstance(detail, str) and blocks:
            start, width = FIELDS[detail]
            blocks[at][start : start + min(width, len(word) + 1)] = word[:width].ljust(min(width, len(word) + 1), b"\0")
        elif what == "flip" and isinstance(detail, int) and blocks:
            blocks[place // 512 % len(blocks)][place % 512] ^= 1 << detail
        elif what == "cut":
            length = place
    if mend:
        for block in blocks:
            if block[257:262] == b"ustar":
                block[148:156] = b"%06o\0 " % (sum(block) - sum(block[148:156]) + 8 * ord(" "))
    return b"".join(blocks)[:length]


TARS = st.one_of(
    st.builds(
        mutated,
        st.sampled_from(SEEDS),
        st.sampled_from(SEEDS),
        st.lists(OPERATIONS, max_size=6),
        st.sampled_from([True, True, True, False]),
    ),
    st.binary(max_size=2000),
)
"""Mutated layers, and now and then any bytes."""


def check_reader(tar: bytes) -> None:
    """Read a tar to its end: members or an ``ArchiveError``, and no more data than there is."""
    reader = TarReader(Trickle(tar), LIMITS, chunk=4096)
    with contextlib.suppress(errors.ArchiveError):
        while (entry := reader.next()) is not None:
            given = 0
            if entry.kind == b"0" and (whole := reader.stored(None)) is not None:
                given = len(whole)
            elif entry.kind == b"0":
                given = sum(len(piece) for _, piece in reader.pieces(None))
            assert given <= min(entry.size, len(tar))


def check_apply(tar: bytes) -> None:
    """Unpack a tar over a tree: it stays inside, or is refused; what was unpacked comes back from its own diff."""
    from_root = [_applied(tar, None), _applied(tar, BASE)]
    for diff in from_root:
        if diff is not None:
            assert _applied(diff, None) == diff, "a diff applied to nothing gives another diff"


def _applied(tar: bytes, lower: bytes | None) -> bytes | None:
    """Unpack to a fresh directory; give the diff of all that is there, ``None`` where the tar was refused."""
    with tempfile.TemporaryDirectory() as folder:
        os.mkdir(f"{folder}/root")
        os.utime(f"{folder}/root", ns=(0, 0))
        put_canary(f"{folder}/victim")
        before = state(folder + "/victim")
        root = os.open(f"{folder}/root", os.O_RDONLY)
        try:
            diff = _diff_of(root, tar, lower)
        finally:
            os.close(root)
        assert state(folder + "/victim") == before
        assert sorted(os.listdir(folder)) == ["root", "victim"]
    return diff


def _diff_of(root: int, tar: bytes, lower: bytes | None) -> bytes | None:
    target = Target(root, PLAIN, None, CAPABILITIES)
    if lower is not None:
        apply(io.BytesIO(lower), target)
    try:
        apply(io.BytesIO(tar), target, limits=LIMITS)
    except errors.ArchiveError:
        return None
    with PlainTree(root) as tree, produce(compare(EmptyTree(), tree)) as stream:
        return stream.read()


def check_drivers(tar: bytes, drivers: Sequence[Driver]) -> None:
    """Apply a tar with every driver: one outcome, which comes back from its own diff."""
    outcomes = [perform_layer(driver, tar, (BASE,), LIMITS) for driver in drivers]
    if any(_is_whiteout_device(outcome) for outcome in outcomes):
        return
    first = outcomes[0]
    for driver, outcome in zip(drivers, outcomes, strict=True):
        assert (first.error, first.member, first.offset) == (outcome.error, outcome.member, outcome.offset), (
            outcome.message
        )
        assert_same(first.tree, outcome.tree)
        assert first.diff == outcome.diff, driver.name
        if outcome.error is None:
            again = perform_layer(driver, outcome.diff, (BASE,))
            assert again.error is None, again.message
            assert_same(outcome.tree, again.tree)
            assert outcome.diff == again.diff, driver.name


def _is_whiteout_device(outcome: Outcome) -> bool:
    """Tell whether the layer holds a character device 0:0, which not every driver can."""
    return any(stat.S_ISCHR(item.kind) and not item.device for item in outcome.tree.values())
