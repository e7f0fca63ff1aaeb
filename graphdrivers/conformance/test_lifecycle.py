"""Layers come, are sealed and go: names, refusals, atomicity, use."""

import concurrent.futures
import errno
import io
import itertools
import os
import pathlib
import stat
from collections.abc import Callable

import pytest

from graphdrivers import errors, loading
from graphdrivers.conformance.workbench import Workbench, directory, layer_tar
from graphdrivers.driver import Driver
from graphdrivers.edits import Create, Mkdir, Write, replay
from graphdrivers.linux import mounts
from graphdrivers.model import LayerRecord, LayerSpec

_BAD_NAMES = ["", ".", "..", "a/b", "/", "../escape", "nul\0", "x" * 201, "\ud800"]
_ODD_NAMES = ["a:b,c\\d=e", " lead and trail ", "line\nbreak", "-dash", "\udcff\udc80", "x" * 200, '"quoted"', "%2e#"]

VERBS: dict[str, Callable[[Driver, str], object]] = {
    "seal": lambda driver, name: driver.seal(name),
    "mounts": lambda driver, name: driver.mounts(name),
    "view": lambda driver, name: driver.mounts(name, view=True),
    "apply": lambda driver, name: driver.apply(name, io.BytesIO(layer_tar(["file"]))),
    "changes": lambda driver, name: list(driver.changes(name)),
    "diff": lambda driver, name: driver.diff(name).read(),
    "usage": lambda driver, name: driver.usage(name),
    "settle": lambda driver, name: driver.settle(name),
}


@pytest.mark.parametrize("name", _BAD_NAMES, ids=ascii)
def test_bad_names_are_refused(bench: Workbench, name: str) -> None:
    """Every verb refuses a name that could be no single path component, and nothing appears on disk."""
    bench.layer("base")
    for verb in (bench.driver.create, bench.driver.remove, *(_bound(bench, verb) for verb in VERBS)):
        with pytest.raises(errors.InvalidName):
            verb(name)
    with pytest.raises(errors.InvalidName):
        bench.driver.create("child", name)

    assert [record.name for record in bench.driver.layers()] == ["base"]


@pytest.mark.parametrize("name", _ODD_NAMES, ids=ascii)
def test_odd_names_live_a_whole_life(bench: Workbench, name: str) -> None:
    """Any other name works for a layer, for its parent, in a mount and in what is read back from disk."""
    bench.layer(name, None, [Create("below", b"1")])
    bench.layer(name[1:] + "c", name, [Create("above", b"2")])

    assert bench.contents(name[1:] + "c") == {"below": "1", "above": "2"}
    assert [record.parent for record in bench.driver.layers()] == [name, None]


def test_an_existing_name_is_left_untouched(bench: Workbench) -> None:
    """Creating a layer that exists is refused, whatever the parent, and changes nothing."""
    bench.layer("base", None, [Create("file", b"old")])
    before = bench.tree("base")

    for parent in (None, "base", "missing"):
        with pytest.raises(errors.LayerExists):
            bench.driver.create("base", parent)

    assert bench.tree("base") == before


def test_a_missing_parent(bench: Workbench) -> None:
    """A parent that does not exist is named, and the layer is not created."""
    with pytest.raises(errors.LayerNotFound) as caught:
        bench.driver.create("layer", "ghost")

    assert caught.value.layer == "ghost"
    assert list(bench.driver.layers()) == []


def test_a_writable_parent(bench: Workbench) -> None:
    """Only a sealed layer can be a parent."""
    bench.driver.create("open")

    with pytest.raises(errors.LayerNotSealed):
        bench.driver.create("child", "open")

    assert [record.name for record in bench.driver.layers()] == ["open"]


@pytest.mark.parametrize("verb", sorted(VERBS))
def test_a_missing_layer(bench: Workbench, verb: str) -> None:
    """Every verb but remove says which layer is missing, when it is called."""
    with pytest.raises(errors.LayerNotFound) as caught:
        VERBS[verb](bench.driver, "ghost")

    assert caught.value.layer == "ghost"


def test_seal_is_idempotent(bench: Workbench) -> None:
    """Sealing twice is sealing once."""
    bench.layer("layer", None, [Create("file", b"content")])
    before = bench.tree("layer")
    bench.driver.seal("layer")

    assert bench.tree("layer") == before


def test_a_sealed_layer_is_immutable(bench: Workbench) -> None:
    """A sealed layer gives no writable mount and takes no tar, and stays as it was."""
    bench.layer("layer", None, [Create("file", b"content")])
    before = bench.tree("layer")

    for verb in ("mounts", "apply"):
        with pytest.raises(errors.LayerSealed):
            VERBS[verb](bench.driver, "layer")

    assert bench.tree("layer") == before


def test_remove_is_idempotent(bench: Workbench) -> None:
    """Removing what is not there is no error, and a removed name is free again."""
    bench.driver.remove("ghost")
    bench.layer("layer", None, [Create("file", b"old")])
    bench.driver.remove("layer")
    bench.driver.remove("layer")

    assert bench.contents(bench.layer("layer")) == {}


