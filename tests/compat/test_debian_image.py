"""A real Debian image is the same tree on every driver as what umoci unpacks."""

import os
import pathlib
import subprocess
from collections.abc import Iterator

import pytest
from treerecords import Record, differences, records

from graphdrivers.archive.compression import open_plain
from graphdrivers.driver import Driver
from graphdrivers.images.opening import open_image
from graphdrivers.linux import mounts
from graphdrivers.loading import load_driver
from graphdrivers.model import Limits

SCRIPT = pathlib.Path(__file__).parents[2] / "scripts" / "debian-image"
FOLDER = "GRAPHDRIVERS_DEBIAN_IMAGE"

IMPLIED = "no member names it: umoci leaves the time of unpacking; here it keeps the stack's time, or 0 where it is new"
PERMITTED = {
    (b"opt", "mtime"): IMPLIED,
    (b"opt/new", "mtime"): IMPLIED,
    (b"opt/new/deep", "mtime"): IMPLIED,
}
"""All that may differ, with the reason."""

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="root is needed for owners and device nodes"),
    pytest.mark.skipif(
        FOLDER not in os.environ, reason=f"set {FOLDER} to a folder; the image is downloaded into it, once"
    ),
]


@pytest.fixture(scope="module")
def layout() -> str:
    """The image's layout, built unless it is there."""
    folder = os.environ[FOLDER]
    subprocess.run([SCRIPT, folder], check=True)
    return os.path.join(folder, "layout")


@pytest.fixture(scope="module")
def expected(layout: str, tmp_path_factory: pytest.TempPathFactory) -> dict[bytes, Record]:
    """The tree as umoci unpacks it."""
    bundle = tmp_path_factory.mktemp("umoci") / "bundle"
    subprocess.run(["umoci", "unpack", "--image", f"{layout}:debian", bundle], check=True)
    return records(os.fspath(bundle / "rootfs"))


@pytest.fixture(params=["vfs", "overlay", "aufs engine=overlay-shadow", "aufs engine=copy"])
def driver(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> Iterator[Driver]:
    """Each driver, with each engine, on a fresh home."""
    name, *options = request.param.split()
    driver = load_driver(name, tmp_path / "home", dict(option.split("=") for option in options))
    yield driver
    for record in list(driver.layers()):
        driver.remove(record.name)
    driver.close()


def import_layers(driver: Driver, layout: str) -> str:
    """Apply and seal all layers; returns the topmost one's name."""
    name: str | None = None
    with open_image(layout, reference="debian") as image:
        for number, layer in enumerate(image.layers):
            parent, name = name, f"layer-{number}"
            driver.create(name, parent=parent)
            with image.open_layer(layer) as stored, open_plain(stored, Limits()) as tar:
                assert driver.apply(name, tar).diff_id == layer.diff_id
            driver.seal(name)
    assert name is not None
    return name


def test_same_tree_as_umoci(driver: Driver, layout: str, expected: dict[bytes, Record]) -> None:
    """Kind, mode, owner, time, content, target, links, devices and xattrs of every entry agree."""
    top = import_layers(driver, layout)
    with mounts.opened(driver.mounts(top, view=True)) as root:
        actual = records(f"/proc/self/fd/{root}")
    assert differences(expected, actual).keys() == PERMITTED.keys()
    assert actual[b"opt/new"].mtime == 0
    assert len(actual) > 5_000
