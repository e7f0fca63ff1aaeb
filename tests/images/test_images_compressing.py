"""Compressed layers are the same bytes however they arrive, and whatever the number of processors."""

import gzip
import io
import itertools
import os
import random
import zlib
from collections.abc import Iterator

import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from graphdrivers.archive.compression import Compression, open_plain
from graphdrivers.images.compressing import PIECE, compress
from graphdrivers.model import Limits

both = pytest.mark.parametrize("method", [Compression.GZIP, Compression.ZSTD])
TEXT = b"".join(b"%d %d\n" % (number, number * number) for number in range(300_000))[: 2 * PIECE + 4321]


def packed(chunks: list[bytes], method: Compression) -> bytes:
    """Compress chunks."""
    return b"".join(compress(iter(chunks), method, sum(map(len, chunks))))


def unpacked(content: bytes) -> bytes:
    """Decompress as an import does."""
    with open_plain(io.BytesIO(content), Limits()) as plain:
        return plain.read()


@both
@pytest.mark.parametrize("size", [0, 1, 511, PIECE - 1, PIECE, PIECE + 1, 2 * PIECE])
def test_sizes(method: Compression, size: int) -> None:
    """Every size comes back as it was: nothing, and just to the edge of a piece."""
    content = TEXT[:size]
    found = packed([content], method)
    assert unpacked(found) == content
    if method is Compression.GZIP:
        assert gzip.decompress(found) == content
        assert zlib.decompress(found, 31) == content
    else:
        assert zstandard.ZstdDecompressor().decompress(found) == content


@both
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.integers(0, len(TEXT)), max_size=6))
def test_chunks_do_not_matter(method: Compression, cuts: list[int]) -> None:
    """However the input is cut, the output is the same."""
    edges = [0, *sorted(cuts), len(TEXT)]
    chunks = [TEXT[start:end] for start, end in itertools.pairwise(edges)]
    assert packed(chunks, method) == packed([TEXT], method)


@both
def test_processors_do_not_matter(method: Compression) -> None:
    """One processor gives the same bytes as all of them."""
    every = os.sched_getaffinity(0)
    found = packed([TEXT], method)
    os.sched_setaffinity(0, {min(every)})
    try:
        assert packed([TEXT], method) == found
    finally:
        os.sched_setaffinity(0, every)


def test_pieces_know_what_was_before() -> None:
    """Cutting the input costs nearly nothing: each piece refers back into the one before it."""
    noise = random.Random(1).randbytes(20_000)
    repeated = noise * (4 * PIECE // len(noise))
    assert len(packed([repeated], Compression.GZIP)) < len(zlib.compress(repeated, 4)) * 1.02 + 1000


@both
def test_error_of_the_source(method: Compression) -> None:
    """An error of the source comes out as it is, behind no more than what was read before; threads end."""

    def failing() -> Iterator[bytes]:
        yield TEXT
        raise OSError(5, "broken")

    with pytest.raises(OSError, match="broken"):
        list(compress(failing(), method, 10 * PIECE))


@both
def test_left_early(method: Compression) -> None:
    """Output that nobody wants any more can be left at any point."""
    chunks = compress(iter([TEXT] * 5), method, 5 * len(TEXT))
    next(chunks)
    chunks.close()
    assert list(chunks) == []


@pytest.mark.parametrize("method", [Compression.NONE, Compression.XZ, Compression.BZIP2])
def test_other_methods(method: Compression) -> None:
    """A method that manifests have no word for is refused."""
    with pytest.raises(ValueError, match="use gzip or zstd"):
        compress([], method, 0)
