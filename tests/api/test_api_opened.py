"""A store handle: what may be done with it when it is closed, in other threads, and in other processes."""

import asyncio
import copy
import multiprocessing
import pathlib
import pickle
from collections.abc import Callable

import pytest

import graphdrivers
from graphdrivers.api.store import Store


@pytest.fixture
def tree(tmp_path: pathlib.Path) -> pathlib.Path:
    """A root file system."""
    (tmp_path / "tree" / "etc").mkdir(parents=True)
    (tmp_path / "tree" / "etc" / "motd").write_text("welcome\n")
    return tmp_path / "tree"


@pytest.fixture
def root(tmp_path: pathlib.Path, tree: pathlib.Path) -> pathlib.Path:
    """The root of a store (vfs) with one image, ``base:1``."""
    with graphdrivers.open_store(tmp_path / "root", "vfs") as store:
        store.import_image(tree, name="base:1")
    return tmp_path / "root"


@pytest.mark.parametrize(
    "asked",
    [
        lambda store: store.images(),
        lambda store: store.create("base:1"),
        lambda store: store.import_image("tree"),
        lambda store: store.collect(),
        lambda store: store.driver,
        lambda store: store.__enter__(),
    ],
)
def test_a_closed_store_is_told(root: pathlib.Path, asked: Callable[[Store], object]) -> None:
    """It opens nothing anew behind its user's back, and names the root."""
    with graphdrivers.open_store(root) as store:
        pass

    with pytest.raises(ValueError, match=f"{root}.* is closed"):
        asked(store)
    assert repr(store) == f"<Store {str(root)!r} vfs closed>"
    store.close()


def test_neither_pickled_nor_copied(root: pathlib.Path) -> None:
    """The advice is what to do instead."""
    with graphdrivers.open_store(root) as store, store.create("base:1") as box:
        for thing in (store, box):
            with pytest.raises(TypeError, match="in the other process"):
                pickle.dumps(thing)
            with pytest.raises(TypeError):
                copy.copy(thing)
        assert repr(store) == f"<Store {str(root)!r} vfs>"


def test_from_asyncio(root: pathlib.Path) -> None:
    """Calls in threads of a loop work beside each other, on one handle that another thread opened."""

    async def work() -> list[str]:
        store = await asyncio.to_thread(graphdrivers.open_store, root)
        made = await asyncio.gather(*(asyncio.to_thread(store.create, "base:1", name=f"box{n}") for n in range(6)))
        await asyncio.to_thread(store.close)
        return [box.name for box in made]

    assert asyncio.run(work()) == [f"box{n}" for n in range(6)]
    with graphdrivers.open_store(root) as store:
        assert sorted(box.name for box in store.containers()) == [f"box{n}" for n in range(6)]


def _create(store: Store, name: str) -> None:
    store.create("base:1", name=name)


def test_in_forked_children(root: pathlib.Path) -> None:
    """A handle that was open before fork(2) works in both processes, at the same time."""
    context = multiprocessing.get_context("fork")
    with graphdrivers.open_store(root) as store:
        children = [context.Process(target=_create, args=(store, f"child{n}")) for n in range(3)]
        for child in children:
            child.start()
        store.create("base:1", name="parent")
        for child in children:
            child.join()

        assert [child.exitcode for child in children] == [0, 0, 0]
        assert sorted(box.name for box in store.containers()) == ["child0", "child1", "child2", "parent"]
        assert list(store.check()) == []


def test_what_is_found_again_is_equal(root: pathlib.Path, tree: pathlib.Path) -> None:
    """Images and containers are found in lists and sets, by whatever name they were asked for."""
    with graphdrivers.open_store(root) as store:
        image, box = store.image("base:1"), store.create("base:1", name="box")
        (tree / "etc" / "motd").write_text("changed\n")
        other = store.import_image(tree, name="other:1")

        assert image == store.image(image.image_id[:20])
        assert image in store.images()
        assert image != other
        assert len({image, other, *store.images()}) == 2
        assert box == store.container(box.container_id)
        assert box in set(store.containers())
        assert box != box.fork("second")
        assert box != "box"
        store.tag(image, "base:2")
        assert image != store.image("base:1")
