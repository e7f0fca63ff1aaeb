"""Opening after a power cut: what it may take back and leave, made by hand; ``tests/second_kernel`` cuts for real."""

import os
import pathlib

import pytest
from storetools import layout_of, reopened, shown, whole, write

from graphdrivers import Store
from graphdrivers.store import names

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")


def restarted(store: Store) -> Store:
    """Open it again as after a restart of the machine."""
    with store.site.database.write() as step:
        step.execute("UPDATE facts SET value = 'an earlier boot' WHERE key = 'boot'")
    return reopened(store)


def test_what_was_written_without_a_note_of_it(store: Store, tars: list[bytes], tmp_path: pathlib.Path) -> None:
    """A container's file outlives the note that there are any: forks and checkpoints made after the cut have it."""
    store.import_image(layout_of(tmp_path / "image", *tars), name="image")
    store.create("image", name="box")
    write(store, "box", {"note": "fsynced"})
    with store.site.database.write() as step:
        step.execute("UPDATE containers SET touched = 0")
    again = restarted(store)
    fork = again.container("box").fork("fork")
    again.container("box").checkpoint("kept")
    again.container("box").rollback("kept")

    assert shown(again.site, fork.record().layer)["note"] == "fsynced"
    assert shown(again.site, again.container("box").record().layer)["note"] == "fsynced"
    whole(again)


def test_an_init_layer_that_was_not_synced(store: Store, tars: list[bytes], tmp_path: pathlib.Path) -> None:
    """With durability ``none`` a cut may take the layer and leave the row: the next container makes another."""
    store.import_image(layout_of(tmp_path / "image", *tars), name="image")
    box = store.create("image", name="box")
    base = box.base()
    box.remove()
    store.driver.remove(base)
    again = restarted(store)
    fresh = again.create("image", name="box")

    assert fresh.base() != base
    assert shown(again.site, again.layer_of("image")).items() <= shown(again.site, fresh.record().layer).items()
    whole(again)


def test_the_folders_of_mounts(store: Store, tars: list[bytes], tmp_path: pathlib.Path) -> None:
    """Where a layer was mounted before the cut an empty folder is left: it goes; one in use stays."""
    store.import_image(layout_of(tmp_path / "image", *tars), name="image")
    for box in ("held", "over", "forgotten"):
        store.create("image", name=box)
    folder = pathlib.Path(store.root, "mounts")
    for box in ("over", "forgotten"):
        (folder / store.container(box).record().layer).mkdir()
    with store.site.database.write() as step:
        step.execute(
            "INSERT INTO mounts (layer, target, attached, writable, namespace, boot) VALUES (?, ?, 1, 1, 'mnt', 'old')",
            (store.container("over").record().layer, str(folder / store.container("over").record().layer)),
        )
    held = store.container("held").mount(keep=True)
    again = restarted(store)

    whole(again)
    assert [entry.name for entry in folder.iterdir()] == ([held.path.name] if held.attached else [])
    assert again.container("held").unmount() == [str(held.path)]


def test_a_layer_whose_record_is_empty(store: Store) -> None:
    """A layer that was being made, known to the driver alone and by an empty record, does not keep a store shut."""
    name = names.image_layer()
    store.driver.create(name)
    pathlib.Path(store.driver.home, "layers", name, "layer.json").write_bytes(b"")
    again = restarted(store)

    assert list(again.driver.layers()) == []
    assert list(again.check()) == []
    whole(again)
