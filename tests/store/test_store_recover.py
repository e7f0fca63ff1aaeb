"""Opening: what processes left half done is finished or taken back; who lives is left alone; what resists is told."""

import os
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Callable

import pytest
from storetools import all_at_once, held_child, in_child, layout_of, reopened, shown, whole

from graphdrivers import Store, errors, open_store
from graphdrivers.kit import layerdirs
from graphdrivers.linux.boot import boot_id
from graphdrivers.model import LayerRecord
from graphdrivers.store import collect, holders, ledger, names, opening, recover
from graphdrivers.store.holders import Holder

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")

DEAD = Holder(boot_id(), 2**22 + 1, 1)


def begun(store: Store, name: str, parent: str | None, holder: Holder = DEAD) -> None:
    """Record that a layer is going to be made."""
    with store.site.database.write() as step:
        ledger.intend(step, name, parent, holder)


def count(store: Store, table: str = "layers") -> int:
    """Count rows."""
    return int(store.site.database.read(f"SELECT count(*) FROM {table}")[0][0])  # noqa: S608 - constants


@pytest.mark.parametrize("made", ["intended", "created", "recorded", "sealed"])
def test_a_layer_in_the_making_is_taken_back(store: Store, made: str) -> None:
    """However far a dead process came with a stack of two layers, all of it goes."""
    below, top = names.image_layer(), names.image_layer()
    begun(store, below, None)
    if made != "intended":
        store.driver.create(below)
        store.driver.seal(below)
        begun(store, top, below)
    if made == "sealed":
        store.driver.create(top, below)
        store.driver.seal(top)
    if made in {"recorded", "sealed"}:
        pathlib.Path(store.site.record_path(below)).write_bytes(b"half")
    assert recover.recover(store.site) == []
    assert count(store) == 0
    whole(store)


def test_what_a_living_process_makes_is_left_alone(store: Store) -> None:
    """A layer, a removal and a lease of a process that lives stay; when it is dead they go."""
    with held_child(lambda: None) as child:
        alive = Holder(boot_id(), child.pid, int(holders._started(child.pid) or 0))
        making, removing = names.image_layer(), names.image_layer()
        for name in (making, removing):
            begun(store, name, None, alive)
            store.driver.create(name)
            store.driver.seal(name)
        with store.site.database.write() as step:
            step.execute("UPDATE layers SET state = 'removing' WHERE name = ?", (removing,))
        store = reopened(store)
        assert count(store) == 2
        child.kill()
        child.wait()
        store = reopened(store)
        whole(store)
        assert count(store) == 0


def test_a_removal_is_finished(store: Store, tars: list[bytes], tmp_path: pathlib.Path) -> None:
    """Layers out of use, with a dead remover, are deleted, children first, whatever is left of them."""
    image = store.import_image(layout_of(tmp_path / "image", *tars), name="image")
    with store.site.database.write() as step:
        step.execute("DELETE FROM tags")
        step.execute("DELETE FROM images")
        marked = collect.mark_unused(step, [layer.name for layer in image.layers])
        step.execute("UPDATE layers SET holder = ?", (str(DEAD),))
    assert marked == [layer.name for layer in reversed(image.layers)]
    store.driver.remove(marked[0])
    store = reopened(store)
    whole(store)
    assert count(store) == 0


def test_one_that_resists_does_not_keep_the_others(store: Store, monkeypatch: pytest.MonkeyPatch, driver: str) -> None:
    """A layer that cannot be deleted is told of; the others go, the store opens, and the next time it goes too."""
    first, second = sorted((names.image_layer(), names.image_layer()))
    for name in (first, second):
        begun(store, name, None)
        store.driver.create(name)
    store.close()
    remove = layerdirs.LayerDirs.remove

    def stubborn(self: layerdirs.LayerDirs, layer: str) -> None:
        if layer == first:
            raise OSError(16, "Device or resource busy")
        remove(self, layer)

    with monkeypatch.context() as patch:
        patch.setattr(layerdirs.LayerDirs, "remove", stubborn)
        with open_store(store.root, driver) as again:
            assert [(problem.what, "busy" in problem.reason) for problem in again.problems] == [(first, True)]
            assert count(again) == 1
    with open_store(store.root) as again:
        assert again.problems == ()
        whole(again)


def test_a_container_that_was_never_acknowledged(store: Store, tars: list[bytes], tmp_path: pathlib.Path) -> None:
    """Its row goes with its layers, and its name is free again."""
    image = store.import_image(layout_of(tmp_path / "image", *tars), name="image")
    init = names.init_layer("a" * 64)
    begun(store, init, image.top)
    with store.site.database.write() as step:
        step.execute(
            "INSERT INTO containers (container_id, name, image_id, init, layer, created) VALUES (?, 'box', ?, ?, ?, 0)",
            ("a" * 64, image.image_id, init, init),
        )
    assert [container.name for container in store.containers()] == []
    store = reopened(store)
    store.create("image", name="box")
    whole(store)
    store.close()


def test_leases_of_the_dead_end(store: Store, tars: list[bytes], tmp_path: pathlib.Path) -> None:
    """A lease without an end goes with its process; one with an end in the future stays."""
    image = store.import_image(layout_of(tmp_path / "image", *tars))
    with store.site.database.write() as step:
        for lease, expires in (("dead", None), ("over", 1), ("later", ledger.now() + 10**15)):
            values = (lease, image.top, expires, str(DEAD))
            step.execute("INSERT INTO leases (lease, layer, expires, holder) VALUES (?, ?, ?, ?)", values)
    assert recover.recover(store.site) == []
    assert store.site.database.read("SELECT lease FROM leases") == [("later",)]


