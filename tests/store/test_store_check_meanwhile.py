"""A check while others work on the store: what comes and goes meanwhile is no fault."""

import os
import pathlib
from collections.abc import Callable, Iterator

import attrs
import pytest
from storetools import layout_of

from graphdrivers import Store
from graphdrivers.model import LayerRecord

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")


def test_what_comes_and_goes(
    store: Store, tars: list[bytes], tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A container that is removed, and a layer that is sealed, once the driver listed them, are no faults."""
    store.import_image(layout_of(tmp_path / "image", *tars), name="image")
    box = store.create("image", name="box")
    listed = store.driver.layers

    def then(done: Callable[[], object], *, sealed: bool) -> Callable[[], Iterator[LayerRecord]]:
        def layers() -> Iterator[LayerRecord]:
            found = list(listed())
            monkeypatch.setattr(store.driver, "layers", listed)
            done()
            return iter(found if sealed else [attrs.evolve(record, sealed=False) for record in found])

        return layers

    monkeypatch.setattr(store.driver, "layers", then(box.remove, sealed=True))
    assert list(store.check()) == []
    monkeypatch.setattr(store.driver, "layers", then(bool, sealed=False))
    assert list(store.check()) == []
