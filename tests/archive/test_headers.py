"""The header record gives back the identical tar, from the files that were unpacked and nothing else."""

import io
import os
import random
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rawtars import END, header, member, pax, tool

from graphdrivers import errors
from graphdrivers.archive.headers import MAGIC, HeaderRecorder
from graphdrivers.archive.reader import TarReader
from graphdrivers.archive.restore import Damage, DamageKind, restore


def unpack(tar: bytes, root: Path, *, chunk: int = 1 << 20) -> bytes:
    """Write a tar's regular files below ``root``, each under a flat name; return the record."""
    record = io.BytesIO()
    recorder = HeaderRecorder(record)
    reader = TarReader(io.BytesIO(tar), recorder=recorder, chunk=chunk)
    while (entry := reader.next()) is not None:
        if entry.kind != b"0":
            continue
        path = entry.name.replace(b"/", b"%")[-200:]
        target = os.path.join(os.fsencode(root), path)
        if os.path.lexists(target):
            fd = os.open(target, os.O_RDONLY)
            recorder.spill(path, fd)
            os.close(fd)
            os.unlink(target)
        with open(target, "xb", buffering=0) as file:
            whole = reader.stored(path)
            for offset, piece in reader.pieces(path) if whole is None else [(0, whole)]:
                file.seek(offset)
                file.write(piece)
            file.truncate(entry.size)
    reader.drain()
    recorder.close()
    return record.getvalue()


def opener(root: Path) -> Callable[[bytes], int]:
    """Open files below ``root``."""
    return lambda path: os.open(os.path.join(os.fsencode(root), path), os.O_RDONLY)


def given_back(record: bytes, root: Path) -> bytes:
    """Restore a whole tar."""
    with restore(io.BytesIO(record), opener(root)) as stream:
        return stream.read()


def pseudo_random(size: int) -> bytes:
    """Give bytes that do not compress, always the same."""
    return random.Random(size).randbytes(size)


@pytest.mark.parametrize(
    "command",
    [
        ["tar", "--format=v7"],
        ["tar", "--format=ustar", "--blocking-factor=1"],
        ["tar", "--format=gnu", "--sparse"],
        ["tar", "--format=oldgnu", "--blocking-factor=200"],
        ["tar", "--format=posix", "--sparse", "--sparse-version=0.0"],
        ["tar", "--format=posix", "--sparse", "--sparse-version=0.1"],
        ["tar", "--format=posix", "--sparse", "--sparse-version=1.0"],
        ["bsdtar", "--format=pax"],
        ["bsdtar", "--format=gnutar"],
    ],
    ids=" ".join,
)
def test_identical_tars_of_real_tools(command: list[str], tmp_path: Path) -> None:
    """Whatever program and format, the bytes come back."""
    tree, root = tmp_path / "tree", tmp_path / "root"
    tree.mkdir()
    root.mkdir()
    for size in (0, 1, 511, 512, 513, 65_536, 65_537, 3_000_000):
        (tree / f"file{size}").write_bytes(pseudo_random(size))
    with (tree / "holes").open("wb") as holes:
        for number in range(30):
            holes.seek(number << 17)
            holes.write(b"data %d" % number)
        holes.truncate(8 << 20)
    (tree / "link").symlink_to("file1")
    os.link(tree / "file513", tree / "other")
    packed = subprocess.run(
        [tool(command[0]), *command[1:], "-cf", "-", "."], cwd=tree, check=True, capture_output=True
    )

    for chunk in (1 << 20, 5000):
        record = unpack(packed.stdout, root, chunk=chunk)
        assert given_back(record, root) == packed.stdout
        assert len(record) < 20_000
        for file in root.iterdir():
            file.unlink()


@pytest.mark.parametrize(
    "tar",
    [
        b"",
        END,
        END + b"garbage" * 10_000,
        member(b"f", b"x" * 100)[:-412],
        header(b"f", size=100) + b"x" * 100 + b"odd padding".ljust(412, b"!") + END,
        pax((b"comment", b"kept")) + member(b"f", b"content") + bytes(512),
        b"".join(member(b"f", b"version %d" % i * i) for i in range(30)) + END,
        member(b"f", b"first") + member(b"g", b"other" * 30_000) + member(b"f", b"") + member(b"f", b"last") + END,
        member(b"f", pseudo_random(3_000_000)) + member(b"f", pseudo_random(2_000_000)) + END,
        header(b"d/", kind=b"5", size=700) + END,
        member(b"d/", b"stored for a directory", kind=b"\0") + END,
    ],
    ids=lambda tar: f"{len(tar)} bytes",
)
def test_identical_odd_tars(tar: bytes, tmp_path: Path) -> None:
    """Padding, garbage, and files that later members replace come back too."""
    assert given_back(unpack(tar, tmp_path), tmp_path) == tar