def test_layers_are_listed_children_first(bench: Workbench) -> None:
    """What is listed is exactly what was created, each with parent and seal, children before parents."""
    bench.layer("a")
    bench.layer("b", "a")
    bench.layer("c", "a", seal=False)
    bench.layer("z", "b", seal=False)
    bench.layer("lone")
    bench.driver.remove("lone")
    listed = list(bench.driver.layers())
    position = {record.name: number for number, record in enumerate(listed)}

    assert set(listed) == {
        LayerRecord("a", None, sealed=True),
        LayerRecord("b", "a", sealed=True),
        LayerRecord("c", "a", sealed=False),
        LayerRecord("z", "b", sealed=False),
    }
    assert position["z"] < position["b"] < position["a"]
    assert position["c"] < position["a"]


def test_another_process_finds_the_same(bench: Workbench, driver_options: dict[str, str]) -> None:
    """A second driver object on the same home sees all layers, and each change of the other at once."""
    bench.layer("a", None, [Create("file", b"content")])
    second = loading.load_driver(bench.driver.name, bench.driver.home, driver_options)
    bench.layer("b", "a")

    assert list(second.layers()) == list(bench.driver.layers())
    second.remove("b")
    assert [record.name for record in bench.driver.layers()] == ["a"]


@pytest.mark.parametrize("verb", ["remove", "seal", "apply"])
def test_a_mounted_layer_is_in_use(bench: Workbench, tmp_path: pathlib.Path, verb: str) -> None:
    """A layer that is mounted for writing is neither removed nor sealed nor unpacked into."""
    bench.layer("base", None, [Create("file", b"content")])
    bench.layer("layer", "base", seal=False)
    with bench.attached("layer", str(tmp_path)) as mounted:
        place = pathlib.Path(mounted)
        with pytest.raises(errors.LayerInUse):
            bench.driver.remove("layer") if verb == "remove" else VERBS[verb](bench.driver, "layer")
        assert (place / "file").read_bytes() == b"content"

    bench.driver.settle("layer")
    bench.driver.remove("layer")


@pytest.mark.parametrize("depth", [1, 2])
def test_a_viewed_layer_is_not_removed(bench: Workbench, tmp_path: pathlib.Path, depth: int) -> None:
    """A view keeps its layer from being removed, for a base layer and for one with a parent."""
    bench.needs("readonly_views")
    name = bench.layer("base", None, [Create("file", b"content")])
    if depth == 2:
        name = bench.layer("layer", "base")
    with bench.attached(name, str(tmp_path), view=True) as mounted:
        place = pathlib.Path(mounted)
        with pytest.raises(errors.LayerInUse):
            bench.driver.remove(name)
        assert (place / "file").read_bytes() == b"content"


def test_settling_leaves_a_mounted_layer_alone(bench: Workbench, tmp_path: pathlib.Path) -> None:
    """Settling the whole home, as every opening does, does not disturb a mounted layer, nor its copying up."""
    bench.layer("base", None, [Create("file", b"old")])
    bench.layer("layer", "base", seal=False)
    with bench.attached("layer", str(tmp_path)) as mounted:
        place = pathlib.Path(mounted)
        (place / "before").write_text("1")
        bench.driver.settle()
        bench.driver.settle("layer")
        (place / "after").write_text("2")
        (place / "file").write_text("new")
    bench.driver.settle("layer")
    bench.driver.seal("layer")

    assert bench.contents("layer") == {"before": "1", "after": "2", "file": "new"}


def test_settle_and_close_are_idempotent(bench: Workbench) -> None:
    """Settling and closing again change nothing."""
    bench.layer("layer", None, [Create("file", b"content")])
    before = bench.tree("layer")
    for _ in range(2):
        bench.driver.settle("layer")
        bench.driver.settle()
    assert bench.tree("layer") == before

    bench.driver.close()
    bench.driver.close()


def test_a_size_that_cannot_be_enforced_is_refused(bench: Workbench) -> None:
    """Without the quota capability a size limit is an error, not a wish."""
    bench.lacks("quota")

    with pytest.raises(errors.NotSupported):
        bench.driver.create("layer", None, LayerSpec(size=1 << 20))

    assert list(bench.driver.layers()) == []


def test_a_size_that_is_claimed_holds(bench: Workbench) -> None:
    """With the quota capability a layer takes less than its limit and refuses more."""
    bench.needs("quota")
    bench.driver.create("layer", None, LayerSpec(size=50 << 20))
    with bench.writing("layer") as root:
        _write(os.path.join(root, "fits"), 25)
        with pytest.raises(OSError, match=r"quota|space") as caught:
            _write(os.path.join(root, "does not"), 50)

    assert caught.value.errno in {errno.EDQUOT, errno.ENOSPC}


