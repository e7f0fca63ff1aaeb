"""Compressed streams: detected, decompressed ahead, bounded, and never believed when damaged."""

import bz2
import contextlib
import faulthandler
import gzip
import io
import lzma
import random
import threading
import tracemalloc
from collections.abc import Callable, Iterator

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from graphdrivers import errors
from graphdrivers.archive.compression import Compression, detect, open_plain
from graphdrivers.model import Limits

PLAIN = b"".join(b"line %d of a file\n" % number for number in range(20_000))

COMPRESS: dict[Compression, Callable[[bytes], bytes]] = {
    Compression.NONE: bytes,
    Compression.GZIP: lambda plain: gzip.compress(plain, 1, mtime=0),
    Compression.ZSTD: zstandard.ZstdCompressor().compress,
    Compression.XZ: lambda plain: lzma.compress(plain, preset=0),
    Compression.BZIP2: lambda plain: bz2.compress(plain, 1),
}
SKIPPABLE = b"\x5a\x2a\x4d\x18\x05\0\0\0hello"


@pytest.fixture(autouse=True)
def no_deadlock() -> Iterator[None]:
    """End the whole run with a traceback, should a thread ever hang."""
    faulthandler.dump_traceback_later(60, exit=True)
    yield
    faulthandler.cancel_dump_traceback_later()


def plain(packed: bytes, limits: Limits = Limits(), compression: Compression | None = None) -> bytes:
    """Decompress everything."""
    with open_plain(io.BytesIO(packed), limits, compression=compression) as stream:
        return stream.read()


def threads() -> int:
    """Count the threads of this module's making."""
    return sum(thread.name.startswith("graphdrivers-readahead") for thread in threading.enumerate())


@pytest.mark.parametrize("kind", COMPRESS)
def test_round_trip(kind: Compression) -> None:
    """Every compression is recognised, or taken on its word, and undone."""
    packed = COMPRESS[kind](PLAIN)

    assert detect(packed[:10]) is kind
    assert plain(packed) == PLAIN
    assert plain(packed, compression=kind) == PLAIN
    assert threads() == 0


@pytest.mark.parametrize("kind", list(COMPRESS)[1:])
def test_concatenated_and_padded(kind: Compression) -> None:
    """Several streams are one, empty ones too; NUL behind gzip, xz and bzip2 is padding."""
    pack = COMPRESS[kind]
    packed = pack(b"one") + pack(b"") + pack(PLAIN) + pack(b"end")

    assert plain(packed) == b"one" + PLAIN + b"end"
    assert plain(pack(b"")) == b""
    if kind is not Compression.ZSTD:
        assert plain(packed + bytes(4096)) == b"one" + PLAIN + b"end"
        assert plain(pack(b"a") + bytes(600_000) + pack(b"b")) == b"ab"


@pytest.mark.parametrize("kind", list(COMPRESS)[1:])
def test_trailing_garbage(kind: Compression) -> None:
    """Anything else behind a stream is refused."""
    for garbage in (b"garbage", b"\0\0\0\0garbage", b"\x1f", b"\x28\xb5"):
        with pytest.raises(errors.MalformedArchive):
            plain(COMPRESS[kind](PLAIN) + garbage)


@pytest.mark.parametrize("kind", list(COMPRESS)[1:])
def test_every_truncation(kind: Compression) -> None:
    """A stream cut anywhere is refused, however close to its end."""
    packed = COMPRESS[kind](PLAIN[:3000])
    for cut in range(1, len(packed)):
        with pytest.raises(errors.MalformedArchive):
            plain(packed[:cut], compression=kind)
    with pytest.raises(errors.MalformedArchive):
        plain(b"", compression=kind)
    assert threads() == 0


@pytest.mark.parametrize("kind", [Compression.GZIP, Compression.XZ, Compression.BZIP2])
def test_every_flipped_byte(kind: Compression) -> None:
    """A damaged stream is refused, or it was damaged where it does not matter (gzip's name and time)."""
    packed = bytearray(COMPRESS[kind](PLAIN[:300]))
    for position in range(len(packed)):
        packed[position] ^= 0x41
        with contextlib.suppress(errors.MalformedArchive):
            assert plain(bytes(packed), compression=kind) == PLAIN[:300]
        packed[position] ^= 0x41


def test_zstd_frames() -> None:
    """Frames of all shapes follow each other: skippable, with and without checksum and content size."""
    packed = SKIPPABLE
    for checksum in (True, False):
        for size in (True, False):
            compressor = zstandard.ZstdCompressor(write_checksum=checksum, write_content_size=size)
            packed += compressor.compress(b"a" * 300) + SKIPPABLE
            stream = compressor.compressobj()
            packed += stream.compress(PLAIN) + stream.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)
            packed += stream.compress(b"z" * 200_000) + stream.flush()
    expected = (b"a" * 300 + PLAIN + b"z" * 200_000) * 4

    assert plain(packed) == expected
    for cut in range(1, 3000, 17):
        with pytest.raises(errors.MalformedArchive):
            plain(packed[:-cut])


