"""Trying what a file system can do disturbs nobody and is disturbed by nobody."""

import os
import pathlib

import pytest

from graphdrivers import errors
from graphdrivers.kit import abilities, layerdirs


def test_a_probe_is_no_leftover(tmp_path: pathlib.Path) -> None:
    """A process that cleans up a home leaves alone what another one is just trying there."""
    home = str(tmp_path / "home")
    dirs = layerdirs.LayerDirs(home, "vfs", {})
    with abilities.scratch("vfs", home) as folder:
        dirs.sweep()
        assert abilities.tried(folder).name_max == 255

    assert os.listdir(os.path.join(home, "tmp")) == []


def test_a_home_that_nothing_can_be_made_in(tmp_path: pathlib.Path) -> None:
    """Where not even the parent of the home exists, the reason names it."""
    with (
        pytest.raises(errors.PrerequisiteMissing, match="absent"),
        abilities.scratch("vfs", str(tmp_path / "absent" / "home")),
    ):
        pass
