"""Containers through the Python door: made, branched, taken back, compared and removed."""

import contextlib
import itertools
import os
import pathlib
import threading
from collections.abc import Iterator, Sequence

import pytest
from storetools import BASE, Say, Tree, all_at_once, layout_of, shown, tar_of, whole, write

from graphdrivers import Container, Store, errors, open_store
from graphdrivers.linux import mounts
from graphdrivers.model import Mount
from graphdrivers.store import containers, ledger
from graphdrivers.store.check import FaultKind
from graphdrivers.store.database import Database, Step

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")


@pytest.fixture
def box(store: Store, tmp_path: pathlib.Path) -> Container:
    """Make a container of an image of one layer."""
    store.import_image(layout_of(tmp_path / "image", tar_of(BASE), WorkingDir="/work"), name="image")
    return store.create("image", name="box")


def tree(store: Store, name: str) -> Tree:
    """Read what a container shows now, without mounting it for writing."""
    return shown(store.site, store.container(name).record().layer)


def test_a_container_shows_its_image(store: Store, box: Container) -> None:
    """It stands on an init layer on the image, differs in nothing, and is found by name, ID and beginning of the ID."""
    assert tree(store, "box") == BASE
    assert [layer.name for layer in box.layers()][1:] == [box.base(), store.image("image").top]
    assert list(box.changes()) == []
    for name in ("box", box.container_id, box.container_id[:6]):
        assert store.container(name).container_id == box.container_id
    assert box.image_id == store.image("image").image_id
    whole(store)


def test_what_people_see(store: Store, box: Container) -> None:
    """Shown by an interpreter, a container and an image are one short line each, and can be told from others."""
    image = store.image("image")
    assert repr(box) == f"<Container 'box' {box.container_id[:12]}>"
    assert image.image_id in repr(image)
    assert "docker.io/library/image:latest" in repr(image)
    assert len(repr(image)) < 400


@pytest.mark.parametrize("name", ["", ".", "..", "-x", "a/b", "a b", "ä", "x" * 129, "a\n", "a\0", "../box", "a:b"])
def test_names_that_no_container_has(store: Store, box: Container, name: str) -> None:
    """A bad name is refused before anything is made, for forks and checkpoints too; a long and a short one are fine."""
    write(store, "box", {"new": "x"})
    before = [layer.name for layer in box.layers()]
    for attempt in (lambda: store.create("image", name=name), lambda: box.fork(name), lambda: box.checkpoint(name)):
        with pytest.raises(errors.InvalidContainerName):
            attempt()
    assert [layer.name for layer in box.layers()] == before
    whole(store)
    for good in ("a", "x" * 128, "0_.-"):
        store.create("image", name=good).remove()


