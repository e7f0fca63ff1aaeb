# ruff: noqa: INP001, S101 -- pytest asserts, and a folder of tests is no package
"""Containers of a store on btrfs: forks and checkpoints of what is mounted and being written to."""

import io
import multiprocessing
import os
import pathlib
import tarfile
from collections.abc import Iterator

import pytest

import graphdrivers
from graphdrivers import errors

KEPT = b"kept\n"


@pytest.fixture
def store(fresh_root: str) -> Iterator[graphdrivers.Store]:
    """A store with this driver."""
    with graphdrivers.open_store(os.path.join(fresh_root, "store"), "btrfs", durability="none") as opened:
        yield opened
        for record in list(opened.driver.layers()):
            opened.driver.remove(record.name)


@pytest.fixture
def box(store: graphdrivers.Store, tmp_path: pathlib.Path) -> graphdrivers.Container:
    """A container of an image with one file."""
    path = tmp_path / "image.tar"
    with tarfile.open(path, "w") as tar:
        member = tarfile.TarInfo("kept")
        member.size = len(KEPT)
        tar.addfile(member, io.BytesIO(KEPT))
    return store.create(store.import_image(path, name="image:1"), name="box")


def test_a_mounted_container_is_forked(store: graphdrivers.Store, box: graphdrivers.Container) -> None:
    """The fork has what was written so far, the container goes on where it is, and neither sees the other any more."""
    with box.mounted() as rootfs, open(rootfs / "log", "wb", buffering=0) as log:
        log.write(b"before ")
        fork = box.fork("fork")
        log.write(b"after")
        with fork.mounted() as other:
            assert (other / "log").read_bytes() == b"before "
            assert (other / "kept").read_bytes() == KEPT
            (other / "own").write_bytes(b"1")
        assert not (rootfs / "own").exists()
        assert (rootfs / "log").read_bytes() == b"before after"

    assert {(one.kind, one.path) for one in box.changes()} == {("added", "/log")}
    assert {(one.kind, one.path) for one in fork.changes()} == {("added", "/log"), ("added", "/own")}
    assert list(store.check()) == []


def test_checkpoints_of_a_mounted_container(box: graphdrivers.Container) -> None:
    """Each keeps its moment, the stack does not grow, and after the unmount the container goes back to any of them."""
    depth = len(box.layers())
    with box.mounted() as rootfs:
        for number in range(3):
            (rootfs / "count").write_text(str(number))
            box.checkpoint()
        with pytest.raises(errors.ContainerInUse):
            box.rollback("1")
    assert len(box.layers()) == depth
    found = []
    for point in ("3", "1", "2"):
        box.rollback(point)
        with box.mounted() as rootfs:
            found.append((rootfs / "count").read_text())

    assert found == ["2", "0", "1"]


def test_an_unwritten_container_costs_no_snapshot(store: graphdrivers.Store, box: graphdrivers.Container) -> None:
    """Where nothing can have been written, the fork stands on what the container stands on."""
    before = len(list(store.driver.layers()))
    fork = box.fork("fork")

    assert len(list(store.driver.layers())) == before + 1
    assert fork.layers()[1:] == box.layers()[1:]


def test_what_is_removed_takes_its_snapshots_along(store: graphdrivers.Store, box: graphdrivers.Container) -> None:
    """A snapshot lives as long as somebody needs it; in the end only the image's own layers are left."""
    with box.mounted() as rootfs:
        (rootfs / "file").write_bytes(b"1")
        box.checkpoint("point")
        fork = box.fork("fork")
    init = box.base()
    box.remove()
    with fork.mounted() as rootfs:
        assert (rootfs / "file").read_bytes() == b"1"
    fork.remove()
    store.collect()

    assert {layer.name for layer in store.driver.layers()} == {store.images()[0].top, init}


def test_a_commit_of_a_fork_of_a_mounted_container(store: graphdrivers.Store, box: graphdrivers.Container) -> None:
    """The image that it makes holds what both wrote until then, as one layer."""
    with box.mounted() as rootfs:
        (rootfs / "first").write_bytes(b"1")
        (rootfs / "kept").unlink()
        fork = box.fork("fork")
    with fork.mounted() as rootfs:
        (rootfs / "second").write_bytes(b"2")
    image = store.commit(fork, "image:2")

    assert len(image.layers) == 2
    with store.create(image, name="again") as again, again.mounted() as rootfs:
        assert (rootfs / "first").read_bytes() == b"1"
        assert (rootfs / "second").read_bytes() == b"2"
        assert not (rootfs / "kept").exists()


def test_forks_while_another_process_writes(store: graphdrivers.Store, box: graphdrivers.Container) -> None:
    """Each fork is one moment: a counter that is replaced atomically is whole in it, and later ones have no less."""
    stop = multiprocessing.get_context("fork").Event()

    def write(place: str) -> None:
        number = 0
        while not stop.is_set():
            number += 1
            pathlib.Path(place, "new").write_text(f"{number:09}")
            os.rename(os.path.join(place, "new"), os.path.join(place, "counter"))

    with box.mounted() as rootfs:
        (rootfs / "counter").write_text(f"{0:09}")
        writer = multiprocessing.get_context("fork").Process(target=write, args=(os.fspath(rootfs),))
        writer.start()
        try:
            forks = [box.fork(f"fork{number}") for number in range(10)]
        finally:
            stop.set()
            writer.join()
    values = []
    for fork in forks:
        with fork.mounted() as other:
            values.append((other / "counter").read_text())

    assert all(len(value) == 9 for value in values)
    assert values == sorted(values)
    assert list(store.check()) == []
