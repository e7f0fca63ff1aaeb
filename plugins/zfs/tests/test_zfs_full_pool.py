# ruff: noqa: INP001, S101 -- pytest asserts, and a folder of tests is no package
"""A pool without room: an error that says so, layers that can be read and removed, and others untouched."""

import contextlib
import errno
import os
import pathlib
import subprocess
import time
from collections.abc import Iterator

import pytest
import zfspools

from graphdrivers import loading
from graphdrivers.conformance.workbench import Workbench
from graphdrivers.edits import Create

POOL = "small"


@pytest.fixture
def full(tmp_path: pathlib.Path) -> Iterator[Workbench]:
    """A home in a pool of 80 MiB that a foreign file fills, with two layers."""
    zfspools.pool()
    image, place = tmp_path / "image", tmp_path / "pool"
    with open(image, "xb") as file:
        file.truncate(80 << 20)
    subprocess.run(["zpool", "create", "-m", str(place), POOL, str(image)], check=True)
    bench = None
    try:
        (tmp_path / "flat").mkdir()
        bench = Workbench(loading.load_driver("zfs", str(place / "home")), str(tmp_path / "flat"))
        bench.layer("base", None, [Create("file", b"1")])
        bench.layer("layer", "base", [Create("large", os.urandom(4 << 20))])
        with open(place / "ballast", "xb", buffering=0) as ballast, contextlib.suppress(OSError):
            while True:
                ballast.write(os.urandom(1 << 17))
        yield bench
    finally:
        if bench is not None:
            for record in list(bench.driver.layers()):
                bench.driver.remove(record.name)
        for _ in range(200):  # zfs-fuse learns of the last unmount a moment later
            if subprocess.run(["zpool", "destroy", POOL], check=False).returncode == 0:
                break
            time.sleep(0.05)


def test_a_full_pool_can_be_read_and_emptied(full: Workbench) -> None:
    """A home in a full pool opens; what does not fit is ENOSPC and leaves nothing; layers are read and removed."""
    driver = loading.load_driver("zfs", full.driver.home)
    driver.settle()
    before = zfspools.listed(POOL)
    with pytest.raises(OSError, match="No space") as caught:
        driver.create("new", "base")
    assert caught.value.errno == errno.ENOSPC
    assert zfspools.listed(POOL) == before
    assert full.contents("base") == {"file": "1"}
    assert [change.path for change in driver.changes("layer")] == ["/large"]
    driver.remove("layer")
    driver.settle()
    full.layer("again", "base", [Create("fits", os.urandom(1 << 20))])

    assert sorted(full.contents("base")) == ["file"]
    assert sorted(record.name for record in driver.layers()) == ["again", "base"]