@pytest.mark.parametrize("moment", ["before", "after"])
def test_an_image_that_goes_while_it_is_looked_at(
    store: Store, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """Removed by another, and imported anew: that it is gone is told, and the new one is not taken for half of it."""
    folder = layout_of(tmp_path / "image", tar_of({**BASE, "etc/hosts": "own"}))
    store.import_image(folder, name="image")
    opened = mounts.opened

    def replace() -> None:
        monkeypatch.setattr(mounts, "opened", opened)
        with open_store(store.root) as other:
            other.remove_image("image")
            other.import_image(folder, name="image")

    @contextlib.contextmanager
    def late(plan: Sequence[Mount]) -> Iterator[int]:
        if moment == "before":
            replace()
        with opened(plan) as root:
            if moment == "after":
                replace()
            yield root

    monkeypatch.setattr(mounts, "opened", late)
    with pytest.raises(errors.ImageNotFound):
        store.create("image", name="box")
    store.create("image", name="box")
    assert tree(store, "box")["etc/hosts"] == "own"
    whole(store)


def test_a_taken_name(store: Store, box: Container) -> None:
    """A name that is taken is refused, and neither of the two containers is touched, nor cut into another layer."""
    store.create("image", name="other")
    write(store, "box", {"new": "x"})
    before = [layer.name for layer in box.layers()]
    with pytest.raises(errors.ContainerExists):
        store.create("image", name="box")
    with pytest.raises(errors.ContainerExists):
        box.fork("other")
    assert [layer.name for layer in box.layers()] == before
    assert tree(store, "box") == {**BASE, "new": "x"}
    whole(store)


def test_a_fork_diverges(store: Store, box: Container) -> None:
    """Original and fork begin alike and go their ways; the fork outlives the original, and a fork of the fork both."""
    write(store, "box", {"new": "1"})
    box.fork("one")
    write(store, "box", {"new": "2"})
    write(store, "one", {"etc/motd": "mine", "gone": None})
    store.container("one").fork("two")
    write(store, "two", {"new": "3"})
    mine = {"bin/sh": BASE["bin/sh"], "etc/motd": "mine"}
    assert tree(store, "box") == {**BASE, "new": "2"}
    assert tree(store, "one") == {**mine, "new": "1"}
    assert tree(store, "two") == {**mine, "new": "3"}
    box.remove()
    assert tree(store, "one") == {**mine, "new": "1"}
    store.container("one").remove()
    assert tree(store, "two") == {**mine, "new": "3"}
    assert {change.path for change in store.container("two").changes()} == {"/etc", "/etc/motd", "/gone", "/new"}
    assert store.unused() == []
    store.container("two").remove()
    store.remove_image("image")
    assert list(store.driver.layers()) == []
    whole(store)


def test_an_untouched_container_is_branched_without_a_seal(store: Store, box: Container) -> None:
    """What nobody could have written to gives its parent; forks of it do not get deeper."""
    for number in range(5):
        box.fork(f"fork{number}")
        box.checkpoint()
    assert len(box.layers()) == 3
    assert {one.layer for one in box.checkpoints()} == {box.base()}
    assert [one.point for one in box.checkpoints()] == ["1", "2", "3", "4", "5"]
    whole(store)


def test_created_is_what_a_container_began_with(store: Store, box: Container) -> None:
    """A container goes back to its image; a fork to what it was forked from."""
    write(store, "box", {"new": "1"})
    fork = box.fork("fork")
    write(store, "fork", {"new": "2"})
    fork.checkpoint("later")
    fork.rollback("created")
    assert tree(store, "fork") == {**BASE, "new": "1"}
    box.rollback("created")
    assert tree(store, "box") == BASE
    assert [one.point for one in fork.checkpoints()] == ["later"]
    with pytest.raises(errors.InvalidContainerName, match="stays"):
        box.forget("created")
    with pytest.raises(errors.CheckpointExists):
        box.checkpoint("created")
    whole(store)


def test_back_and_forth(store: Store, box: Container) -> None:
    """Rollback gives each state exactly, later ones too, and again; what was dropped leaves nothing."""
    for number in range(3):
        write(store, "box", {"new": str(number), f"only{number}": "x"})
        box.checkpoint(f"p{number}")
    write(store, "box", {"lost": "x"})
    for number in (0, 2, 1, 1):
        box.rollback(f"p{number}")
        expected = {**BASE, "new": str(number), **{f"only{below}": "x" for below in range(number + 1)}}
        assert tree(store, "box") == expected
        write(store, "box", {"scratch": "x"})
    box.rollback()
    assert tree(store, "box")["new"] == "2"
    assert store.unused() == []
    whole(store)


def test_forgotten_checkpoints(store: Store, box: Container) -> None:
    """A forgotten point cannot be gone back to; its layer goes when nothing stands on it, else with what does."""
    write(store, "box", {"new": "1"})
    box.checkpoint("one")
    write(store, "box", {"new": "2"})
    box.checkpoint("two")
    box.forget("one")
    with pytest.raises(errors.CheckpointNotFound, match="two"):
        box.rollback("one")
    assert tree(store, "box") == {**BASE, "new": "2"}
    box.rollback("created")
    box.forget("two")
    assert len(list(store.driver.layers())) == 3
    assert store.unused() == []
    whole(store)


def test_numbers_of_checkpoints(box: Container) -> None:
    """A checkpoint without a name gets the lowest free number; a name is given once."""
    assert [box.checkpoint().point for _ in range(2)] == ["1", "2"]
    box.forget("1")
    assert box.checkpoint().point == "1"
    with pytest.raises(errors.CheckpointExists):
        box.checkpoint("2")


def test_the_latest_checkpoint_when_the_clock_is_set_back(
    store: Store, box: Container, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The latest one is the one that was made last, whatever the time was said to be."""
    for hour in (3, 2, 1):
        moment = hour * 3600 * 10**9
        monkeypatch.setattr(ledger, "now", lambda moment=moment: moment)
        write(store, "box", {"hour": str(hour)})
        box.checkpoint()
    write(store, "box", {"hour": "0"})
    box.rollback()

    assert [kept.point for kept in box.checkpoints()] == ["1", "2", "3"]
    assert tree(store, "box")["hour"] == "1"


def test_a_stack_that_is_full(store: Store, box: Container, driver: str) -> None:
    """A branch that would be too deep is refused before anything is sealed: the container goes on as before."""
    if driver == "vfs":
        assert store.driver.support.capabilities.max_depth is None
        return
    import attrs  # noqa: PLC0415 - a limit of 500 takes long to reach

    support = store.driver.support
    store.driver.support = attrs.evolve(support, capabilities=attrs.evolve(support.capabilities, max_depth=4))
    write(store, "box", {"new": "1"})
    box.checkpoint()
    write(store, "box", {"new": "2"})
    for attempt in (box.checkpoint, lambda: box.fork("fork")):
        with pytest.raises(errors.ChainTooDeep):
            attempt()
    write(store, "box", {"new": "3"})
    box.rollback()
    assert tree(store, "box") == {**BASE, "new": "1"}
    whole(store)


@pytest.mark.parametrize("size", [-1, 0, 1 << 63, 1 << 70])
def test_a_size_that_is_none(store: Store, box: Container, size: int) -> None:
    """No layer has it, whatever the driver can; nothing is made."""
    with pytest.raises(errors.NotSupported, match=f"{size} bytes are no size of a layer"):
        store.create("image", name="sized", size=size)
    assert [container.name for container in store.containers()] == [box.name]
    whole(store)


def test_a_size_that_cannot_be_had(store: Store, box: Container) -> None:
    """Where the driver cannot limit sizes here a limit is refused, and nothing is left of the container."""
    if store.driver.support.capabilities.quota:
        pytest.skip("this file system has quotas: the conformance suite tests them")
    before = {layer.name for layer in store.driver.layers()}
    with pytest.raises(errors.NotSupported):
        store.create("image", name="limited", size=1 << 20)
    assert {layer.name for layer in store.driver.layers()} == before
    assert {container.name for container in store.containers()} == {box.name}
    whole(store)


def test_a_cut_branch_goes_on(store: Store, box: Container) -> None:
    """A container whose layer was sealed when its process died can be mounted, forked and removed."""
    write(store, "box", {"new": "1"})
    store.driver.seal(box.record().layer)
    assert tree(store, "box") == {**BASE, "new": "1"}
    write(store, "box", {"new": "2"})
    assert tree(store, "box") == {**BASE, "new": "2"}
    store.driver.seal(box.record().layer)
    box.fork("fork")
    assert tree(store, "fork") == {**BASE, "new": "2"}
    store.driver.seal(box.record().layer)
    box.remove()
    store.container("fork").remove()
    whole(store)


@pytest.mark.parametrize("operation", ["create", "fork", "checkpoint", "commit"])
def test_an_interrupt_behind_each_step(
    store: Store, box: Container, monkeypatch: pytest.MonkeyPatch, operation: str
) -> None:
    """Ctrl-C that is told when a step of the ledger is done leaves nothing half done, in a process that goes on too."""
    write(store, "box", {"new": "1"})
    box.checkpoint("kept")
    real = Database.write
    for number in itertools.count(1):
        write(store, "box", {"new": "2"})
        left = itertools.count(number - 1, -1)

        @contextlib.contextmanager
        def interrupted(self: Database, *, durable: bool = False, left: Iterator[int] = left) -> Iterator[Step]:
            with real(self, durable=durable) as step:
                yield step
            if threading.current_thread() is threading.main_thread() and next(left) == 0:
                raise KeyboardInterrupt

        with monkeypatch.context() as patch, contextlib.suppress(KeyboardInterrupt):
            patch.setattr(Database, "write", interrupted)
            operations = {
                "create": lambda: store.create("image"),
                "fork": lambda: box.fork(os.urandom(4).hex()),
                "checkpoint": box.checkpoint,
                "commit": lambda: store.commit(box),
            }
            operations[operation]()
            break
        unfinished = (
            "SELECT state FROM layers WHERE state = 'making' UNION ALL SELECT name FROM containers WHERE NOT ready"
        )
        assert store.site.database.read(unfinished) == []
    assert number > 1
    whole(store)


def test_a_stale_handle(store: Store, box: Container) -> None:
    """A handle of before a rollback removes what the container is now, and one that is gone is told so."""
    other = store.container("box")
    stale = other.record()
    write(store, "box", {"new": "1"})
    box.checkpoint()
    box.rollback("created")
    with box.mounted(read_only=True), pytest.raises(errors.ContainerInUse):
        containers.remove(store.site, stale)
    containers.remove(store.site, stale)
    assert store.unused() == []
    assert not any(layer.name.startswith("container.") and not layer.sealed for layer in store.driver.layers())
    for attempt in (other.remove, other.mount, other.checkpoint, other.rollback, lambda: other.fork("fork")):
        with pytest.raises(errors.ContainerNotFound):
            attempt()
    whole(store)


def test_containers_share_an_init_layer(store: Store, box: Container) -> None:
    """Where children are no copies it is made once for an image, and goes with it; else it goes with its container."""
    shared = store.driver.support.capabilities.copy_on_write
    top, second = store.image("image").top, store.create("image", name="second")
    init = second.base()
    assert (init == box.base()) is shared
    assert [layer.name for layer in second.layers()][1:] == [init, top]
    write(store, "second", {"proc/mine": "1"})
    assert {change.path for change in box.changes()} == set()
    box.remove()
    second.remove()
    assert {layer.name for layer in store.driver.layers()} == {top, *([init] if shared else [])}
    assert store.unused() == []
    assert not shared or [need.kind for need in store.explain(init)] == ["image"]
    store.create("image", name="third").remove()
    assert len(list(store.driver.layers())) == (2 if shared else 1)
    whole(store)
    store.remove_image("image")
    assert list(store.driver.layers()) == []
    whole(store)


def test_two_first_containers_at_once(store: Store, tmp_path: pathlib.Path, tars: list[bytes]) -> None:
    """One init layer is kept with the image, the others go with their containers."""
    store.import_image(layout_of(tmp_path / "image", *tars), name="image")
    before = len(list(store.driver.layers()))

    def work(say: Say) -> None:
        with open_store(store.root, durability="none") as mine:
            for number in range(5):
                mine.create("image", name=f"box-{os.getpid()}-{number}")
            say("done")

    assert all_at_once([work] * 4) == [["done"]] * 4
    assert len(store.containers()) == 20
    whole(store)
    for container in store.containers():
        container.remove()
    kept = 1 if store.driver.support.capabilities.copy_on_write else 0
    assert len(list(store.driver.layers())) == before + kept
    store.remove_image("image")
    assert list(store.driver.layers()) == []


def test_an_init_layer_that_is_lost(store: Store, box: Container) -> None:
    """Containers that stand on it have lost it; repaired, the image gets another with its next container."""
    init = box.base()
    store.driver.remove(box.record().layer)
    store.driver.remove(init)
    faults = list(store.check())
    assert {fault.layer for fault in faults if fault.kind is FaultKind.LOST} == {init, box.record().layer}
    assert {name for name, _ in store.repair(faults).lost} == {init, box.record().layer}
    second = store.create("image", name="second")
    assert second.base() != init
    assert tree(store, "second") == BASE
    box.remove()
    second.remove()
    store.remove_image("image")
    assert list(store.driver.layers()) == []
    whole(store)


def test_a_throw_away_container(store: Store, box: Container) -> None:
    """As a context manager it is gone at the end, whatever happened in the block."""
    with store.create("image", name="temporary") as made:
        with made.mounted() as place:
            (place / "file").write_text("x")
        made.remove()
    with pytest.raises(errors.ContainerNotFound):
        store.container("temporary")
    assert [container.name for container in store.containers()] == [box.name]
    whole(store)


@pytest.mark.parametrize("what", ["changes", "diff", "export"])
@pytest.mark.parametrize("how", ["remove", "rollback"])
def test_gone_while_it_is_read(store: Store, box: Container, what: str, how: str) -> None:
    """What is read of a container that is removed or taken back meanwhile never looks complete."""
    write(store, "box", {f"{folder}/{number}": "x" * 9000 for folder in range(20) for number in range(20)})
    with contextlib.ExitStack() as stack:
        if what == "changes":
            rest: Iterator[object] = box.changes()
        else:
            stream = stack.enter_context(box.diff() if what == "diff" else store.export("box"))
            rest = iter(lambda: stream.read(4096), b"")
        next(rest)
        box.remove() if how == "remove" else box.rollback("created")
        with pytest.raises(errors.FileChanged):
            list(rest)
    assert store.unused() == []


def test_an_image_in_use_stays(store: Store, box: Container) -> None:
    """An image cannot go while a container or a fork of one stands on it; then it goes with all its layers."""
    box.fork("fork")
    with pytest.raises(errors.ImageInUse, match="box"):
        store.remove_image("image")
    box.remove()
    with pytest.raises(errors.ImageInUse, match="fork"):
        store.remove_image("image")
    store.container("fork").remove()
    store.remove_image("image")
    assert list(store.driver.layers()) == []
    whole(store)
