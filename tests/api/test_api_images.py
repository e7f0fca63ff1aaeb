"""Images through the Python door: named, shared, taken away."""

import os
import pathlib

import pytest
from storetools import layout_of, mounted_in, shown, tar_of, whole, write

from graphdrivers import Store, errors
from graphdrivers.store import images

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")


def test_images_share_layers(store: Store, tmp_path: pathlib.Path, tars: list[bytes]) -> None:
    """Of two images that share layers one goes and leaves the other whole; a mounted view keeps what it shows."""
    store.import_image(layout_of(tmp_path / "a", *tars), name="a")
    store.import_image(layout_of(tmp_path / "b", *tars[:2], tar_of({"other": "x"})), name="b")
    assert len(list(store.driver.layers())) == 4
    with store.mount_image("a") as view:
        store.remove_image("a")
        assert (view.path / "app/main").read_text() == "print()"
    assert len(store.collect().removed) == 1
    assert shown(store.site, store.layer_of("b"))["other"] == "x"
    store.remove_image("b")
    assert list(store.driver.layers()) == []
    assert mounted_in(store.root) == []
    whole(store)


def test_names_of_images(store: Store, tmp_path: pathlib.Path, tars: list[bytes]) -> None:
    """A name means one image, the latest it was given to; the others stay, found by ID and its beginning."""
    first = store.import_image(layout_of(tmp_path / "a", *tars[:1]), name="app:1")
    second = store.import_image(layout_of(tmp_path / "b", *tars[:2]), name="app:1")
    assert store.image("app:1").image_id == second.image_id
    assert store.image(first.image_id).names == ()
    assert store.image(first.image_id[7:19]).image_id == first.image_id
    store.tag(first, "docker.io/library/app:2")
    assert store.image("app:2").image_id == first.image_id
    store.untag("app:2")
    store.untag("app:2")
    for missing in ("app:2", "nothing", "sha256:" + "0" * 64, "", "%", "*"):
        with pytest.raises(errors.ImageNotFound):
            store.image(missing)
    with pytest.raises(errors.InvalidReference):
        store.tag(first, f"app@{first.image_id}")
    whole(store)


def test_an_image_that_is_gone(store: Store, tmp_path: pathlib.Path, tars: list[bytes]) -> None:
    """A value of an image that was removed meanwhile is refused by name, also where its layers are still there."""
    gone = store.import_image(layout_of(tmp_path / "a", *tars), name="a")
    store.import_image(layout_of(tmp_path / "b", *tars, comment="same layers"), name="b")
    store.remove_image("a")
    for attempt in (
        lambda: store.tag(gone, "again"),
        lambda: store.create(gone, name="box"),
        lambda: images.remove(store.site, gone.image_id),
    ):
        with pytest.raises(errors.ImageNotFound):
            attempt()
    assert store.containers() == []
    assert len(list(store.driver.layers())) == 3
    whole(store)


def test_an_image_without_layers(store: Store, tmp_path: pathlib.Path) -> None:
    """It is imported, has containers, cannot be mounted, and goes."""
    store.import_image(layout_of(tmp_path / "empty"), name="empty")
    with pytest.raises(errors.ImageNotFound, match="no layers"):
        store.mount_image("empty")
    with store.create("empty", name="box") as made:
        write(store, made.name, {"new": "x"})
        assert shown(store.site, made.record().layer) == {"new": "x"}
    store.remove_image("empty")
    assert list(store.driver.layers()) == []
    whole(store)
