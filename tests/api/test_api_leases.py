"""Leases through the Python door: what they keep, for how long, and how they are told."""

import io
import pathlib
import subprocess
import sys
import tarfile
from typing import TYPE_CHECKING

import pytest
from storetools import BASE, layout_of, tar_of, whole

from graphdrivers import Store, errors
from graphdrivers.store import ledger, names
from graphdrivers.store.holders import Holder

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

TAKE = """
import sys
import graphdrivers
with graphdrivers.open_store(sys.argv[1], sys.argv[2]) as store:
    print(store.lease("image", seconds=float(sys.argv[3]) if sys.argv[3] else None).lease)
"""


@pytest.fixture
def layer(store: Store, tmp_path: pathlib.Path) -> str:
    """The only layer of an image that is called ``image``."""
    image = store.import_image(layout_of(tmp_path / "image", tar_of(BASE)), name="image")
    assert image.top is not None
    return image.top


def test_a_lease_keeps_layers(store: Store, layer: str) -> None:
    """A leased layer outlives its image; once the lease is released it is collected."""
    with store.lease("image") as lease:
        store.remove_image("image")
        assert store.collect().removed == ()
        assert [(need.kind, need.name) for need in store.explain(layer)] == [("lease", lease.lease)]

    assert store.collect().removed == (layer,)
    whole(store)


def by_another(store: Store, seconds: str) -> str:
    """Let another process take a lease, and end."""
    command = [sys.executable, "-c", TAKE, store.root, store.driver.name, seconds]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def test_a_lease_ends_with_its_process(store: Store, layer: str) -> None:
    """Without a time a lease is over when its process is."""
    by_another(store, "")
    store.remove_image("image")

    assert store.collect().removed == (layer,)


def test_a_dry_run_knows_the_dead(store: Store, layer: str) -> None:
    """What a collection would remove is what it then removes, also when a lease's process ended meanwhile."""
    by_another(store, "")
    store.remove_image("image")

    assert tuple(store.unused()) == store.collect().removed == (layer,)


def test_what_is_being_made_is_told(store: Store, layer: str) -> None:
    """A layer below one in the making is not called unneeded."""
    made = names.image_layer()
    with store.site.database.write() as step:
        ledger.intend(step, made, layer, Holder.here())
    store.remove_image("image")

    assert [(need.kind, need.name, need.through) for need in store.explain(layer)] == [("making", made, (layer, made))]
    assert store.unused() == []


def test_a_lease_with_a_time(store: Store, layer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a time it holds beyond its process, and not beyond its time."""
    lease = by_another(store, "1000")
    store.remove_image("image")
    assert store.collect().removed == ()
    assert [need.name for need in store.explain(layer)] == [lease]
    later = ledger.now() + 1001 * 10**9
    monkeypatch.setattr(ledger, "now", lambda: later)

    assert store.collect().removed == (layer,)
    whole(store)


@pytest.mark.parametrize("seconds", [-1.0, float("nan"), float("inf"), 1e12])
def test_a_time_that_is_none(store: Store, layer: str, seconds: float) -> None:
    """No lease lasts so long; the layer has none."""
    with pytest.raises(ValueError, match="a lease cannot last"):
        store.lease(layer, seconds=seconds)
    assert [need.kind for need in store.explain(layer)] == ["image"]


def test_nothing_to_lease(store: Store, layer: str) -> None:
    """What is not there, or was made by hand, cannot be leased; a layer of the store can be, by its name."""
    store.driver.create("by-hand")
    for name in ("nothing", "by-hand"):
        with pytest.raises(errors.ObjectNotFound, match="no such container, image or layer"):
            store.lease(name)
    store.driver.remove("by-hand")
    store.lease(layer).release()


def test_work_keeps_what_it_reads(store: Store, layer: str) -> None:
    """An image that is removed while it is saved is saved to its end; then its layers can go."""

    class Sink(io.BytesIO):
        removed = False

        def write(self, piece: "ReadableBuffer", /) -> int:
            if not self.removed:
                self.removed = True
                store.remove_image("image")
                assert store.collect().removed == ()
            return super().write(piece)

    sink = Sink()
    store.save(["image"], sink)

    assert sink.removed
    with tarfile.open(fileobj=io.BytesIO(sink.getvalue())) as saved:
        assert saved.getnames()[0] == "oci-layout"
    assert store.collect().removed == (layer,)
