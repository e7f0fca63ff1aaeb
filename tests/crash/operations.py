"""What a store is asked to do while it is killed or fails, and what may have become of it."""

import contextlib
import os
import pathlib
import shutil
import tempfile
from collections.abc import Callable, Iterator

import pytest
from killing import tmpfs
from storetools import layout_of, shown, tar_back, tar_of, whole, write

from graphdrivers import Store, errors, open_store
from graphdrivers.images import opening

LAYERS = [tar_of({"etc/motd": "welcome", "gone": "soon"}), tar_of({"etc/motd": "again", "gone": None})]
TREE = {"etc/motd": "again"}
TALL = [tar_of({f"dir/{number}": "x", "top": str(number)}) for number in range(3)]
MORE = [[*LAYERS, tar_of({"more": str(number)})] for number in range(3)]


@pytest.fixture
def memory(tmp_path: pathlib.Path) -> Iterator[pathlib.Path]:
    """Give a folder that no disk slows down; in ``GRAPHDRIVERS_STORE_FOLDER`` for drivers that need a file system."""
    folder = os.environ.get("GRAPHDRIVERS_STORE_FOLDER")
    with contextlib.ExitStack() as stack:
        if folder:
            place = pathlib.Path(tempfile.mkdtemp(dir=folder))
            stack.callback(shutil.rmtree, place, ignore_errors=True)
        else:
            place = stack.enter_context(tmpfs(tmp_path / "memory"))
        layout_of(place / "image", *LAYERS)
        layout_of(place / "tall", *TALL)
        for number, layers in enumerate(MORE):
            layout_of(place / f"more{number}", *layers, comment=str(number))
        yield place


def start(memory: pathlib.Path, driver: str = "auto") -> Store:
    """Open the store, which has nothing to complain of."""
    store = open_store(memory / "store", driver, durability="none")
    assert store.problems == ()
    return store


def prepared(memory: pathlib.Path, driver: str) -> None:
    """Make a store with two images, and a container of one with a checkpoint that was written to since."""
    with start(memory, driver) as store:
        store.import_image(memory / "more1", name="other")
        store.import_image(memory / "image", name="image")
        store.create("image", name="box")
        write(store, "box", {"kept": "1"})
        store.container("box").checkpoint("one")
        write(store, "box", {"kept": "2", "new": "x"})


def damage(store: Store) -> None:
    """Change a file of the image's lowest layer, which a container stands on, behind the store's back."""
    (plan,) = store.driver.mounts(store.image("image").layers[0].name, view=True)
    pathlib.Path(str(plan.source), "etc/motd").write_text("w3lcome")


def repair(store: Store, memory: pathlib.Path) -> None:
    """Bring back what is damaged.

    Raises:
        StoreCorrupt: it could not be.
    """
    with opening.open_image(memory / "image") as source:
        lost = store.repair(list(store.check(deep=True)), [source]).lost
    if lost:
        raise errors.StoreCorrupt(store.root, lost[0][1])


def collect(store: Store) -> None:
    """Remove a container whose layers a lease keeps, and collect them when that has ended."""
    with store.lease("box"):
        store.container("box").remove()
    store.collect()


OPERATIONS: dict[str, Callable[[Store, pathlib.Path], object]] = {
    "import": lambda store, memory: store.import_image(memory / "more0", name="more"),
    "several": lambda store, memory: store.import_image(memory / "tall", name="more", jobs=2),
    "create": lambda store, _: store.create("image", name="second"),
    "first": lambda store, _: store.create("other", name="second"),
    "fork": lambda store, _: store.container("box").fork("second"),
    "checkpoint": lambda store, _: store.container("box").checkpoint("two"),
    "rollback": lambda store, _: store.container("box").rollback("one"),
    "mount": lambda store, _: store.container("box").mount(keep=True).release(),
    "commit": lambda store, _: store.commit("box", name="committed"),
    "repair": lambda store, memory: (damage(store), repair(store, memory)),
    "rm": lambda store, _: store.container("box").remove(),
    "rmi": lambda store, _: (store.container("box").remove(), store.remove_image("image")),
    "gc": lambda store, _: collect(store),
}


SECOND = {"create": TREE, "first": {**TREE, "more": "1"}, "fork": {**TREE, "kept": "2", "new": "x"}}
"""What the container ``second`` shows, by the operation that makes it."""


def check(memory: pathlib.Path, operation: str, done: bool) -> None:  # noqa: C901, FBT001 - a list
    """Assert that the store is as before the operation or as after it, and whole; ``done`` allows only the latter."""
    with start(memory) as store:
        whole(store)
        if operation == "repair":
            faults = {(fault.kind, fault.path) for fault in store.check(deep=True)}
            assert faults <= (set() if done else {("damaged", "/etc/motd")})
            repair(store, memory)
        names = {container.name for container in store.containers()}
        images = {name for image in store.images() for name in image.familiar_names}
        trees = {container.name: shown(store.site, container.record().layer) for container in store.containers()}
        full = {**TREE, "kept": "2", "new": "x"}
        if operation in {"rm", "rmi", "gc"}:
            assert not (done and names)
        elif operation == "rollback" and (done or trees["box"] != full):
            assert trees["box"] == {**TREE, "kept": "1"}
        else:
            assert trees["box"] == full
        if "second" in names or (done and operation in SECOND):
            assert trees["second"] == SECOND[operation]
        if "box" in names:
            points = {one.point: shown(store.site, one.layer) for one in store.container("box").checkpoints()}
            assert points.pop("one") == {**TREE, "kept": "1"}
            assert points == {"two": full} or (points == {} and not (done and operation == "checkpoint"))
        if done and operation in {"import", "several", "commit"}:
            assert ("committed:latest" if operation == "commit" else "more:latest") in images
        assert ("image:latest" in images) or (operation == "rmi" and not names)
        for image in store.images():
            for layer in image.layers:
                tar_back(store, layer)
        if "box" in names:
            write(store, "box", {"still": "writable"})
        store.collect()
        whole(store)
        for name in names:
            store.container(name).unmount()  # killed after the mount that was to be kept
            store.container(name).remove()
        for image in store.images():
            store.remove_image(image)
        assert store.collect().resisted == ()
        assert list(store.driver.layers()) == []
        whole(store)
