"""Layers of images: each stack made once, whoever else makes it, and taken back whole when it fails."""

import io
import os
import pathlib
import threading
from collections.abc import Callable
from typing import BinaryIO

import pytest
from storetools import (
    BASE,
    MIDDLE,
    all_at_once,
    diff_id,
    layout_of,
    reopened,
    shown,
    source_of,
    tar_back,
    tar_of,
    whole,
)

from graphdrivers import Store, errors
from graphdrivers.driver import Driver
from graphdrivers.linux import durable
from graphdrivers.store import collect, images, importing, incoming, leases, ledger, making
from graphdrivers.store.incoming import Source, Watch
from graphdrivers.store.ledger import Layer
from graphdrivers.store.site import Site


class Counting:
    """Delegates to a driver, and counts what is applied in a file that processes share."""

    def __init__(self, driver: Driver, log: str) -> None:
        """Count into ``log``."""
        self._driver = driver
        self._log = log

    def __getattr__(self, name: str) -> object:
        return getattr(self._driver, name)

    def apply(self, layer: str, tar: BinaryIO, **more: object) -> object:
        """Apply, and write down that it was done."""
        done = self._driver.apply(layer, tar, **more)  # type: ignore[arg-type]
        with open(self._log, "a", encoding="ascii") as log:
            log.write(f"{done.diff_id}\n")
        return done


def counting(store: Store) -> Callable[[], list[str]]:
    """Let a store's driver count; give a function that tells what was applied."""
    log = os.path.join(os.path.dirname(store.root), "applied")
    pathlib.Path(log).touch()
    object.__setattr__(store.site, "driver", Counting(store.site.driver, log))
    return lambda: pathlib.Path(log).read_text(encoding="ascii").split()


def bring(site: Site, *tars: bytes, lease: str = "lease", watch: Watch | None = None) -> list[Layer]:
    """Import a stack of layers that are what they promise."""
    return importing.import_layers(site, [source_of(tar) for tar in tars], lease=lease, watch=watch)


def test_a_stack_is_made_and_gives_its_tars_back(store: Store, tars: list[bytes]) -> None:
    """Each layer is recorded with DiffID, ChainID and size, shows its tree, and its tar comes back to the byte."""
    layers = bring(store.site, *tars)

    assert [layer.diff_id for layer in layers] == [diff_id(tar) for tar in tars]
    assert [layer.chain_id for layer in layers] == incoming.chains_of([diff_id(tar) for tar in tars])
    assert [layer.tar_size for layer in layers] == [len(tar) for tar in tars]
    assert [layer.parent for layer in layers] == [None, layers[0].name, layers[1].name]
    assert [tar_back(store, layer) for layer in layers] == tars
    assert shown(store.site, layers[0].name) == BASE
    assert shown(store.site, layers[1].name) == {"etc/motd": MIDDLE["etc/motd"], "bin/sh": BASE["bin/sh"]}
    whole(store)


def test_what_is_there_is_not_opened(store: Store, tars: list[bytes]) -> None:
    """A stack that is there, whole or from below, is found; only what lacks is opened and applied."""
    first = bring(store.site, *tars[:2])
    applied = counting(store)
    sources = [Source(diff_id(tar), lambda: pytest.fail("it was opened")) for tar in tars[:2]]
    found = importing.import_layers(store.site, [*sources, source_of(tars[2])], lease="other")

    assert found[:2] == first
    assert applied() == [diff_id(tars[2])]
    assert bring(store.site, *tars) == found
    whole(store)


def test_the_same_tar_on_another_parent_is_another_layer(store: Store, tars: list[bytes]) -> None:
    """A layer is found by its ChainID, never by its DiffID alone."""
    over = bring(store.site, tars[0], tars[2])
    alone = bring(store.site, tars[2])

    assert alone[0].name != over[1].name
    assert alone[0].diff_id == over[1].diff_id
    assert shown(store.site, alone[0].name) == {"app/main": "print()"}


def test_the_same_layer_twice_in_one_image(store: Store, tars: list[bytes]) -> None:
    """An image that repeats a layer gets two: each stands on something else."""
    layers = bring(store.site, tars[2], tars[2], tars[2])

    assert len({layer.name for layer in layers}) == 3
    assert [tar_back(store, layer) for layer in layers] == [tars[2]] * 3
    whole(store)


