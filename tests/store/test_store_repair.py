"""Repairs: a damaged layer is exchanged for a whole one, and whatever comes between costs neither."""

import errno
import io
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import pytest
from storetools import Tree, diff_id, in_child, layout_of, reopened, shown, tar_back, tar_of, whole, write

from graphdrivers import Store, errors, open_store
from graphdrivers.kit import layerdirs
from graphdrivers.store import making, mounted, repair, substitutes
from graphdrivers.store.check import FaultKind
from graphdrivers.store.repair import Repaired

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")

TARS = [tar_of({"a": "one", "kept": "x" * 5000}), tar_of({"b": "two"}), tar_of({"c": "three"})]
TREE = {"a": "one", "b": "two", "c": "three", "kept": "x" * 5000}
WRITTEN = {**TREE, "own": "written"}


@pytest.fixture
def damaged(store: Store, tmp_path: pathlib.Path) -> str:
    """Damage a file of the lowest layer of an image that a container stands on; give the layer."""
    image = store.import_image(layout_of(tmp_path / "image", *TARS), name="image")
    store.create("image", name="box")
    write(store, "box", {"own": "written"})
    spoil(store, image.layers[0].name)
    return image.layers[0].name


def spoil(store: Store, layer: str) -> None:
    """Change a file of a layer without a parent behind the store's back."""
    (plan,) = store.driver.mounts(layer, view=True)
    pathlib.Path(str(plan.source), "a").write_text("0ne")


def repaired(store: Store, tars: Sequence[bytes] = ()) -> Repaired:
    """Repair what a deep check finds, from tars."""
    known = {diff_id(tar): tar for tar in tars}
    found = list(store.check(deep=True))
    return repair.repair(store.site, found, lambda wanted: io.BytesIO(known[wanted]) if wanted in known else None)


def sound(store: Store) -> None:
    """Assert that everything is whole again, and nothing left over."""
    assert list(store.check(deep=True)) == []
    assert store.site.database.read("SELECT * FROM repairs UNION SELECT lease, layer FROM leases") == []
    assert [tar_back(store, layer) for layer in store.image("image").layers] == TARS
    assert box_of(store) == WRITTEN
    whole(store)


def box_of(store: Store) -> Tree:
    """Read what the container shows."""
    return shown(store.site, store.container("box").record().layer)