def test_a_tar_is_not_bzip2() -> None:
    """A tar whose first file's name begins like bzip2's magic is plain."""
    assert detect(b"BZh9/a file name") is Compression.NONE
    assert detect(b"") is Compression.NONE
    assert detect(b"\x1f") is Compression.NONE


def test_bombs() -> None:
    """Output out of proportion to its input is refused, long before it is all produced."""
    compressor = zstandard.ZstdCompressor(level=1)
    stream = compressor.compressobj()
    bomb = b"".join(stream.compress(bytes(1 << 20)) for _ in range(100)) + stream.flush()
    with pytest.raises(errors.LimitExceeded) as caught:
        plain(bomb)
    assert caught.value.limit == "ratio"
    assert len(plain(bomb, Limits(ratio=1 << 20))) == 100 << 20


def test_memory_of_the_decompressor() -> None:
    """A stream that wants a larger window than allowed is refused by name."""
    params = zstandard.ZstdCompressionParameters(window_log=24)
    stream = zstandard.ZstdCompressor(compression_params=params).compressobj()
    packed = stream.compress(PLAIN) + stream.flush()
    assert plain(packed) == PLAIN
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 1 << 26}]
    for wide in (packed, lzma.compress(PLAIN, filters=filters)):
        with pytest.raises(errors.LimitExceeded) as caught:
            plain(wide, Limits(window_log=20))
        assert caught.value.limit == "window_log"


def test_bounded_memory() -> None:
    """However slow the reader, only a few chunks are decompressed ahead."""
    packed = COMPRESS[Compression.GZIP](bytes(64 << 20))
    tracemalloc.start()
    try:
        with open_plain(io.BytesIO(packed), Limits()) as stream:
            while stream.read(1 << 20):
                pass
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()


def test_one_read_is_one_chunk() -> None:
    """A read gives what is there, up to what was asked for, and copies nothing twice."""
    with open_plain(io.BytesIO(COMPRESS[Compression.GZIP](bytes(5 << 20))), Limits()) as stream:
        assert 0 < len(stream.read(8 << 20)) <= 1 << 20
        assert len(stream.read(10)) == 10
        buffer = bytearray(100)
        assert stream.readinto(buffer) == 100  # type: ignore[attr-defined]


class Source(io.RawIOBase):
    """A source that fails after some bytes."""

    def __init__(self, front: bytes, error: Exception) -> None:
        """Give ``front``, then raise."""
        super().__init__()
        self._front = io.BytesIO(front)
        self._error = error

    def read(self, size: int = -1, /) -> bytes:
        """Give some."""
        piece = self._front.read(size)
        if not piece:
            raise self._error
        return piece


@pytest.mark.parametrize("kind", COMPRESS)
def test_errors_of_the_source_pass(kind: Compression) -> None:
    """What the source raises comes out as it is, and again on every further read: never as an end."""
    for error in (OSError(5, "Input/output error"), errors.DigestMismatch("blob", "a", "b")):
        packed = COMPRESS[kind](random.Random(1).randbytes(400_000))[:300_000]
        with open_plain(Source(packed, error), Limits()) as stream:  # type: ignore[arg-type]
            for _ in range(2):
                with pytest.raises(type(error)) as caught:
                    stream.read()
                assert caught.value is error
    assert threads() == 0


@pytest.mark.parametrize("kind", COMPRESS)
def test_early_close(kind: Compression) -> None:
    """Closing before, during and after reading ends the thread."""
    packed = COMPRESS[kind](bytes(8 << 20))
    for reads in range(10):
        stream = open_plain(io.BytesIO(packed), Limits())
        for _ in range(reads):
            stream.read(1 << 20)
        stream.close()
        stream.close()
        assert threads() == 0
        with pytest.raises(ValueError, match="closed"):
            stream.read(1)


def test_source_is_read_to_its_end_and_left_open() -> None:
    """A verifying source below gets to see its end; its owner closes it."""
    source = io.BytesIO(COMPRESS[Compression.GZIP](PLAIN) + bytes(100))
    with open_plain(source, Limits()) as stream:
        stream.read()
    assert not source.closed
    assert source.read() == b""


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=300), st.sampled_from(list(COMPRESS)))
def test_any_bytes(packed: bytes, kind: Compression) -> None:
    """Whatever the bytes, bytes or an ``ArchiveError`` come out, and no thread stays."""
    for front in (b"", COMPRESS[kind](b"x")[:20], COMPRESS[kind](b"x" * 100)):
        with contextlib.suppress(errors.ArchiveError):
            plain(front + packed, compression=kind)
    assert threads() == 0
