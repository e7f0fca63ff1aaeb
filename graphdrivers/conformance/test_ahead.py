"""With ``apply_ahead``: layers filled while those below them are."""

import io
import os
import tarfile
from collections.abc import Callable

import pytest

from graphdrivers import errors
from graphdrivers.conformance.observe import assert_same
from graphdrivers.conformance.workbench import Member, Workbench, directory, layer_tar, opaque, whiteout
from graphdrivers.driver import AppliesAhead
from graphdrivers.model import Applied

BELOW = layer_tar(
    [
        Member(".", kind=tarfile.DIRTYPE, mode=0o711, xattrs={"user.root": b"1"}),
        directory("dir", 0o750),
        *(f"dir/file{number}" for number in range(3)),
        directory("dir/sub", 0o700),
        "dir/sub/x",
        "gone",
        "kept",
        directory("usr"),
        directory("usr/lib", 0o555),
        Member("lib", kind=tarfile.SYMTYPE, target="usr/lib"),
        Member("way", kind=tarfile.SYMTYPE, target="/dir/sub"),
    ]
)
"""A base layer that the layers below ask something of."""

ASKING: dict[str, list[Member | str]] = {
    "nothing": ["new", directory("more"), "more/file"],
    "a folder that no member describes": ["dir/sub/new", "usr/lib/new"],
    "a link to a folder": ["lib/new", "way/deep/new"],
    "a file to link to": [Member("name", kind=tarfile.LNKTYPE, target="dir/file1"), "name2"],
    "a name to delete": [whiteout("gone"), whiteout("dir/file0"), whiteout("nothing")],
    "a folder to delete": [whiteout("dir"), "after"],
    "a folder to hide": [directory("dir", 0o701), opaque("dir"), "dir/new"],
    "all to hide": [opaque(""), "alone"],
    "a link to replace": [directory("lib"), "lib/own"],
    "a folder to replace": ["dir"],
    "the attributes of the root, in vain": [directory(".", 0o500), "new"],
}
"""What a layer may need its parent for, and members that do."""


def ahead_of(bench: Workbench) -> AppliesAhead:
    """Give the driver as one that fills layers ahead, or leave the check out."""
    bench.needs("apply_ahead")
    assert isinstance(bench.driver, AppliesAhead), "it claims apply_ahead and lacks the method"
    return bench.driver


def base(bench: Workbench) -> Callable[[], None]:
    """Give what makes the base layer, in the last moment; until then there is nothing."""

    def make() -> None:
        assert list(bench.driver.layers()) == [], "the layer is there before its parent"
        bench.applied("base", None, bench_tar(bench))

    return make


def bench_tar(bench: Workbench) -> bytes:
    """Give the base layer, without what a driver cannot keep."""
    if bench.can.user_xattrs:
        return BELOW
    return layer_tar([directory("dir", 0o750), "dir/file0", "dir/file1", "gone", "kept"])


def never() -> None:
    """Wait for a parent that nobody should ask for."""
    pytest.fail("it waited for a parent")


def filled(bench: Workbench, layer: str, parent: str | None, tar: bytes, ready: Callable[[], object]) -> Applied:
    """Make a layer ahead, and seal it."""
    applied = ahead_of(bench).apply_ahead(layer, parent, io.BytesIO(tar), ready=ready)
    bench.driver.seal(layer)
    return applied


@pytest.mark.parametrize("asked", ASKING)
def test_a_layer_before_its_parent(bench: Workbench, asked: str) -> None:
    """Begun before there is a parent, a layer is what creating and applying make of it, whatever it needs of that."""
    bench.needs("user_xattrs")
    tar = layer_tar(ASKING[asked])
    made = filled(bench, "layer", "base", tar, base(bench))
    bench.driver.create("twin", "base")
    applied = bench.driver.apply("twin", io.BytesIO(tar))
    bench.driver.seal("twin")

    assert made == applied
    assert_same(bench.tree("layer"), bench.tree("twin"))
    assert bench.changes("layer") == bench.changes("twin")
    assert bench.diff("layer") == bench.diff("twin")
    records = {record.name: record.parent for record in bench.driver.layers()}
    assert records == {"layer": "base", "twin": "base", "base": None}


def test_a_base_layer_ahead(bench: Workbench) -> None:
    """A layer without a parent waits for nothing."""
    filled(bench, "layer", None, bench_tar(bench), never)
    bench.applied("twin", None, bench_tar(bench))

    assert_same(bench.tree("layer"), bench.tree("twin"))
    assert bench.diff("layer") == bench.diff("twin")


