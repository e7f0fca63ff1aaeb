"""A home on a full disk opens, so that layers can be removed from it."""

import contextlib
import json
import os
import pathlib
from collections.abc import Iterator

import pytest

from graphdrivers import errors, loading
from graphdrivers.kit import remembering
from graphdrivers.linux import mounts
from graphdrivers.model import Mount

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="a small file system is mounted")

DRIVERS = ["vfs", "overlay", "aufs"]


@pytest.fixture
def disk(tmp_path: pathlib.Path) -> Iterator[pathlib.Path]:
    """A file system of two megabytes."""
    place = tmp_path / "disk"
    place.mkdir()
    mounts.attach((Mount("tmpfs", "small", (("size", "2M"), ("nr_inodes", "400"))),), str(place))
    yield place
    mounts.detach(str(place), lazy=True)


def fill(disk: pathlib.Path) -> None:
    """Leave neither a byte nor an inode."""
    with (disk / "ballast").open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(bytes(4096)):
            pass
    with contextlib.suppress(OSError):
        for number in range(1000):
            (disk / f"empty{number}").touch()


@pytest.mark.parametrize("name", DRIVERS)
def test_a_full_disk_can_be_emptied_by_a_new_process(disk: pathlib.Path, name: str) -> None:
    """Opened anew on a full disk the driver knows what it could before, says so, and removes layers."""
    home = str(disk / "home")
    first = loading.load_driver(name, home)
    first.create("layer")
    first.close()
    fill(disk)
    second = loading.load_driver(name, home)
    second.settle()

    assert second.support.capabilities == first.support.capabilities
    assert second.support.engine == first.support.engine
    assert remembering.NOTE in second.support.notes
    second.remove("layer")
    assert list(second.layers()) == []


def test_what_is_not_known_is_not_believed(disk: pathlib.Path) -> None:
    """On a full disk a home without a memory, with a damaged one, or one of other circumstances stays closed."""
    home = disk / "home"
    loading.load_driver("vfs", home).close()
    memory = home / remembering.FILE
    known = json.loads(memory.read_text())
    fill(disk)
    for text in ("", "{}", json.dumps({**known, "circumstances": {**known["circumstances"], "uid": 1}})):
        memory.unlink()
        (disk / "ballast").unlink()
        memory.write_text(text)
        fill(disk)
        with pytest.raises((errors.PrerequisiteMissing, OSError)):
            loading.load_driver("vfs", home)


def test_a_probe_that_can_run_is_run(disk: pathlib.Path) -> None:
    """With room on the disk nothing is taken from memory, and memory follows."""
    home = disk / "home"
    found = loading.load_driver("vfs", home).support
    memory = home / remembering.FILE
    known = json.loads(memory.read_text())
    memory.write_text(json.dumps({**known, "engine": "another"}))

    assert loading.load_driver("vfs", home).support == found
    assert json.loads(memory.read_text()) == known