def failing(*_: object) -> None:
    """Be a disk without room."""
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.fixture
def cut(store: Store, damaged: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Let a repair fail between removing the damaged layer and making it anew; give the layer."""
    with monkeypatch.context() as patch:
        patch.setattr(making, "fill_again", failing)
        assert [name for name, _ in repaired(store, TARS).lost] == [damaged]
    return damaged


@pytest.mark.parametrize("durability", ["none", "layer", "file"])
def test_a_damaged_layer_is_exchanged(store: Store, damaged: str, durability: str) -> None:
    """From its tar it is made anew, as durable as was asked for; the container on it stands as before."""
    store.close()
    with open_store(store.root, durability=durability) as again:
        assert repaired(again, TARS) == Repaired((damaged,))
        sound(again)


def test_without_its_tar_it_stays(store: Store, damaged: str) -> None:
    """Nothing happens to a damaged layer whose tar cannot be had, or is another one; what is lost is named."""
    (lost,) = repaired(store).lost
    assert lost[0] == damaged
    assert str(store.image("image").layers[0].diff_id) in lost[1]
    wrong = repair.repair(store.site, list(store.check(deep=True)), lambda _: io.BytesIO(TARS[1]))
    assert [name for name, _ in wrong.lost] == [damaged]
    assert [(fault.layer, fault.path) for fault in store.check(deep=True)] == [(damaged, "/a")]
    assert shown(store.site, damaged) == {"a": "0ne", "kept": "x" * 5000}
    whole(store)


def test_what_failed_is_told_and_goes_on_without_the_tar(store: Store, cut: str) -> None:
    """A full disk in the middle: a check says that the repair was begun, and the next one needs no tar."""
    kinds = {(fault.kind, fault.layer) for fault in store.check()}
    assert kinds == {(FaultKind.LOST, cut), (FaultKind.UNFINISHED, cut)}
    assert store.collect().removed == ()
    assert repaired(store) == Repaired((cut,))
    sound(store)


@pytest.fixture
def left(store: Store, damaged: str) -> str:
    """Let a process fail in the middle of a repair, and end; give the layer."""

    def work() -> None:
        with open_store(store.root, durability="none") as mine:
            making.fill_again = failing
            assert [name for name, _ in repaired(mine, TARS).lost] == [damaged]

    in_child(work)
    return damaged


def test_opening_goes_on(store: Store, left: str) -> None:
    """When the process that repaired is gone, opening the store finishes its work."""
    assert store.site.database.read("SELECT layer FROM repairs") == [(left,)]
    sound(reopened(store))


def test_opening_goes_on_when_nothing_is_mounted(store: Store, damaged: str) -> None:
    """A view of what stands on the layer keeps it from being exchanged; it is told, and done later."""

    def work() -> None:
        with open_store(store.root, durability="none") as mine:
            substitutes._clear = lambda *_, **__: os._exit(0)
            repaired(mine, TARS)

    in_child(work)
    with store.mount_image("image"):
        with open_store(store.root, durability="none") as again:
            assert [problem.what for problem in again.problems] == [damaged]
        assert shown(store.site, damaged)["kept"] == "x" * 5000
    sound(reopened(store))


def test_a_substitute_that_is_damaged_too(store: Store, cut: str) -> None:
    """What waits to take the place was damaged as well: nothing is given up, and the tar helps."""
    ((substitute,),) = store.site.database.read("SELECT substitute FROM repairs")
    spoil(store, substitute)
    (lost,) = repaired(store).lost
    assert (lost[0], "'a'" in lost[1] or "member a" in lost[1]) == (cut, True), lost
    assert store.site.database.read("SELECT layer, substitute FROM repairs") == [(cut, substitute)]
    assert repaired(store, TARS) == Repaired((cut,))
    sound(store)


def test_nobody_comes_between(store: Store, damaged: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a layer is away nothing on it is mounted, a check leaves it out, and removing its image keeps it."""
    fill = making.fill_again
    asked: list[str] = []

    def others() -> None:
        with open_store(store.root, durability="none") as mine:
            assert mine.problems == ()
            assert list(mine.check(deep=True)) == []
            with pytest.raises(errors.LockTimeout, match="being repaired"):
                mine.container("box").mount()
            mine.container("box").remove()
            mine.remove_image("image")
            mine.collect()

    def between(*arguments: Any) -> None:
        asked.append(damaged)
        in_child(others)
        fill(*arguments)

    monkeypatch.setattr(making, "fill_again", between)
    assert repaired(store, TARS).layers == (damaged,)
    assert asked
    assert [layer.name for layer in store.driver.layers()] == [damaged]
    whole(store)
    assert store.collect().removed == (damaged,)


def test_what_is_mounted_is_not_touched(store: Store, damaged: str) -> None:
    """A container above is mounted: the layer stays as it is, readable, and is repaired afterwards."""
    with store.container("box").mounted() as place:
        (lost,) = repaired(store, TARS).lost
        assert lost[0] == damaged
        assert "mount" in lost[1]
        assert (place / "kept").read_text() == "x" * 5000
    assert repaired(store, TARS).layers == (damaged,)
    sound(store)


def test_a_layer_that_cannot_be_removed_stays(
    store: Store, damaged: str, monkeypatch: pytest.MonkeyPatch, driver: str
) -> None:
    """The driver refuses to remove it: it is as before, and no repair is pending."""
    remove = layerdirs.LayerDirs.remove

    def stubborn(self: layerdirs.LayerDirs, layer: str) -> None:
        if layer == damaged:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        remove(self, layer)

    with monkeypatch.context() as patch:
        patch.setattr(layerdirs.LayerDirs, "remove", stubborn)
        assert [name for name, _ in repaired(store, TARS).lost] == [damaged]
    assert store.site.database.read("SELECT * FROM repairs") == []
    assert [(fault.layer, fault.path) for fault in store.check(deep=True)] == [(damaged, "/a")]
    assert shown(store.site, damaged) == {"a": "0ne", "kept": "x" * 5000}
    assert len(list(store.driver.layers())) == 5, driver


def test_a_removal_ends_a_repair(store: Store, left: str) -> None:
    """An image whose layer waits for its repair can be removed all the same; nothing of it is left."""
    store.container("box").remove()
    store.remove_image("image")
    again = reopened(store)
    again.collect()
    assert again.site.database.read("SELECT * FROM repairs") == []
    assert list(again.driver.layers()) == [], left
    whole(again)


def test_a_mount_of_an_own_layer_counts(store: Store, damaged: str, tmp_path: pathlib.Path) -> None:
    """A view of the layer alone is in the way too."""
    place = tmp_path / "view"
    place.mkdir()
    held = mounted.attach(store.site, damaged, view=True, target=str(place))
    assert [name for name, _ in repaired(store, TARS).lost] == [damaged]
    mounted.release(store.site, held)
    assert repaired(store, TARS).layers == (damaged,)
    assert not os.path.ismount(place)
