"""Images that are small and ask a store for much: refused before they are unpacked, or done in bounded memory."""

import gzip
import json
import os
import pathlib

import pytest
from cases import file, folder, layer
from layouts import LAYER, Json, Layout
from stage import isolated
from storetools import whole

from graphdrivers import Store, errors, open_store
from graphdrivers.model import Limits

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="overlay needs root")

MEMORY = 128 << 20
ONE = layer(file(b"f"))


def many(layout: Layout, count: int, **config: object) -> Json:
    """Describe an image of many different tiny layers."""
    tars = [layer(file(b"f%d" % number)) for number in range(count)]
    return layout.manifest(*tars, config=layout.config(*tars, **config))


def imported(root: pathlib.Path, driver: str, image: pathlib.Path, limits: Limits = Limits()) -> str:
    """Import an image in a process that may use little memory; give the error's class and text, or nothing."""

    def work() -> str:
        with open_store(root, driver, durability="none") as store:
            try:
                store.import_image(image, name="big:1", limits=limits)
            except errors.GraphDriverError as error:
                _assert_untouched(store)
                return f"{type(error).__name__}: {error}"
            return ""

    said = str(isolated(work, memory=MEMORY, seconds=200))
    assert len(said) < 2000
    assert said.isprintable() or not said
    return said


def _assert_untouched(store: Store) -> None:
    whole(store)
    assert store.images() == []
    assert list(store.driver.layers()) == []


@pytest.mark.parametrize("count", [499, 600, 10_000])
def test_more_layers_than_can_be_mounted(count: int, tmp_path: pathlib.Path) -> None:
    """Refused before the first of them is read, with the limit, which leaves room for a container."""
    layout = Layout(tmp_path / "image")
    layout.add(many(layout, count))
    for blob in (layout.folder / "blobs/sha256").iterdir():
        if blob.stat().st_size == len(ONE):
            blob.write_bytes(bytes(len(ONE)))  # whoever reads a layer gets another
    said = imported(tmp_path / "store", "overlay", layout.folder)
    assert said.startswith("ChainTooDeep"), said
    assert str(count) in said


def test_as_many_layers_as_can_be_mounted(tmp_path: pathlib.Path) -> None:
    """The deepest image that is taken has room for a container, which can be mounted and written to."""
    with open_store(tmp_path / "store", "overlay", durability="none") as store:
        limit = store.driver.support.capabilities.max_depth
        assert limit is not None
        layout = Layout(tmp_path / "image")
        layout.add(many(layout, limit - 2))
        store.import_image(layout.folder, name="deep:1")
        box = store.create("deep:1", name="box")
        with box.mounted() as place:
            (place / "new").write_text("x")
            assert len(os.listdir(place)) >= limit - 1
        with pytest.raises(errors.ChainTooDeep):
            box.checkpoint()
        assert [change.path for change in box.changes()] == ["/new"]


HISTORY: dict[str, object] = {"created_by": "x" * 20}


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"history": [HISTORY] * 1_000_000}, "InvalidManifest"),
        ({"config": {"Labels": {str(number): "x" * 100 for number in range(100_000)}}}, "InvalidManifest"),
        ({"config": {"Env": ["x" * 20_000_000]}}, "InvalidManifest"),
    ],
    ids=["a history of a million steps", "a hundred thousand labels", "a variable of 20 MB"],
)
def test_giant_configurations(config: dict[str, object], said: str, tmp_path: pathlib.Path) -> None:
    """A configuration beyond the limit of documents is refused before it is parsed."""
    layout = Layout(tmp_path / "image")
    layout.add(layout.manifest(ONE, config=layout.config(ONE, **config)))
    assert imported(tmp_path / "store", "vfs", layout.folder).startswith(said)


def test_a_history_of_a_hundred_thousand_steps(tmp_path: pathlib.Path) -> None:
    """What is within the limits is taken, listed and given back in little memory."""
    layout = Layout(tmp_path / "image")
    steps = [{"empty_layer": True}] * 100_000 + [{}]
    layout.add(layout.manifest(ONE, config=layout.config(ONE, history=steps)))
    assert imported(tmp_path / "store", "vfs", layout.folder) == ""

    def work() -> int:
        with open_store(tmp_path / "store") as store:
            found = store.image("big:1")
            assert json.loads(found.config.text)["history"] == steps
            return len(store.images())

    assert isolated(work, memory=MEMORY, seconds=100) == 1


@pytest.fixture(scope="module")
def bomb(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Make an image of one layer: much of nothing, and a thousand folders."""
    layout = Layout(tmp_path_factory.mktemp("bomb") / "image")
    tar = layer(file(b"zeros", bytes(80 << 20)), *(folder(b"d%d" % number) for number in range(1000)))
    blob = layout.blob(gzip.compress(tar, 9), f"{LAYER}+gzip")
    layout.add(layout.manifest(config=layout.config(tar), layers=[blob]))
    return layout.folder


@pytest.mark.parametrize("driver", ["vfs", "overlay"])
@pytest.mark.parametrize("limit", ["ratio", "size", "members"])
def test_bombs(limit: str, driver: str, bomb: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """A layer that passes a limit is refused by its name, and all that was unpacked of it is gone."""
    limits = {"ratio": Limits(ratio=10), "size": Limits(size=16 << 20), "members": Limits(members=100)}[limit]
    said = imported(tmp_path / "store", driver, bomb, limits)
    assert said.startswith("LimitExceeded"), said
    assert list((tmp_path / "store" / driver).rglob("zeros")) == []
