"""A program that uses the Python door, checked with mypy --strict; it is never run."""

import datetime as dt
import pathlib
from typing import assert_type

import graphdrivers
from graphdrivers.api.containers import Mounted
from graphdrivers.api.description import Description
from graphdrivers.model import Change, Mount
from graphdrivers.store.check import Fault
from graphdrivers.store.collect import Collected
from graphdrivers.store.containers import Checkpoint
from graphdrivers.store.incoming import Watch
from graphdrivers.store.ledger import Layer


class Shown(Watch):
    """Progress of an import, for people."""

    def done(self, number: int, layer: Layer) -> None:
        """Print what is there now."""
        self.seen = (number, layer.chain_id)


def build(root: pathlib.Path) -> None:
    """Go through what most programs do."""
    with graphdrivers.open_store(root, driver="auto", durability="layer") as store:
        image = store.import_image(root / "debian.tar", name="debian:12", watch=Shown())
        assert_type(image, graphdrivers.Image)
        with store.create(image, name="build", size=1 << 30) as box:
            assert_type(box, graphdrivers.Container)
            with box.mounted() as rootfs:
                assert_type(rootfs, pathlib.Path)
            mount = box.mount(keep=True, read_only=True)
            assert_type(mount, Mounted)
            assert_type(list(box.changes()), list[Change])
            assert_type(box.plan(), tuple[Mount, ...])
            assert_type(box.checkpoint(), Checkpoint)
            box.rollback()
            said = Description(author="me", created=dt.datetime.now(dt.UTC), changes=["USER nobody"])
            assert_type(store.commit(box, "example:latest", description=said), graphdrivers.Image)
            assert_type(box.fork("other"), graphdrivers.Container)
        with (root / "out.tar").open("wb") as sink:
            store.save(["example:latest"], sink, compression="zstd")
        pushed = store.push("example:latest", "registry.example/team/app:1", insecure=False)
        assert_type(pushed.layers[0].diff_id.startswith("sha256:"), bool)
        faults = list(store.check(deep=True))
        assert_type(faults, list[Fault])
        assert_type(store.collect(), Collected)
