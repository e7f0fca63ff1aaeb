"""With ``fork_live``: snapshots of layers that are written to meanwhile."""

import os

import pytest

from graphdrivers import errors
from graphdrivers.conformance.workbench import Workbench, names_in
from graphdrivers.driver import Snapshots
from graphdrivers.edits import Create, Edit, Mkdir, Remove, Write, replay
from graphdrivers.model import LayerRecord, LayerSpec

BELOW: tuple[Edit, ...] = (Create("kept", b"0"), Create("gone", b"0"), Mkdir("dir"), Create("dir/file", b"0"))
WRITTEN: tuple[Edit, ...] = (Create("before", b"1"), Remove("gone"), Write("dir/file", b"1"))
STATE = {"kept": "0", "before": "1", "dir": "/", "dir/file": "1"}


def snapshots_of(bench: Workbench) -> Snapshots:
    """Give the driver as one that makes snapshots, or leave the check out."""
    bench.needs("fork_live")
    assert isinstance(bench.driver, Snapshots), "it claims fork_live and lacks the method snapshot"
    return bench.driver


def live(bench: Workbench) -> None:
    """Make a writable layer over a base."""
    bench.layer("base", None, BELOW)
    bench.driver.create("layer", "base")


def test_a_mounted_layer_is_snapshot(bench: Workbench, fresh_root: str) -> None:
    """The snapshot has what was written so far, deletions too; the layer is written to before, after and in between."""
    driver = snapshots_of(bench)
    live(bench)
    with bench.attached("layer", fresh_root) as place:
        replay(WRITTEN, place)
        driver.snapshot("layer", "one")
        replay([Create("between", b"2"), Remove("before")], place)
        driver.snapshot("layer", "two")
        replay([Create("after", b"3")], place)
    bench.driver.settle("layer")
    bench.driver.seal("layer")

    assert bench.contents("one") == STATE
    present = {path: text for path, text in STATE.items() if path != "before"}
    assert bench.contents("two") == {**present, "between": "2"}
    assert bench.contents("layer") == {**present, "between": "2", "after": "3"}


def test_an_open_file_goes_on(bench: Workbench, fresh_root: str) -> None:
    """A program that has a file open writes on into the layer; the snapshot keeps what was there."""
    driver = snapshots_of(bench)
    live(bench)
    with bench.attached("layer", fresh_root) as place, open(os.path.join(place, "log"), "wb", buffering=0) as log:
        log.write(b"first")
        driver.snapshot("layer", "branch")
        log.write(b" second")
    bench.driver.settle("layer")
    bench.driver.seal("layer")

    assert bench.contents("branch")["log"] == "first"
    assert bench.contents("layer")["log"] == "first second"


def test_a_snapshot_is_a_sibling(bench: Workbench, fresh_root: str) -> None:
    """It has the layer's parent, is sealed, and its changes are the layer's; its children are like any other's."""
    driver = snapshots_of(bench)
    live(bench)
    with bench.attached("layer", fresh_root) as place:
        replay(WRITTEN, place)
        driver.snapshot("layer", "branch")
    bench.driver.settle("layer")
    bench.driver.create("child", "branch")
    with bench.writing("child") as root:
        replay([Create("own", b"2")], root)
    bench.driver.seal("child")

    records = {record.name: record for record in bench.driver.layers()}
    assert records["branch"] == LayerRecord("branch", "base", sealed=True)
    assert records["layer"] == LayerRecord("layer", "base", sealed=False)
    assert bench.changes("branch") == [("A", "/before"), ("C", "/dir"), ("C", "/dir/file"), ("D", "/gone")]
    assert bench.diff("branch") == bench.diff("layer")
    assert bench.changes("child") == [("A", "/own")]
    with pytest.raises(errors.LayerSealed):
        bench.driver.mounts("branch")


