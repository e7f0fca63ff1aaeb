"""Compressed layers that are bombs, or damaged: refused on every driver before they cost anything."""

import bz2
import gzip
import io
import lzma
import os
import random
import struct
from collections.abc import Callable, Iterable
from contextlib import closing

import pytest
import zstandard
from cases import Refused, file, layer
from rawtars import END, header
from stage import TARGET, assert_clean, forget, isolated

from graphdrivers import errors
from graphdrivers.archive.compression import open_plain
from graphdrivers.driver import Driver
from graphdrivers.errors import LimitExceeded, MalformedArchive
from graphdrivers.model import Limits

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="overlay needs root")

SIZE = 192 << 20
"""Bytes that a bomb expands to; the ratio is looked at from 64 MiB on."""
MEMORY = 320 << 20
"""A window of 128 MiB (the default limit), what is read ahead, and some."""

LAYER = layer(file(b"a", b"1" * 5000), file(b"b", random.Random(1).randbytes(5000)))


def zeros() -> Iterable[bytes]:
    """Give a layer of one file of zeros, piece by piece."""
    yield header(b"zeros", size=SIZE)
    for _ in range(SIZE >> 20):
        yield bytes(1 << 20)
    yield END


def zstd_bomb() -> bytes:
    """Compress zeros: some 30,000 times smaller."""
    packer = zstandard.ZstdCompressor(level=3).compressobj()
    return b"".join(packer.compress(piece) for piece in zeros()) + packer.flush()


def xz_bomb() -> bytes:
    """Compress zeros: some 7,000 times smaller."""
    packer = lzma.LZMACompressor(preset=0)
    return b"".join(packer.compress(piece) for piece in zeros()) + packer.flush()


def bzip2_bomb() -> bytes:
    """Compress zeros: some 20,000 times smaller, as many streams of one."""
    return bz2.compress(b"".join(zeros())[: 8 << 20], 9) * 24


def zstd_window(log: int) -> bytes:
    """Make a zstd frame that asks for a window of ``2**log`` bytes, with one raw block in it."""
    block = struct.pack("<I", 1 | len(LAYER) << 3)[:3] + LAYER
    return struct.pack("<IBB", 0xFD2FB528, 0, (log - 10) << 3) + block


def xz_dictionary(megabytes: int) -> bytes:
    """Compress with a dictionary that unpacking has to allocate."""
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": megabytes << 20}]
    return lzma.compress(LAYER, format=lzma.FORMAT_XZ, filters=filters)


def gzip_bomb() -> bytes:
    """Compress zeros: a thousand times smaller is all that gzip can."""
    return gzip.compress(bytes(SIZE), 9)


BOMBS: dict[str, tuple[Callable[[], bytes], Limits, str]] = {
    "zstd": (zstd_bomb, Limits(), "ratio"),
    "xz": (xz_bomb, Limits(), "ratio"),
    "bzip2": (bzip2_bomb, Limits(), "ratio"),
    "gzip, where less is allowed": (gzip_bomb, Limits(ratio=500), "ratio"),
    "zstd window of 2^28": (lambda: zstd_window(28), Limits(), "window_log"),
    "zstd window of 2^41": (lambda: zstd_window(41), Limits(), "window_log"),
    "xz dictionary of 1 GiB": (lambda: xz_dictionary(1024), Limits(), "window_log"),
    "zstd window, where less is allowed": (lambda: zstd_window(21), Limits(window_log=20), "window_log"),
}


def unpack(driver: Driver, packed: bytes, limits: Limits) -> Refused | None:
    """Apply a compressed layer, as an import does; then the layer is removed and the home is clean."""
    forget(driver)
    driver.create(TARGET)
    refused = None
    with closing(open_plain(io.BytesIO(packed), limits)) as plain:
        try:
            driver.apply(TARGET, plain, limits=limits)
        except errors.ArchiveError as error:
            limit = error.limit if isinstance(error, LimitExceeded) else ""
            refused = Refused(type(error), "", limit)
    forget(driver)
    assert_clean(driver)
    return refused


@pytest.mark.parametrize("name", BOMBS)
def test_bomb(name: str, drivers: list[Driver]) -> None:
    """What expands too much, or wants too much memory, is refused by the limit's name, in little memory."""
    make, limits, limit = BOMBS[name]
    packed = make()
    for driver in drivers:
        refused = isolated(lambda driver=driver: unpack(driver, packed, limits), memory=MEMORY)
        assert refused == Refused(LimitExceeded, "", limit), driver.name


def test_what_is_no_bomb_is_unpacked(drivers: list[Driver]) -> None:
    """A layer with a large window, as ``zstd --long`` makes it, and one of many zeros, are none."""
    tar = layer(file(b"zeros", bytes(8 << 20)))
    for packed in (zstd_window(27), zstandard.compress(tar, 19), lzma.compress(tar), xz_dictionary(64)):
        for driver in drivers:
            assert (
                isolated(lambda driver=driver, packed=packed: unpack(driver, packed, Limits()), memory=MEMORY) is None
            )


COMPRESSED = {
    "gzip": gzip.compress(LAYER, mtime=0),
    "zstd": zstandard.ZstdCompressor(write_checksum=True).compress(LAYER),
    "xz": lzma.compress(LAYER),
    "bzip2": bz2.compress(LAYER),
}


@pytest.mark.parametrize("kind", COMPRESSED)
def test_cut_anywhere(kind: str, drivers: list[Driver]) -> None:
    """A stream cut anywhere is refused at once: nobody waits for a reader that has failed (CVE-2021-20291)."""
    packed = COMPRESSED[kind]
    steps = range(12, len(packed), len(packed) // 12)
    for driver in drivers:

        def work(driver: Driver = driver) -> list[Refused | None]:
            return [unpack(driver, packed[:cut], Limits()) for cut in (*steps, len(packed) - 1)]

        assert set(isolated(work)) == {Refused(MalformedArchive, "")}, driver.name


@pytest.mark.parametrize("kind", COMPRESSED)
def test_junk(kind: str, drivers: list[Driver]) -> None:
    """apply-junk: a magic number and then junk; junk behind a whole stream."""
    packed = COMPRESSED[kind]
    for junk in (packed[:10] + b"junk" * 500, packed + b"junk" * 500, packed[:10]):
        for driver in drivers:
            refused = isolated(lambda driver=driver, junk=junk: unpack(driver, junk, Limits()))
            assert refused == Refused(MalformedArchive, ""), driver.name


def test_no_program_is_run(drivers: list[Driver], tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """CVE-2014-9357, CVE-2026-41567: no ``xz``, ``unpigz`` or ``zstd`` that PATH leads to is run."""
    for name in ("xz", "unxz", "gzip", "gunzip", "pigz", "unpigz", "zstd", "unzstd", "bzip2", "bunzip2", "tar"):
        path = os.path.join(str(tmp_path), name)
        with open(path, "w", encoding="ascii") as script:
            script.write(f"#!/bin/sh\ntouch {tmp_path}/was-run\n")
        os.chmod(path, 0o755)  # noqa: S103 - a program
    monkeypatch.setenv("PATH", str(tmp_path))
    for packed in COMPRESSED.values():
        for driver in drivers:
            assert isolated(lambda driver=driver, packed=packed: unpack(driver, packed, Limits())) is None
    assert not os.path.exists(os.path.join(str(tmp_path), "was-run"))