def test_an_empty_tar_is_a_layer(store: Store) -> None:
    """1024 zero bytes, as Docker makes them for instructions that change nothing, come back as they are."""
    (layer,) = bring(store.site, bytes(1024))

    assert layer.diff_id == "sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef"
    assert (layer.content_size, layer.entries) == (0, 0)
    assert tar_back(store, layer) == bytes(1024)


@pytest.mark.parametrize("wrong", [0, 1, 2])
def test_a_wrong_layer_leaves_those_before_it(store: Store, tars: list[bytes], wrong: int) -> None:
    """A layer that is not what was promised is refused; those below stay, nothing else; the next try goes on there."""
    sources = [source_of(tar, promised=b"other" if number == wrong else None) for number, tar in enumerate(tars)]
    with pytest.raises(errors.DigestMismatch):
        importing.import_layers(store.site, sources, lease="lease")

    assert store.site.database.read("SELECT count(*) FROM layers") == [(wrong,)]
    whole(store)
    applied = counting(store)
    bring(store.site, *tars)
    assert applied() == [diff_id(tar) for tar in tars[wrong:]]


@pytest.mark.parametrize("cut", [0, 2])
def test_a_torn_layer_leaves_those_before_it(store: Store, tars: list[bytes], cut: int) -> None:
    """A tar that ends in the middle of a member is refused, and nothing of it stays."""
    sources = [source_of(tar[:600] if number == cut else tar, promised=tar) for number, tar in enumerate(tars)]
    with pytest.raises((errors.ArchiveError, errors.DigestMismatch)):
        importing.import_layers(store.site, sources, lease="lease")

    assert store.site.database.read("SELECT count(*) FROM layers") == [(cut,)]
    whole(store)


def test_a_source_that_fails(store: Store, tars: list[bytes]) -> None:
    """What the opening of a layer raises arrives as it is."""

    def fail() -> BinaryIO:
        raise ConnectionResetError(104, "the other side went away")

    with pytest.raises(ConnectionResetError, match="went away"):
        importing.import_layers(store.site, [source_of(tars[0]), Source(diff_id(tars[1]), fail)], lease="lease")
    assert store.site.database.read("SELECT count(*) FROM layers") == [(1,)]
    whole(store)


@pytest.mark.parametrize("failing", [1, 2, 3])
def test_a_layer_is_never_acknowledged_without_its_parent(
    store: Store, tars: list[bytes], monkeypatch: pytest.MonkeyPatch, failing: int
) -> None:
    """Where making a layer durable fails, those above it are taken back too, though they were filled already."""
    object.__setattr__(store.site, "durability", "layer")
    calls = []

    def syncfs(_fd: int) -> None:
        calls.append(1)
        if len(calls) == failing:
            raise OSError(5, "Input/output error")

    monkeypatch.setattr(durable, "syncfs", syncfs)
    with pytest.raises(OSError, match="Input/output"):
        bring(store.site, *tars)

    assert store.site.database.read("SELECT count(*) FROM layers") == [(failing - 1,)]
    whole(store)


def test_an_interrupt_while_a_layer_is_acknowledged(store: Store, tars: list[bytes]) -> None:
    """Ctrl-C after a layer was acknowledged, while it is told or waited for, takes nothing acknowledged back."""

    class Interrupted(Watch):
        """Is interrupted when the second layer is there."""

        def done(self, number: int, layer: Layer) -> None:  # noqa: ARG002 - the method of a Watch
            """Be interrupted."""
            if number == 1:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        bring(store.site, *tars, watch=Interrupted())
    whole(store)
    tar = io.BytesIO(tar_of({"alone": "x"}))
    done = []

    def interrupted() -> None:
        with making.making(store.site, None, tar) as made:
            done.append(making.acknowledge(store.site, made, "lease"))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert shown(store.site, done[0].name) == {"alone": "x"}
    whole(store)


def test_what_was_taken_back_meanwhile_is_not_acknowledged(store: Store, tars: list[bytes]) -> None:
    """A layer whose row another process has removed does not come back as half of one."""
    with making.making(store.site, None, io.BytesIO(tars[0])) as made:
        making.undo(store.site, made.name)
        with pytest.raises(errors.LayerNotFound):
            making.acknowledge(store.site, made, "lease")
    assert store.site.database.read("SELECT count(*) FROM layers") == [(0,)]
    whole(store)


