"""Removals that resist: out of use at once, and deleted by any collection when nothing stands in the way any more."""

import contextlib
import errno
import fcntl
import io
import os
import pathlib
import struct
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import attrs
import pytest
from storetools import Say, diff_id, forked, held_child, layout_of, whole, write

from graphdrivers import Store, errors, open_store
from graphdrivers.linux import mounts
from graphdrivers.model import Mount
from graphdrivers.store import collect, making
from graphdrivers.store.collect import Abandoned, Collected
from graphdrivers.store.holders import Holder
from graphdrivers.store.site import Site

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "crash"))

from killing import killed_before

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")

_GET, _SET, _IMMUTABLE = 0x80086601, 0x40086602, 0x10
"""``FS_IOC_GETFLAGS``, ``FS_IOC_SETFLAGS``, ``FS_IMMUTABLE_FL`` of ``linux/fs.h``."""


@contextlib.contextmanager
def immutable(path: pathlib.Path) -> Iterator[None]:
    """Let nobody delete a file for the time of a block, wherever it is moved to meanwhile."""
    with open(path, "rb") as file:
        flags = bytearray(8)
        fcntl.ioctl(file, _GET, flags)
        (before,) = struct.unpack("q", flags)
        fcntl.ioctl(file, _SET, struct.pack("q", before | _IMMUTABLE))
        try:
            yield
        finally:
            fcntl.ioctl(file, _SET, struct.pack("q", before))


def file_of(store: Store) -> pathlib.Path:
    """Give the path of the file that only the container wrote."""
    (found,) = (path for path in pathlib.Path(store.driver.home).rglob("kept") if path.is_file())
    return found


def boxed(store: Store) -> str:
    """Make a container with a file of its own; give its writable layer."""
    store.create("image", name="box")
    write(store, "box", {"kept": "1"})
    return store.container("box").record().layer


def names(collected: Collected) -> list[str]:
    """Give the layers that resisted."""
    return [layer for layer, _reason in collected.resisted]


@pytest.fixture
def layer(store: Store, tars: list[bytes], tmp_path: pathlib.Path) -> str:
    """Give the writable layer of a container of an image."""
    store.import_image(layout_of(tmp_path / "image", *tars), name="image")
    return boxed(store)


def test_the_same_process_tries_again(store: Store, layer: str) -> None:
    """A layer with a file that cannot be deleted is out of use, listed, no damage, and goes when it can be."""
    with immutable(file_of(store)):
        assert names(store.container("box").remove()) == [layer]
        assert store.containers() == []
        for _ in range(2):
            assert store.unused() == [layer]
            assert list(store.check()) == []
            ((again, reason),) = store.collect().resisted
            assert again == layer
            assert reason.startswith(f"unlinkat('{store.driver.home}/")
            assert reason.endswith("kept'): Operation not permitted")
    assert store.collect().removed == (layer,)
    assert store.unused() == []
    assert store.collect().removed == ()
    whole(store)


def test_a_layer_in_use_by_other_means(store: Store, layer: str) -> None:
    """A layer in which somebody has mounted something stays whole until that is gone; then a collection deletes it."""
    place = str(file_of(store).parent / "place")
    os.mkdir(place)
    mounts.attach((Mount("tmpfs", "tests"),), place)
    try:
        removed = store.container("box").remove()
        assert names(removed) == [layer]
        assert layer in {record.name for record in store.driver.layers()}
        assert names(store.collect()) == [layer]
    finally:
        mounts.detach(place)
    assert store.collect().removed == (layer,)
    whole(store)


def test_another_process_tries_again(store: Store, layer: str) -> None:
    """A collection deletes what resisted another process, which still lives and has the store open."""

    def work() -> Store:
        other = open_store(store.root, durability="none")
        assert names(other.container("box").remove()) == [layer]
        return other

    with contextlib.ExitStack() as free:
        free.enter_context(immutable(file_of(store)))
        with held_child(work) as child:
            assert names(store.collect()) == [layer]
            free.close()
            assert store.collect().removed == (layer,)
            whole(store)
            os.kill(child.pid, 0)


def test_opening_tries_again(store: Store, layer: str) -> None:
    """An opening tells of what resists once, while a process that had it before lives, and deletes it when it can."""
    with immutable(file_of(store)):
        store.container("box").remove()
        with open_store(store.root, durability="none") as other:
            assert len(other.problems) == 1
            assert other.unused() == [layer]
    with open_store(store.root, durability="none") as other:
        assert other.problems == ()
        whole(other)


def test_what_resists_does_not_keep_its_ancestors(store: Store, layer: str) -> None:
    """The image goes from under a layer that resists; what is left is that layer alone, without damage."""
    with immutable(file_of(store)):
        store.container("box").remove()
        assert store.remove_image("image").resisted == ()
        assert store.site.database.read("SELECT name, parent FROM layers") == [(layer, None)]
        assert list(store.check()) == []
        assert names(store.collect()) == [layer]
    assert store.collect().removed == (layer,)
    whole(store)
    assert list(store.driver.layers()) == []


def test_files_of_no_layer_any_more(store: Store) -> None:
    """What a removal by the driver alone could not delete is deleted by a collection, and told until then."""
    store.driver.create("by-hand")
    (plan,) = (
        store.driver.mounts("by-hand") if store.driver.name == "vfs" else store.driver.mounts("by-hand", view=True)
    )
    file = pathlib.Path(str(plan.source), "kept")
    file.touch()
    with immutable(file):
        with pytest.raises(PermissionError):
            store.driver.remove("by-hand")
        ((what, reason),) = store.collect().resisted
        assert what == store.driver.name
        assert "not permitted" in reason
    assert store.collect().resisted == ()
    whole(store)