def test_spilled_holes_stay_holes(tmp_path: Path) -> None:
    """A sparse file that is replaced costs the record its data, not its size; nothing reads the holes."""
    size = 1 << 36
    regions = ((4096, 4096), (1 << 35, 100), (size - 10, 10))
    text = b"".join(b"%d\n" % number for number in [3, *(n for region in regions for n in region)])
    payload = text.ljust(512, b"\0") + pseudo_random(4096 + 100 + 10)
    keys = [(b"GNU.sparse.major", b"1"), (b"GNU.sparse.minor", b"0"), (b"GNU.sparse.realsize", b"%d" % size)]
    tar = pax(*keys) + member(b"f", payload) + member(b"f", b"new") + END

    record = unpack(tar, tmp_path)

    assert given_back(record, tmp_path) == tar
    assert len(record) < 20_000


def test_small_reads(tmp_path: Path) -> None:
    """The restored stream may be read in any amounts, and closed early."""
    tar = member(b"f", b"content" * 9000) + member(b"f", b"new") + END
    record = unpack(tar, tmp_path)
    with restore(io.BytesIO(record), opener(tmp_path)) as stream:
        assert b"".join(iter(lambda: stream.read(1000), b"")) == tar
    before = len(os.listdir("/proc/self/fd"))
    with restore(io.BytesIO(record), opener(tmp_path)) as stream:
        assert stream.read(10) == tar[:10]
    assert len(os.listdir("/proc/self/fd")) == before


def test_missing_and_short_files_are_named(tmp_path: Path) -> None:
    """Content that is gone is an error that names the path; never a wrong tar of the right length."""
    record = unpack(member(b"f", b"content" * 9000) + END, tmp_path)

    os.truncate(tmp_path / "f", 100)
    with pytest.raises(errors.ArchiveError, match="shorter") as caught:
        given_back(record, tmp_path)
    assert caught.value.member == "f"
    os.unlink(tmp_path / "f")
    with pytest.raises(errors.ArchiveError, match="opened") as caught:
        given_back(record, tmp_path)
    assert caught.value.member == "f"


def _drain(stream: BinaryIO, given: bytearray) -> None:
    """Keep all that a stream gives before it fails."""
    while piece := stream.read(1000):
        given += piece


def test_changed_files_are_named(tmp_path: Path) -> None:
    """One flipped bit in a file, small or large, is an error that names it before the file's last byte is given."""
    tar = b"".join(member(b"f%d" % size, pseudo_random(size)) for size in (1, 4000, 70_000, 3_000_000)) + END
    record = unpack(tar, tmp_path, chunk=60_000)
    assert given_back(record, tmp_path) == tar
    for name, position in (("f1", 0), ("f4000", 3999), ("f70000", 0), ("f3000000", 1_500_000)):
        sound = (tmp_path / name).read_bytes()
        changed = bytearray(sound)
        changed[position] ^= 1
        (tmp_path / name).write_bytes(changed)
        given = bytearray()
        with restore(io.BytesIO(record), opener(tmp_path)) as stream:
            with pytest.raises(errors.ArchiveError, match="other content") as caught:
                _drain(stream, given)
            with pytest.raises(errors.ArchiveError, match="other content"):
                stream.read(1)
        assert caught.value.member == name
        assert len(given) < tar.index(sound) + len(sound)
        (tmp_path / name).write_bytes(sound)