def test_after_a_restart_everything_is_compared(
    store: Store, tars: list[bytes], tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the ledger does not know goes, but for layers made by hand; what the driver lost is told of once."""
    image = store.import_image(layout_of(tmp_path / "image", *tars[:1]), name="image")
    store.driver.create(names.image_layer())
    store.driver.create("by-hand")
    stray = names.image_layer()
    pathlib.Path(store.site.record_path(stray)).touch()
    assert recover.recover(store.site) == []
    assert len(list(store.driver.layers())) == 3
    other = "00000000-0000-0000-0000-000000000000"
    for module in (recover, holders):
        monkeypatch.setattr(module, "boot_id", lambda: other)
    assert recover.recover(store.site) == []
    assert {layer.name for layer in store.driver.layers()} == {image.top, "by-hand"}
    assert os.listdir(os.path.join(store.site.folder, "records")) == [image.top]
    monkeypatch.undo()
    store.driver.remove(str(image.top))
    assert [problem.what for problem in recover.recover(store.site)] == [image.top]
    assert recover.recover(store.site) == []
    assert store.image("image").top == image.top


def test_a_store_that_lost_its_ledger(store: Store, tars: list[bytes], tmp_path: pathlib.Path) -> None:
    """It is refused with one line, and its layers stay."""
    store.import_image(layout_of(tmp_path / "image", *tars), name="image")
    layer = str(store.image("image").top)
    path = pathlib.Path(store.site.database.path)
    store.close()
    path.rename(tmp_path / "ledger")
    for _ in range(2):
        with pytest.raises(errors.StoreCorrupt, match="3 layer"):
            open_store(store.root)
    path.unlink()
    (tmp_path / "ledger").rename(path)
    with open_store(store.root) as again:
        assert shown(again.site, layer)["app/main"] == "print()"
        whole(again)


def test_many_open_at_once(tmp_path: pathlib.Path, driver: str) -> None:
    """Eight processes open a store that is not there yet: each gets it, with one driver and one ledger."""
    root = tmp_path / "store"

    def work(say: Callable[[str], None]) -> None:
        with open_store(root, driver, durability="none") as opened:
            assert opened.problems == ()
            say(opened.driver.name)

    assert all_at_once([work] * 8) == [[driver]] * 8
    with open_store(root) as opened:
        whole(opened)


def test_another_driver_is_refused(opened: Callable[..., Store], monkeypatch: pytest.MonkeyPatch) -> None:
    """A store keeps the driver that it was made with, also where two begin at once with different ones."""
    opened("vfs")
    with pytest.raises(errors.PriorDriverState, match="vfs"):
        opened("overlay")
    assert opened().driver.name == "vfs"
    asked: list[object] = []
    real = opening._driver_of
    # As if the other one had begun a moment after we looked.
    monkeypatch.setattr(opening, "_driver_of", lambda ledger: real(ledger) if asked or asked.append(1) else None)
    with pytest.raises(errors.PriorDriverState, match="vfs"):
        opened("overlay")


def test_folders_are_private(tmp_path: pathlib.Path) -> None:
    """Whatever the umask, nobody but its owner gets below a store."""

    def work() -> None:
        os.umask(0)
        open_store(tmp_path / "deep/store", "vfs").close()

    in_child(work)
    for folder in ("", "store", "store/records", "mounts", "vfs"):
        assert (tmp_path / "deep/store" / folder).stat().st_mode & 0o777 == 0o700
    for file in (tmp_path / "deep/store/store").iterdir():
        assert file.stat().st_mode & 0o077 == 0


_BELOW = """
import os, sys, graphdrivers
graphdrivers.open_store(sys.argv[1], "vfs").close()
try:
    os.listdir(sys.argv[2])
except PermissionError:
    print("refused")
"""


def test_a_folder_above_that_may_not_be_read() -> None:
    """Who may only pass through the folder above makes a store in a folder that was given to them."""
    with tempfile.TemporaryDirectory(dir="/tmp") as above:
        place = os.path.join(above, "given")
        os.mkdir(place)
        os.chmod(above, 0o711)  # noqa: S103 - that is what it is about
        os.chown(above, 65534, 65534)
        # Root without what lets it read everything: another user may have no right to read the modules.
        lowered = ("setpriv", "--bounding-set=-dac_override,-dac_read_search")
        done = subprocess.run(
            [*lowered, sys.executable, "-c", _BELOW, place, above], check=False, capture_output=True, text=True
        )
        assert done.stdout == "refused\n", done.stderr
        open_store(place).close()


def test_a_stray_record_costs_no_layer_made_by_hand(store: Store) -> None:
    """A file among the records that has the name of somebody's own layer goes alone."""
    store.driver.create("by-hand")
    pathlib.Path(store.site.record_path("by-hand")).touch()
    assert recover.compare(store.site, repair=True) == []
    assert [layer.name for layer in store.driver.layers()] == ["by-hand"]
    assert os.listdir(os.path.join(store.site.folder, "records")) == []


def test_a_comparison_leaves_alone_what_is_made_meanwhile(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A layer that a living process begins or completes while the layers are listed is no leftover, and not lost."""
    making, done = names.image_layer(), names.image_layer()
    layers = store.driver.layers

    def slow() -> list[LayerRecord]:
        begun(store, making, None, Holder.here())
        store.driver.create(making)
        found = list(layers())
        begun(store, done, None, Holder.here())
        store.driver.create(done)
        with store.site.database.write() as step:
            ledger.complete(step, done)
        return found

    monkeypatch.setattr(store.driver, "layers", slow)
    assert recover.compare(store.site, repair=True) == []
    assert {layer.name for layer in layers()} == {making, done}