def test_a_stack_from_the_top(bench: Workbench) -> None:
    """Each layer is begun before the one below it; the parent is asked for once, and the stack shows all of them."""
    driver = ahead_of(bench)
    calls = []

    def make(number: int) -> None:
        calls.append(number)
        below = f"layer{number - 1}" if number else None
        deleted = [whiteout(f"file{number - 1}")] if number else []
        tar = io.BytesIO(layer_tar([f"file{number}", "dir/", f"dir/file{number}", *deleted]))
        driver.apply_ahead(f"layer{number}", below, tar, ready=lambda: make(number - 1))
        bench.driver.seal(f"layer{number}")

    make(4)
    assert calls == [4, 3, 2, 1, 0]
    files = {f"dir/file{number}": f"dir/file{number}" for number in range(5)}
    assert bench.contents("layer4") == {"dir": "/", "file4": "file4", **files}


def test_a_layer_made_ahead_is_writable(bench: Workbench) -> None:
    """It is born unsealed, and takes what is written to it like any other."""
    driver = ahead_of(bench)
    driver.apply_ahead("layer", "base", io.BytesIO(layer_tar(["new"])), ready=base(bench))
    with bench.writing("layer") as root:
        os.unlink(os.path.join(root, "gone"))
        with open(os.path.join(root, "written"), "x", encoding="ascii") as file:
            file.write("1")
    bench.driver.seal("layer")

    contents = bench.contents("layer")
    assert contents["written"] == "1"
    assert contents["new"] == "new"
    assert "gone" not in contents


def test_what_gives_the_tar_back_of_a_layer_made_ahead(bench: Workbench) -> None:
    """The record of the headers is written, and who watches is told of all bytes."""
    driver = ahead_of(bench)
    record, told = io.BytesIO(), list[int]()
    tar = layer_tar([f"file{number}" for number in range(600)]) + b"trailing"
    driver.apply_ahead("layer", None, io.BytesIO(tar), ready=never, headers=record, progress=told.append)
    bench.driver.seal("layer")

    assert told[-1] == len(tar)
    assert told == sorted(told)
    assert bench.tar_back("layer", record) == tar


class _GaveUp(Exception):
    """The parent was not made."""


def _give_up() -> None:
    raise _GaveUp


@pytest.mark.parametrize("asked", ["nothing", "a folder that no member describes"])
def test_a_parent_that_never_comes(bench: Workbench, asked: str) -> None:
    """What the waiting raises comes out; the layer never was, and its name is free."""
    driver = ahead_of(bench)
    with pytest.raises(_GaveUp):
        driver.apply_ahead("layer", "base", io.BytesIO(layer_tar(ASKING[asked])), ready=_give_up)

    assert list(bench.driver.layers()) == []
    bench.applied("layer", None, layer_tar(["new"]))
    assert bench.contents("layer") == {"new": "new"}


def test_a_parent_that_is_not_what_it_should_be(bench: Workbench) -> None:
    """A parent that is missing, or not sealed, though it was waited for, is refused; nothing is left of the layer."""
    driver = ahead_of(bench)
    tar = layer_tar(["new"])
    with pytest.raises(errors.LayerNotFound):
        driver.apply_ahead("layer", "base", io.BytesIO(tar), ready=lambda: None)
    with pytest.raises(errors.LayerNotSealed):
        driver.apply_ahead("layer", "open", io.BytesIO(tar), ready=lambda: bench.driver.create("open"))

    assert [record.name for record in bench.driver.layers()] == ["open"]


def test_what_cannot_be_made_ahead(bench: Workbench) -> None:
    """A name that is taken and a bad one, a tar that is refused or cancelled: nothing is made or changed by it."""
    driver = ahead_of(bench)
    bench.applied("base", None, layer_tar(["kept"]))

    def cancel(_size: int) -> None:
        raise _GaveUp

    with pytest.raises(errors.LayerExists):
        driver.apply_ahead("base", None, io.BytesIO(layer_tar(["new"])), ready=never)
    with pytest.raises(errors.InvalidName):
        driver.apply_ahead("../layer", "base", io.BytesIO(layer_tar(["new"])), ready=lambda: None)
    with pytest.raises(errors.UnsafePath):
        driver.apply_ahead("layer", "base", io.BytesIO(layer_tar(["../new"])), ready=lambda: None)
    with pytest.raises(errors.ArchiveError):
        driver.apply_ahead("layer", "base", io.BytesIO(layer_tar(["new"])[:514]), ready=lambda: None)
    with pytest.raises(_GaveUp):
        driver.apply_ahead("layer", "base", io.BytesIO(layer_tar(["new"])), ready=lambda: None, progress=cancel)

    assert [record.name for record in bench.driver.layers()] == ["base"]
    assert bench.contents("base") == {"kept": "kept"}


def test_layers_ahead_that_are_not_claimed(bench: Workbench) -> None:
    """Without the capability there is no way to do it, or it is refused."""
    bench.lacks("apply_ahead")
    bench.applied("base", None, layer_tar(["kept"]))
    if isinstance(bench.driver, AppliesAhead):
        with pytest.raises(errors.NotSupported):
            bench.driver.apply_ahead("layer", "base", io.BytesIO(layer_tar(["new"])), ready=lambda: None)

    assert [record.name for record in bench.driver.layers()] == ["base"]
