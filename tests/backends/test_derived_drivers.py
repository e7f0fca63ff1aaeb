"""Drivers that are built on one of ours, as other people's may be."""

import os
import pathlib
from typing import ClassVar

import pytest

from graphdrivers import errors
from graphdrivers.backends.overlay.driver import OverlayDriver
from graphdrivers.backends.vfs import VfsDriver
from graphdrivers.driver import Driver


class OverVfs(VfsDriver):
    """Adds nothing but a name."""

    name: ClassVar[str] = "over-vfs"


class OverOverlay(OverlayDriver):
    """Adds nothing but a name."""

    name: ClassVar[str] = "over-overlay"


@pytest.mark.parametrize(
    "derived",
    [
        OverVfs,
        pytest.param(OverOverlay, marks=pytest.mark.skipif(os.geteuid() != 0, reason="overlay needs root")),
    ],
)
def test_a_derived_driver_has_homes_of_its_own(tmp_path: pathlib.Path, derived: type[Driver]) -> None:
    """A home can be opened again by the driver that made it, and is not that of the driver it is built on."""
    home = str(tmp_path / "home")
    derived(home, {}, derived.probe(home, {})).create("layer")
    again = derived(home, {}, derived.probe(home, {}))

    assert [record.name for record in again.layers()] == ["layer"]
    with pytest.raises(errors.PriorDriverState):
        derived.__bases__[0].probe(home, {})
