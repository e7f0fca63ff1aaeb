# ruff: noqa: INP001, S101 -- pytest asserts, and a folder of tests is no package
"""A store on this driver: an image on its way into containers, changed, branched, committed, and nothing left."""

import io
import os
import pathlib
import tarfile

import pytest

import graphdrivers
from graphdrivers import errors
from graphdrivers.linux import mountinfo

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root, or a user namespace")

IMAGE = {"etc/motd": b"welcome\n", "gone": b"soon\n"}


@pytest.fixture
def image(tmp_path: pathlib.Path) -> pathlib.Path:
    """The tar of a small root file system."""
    with tarfile.open(tmp_path / "image.tar", "w") as tar:
        for name, content in IMAGE.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return tmp_path / "image.tar"


def test_a_container_is_branched_and_committed(tmp_path: pathlib.Path, image: pathlib.Path) -> None:
    """Changes, checkpoints, a fork and a commit are those of any driver; at the end no layer and no mount is left."""
    root = tmp_path / "store"
    with graphdrivers.open_store(root, "fuse-overlayfs") as store:
        box = store.create(store.import_image(image, name="image:1"), name="box")
        with box.mounted() as rootfs:
            assert (rootfs / "etc/motd").read_bytes() == IMAGE["etc/motd"]
            (rootfs / "etc/new").write_text("new")
            (rootfs / "gone").unlink()
            with pytest.raises(errors.ContainerInUse):
                box.fork("fork")
        box.checkpoint("point")
        fork = box.fork("fork")
        with box.mounted() as rootfs:
            (rootfs / "etc/new").unlink()
        with fork.mounted() as rootfs:
            assert (rootfs / "etc/new").read_text() == "new"
        assert {(one.kind, one.path) for one in box.changes()} == {("deleted", "/gone"), ("modified", "/etc")}
        box.rollback("point")
        committed = store.commit(box, "image:2")
        with store.create(committed, name="again") as again, again.mounted() as rootfs:
            assert (rootfs / "etc/new").read_text() == "new"
            assert not (rootfs / "gone").exists()
        assert list(store.check(deep=True)) == []
        for container in (box, fork):
            container.remove()
        for made in store.images():
            store.remove_image(made)
        assert list(store.driver.layers()) == []
    assert mountinfo.mounted_below(str(root)) == []


def test_a_limit_is_refused_with_the_reason(tmp_path: pathlib.Path, image: pathlib.Path) -> None:
    """A container with a size is refused, with what to do for one, and nothing is left of it."""
    with graphdrivers.open_store(tmp_path / "store", "fuse-overlayfs") as store:
        store.import_image(image, name="image:1")
        with pytest.raises(errors.NotSupported, match="writes is not limited; use driver overlay"):
            store.create("image:1", name="box", size=1 << 20)

        assert store.containers() == []
        assert list(store.check()) == []
