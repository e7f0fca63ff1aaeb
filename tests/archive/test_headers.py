"""The header record gives back the identical tar, from the files that were unpacked and nothing else."""

import io
import os
import random
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rawtars import END, header, member, pax, tool

from graphdrivers import errors
from graphdrivers.archive.headers import MAGIC, HeaderRecorder
from graphdrivers.archive.reader import TarReader
from graphdrivers.archive.restore import restore


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
