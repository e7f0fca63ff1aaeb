"""What all tests of hostile input share: the drivers that work here, on homes of their own."""

import os
import sys
from collections.abc import Iterator

import pytest

from graphdrivers import loading
from graphdrivers.driver import Driver

HERE = os.path.dirname(os.path.abspath(__file__))
# The makers of raw tars, images and stores: hostile input is made by them, not by twins of them.
sys.path[:0] = [os.path.join(os.path.dirname(HERE), room) for room in ("archive", "images", "store")]


@pytest.fixture(scope="session")
def drivers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Driver]]:
    """Every driver that works here, each on a home below a folder of its own."""
    root = tmp_path_factory.mktemp("drivers")
    usable = [entry.name for entry in loading.list_drivers(root) if entry.usable]
    opened = []
    for name in usable:
        (root / name).mkdir()
        opened.append(loading.load_driver(name, root / name / "home"))
    yield opened
    for driver in opened:
        driver.close()
