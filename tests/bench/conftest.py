"""Beds of real drivers on a tiny image."""

import contextlib
import os
import pathlib
from collections.abc import Iterator

import pytest
from benchbeds import DRIVERS, TINY, Opening
from tinyimage import tiny_image

from graphdrivers.bench import database, drivers, memory
from graphdrivers.bench.bed import Bed
from graphdrivers.bench.instruments import Instruments
from graphdrivers.bench.sizes import Sizes
from graphdrivers.images.opening import open_image


@pytest.fixture
def opening(tmp_path: pathlib.Path) -> Iterator[Opening]:
    """Give what opens beds of real drivers, by name, with sizes of one's own; all is removed afterwards."""
    (tmp_path / "tars").mkdir()
    with open_image(str(tiny_image(tmp_path / "image"))) as image:
        tars = drivers.unpacked(image, str(tmp_path / "tars"))
    with contextlib.ExitStack() as stack:

        def opened(*names: str, sizes: Sizes = TINY) -> list[Bed]:
            given = drivers.Given(tars, sizes, Instruments(database.Engine("python"), memory.meter()))
            wanted = [drivers.Wanted(name, str(tmp_path)) for name in names or DRIVERS]
            beds, refused = stack.enter_context(drivers.beds(wanted, given))
            assert refused == {}
            return beds

        yield opened
    assert sorted(os.listdir(tmp_path)) == ["image", "tars"]