def test_a_mount_free_driver_gives_one_directory(bench: Workbench) -> None:
    """The mount_free capability means that a writable plan is a directory with the whole tree, to be simply used."""
    bench.layer("base", None, [Create("file")])
    bench.driver.create("child", "base")
    directory = mounts.plain_directory(bench.driver.mounts("child"))
    if bench.can.mount_free:
        assert directory is not None
        assert os.listdir(directory) == ["file"]
    else:
        assert directory is None


def test_a_driver_is_true(bench: Workbench) -> None:
    """A driver has no truth value of its own: stevedore would take a false one for missing."""
    assert not hasattr(type(bench.driver), "__bool__")
    assert not hasattr(type(bench.driver), "__len__")


def test_nobody_else_reaches_the_layers(bench: Workbench) -> None:
    """Whatever the umask, a stranger cannot enter the home."""
    bench.layer("layer", None, [Create("setuid", b"", 0o4755)])

    assert stat.S_IMODE(os.stat(bench.driver.home).st_mode) & 0o077 == 0


def test_one_name_is_created_once(bench: Workbench) -> None:
    """Of several threads that create one name exactly one succeeds, and the layer is whole."""
    bench.layer("base", None, [Create(f"file{number}") for number in range(20)])

    def create(_: int) -> bool:
        try:
            bench.driver.create("layer", "base")
        except errors.LayerExists:
            return False
        return True

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        won = list(pool.map(create, range(8)))

    assert won.count(True) == 1
    assert len(bench.contents("layer")) == 20


def test_distinct_layers_in_parallel(bench: Workbench) -> None:
    """Whole lives of distinct layers over one parent do not disturb each other."""
    bench.layer("base", None, [Mkdir("dir"), Create("dir/file", b"base")])

    def live(number: int) -> dict[str, str]:
        name = bench.layer(f"layer{number}", "base", [Write("dir/file", str(number).encode())])
        bench.diff(name)
        shown = bench.contents(name)
        bench.driver.remove(name)
        return shown

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        shown = list(pool.map(live, range(16)))

    assert [each["dir/file"] for each in shown] == [str(number) for number in range(16)]
    assert [record.name for record in bench.driver.layers()] == ["base"]


def test_probing_leaves_nothing(bench: Workbench, fresh_root: str, driver_options: dict[str, str]) -> None:
    """Finding out whether the driver works leaves no trace, in a home with layers or where no home is yet."""
    bench.layer("layer")
    elsewhere = os.path.join(fresh_root, "elsewhere")
    os.mkdir(elsewhere)
    before = _everything_below(fresh_root)
    for home in (bench.driver.home, os.path.join(elsewhere, "no home yet")):
        type(bench.driver).probe(home, driver_options)

    assert _everything_below(fresh_root) == before


def test_unknown_options_are_refused(bench: Workbench, fresh_root: str, driver_options: dict[str, str]) -> None:
    """An option that the driver does not know is an error, not a wish, and no home is made."""
    home = os.path.join(fresh_root, "another home")
    with pytest.raises(errors.InvalidOption):
        loading.load_driver(bench.driver.name, home, {**driver_options, "no such option": "1"})

    assert not os.path.lexists(home)


def test_a_root_that_its_owner_may_not_write_to(bench: Workbench) -> None:
    """An image may close its root, and all of a layer's life goes on, also for a user whom permissions bind."""
    closed = layer_tar([directory(".", 0o500), "kept"])
    bench.applied("base", None, closed)
    bench.driver.create("child", "base")
    with bench.writing("child") as root:
        os.chmod(root, 0o700)
        replay([Create("new")], root)
        os.chmod(root, 0o500)
    bench.driver.seal("child")
    bench.applied("other", "child", closed)

    assert sorted(bench.contents("child")) == ["kept", "new"]
    assert bench.tree("other")["."].mode == 0o500
    for layer in ("other", "child", "base"):
        bench.driver.remove(layer)
    assert list(bench.driver.layers()) == []


def test_removed_layers_take_no_room(bench: Workbench) -> None:
    """What layers hold goes with them, at the latest when the home is settled."""
    counts = []
    for _ in range(2):
        bench.layer("base", None, [Mkdir("dir"), Create("dir/file", b"content")])
        bench.layer("child", "base", [Write("dir/file", b"new"), Create("other")])
        for name in ("child", "base"):
            bench.driver.remove(name)
        bench.driver.settle()
        counts.append(len(_everything_below(bench.driver.home)))

    assert counts[0] == counts[1]


def _everything_below(folder: str) -> list[str]:
    return sorted(os.path.join(above, name) for above, *names in os.walk(folder) for name in itertools.chain(*names))


def _bound(bench: Workbench, verb: str) -> Callable[[str], object]:
    return lambda name: VERBS[verb](bench.driver, name)


def _write(path: str, mebibytes: int) -> None:
    with open(path, "wb") as file:
        file.writelines(os.urandom(1 << 20) for _ in range(mebibytes))
        file.flush()
        os.fsync(file.fileno())