def test_a_lease_holds_until_it_ends(store: Store, tars: list[bytes]) -> None:
    """What a lease holds is not collected, nor what is below it; without it all goes, children first."""
    layers = bring(store.site, *tars)
    assert store.unused() == []
    assert store.collect().removed == ()
    leases.end(store.site, "lease")
    assert store.unused() == [layer.name for layer in reversed(layers)]
    assert store.collect().removed == tuple(layer.name for layer in reversed(layers))
    whole(store)


def test_a_lease_with_an_end(store: Store, tars: list[bytes]) -> None:
    """A lease with an end holds until then, not longer."""
    (layer,) = bring(store.site, tars[0])
    with store.site.database.write() as step:
        leases.hold(step, "until", layer.name, expires=ledger.now() + 10**15)
    leases.end(store.site, "lease")
    assert store.unused() == []
    with store.site.database.write() as step:
        step.execute("UPDATE leases SET expires = ?", (ledger.now() - 1,))
    assert collect.unused(store.site) == [layer.name]
    assert store.collect().removed == (layer.name,)
    whole(store)


def test_processes_that_import_the_same_do_it_once(
    opened: Callable[..., Store], driver: str, tars: list[bytes]
) -> None:
    """Four processes import overlapping images at once: each stack is applied once, and all see the same layers."""
    store = opened(driver)
    applied = counting(store)
    top = tar_of({"other": "top"})
    images = [tars, [*tars[:2], top], tars, tars[:1]]

    def work(number: int) -> Callable[[Callable[[str], None]], None]:
        def run(say: Callable[[str], None]) -> None:
            say(" ".join(layer.name for layer in bring(store.site, *images[number], lease=f"lease{number}")))

        return run

    said = [lines[0].split() for lines in all_at_once([work(number) for number in range(4)])]
    assert sorted(applied()) == sorted(diff_id(tar) for tar in [*tars, top])
    assert said[0] == said[2]
    assert said[1][:2] == said[0][:2]
    assert said[3] == said[0][:1]
    whole(reopened(store))


def test_threads_that_import_the_same_do_it_once(store: Store, tars: list[bytes]) -> None:
    """Four threads of one process, as above."""
    applied = counting(store)
    found: list[list[Layer]] = []

    def work(number: int) -> None:
        found.append(bring(store.site, *tars, lease=f"lease{number}"))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert found.count(found[0]) == 4
    assert applied() == [diff_id(tar) for tar in tars]
    whole(store)


def test_one_layer_of_a_tar_without_a_name(store: Store, tars: list[bytes]) -> None:
    """A tar whose DiffID nobody knows is found out to be a layer that is there already."""
    layers = bring(store.site, *tars[:2])
    again = importing.import_tar(store.site, layers[0], io.BytesIO(tars[1]), lease="other")
    new = importing.import_tar(store.site, layers[1], io.BytesIO(tars[2]), lease="other")

    assert again == layers[1]
    assert new.parent == layers[1].name
    whole(store)


def test_a_path_that_is_no_text(store: Store, tars: list[bytes], tmp_path: pathlib.Path) -> None:
    """An image is brought in from a path with any bytes, and known by where it was."""
    folder = layout_of(tmp_path / os.fsdecode(b"\xff"), *tars)
    image = store.import_image(folder, name="image")
    found = images.blobs_of(store.site, str(image.layers[0].diff_id))
    assert [blob.origin for blob in found] == [f"{tmp_path}/\\xff"]


def test_many_imports_keep_few_files_open(store: Store) -> None:
    """The threads of an import leave no connection behind."""
    before = None
    for number in range(12):
        bring(store.site, tar_of({"file": str(number)}), tar_of({"other": str(number)}), bytes(1 << 20))
        if number == 3:
            before = len(os.listdir("/proc/self/fd"))
    assert before is not None
    assert len(os.listdir("/proc/self/fd")) <= before + 3


def test_the_tar_of_a_damaged_layer(store: Store, tars: list[bytes]) -> None:
    """A lost header record and changed content are told, each in one line."""
    (layer,) = bring(store.site, *tars[:1])
    root = store.site.driver.mounts(layer.name, view=True)[0].source
    pathlib.Path(root, "etc/motd").write_text("wELCOME")
    with pytest.raises((errors.ArchiveError, errors.DigestMismatch)):
        tar_back(store, layer)
    os.unlink(store.site.record_path(layer.name))
    with pytest.raises(errors.StoreCorrupt, match="lost its header record") as caught:
        tar_back(store, layer)
    assert "\n" not in str(caught.value)
