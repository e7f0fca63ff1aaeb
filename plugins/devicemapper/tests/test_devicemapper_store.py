# ruff: noqa: INP001, S101 -- pytest asserts, and a folder of tests is no package
"""A store on thin devices: images, containers that are forked while they are written to, nothing active afterwards."""

import pathlib
import tarfile

import pytest
from rig import checked, devices_of, opened

import graphdrivers
from graphdrivers import errors

KEPT = b"kept\n"


@pytest.fixture
def image(tmp_path: pathlib.Path) -> pathlib.Path:
    """A layer's tar with one file."""
    (tmp_path / "kept").write_bytes(KEPT)
    with tarfile.open(tmp_path / "image.tar", "w") as tar:
        tar.add(tmp_path / "kept", "kept")
    return tmp_path / "image.tar"


def test_a_container_is_forked_and_committed(tmp_path: pathlib.Path, image: pathlib.Path) -> None:
    """Forks and checkpoints are of one moment, a commit is one layer, and a closed store leaves no device behind."""
    root = tmp_path / "store"
    with graphdrivers.open_store(root, "devicemapper") as store:
        home = pathlib.Path(store.driver.home)
        box = store.create(store.import_image(image, name="image:1"), name="box")
        with box.mounted() as rootfs, open(rootfs / "log", "wb", buffering=0) as log:
            log.write(b"before ")
            fork = box.fork("fork")
            box.checkpoint("point")
            log.write(b"after")
            with pytest.raises(errors.ContainerInUse):
                box.rollback("point")
            with fork.mounted() as other:
                assert (other / "log").read_bytes() == b"before "
                assert (other / "kept").read_bytes() == KEPT
            assert (rootfs / "log").read_bytes() == b"before after"
        assert {(one.kind, one.path) for one in box.changes()} == {("added", "/log")}
        box.rollback("point")
        with box.mounted() as rootfs:
            assert (rootfs / "log").read_bytes() == b"before "
            (rootfs / "kept").unlink()
        committed = store.commit(box, "image:2")
        assert len(committed.layers) == 2
        with store.create(committed, name="again") as again, again.mounted() as rootfs:
            assert (rootfs / "log").read_bytes() == b"before "
            assert not (rootfs / "kept").exists()
        assert list(store.check()) == []
        for container in (box, fork):
            container.remove()
        store.collect()
    assert devices_of(home) == []
    driver = opened(home)
    for record in list(driver.layers()):
        driver.remove(record.name)
    checked(home, driver)
