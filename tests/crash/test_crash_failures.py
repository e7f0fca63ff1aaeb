"""Calls that fail: a clean error, and a store that is as before or as after; and a disk without any room."""

import contextlib
import errno
import os
import pathlib

import pytest
from killing import arm, tmpfs
from operations import LAYERS, MORE, OPERATIONS, check, prepared, start
from storetools import Say, forked, layout_of, tar_of, whole, write

from graphdrivers import errors, open_store
from graphdrivers.store import room

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")

STEP = int(os.environ.get("GRAPHDRIVERS_STORE_FAIL_STEP", "13"))
"""Operations fail at every so many-th call; 1 leaves out none."""


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_each_call_fails(memory: pathlib.Path, driver: str, operation: str, number: int) -> None:
    """One call fails, each in turn: the error is the library's or the kernel's own, and nothing is half done."""
    step = 1 + number % 2
    while True:
        prepared(memory, driver)

        def fail() -> None:
            raise OSError(number, os.strerror(number))

        def act(say: Say, step: int = step) -> None:
            with start(memory) as store:
                count = arm(step, fail)
                try:
                    OPERATIONS[operation](store, memory)
                except (errors.GraphDriverError, OSError) as error:
                    say("failed" if "\n" not in str(error) else "told in more than a line")
                else:
                    say("failed silently" if count[0] >= step else "done")

        child = forked(act)
        said = child.lines()
        assert child.wait() == 0, "standard error has its traceback"
        if said == ["failed silently"]:
            _drop_empty_folders(memory / "store/mounts")
        check(memory, operation, done=said != ["failed"])
        os.rename(memory / "store", memory / f"old{step}")
        if said == ["done"]:
            break
        step += STEP
    assert step > 4


def test_a_full_disk_can_be_emptied(tmp_path: pathlib.Path, driver: str) -> None:
    """An import that fills the disk fails cleanly; with no byte left all can be removed, and then there is room."""
    images = tmp_path / "images"
    layout_of(images / "small", tar_of({"file": "x" * 200_000}))
    layout_of(images / "large", tar_of({"file": "y" * 8_000_000}), tar_of({"other": "z" * 8_000_000}))
    with tmpfs(tmp_path / "disk", "12m") as disk:
        with open_store(disk / "store", driver) as store:
            store.import_image(images / "small", name="small")
            store.create("small", name="box")
            write(store, "box", {"file": "w" * 300_000})
            with pytest.raises((OSError, errors.GraphDriverError)):
                store.import_image(images / "large", name="large")
            store.collect()
            whole(store)
            room.give_up(os.path.join(store.root, "store"))  # as it is when it was the ledger that found no room
        _fill(disk / "ballast")
        with open_store(disk / "store") as store:
            assert store.problems == ()
            assert [container.name for container in store.containers()] == ["box"]
            with pytest.raises((OSError, errors.GraphDriverError)):
                store.import_image(images / "large", name="large")
            store.container("box").remove()
            store.remove_image("small")
            assert store.collect().resisted == ()
            whole(store)
            assert list(store.driver.layers()) == []
        os.unlink(disk / "ballast")
        with open_store(disk / "store") as store:
            store.import_image(images / "small", name="small")
            whole(store)


@pytest.mark.parametrize("operation", ["import", "create", "commit", "mount"])
def test_a_process_that_fills_the_disk_goes_on(tmp_path: pathlib.Path, driver: str, operation: str) -> None:
    """What fails for want of room is taken back at once, also when the disk is full then: it keeps nothing in use."""
    with tmpfs(tmp_path / "disk", "8m") as disk:
        layout_of(disk / "image", *LAYERS)
        for number, layers in enumerate(MORE):
            layout_of(disk / f"more{number}", *layers, comment=str(number))
        for left in range(0, 96 << 10, 16 << 10):
            prepared(disk, driver)
            with start(disk) as store:
                _fill(disk / "ballast", left)
                with contextlib.suppress(OSError):
                    OPERATIONS[operation](store, disk)
                os.unlink(disk / "ballast")
                for container in store.containers():
                    container.remove()
                for image in store.images():
                    store.remove_image(image)
                assert store.collect().resisted == ()
                assert list(store.driver.layers()) == []
                whole(store)


def _drop_empty_folders(place: pathlib.Path) -> None:
    """Remove mount points whose removal failed before: nobody is told, for the removal of the layer takes them too."""
    for folder in os.listdir(place):
        with contextlib.suppress(OSError):
            os.rmdir(place / folder)


def _fill(path: pathlib.Path, left: int = 0) -> None:
    """Write until there is no room for a single byte more, then give some of it back."""
    with open(path, "wb", buffering=0) as file:
        for size in (1 << 20, 1 << 12, 1):
            with contextlib.suppress(OSError):
                while file.write(bytes(size)):
                    pass
        file.truncate(file.tell() - left)
