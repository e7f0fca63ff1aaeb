# ruff: noqa: INP001, S101 -- pytest asserts, and a folder of tests is no package
"""A store on datasets: an image on its way into containers, branched while mounted, limited, and nothing left."""

import contextlib
import io
import os
import pathlib
import tarfile

import pytest
import zfspools

import graphdrivers
from graphdrivers import errors

IMAGE = {"etc/motd": b"welcome\n", "gone": b"soon\n"}
LONG = "long " * 600
LIMIT = 4 << 20


@pytest.fixture
def image(tmp_path: pathlib.Path) -> pathlib.Path:
    """The tar of a small root file system."""
    with tarfile.open(tmp_path / "image.tar", "w", format=tarfile.PAX_FORMAT) as tar:
        for name, content in IMAGE.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            member.pax_headers = {"SCHILY.xattr.user.long": LONG}
            tar.addfile(member, io.BytesIO(content))
    return tmp_path / "image.tar"


def test_a_container_is_branched_and_committed(fresh_root: str, image: pathlib.Path) -> None:
    """Forks and checkpoints of what is mounted are of one moment; in the end no dataset of the store is left."""
    before = zfspools.listed(zfspools.pool())
    with graphdrivers.open_store(os.path.join(fresh_root, "store"), "zfs") as store:
        box = store.create(store.import_image(image, name="image:1"), name="box")
        with box.mounted() as rootfs, open(rootfs / "log", "wb", buffering=0) as log:
            (rootfs / "gone").unlink()
            os.setxattr(rootfs / "log", "user.long", LONG[1:].encode())
            log.write(b"before ")
            fork = box.fork("fork")
            box.checkpoint("point")
            log.write(b"after")
            with pytest.raises(errors.ContainerInUse):
                box.rollback("point")
            with fork.mounted() as other:
                assert (other / "log").read_bytes() == b"before "
                assert (other / "etc/motd").read_bytes() == IMAGE["etc/motd"]
        assert {(one.kind, one.path) for one in box.changes()} == {("added", "/log"), ("deleted", "/gone")}
        box.rollback("point")
        committed = store.commit(box, "image:2")
        with store.open_layer(committed.layers[-1]) as tar, tarfile.open(fileobj=tar, mode="r|") as members:
            assert members.getmember("log").pax_headers["SCHILY.xattr.user.long"] == LONG[1:]
        with store.create(committed, name="again") as again, again.mounted() as rootfs:
            assert (rootfs / "log").read_bytes() == b"before "
            assert not (rootfs / "gone").exists()
        assert list(store.check(deep=True)) == []
        for container in (box, fork):
            container.remove()
        for made in store.images():
            store.remove_image(made)
        assert list(store.driver.layers()) == []
    assert zfspools.listed(zfspools.pool()) == before


def test_a_full_container_is_forked(fresh_root: str, image: pathlib.Path) -> None:
    """One that has reached its limit, and so a little more, is forked and kept like any other; the limit stays."""
    with graphdrivers.open_store(os.path.join(fresh_root, "store"), "zfs", durability="none") as store:
        store.import_image(image, name="image:1")
        box = store.create("image:1", name="box", size=LIMIT)
        with box.mounted() as rootfs:
            fill(rootfs / "first")
        box.checkpoint("full")
        fork = box.fork("fork")
        for container in (box, fork):
            with container.mounted() as rootfs:
                assert fill(rootfs / "more") <= LIMIT
                assert (rootfs / "first").stat().st_size > LIMIT // 2
        assert list(store.check()) == []
        for container in (box, fork):
            container.remove()
        for made in store.images():
            store.remove_image(made)


def fill(path: pathlib.Path) -> int:
    """Write until the limit is reached; give how much there was room for."""
    written = 0
    with contextlib.suppress(OSError), open(path, "wb", buffering=0) as file:
        while written < 8 * LIMIT:
            written += file.write(os.urandom(1 << 17))
            os.fsync(file.fileno())
    return written