@pytest.mark.parametrize("first", ["layer", "branch"])
def test_a_snapshot_needs_nothing_of_its_layer(bench: Workbench, first: str) -> None:
    """Either can be removed first; the other stays whole."""
    driver = snapshots_of(bench)
    live(bench)
    with bench.writing("layer") as root:
        replay(WRITTEN, root)
    driver.snapshot("layer", "branch")
    bench.driver.remove(first)
    other = "branch" if first == "layer" else "layer"
    bench.driver.seal(other)

    assert [record.name for record in bench.driver.layers()] == [other, "base"]
    assert bench.contents(other) == STATE
    bench.driver.remove(other)
    assert bench.contents("base") == {"kept": "0", "gone": "0", "dir": "/", "dir/file": "0"}


def test_a_snapshot_of_a_base_layer(bench: Workbench) -> None:
    """A layer without a parent has snapshots too; one of an untouched layer is empty."""
    driver = snapshots_of(bench)
    bench.driver.create("layer")
    driver.snapshot("layer", "empty")
    with bench.writing("layer") as root:
        replay([Create("file", b"1")], root)
    driver.snapshot("layer", "branch")

    assert bench.contents("empty") == {}
    assert bench.contents("branch") == {"file": "1"}
    assert bench.changes("branch") == [("A", "/file")]


def test_what_cannot_be_snapshot(bench: Workbench) -> None:
    """A sealed and a missing layer are refused, and a name that is taken; nothing is made or changed by it."""
    driver = snapshots_of(bench)
    live(bench)
    before = list(bench.driver.layers())
    with pytest.raises(errors.LayerSealed):
        driver.snapshot("base", "new")
    with pytest.raises(errors.LayerNotFound):
        driver.snapshot("nothing", "new")
    with pytest.raises(errors.LayerExists):
        driver.snapshot("layer", "base")
    with pytest.raises(errors.LayerExists):
        driver.snapshot("layer", "layer")
    with pytest.raises(errors.InvalidName):
        driver.snapshot("layer", "../new")

    assert list(bench.driver.layers()) == before
    assert bench.contents("base") == {"kept": "0", "gone": "0", "dir": "/", "dir/file": "0"}


def test_reserved_names_in_a_snapshot(bench: Workbench, fresh_root: str) -> None:
    """A name that would mean a deletion hides nothing, and no diff has it; a snapshot without it is like any other."""
    driver = snapshots_of(bench)
    live(bench)
    with bench.attached("layer", fresh_root) as place:
        replay([Create("dir/.wh.file", b"1"), Create("own", b"2")], place)
        driver.snapshot("layer", "one")
        replay([Remove("dir/.wh.file")], place)
        driver.snapshot("layer", "two")
    bench.driver.settle("layer")

    state = {"kept": "0", "gone": "0", "dir": "/", "dir/file": "0", "own": "2"}
    assert bench.contents("one") == {**state, "dir/.wh.file": "1"}
    with pytest.raises(errors.UnsupportedEntry, match=r"dir/\.wh\.file"):
        bench.diff("one")
    assert bench.contents("two") == state
    assert "own" in names_in(bench.diff("two"))


def test_a_snapshot_has_no_limit(bench: Workbench) -> None:
    """A limit on the layer holds for it alone: a child of the snapshot takes more."""
    driver = snapshots_of(bench)
    bench.needs("quota")
    bench.layer("base", None, BELOW)
    bench.driver.create("layer", "base", LayerSpec(size=16 << 20))
    with bench.writing("layer") as root:
        replay([Create("own", os.urandom(1 << 20))], root)
    driver.snapshot("layer", "branch")
    bench.layer("child", "branch", [Create("big", os.urandom(32 << 20))])
    with bench.viewing("child") as root:
        sizes = {name: os.path.getsize(os.path.join(root, name)) for name in ("own", "big")}

    assert sizes == {"own": 1 << 20, "big": 32 << 20}


def test_snapshots_that_are_not_claimed(bench: Workbench) -> None:
    """Without the capability there is no way to make one, or it is refused."""
    bench.lacks("fork_live")
    live(bench)
    if isinstance(bench.driver, Snapshots):
        with pytest.raises(errors.NotSupported):
            bench.driver.snapshot("layer", "branch")

    assert [record.name for record in bench.driver.layers()] == ["layer", "base"]
