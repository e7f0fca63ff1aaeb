"""Holes are found in the content alone."""

import os
import random
import tempfile
from collections.abc import Iterator

import pytest

from graphdrivers.archive import holes

KIB = 1024


@pytest.fixture
def fd() -> Iterator[int]:
    """An empty file, open."""
    with tempfile.TemporaryFile() as file:
        yield file.fileno()


def expected(content: bytes) -> tuple[tuple[int, int], ...] | None:
    """Say the same in the slow, obvious way."""
    zero = [not any(content[start : start + holes.GRAIN]) for start in range(0, len(content), holes.GRAIN)]
    regions, start, found = [], 0, False
    grain = 0
    while grain < len(zero):
        end = grain
        while end < len(zero) and zero[end]:
            end += 1
        run = min(end * holes.GRAIN, len(content)) - grain * holes.GRAIN
        if run >= holes.MIN_HOLE:
            found = True
            if grain * holes.GRAIN > start:
                regions.append((start, grain * holes.GRAIN - start))
            start = min(end * holes.GRAIN, len(content))
        grain = max(end, grain + 1)
    if start < len(content):
        regions.append((start, len(content) - start))
    return tuple(regions) if found else None


@pytest.mark.parametrize(
    ("content", "regions"),
    [
        (b"", None),
        (bytes(64 * KIB - 1), None),
        (bytes(64 * KIB), ()),
        (bytes(64 * KIB + 1), ()),
        (b"x" + bytes(100 * KIB), ((0, 4 * KIB),)),
        (bytes(100 * KIB) + b"x", ((100 * KIB, 1),)),
        (b"x" + bytes(60 * KIB) + b"y", None),
        (b"x" * 4096 + bytes(60 * KIB) + b"x" * 4096, None),
        (b"x" * 4096 + bytes(64 * KIB) + b"x" * 4096, ((0, 4096), (68 * KIB, 4096))),
        (b"x" * 100 + bytes(64 * KIB) + b"x" * 4096, None),
        (bytes(600 * KIB) + b"x" + bytes(300 * KIB), ((600 * KIB, 4 * KIB),)),
    ],
    ids=range(11),
)
def test_examples(fd: int, content: bytes, regions: tuple[tuple[int, int], ...] | None) -> None:
    """Runs of 64 KiB and more count, from page boundary to page boundary or to the end."""
    os.pwrite(fd, content, 0)

    assert holes.data_regions(fd, len(content)) == regions
    assert expected(content) == regions


def test_random_files_agree_with_the_obvious_way(fd: int) -> None:
    """Skipping most pages misses no hole."""
    rng = random.Random(7)
    for _ in range(60):
        sizes = rng.choices([1, 4095, 4096, 20_000, 65_536, 70_000], k=9)
        parts = [rng.randbytes(size) if rng.random() < 0.5 else bytes(size) for size in sizes]
        content = b"".join(parts)
        os.ftruncate(fd, 0)
        os.pwrite(fd, content, 0)

        assert holes.data_regions(fd, len(content)) == expected(content)


def test_allocation_does_not_matter(fd: int) -> None:
    """Zeros written, zeros allocated ahead and holes give one answer."""
    size = 1024 * KIB
    answers = []
    for prepare in (
        lambda: os.pwrite(fd, bytes(size), 0),
        lambda: os.posix_fallocate(fd, 0, size),
        lambda: os.ftruncate(fd, size),
    ):
        os.ftruncate(fd, 0)
        prepare()
        os.pwrite(fd, b"x", 300 * KIB)
        answers.append(holes.data_regions(fd, size))

    assert answers == [((300 * KIB, 4 * KIB),)] * 3


def test_holes_of_the_kernel_cost_nothing(fd: int) -> None:
    """A terabyte of nothing is skipped, not read."""
    size = 1 << 40
    os.ftruncate(fd, size)
    os.pwrite(fd, b"x", size - 1)

    assert holes.data_regions(fd, size) == ((size - 4096, 4096),)


def test_few_pages_are_read_of_a_file_without_holes(fd: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """One page in sixteen tells that there is no hole."""
    os.pwrite(fd, b"x" * 1024 * KIB, 0)
    reads = []
    pread = os.pread

    def count(fd: int, size: int, at: int) -> bytes:
        reads.append(size)
        return pread(fd, size, at)

    monkeypatch.setattr(os, "pread", count)

    assert holes.data_regions(fd, 1024 * KIB) is None
    assert sum(reads) == 64 * KIB


@pytest.mark.parametrize("errno", [22, 95])
def test_file_systems_without_seek_data(fd: int, monkeypatch: pytest.MonkeyPatch, errno: int) -> None:
    """Where the kernel cannot tell, everything is read, with the same answer."""

    def refuse(*_: int) -> int:
        raise OSError(errno, "refused")

    os.ftruncate(fd, 1024 * KIB)
    os.pwrite(fd, b"x", 500 * KIB)
    monkeypatch.setattr(os, "lseek", refuse)

    assert holes.data_regions(fd, 1024 * KIB) == ((500 * KIB, 4 * KIB),)


def test_other_errors_are_not_hidden(fd: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """An I/O error stays an error."""

    def fail(*_: int) -> int:
        raise OSError(5, "failed")

    os.ftruncate(fd, 1024 * KIB)
    monkeypatch.setattr(os, "lseek", fail)

    with pytest.raises(OSError, match="failed"):
        holes.data_regions(fd, 1024 * KIB)


def test_file_that_shrank_meanwhile_ends_the_search(fd: int) -> None:
    """A size that is not true (any more) is no endless loop."""
    assert holes.data_regions(fd, 1024 * KIB) is None