def test_all_damages_in_one_pass(tmp_path: Path) -> None:
    """With somebody to tell, the stream goes on at its full length, and every damaged file is told once."""
    names = [b"changed", b"directory", b"gone", b"longer", b"short", b"sound"]
    holes = pax(
        (b"GNU.sparse.size", b"90000"), (b"GNU.sparse.map", b"0,4096,65536,4096"), (b"GNU.sparse.numblocks", b"2")
    )
    tar = b"".join(member(name, pseudo_random(5000)) for name in names) + holes + member(b"sparse", bytes(8192)) + END
    record = unpack(tar, tmp_path)
    (tmp_path / "changed").write_bytes(bytes(5000))
    os.unlink(tmp_path / "directory")
    (tmp_path / "directory").mkdir()
    os.unlink(tmp_path / "gone")
    os.truncate(tmp_path / "longer", 6000)
    os.truncate(tmp_path / "short", 1000)
    with open(tmp_path / "sparse", "r+b") as file:
        file.write(b"x")
        file.truncate(65536)
    told: list[Damage] = []
    with restore(io.BytesIO(record), opener(tmp_path), told.append) as stream:
        given = stream.read()

    assert [(damage.path, damage.kind, damage.offset) for damage in told] == [
        (b"changed", DamageKind.CHANGED, 0),
        (b"directory", DamageKind.UNREADABLE, 0),
        (b"gone", DamageKind.MISSING, 0),
        (b"short", DamageKind.SHORT, 1000),
        (b"sparse", DamageKind.CHANGED, 0),
    ]
    assert told[2].reason == "no such file or directory"
    reader = TarReader(io.BytesIO(given))
    contents = {}
    while (entry := reader.next()) is not None:
        contents[entry.name] = b"".join(piece for _, piece in reader.pieces(None))
    assert len(given) == len(tar)
    assert contents[b"changed"] == contents[b"directory"] == contents[b"gone"] == bytes(5000)
    assert contents[b"short"] == pseudo_random(5000)[:1000] + bytes(4000)
    assert contents[b"sound"] == contents[b"longer"] == pseudo_random(5000)


def test_changed_content_of_a_replaced_file_is_the_records_fault(tmp_path: Path) -> None:
    """Content that was spilled wrongly damages the record: no file of the layer is blamed."""
    record = io.BytesIO()
    recorder = HeaderRecorder(record)
    reader = TarReader(io.BytesIO(member(b"f", b"content") + END), recorder=recorder)
    reader.next()
    reader.stored(b"f")
    (tmp_path / "f").write_bytes(b"CONTENT")
    with open(tmp_path / "f", "rb") as file:
        recorder.spill(b"f", file.fileno())
    reader.drain()
    recorder.close()
    told: list[Damage] = []

    with (
        pytest.raises(errors.ArchiveError, match="record is damaged"),
        restore(record, opener(tmp_path), told.append) as s,
    ):
        s.read()
    assert told == []


def test_record_of_another_version(tmp_path: Path) -> None:
    """A record of a version that is not read here is refused, with the versions and what to do."""
    record = unpack(member(b"f", b"content") + END, tmp_path)
    for version in (1, 3):
        other = MAGIC[:-1] + bytes([version])
        with pytest.raises(errors.ArchiveError, match=f"version {version}, and 2 is read here: .*once more"):
            given_back(other + record[len(MAGIC) : -len(MAGIC)] + other, tmp_path)


def test_damaged_record(tmp_path: Path) -> None:
    """A record that was cut or changed is refused, or still gives the identical tar."""
    tar = member(b"f", b"content" * 100) + member(b"f", b"new") + END
    record = unpack(tar, tmp_path)
    assert record.startswith(MAGIC)
    assert record.endswith(MAGIC)
    for cut in range(len(record)):
        with pytest.raises(errors.ArchiveError):
            given_back(record[:cut], tmp_path)
    for position in range(len(record)):
        changed = bytearray(record)
        changed[position] ^= 0x55
        try:
            restored = given_back(bytes(changed), tmp_path)
        except errors.ArchiveError:
            continue
        assert restored == tar


def test_full_sink() -> None:
    """A sink that fails fails `close` (or an earlier call), and `abort` then ends the thread."""

    class Full(io.BytesIO):
        def write(self, piece: object, /) -> int:
            if self.tell():
                raise OSError(28, "No space left on device")
            return super().write(piece)  # type: ignore[arg-type]

    recorder = HeaderRecorder(Full())
    recorder.literal(b"x")
    with pytest.raises(OSError, match="No space"):
        recorder.close()
    recorder.abort()


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from([b"a", b"b", b"c"]), st.integers(0, 3000)), max_size=8), st.binary(max_size=9)
)
def test_any_order_of_replacements(
    tmp_path_factory: pytest.TempPathFactory, files: list[tuple[bytes, int]], tail: bytes
) -> None:
    """However often which file is replaced, the identical tar comes back."""
    root = tmp_path_factory.mktemp("root")
    tar = b"".join(member(name, pseudo_random(size)) for name, size in files) + END + tail

    assert given_back(unpack(tar, root, chunk=1024), root) == tar
