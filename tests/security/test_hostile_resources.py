"""Layers that are small and ask for much work or memory: bounded on every driver, or refused by a limit's name."""

import io
import os
import tempfile
from collections.abc import Iterator

import pytest
from cases import END, file, folder, hardlink, layer, symlink, whiteout
from rawtars import pax
from stage import assert_clean, forget, isolated

from graphdrivers import loading
from graphdrivers.driver import Driver
from graphdrivers.errors import LimitExceeded, UnsafePath
from graphdrivers.linux import trees
from graphdrivers.model import Limits

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="overlay needs root")

MEMORY = 96 << 20
DEPTH = 100_000
LOWER = layer(file(b"low"), file(b"d/x"), symlink(b"s", b"d"))
STEP = b"d/" * 2000
"""4,000 bytes: what a symbolic link can hold of directories."""


@pytest.fixture
def in_memory() -> Iterator[list[Driver]]:
    """Every driver that works on a file system in memory, where a hundred thousand directories are soon made."""
    root = tempfile.mkdtemp(dir="/dev/shm", prefix="graphdrivers-deep-")
    opened = [
        loading.load_driver(entry.name, os.path.join(root, entry.name))
        for entry in loading.list_drivers(root)
        if entry.usable
    ]
    yield opened
    for driver in opened:
        driver.close()
    parent = os.open(os.path.dirname(root), os.O_RDONLY | os.O_DIRECTORY)
    try:
        trees.remove_tree(parent, os.fsencode(os.path.basename(root)))
    finally:
        os.close(parent)


def spend(driver: Driver, tar: bytes, lower: bytes = LOWER, limits: Limits = Limits()) -> None:
    """Apply a layer over another; afterwards nothing is left."""
    forget(driver)
    try:
        driver.create("lower")
        driver.apply("lower", io.BytesIO(lower))
        driver.seal("lower")
        driver.create("upper", "lower")
        driver.apply("upper", io.BytesIO(tar), limits=limits)
    finally:
        forget(driver)
        assert_clean(driver)


def deep_paths(count: int, components: int) -> bytes:
    """Name files below directories that nobody names, each in a chain of its own."""
    return b"".join(file(b"%03d" % at + b"/d" * components) for at in range(count)) + END


def through_links(links: int) -> bytes:
    """Go down with each link as far as a name may: 2,000 directories a link."""
    members = [folder(STEP), symlink(b"0", STEP[:-1])]
    for at in range(links):
        members += [folder(b"%d/" % at + STEP), symlink(b"%d" % (at + 1), b"%d/" % at + STEP[:-1])]
    return layer(*members)


def test_deep_paths_over_a_parent(in_memory: list[Driver]) -> None:
    """Paths of thousands of directories that nobody names cost the memory of their names, not of all their paths."""
    tar = deep_paths(1, 8000)
    for driver in in_memory:
        isolated(lambda driver=driver: spend(driver, tar), memory=MEMORY, seconds=60)


def test_deep_paths_below_whiteouts(in_memory: list[Driver]) -> None:
    """Looking up what is deleted costs nothing for paths that have nothing to do with it."""
    tar = whiteout(b"low") + deep_paths(1, 2000)
    for driver in in_memory:
        isolated(lambda driver=driver: spend(driver, tar), memory=MEMORY, seconds=60)


def test_more_directories_than_members(drivers: list[Driver]) -> None:
    """Directories that nobody names count: a megabyte of names cannot take all the inodes there are."""
    for driver in drivers:

        def work(driver: Driver = driver) -> None:
            with pytest.raises(LimitExceeded) as caught:
                spend(driver, deep_paths(10, 300), limits=Limits(members=1000))
            assert caught.value.limit == "members"

        isolated(work)


def test_links_lead_no_deeper_than_names(in_memory: list[Driver]) -> None:
    """What a name may not be long enough for cannot be reached through links either."""
    for driver in in_memory:

        def work(driver: Driver = driver) -> None:
            with pytest.raises(LimitExceeded) as caught:
                spend(driver, through_links(4), limits=Limits(path=5000))
            assert caught.value.limit == "path"

        isolated(work, memory=MEMORY, seconds=60)


def test_links_that_double(drivers: list[Driver]) -> None:
    """Links that each mean two of the next are followed forty times, not two to the fortieth."""
    links = [symlink(b"l%d" % at, b"l%d/l%d" % (at + 1, at + 1)) for at in range(60)]
    for driver in drivers:

        def work(driver: Driver = driver) -> None:
            with pytest.raises(UnsafePath):
                spend(driver, layer(*links, file(b"l0/x")))

        isolated(work, memory=MEMORY)


def test_many_names_of_one_file(drivers: list[Driver]) -> None:
    """Hard links by the thousand, over each other too, stay one file."""
    tar = layer(file(b"f"), *(hardlink(b"h%d" % (at % 500), b"f") for at in range(2000)))
    for driver in drivers:
        isolated(lambda driver=driver: spend(driver, tar), memory=MEMORY)


def test_a_hundred_thousand_directories_by_default(drivers: list[Driver]) -> None:
    """A name of that many directories is longer than the limit, and refused before the first is made."""
    tar = pax((b"path", b"d/" * DEPTH + b"f")) + file(b"x") + END
    for driver in drivers:

        def work(driver: Driver = driver) -> None:
            with pytest.raises(LimitExceeded) as caught:
                spend(driver, tar)
            assert caught.value.limit == "path"

        isolated(work, memory=MEMORY)


def test_a_hundred_thousand_directories(in_memory: list[Driver]) -> None:
    """Where the limit is raised they are made, and removed again: nothing recurses, nothing keeps them all open."""
    tar = pax((b"path", b"d/" * DEPTH + b"f")) + file(b"x") + END
    for driver in in_memory:

        def work(driver: Driver = driver) -> int:
            driver.create("deep")
            applied = driver.apply("deep", io.BytesIO(tar), limits=Limits(path=1 << 20))
            forget(driver)
            assert_clean(driver)
            return applied.entries

        assert isolated(work, seconds=120) == 1, driver.name