def test_threads_share_the_work(store: Store, layer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of eight threads that have seen at once what is left, one deletes the layer, and none fails."""
    with immutable(file_of(store)):
        store.container("box").remove()
    together = threading.Barrier(8)
    abandoned, remove = collect.abandoned, store.driver.remove
    asked: list[str] = []
    done: list[Collected] = []

    def seen(site: Site, state: str) -> list[Abandoned]:
        found = abandoned(site, state)
        together.wait(60)
        return found

    def slow(_self: object, name: str) -> None:
        asked.append(name)
        while len(asked) == 1 and len(done) < 7:  # until the others have found nothing to do
            time.sleep(0.001)
        remove(name)

    with monkeypatch.context() as patch, ThreadPoolExecutor(8) as pool:
        patch.setattr(collect, "abandoned", seen)
        patch.setattr(type(store.driver), "remove", slow)
        for _ in range(8):
            pool.submit(lambda: done.append(store.collect()))
    assert [one.resisted for one in done] == [()] * 8
    assert [name for one in done for name in one.removed] == asked == [layer]
    whole(store)


def test_processes_share_the_work(store: Store, layer: str) -> None:
    """Of processes that have the store open, one of them the one whom the layer resisted, one deletes it."""
    waiting, go = os.pipe()

    def work(say: Say) -> None:
        os.close(go)
        with open_store(store.root, durability="none") as mine:
            say("open")
            os.read(waiting, 1)
            done = mine.collect()
            assert done.resisted == ()
            say(" ".join(done.removed))

    with immutable(file_of(store)):
        store.container("box").remove()
        children = []
        for _ in range(4):
            children.append(forked(work))
            assert os.read(children[-1].reader, 5) == b"open\n"
    os.close(waiting)
    os.close(go)
    done = store.collect()
    assert done.resisted == ()
    said = [*done.removed]
    for child in children:
        said += [line for line in child.lines() if line]
        assert child.wait() == 0
    assert said == [layer]
    whole(store)


def test_what_a_thread_removes_now_is_left_to_it(store: Store, layer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A collection does not touch a layer that another thread is deleting, be it for the first time or again."""
    begun, go_on = threading.Event(), threading.Event()
    remove = store.driver.remove
    asked: list[str] = []

    def slow(name: str) -> None:
        if name == layer:
            asked.append(name)
            begun.set()
            assert go_on.wait(60)
        remove(name)

    monkeypatch.setattr(type(store.driver), "remove", lambda _self, name: slow(name))
    with ThreadPoolExecutor(1) as pool, immutable(file_of(store)):
        for again in (False, True):
            begun.clear()
            go_on.clear()
            work = pool.submit(store.collect if again else store.container("box").remove)
            assert begun.wait(60)
            assert store.unused() == []
            assert store.collect().removed == ()
            with open_store(store.root, durability="none") as other:
                assert layer not in {problem.what for problem in other.problems}
            go_on.set()
            assert names(work.result()) == [layer]
    assert asked == [layer] * 2
    assert store.collect().removed == (layer,)
    whole(store)


def test_killed_while_it_tries_again(store: Store, layer: str) -> None:
    """A collection is killed before each of its changes; the next one of another process ends with nothing left."""
    number = 1
    while True:
        with immutable(file_of(store)):
            assert names(store.container("box").remove()) == [layer]
        killed = killed_before(number, store.collect)
        store.collect()
        assert store.unused() == []
        whole(store)
        if not killed:
            break
        number += 1
        layer = boxed(store)
    assert number > 6


def test_a_removal_that_is_interrupted(store: Store, layer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C in a removal, in a process that goes on: a collection deletes all that was left."""

    def interrupted(_self: object, _name: str) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(type(store.driver), "remove", interrupted)
        with pytest.raises(KeyboardInterrupt):
            store.container("box").remove()
    assert layer in store.unused()
    assert layer in store.collect().removed
    whole(store)


def test_a_layer_in_the_making_that_resists(store: Store, tars: list[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    """What a failure made and could not take back is out of use; a collection of the same process deletes it."""

    def busy(_self: object, _name: str) -> None:
        raise OSError(errno.EBUSY, "Device or resource busy")

    with monkeypatch.context() as patch:
        patch.setattr(type(store.driver), "remove", busy)
        wrong = making.making(store.site, None, io.BytesIO(tars[0]), expected=diff_id(tars[1]))
        with pytest.raises(errors.DigestMismatch), wrong:
            pass
        ((left, reason),) = store.collect().resisted
        assert "busy" in reason
    assert store.collect().removed == (left,)
    whole(store)
    assert list(store.driver.layers()) == []


def test_a_removal_of_an_older_release(store: Store, layer: str) -> None:
    """A row as they left it, of a process that is gone and with the layer's own notes, is taken up too."""
    with held_child(lambda: None) as child:
        gone = str(attrs.evolve(Holder.here(), pid=child.pid))
    with store.site.database.write() as step:
        step.execute("DELETE FROM containers")
        step.execute("UPDATE layers SET state = 'removing', notes = 'x', holder = ? WHERE name = ?", (gone, layer))
    assert [(one.name, one.reason) for one in collect.abandoned(store.site, "removing")] == [
        (layer, "its removal was cut short")
    ]
    assert layer in store.unused()
    assert layer in store.collect().removed
    whole(store)
