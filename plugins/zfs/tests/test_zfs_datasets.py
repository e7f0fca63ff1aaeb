# ruff: noqa: INP001, S101 -- pytest asserts, and a folder of tests is no package
"""The datasets of layers: whose they are, how they go, and that nothing else goes with them."""

import os
import pathlib
import subprocess
from collections.abc import Iterator

import pytest
import zfspools
from graphdrivers_zfs.tool import ZfsError

from graphdrivers import errors, loading
from graphdrivers.conformance.workbench import Workbench
from graphdrivers.driver import Snapshots
from graphdrivers.edits import Create, Remove


@pytest.fixture(autouse=True)
def _nothing_left() -> Iterator[None]:
    """The pool has at the end what it had at the beginning."""
    before = zfspools.listed()
    yield
    assert [name for name in zfspools.listed() if name not in before] == []


@pytest.fixture
def base(_nothing_left: None, bench: Workbench) -> Workbench:
    """A sealed layer with a file."""
    bench.layer("base", None, [Create("file", b"1")])
    return bench


def dataset(layer: str) -> str:
    """Give the full name of a layer's dataset."""
    found = zfspools.zfs("list", "-H", "-r", "-o", "name,graphdrivers:layer", zfspools.pool()).splitlines()
    (name,) = [line.split("\t")[0] for line in found if line.endswith(f"\t={layer}")]
    return name


def test_a_layer_is_a_dataset_and_a_child_its_clone(base: Workbench) -> None:
    """The names, properties and origins are those that the documentation gives; nothing is mounted by itself."""
    base.driver.create("child", "base")
    below, child = dataset("base"), dataset("child")
    columns = "origin,canmount,mounted,graphdrivers:parent,com.sun:auto-snapshot"
    (said,) = zfspools.zfs("list", "-H", "-o", columns, child).splitlines()
    zfspools.zfs("mount", "-a")

    assert said.split("\t") == [f"{below}@sealed", "noauto", "no", "=base", "false"]
    assert zfspools.zfs("list", "-H", "-o", "mounted", child).strip() == "no"
    assert zfspools.listed(below) == [below, f"{below}@sealed"]


def test_any_name_of_a_layer_has_a_dataset(bench: Workbench) -> None:
    """Names that no dataset could have, and the longest, are told apart by the property, in ASCII."""
    names = ["-r", "a b", "a@b", "%20", "tab\t", "new\nline", "\udcff", "x" * 200, "ä" * 100, "a%20b"]
    for name in names:
        bench.driver.create(name)
    properties = zfspools.zfs("list", "-H", "-r", "-o", "graphdrivers:layer", zfspools.pool()).splitlines()
    ours = [one for one in properties if one != "-"]

    assert sorted(record.name for record in bench.driver.layers()) == sorted(names)
    assert len(set(ours)) == len(names)
    assert all(one.isascii() and one.isprintable() for one in ours)


def test_a_snapshot_of_somebody_else_keeps_a_layer(base: Workbench) -> None:
    """A layer with a foreign snapshot is not removed, nothing of it is, and the error says what to do."""
    name = dataset("base")
    zfspools.zfs("snapshot", f"{name}@mine")
    with pytest.raises(ZfsError, match=r"somebody else made .*@mine.*; destroy these"):
        base.driver.remove("base")

    assert zfspools.listed(name) == [name, f"{name}@sealed", f"{name}@mine"]
    assert base.contents(base.layer("child", "base")) == {"file": "1"}
    zfspools.zfs("destroy", f"{name}@mine")


def test_a_clone_of_somebody_else_keeps_a_layer(base: Workbench) -> None:
    """A layer whose snapshot somebody cloned elsewhere is not removed; it is whole, and goes when the clone is gone."""
    zfspools.zfs("clone", "-o", "mountpoint=none", f"{dataset('base')}@sealed", f"{zfspools.pool()}/mine")
    with pytest.raises(ZfsError, match="somebody else made clones"):
        base.driver.remove("base")

    assert base.contents(base.layer("child", "base")) == {"file": "1"}
    zfspools.zfs("destroy", f"{zfspools.pool()}/mine")


def test_a_dataset_below_a_layer_keeps_it(base: Workbench) -> None:
    """A dataset that somebody made below a layer's is not destroyed with it, though it inherits our properties."""
    name = dataset("base")
    zfspools.zfs("create", "-o", "mountpoint=none", f"{name}/mine")
    with pytest.raises(ZfsError, match="somebody else made"):
        base.driver.remove("base")
    base.driver.settle()

    assert f"{name}/mine" in zfspools.listed()
    zfspools.zfs("destroy", f"{name}/mine")


def test_a_snapshot_with_our_name_is_not_taken_for_ours(bench: Workbench) -> None:
    """A foreign snapshot ``@sealed`` refuses the seal and stays; the layer can be sealed when it is gone."""
    bench.layer("layer", None, [Create("file", b"1")], seal=False)
    name = dataset("layer")
    zfspools.zfs("snapshot", f"{name}@sealed")
    with pytest.raises(ZfsError, match="somebody else made"):
        bench.driver.seal("layer")
    assert [record.sealed for record in bench.driver.layers()] == [False]
    zfspools.zfs("destroy", f"{name}@sealed")
    bench.driver.seal("layer")

    assert bench.contents("layer") == {"file": "1"}


def test_datasets_of_others_are_left_alone(base: Workbench) -> None:
    """Settling a home touches no dataset of another home or person, also where the name is like ours."""
    above = dataset("base").rpartition("/")[0]
    others = [f"{above}/graphdrivers-0123456789abcdef", f"{above}/graphdrivers-0123456789abcde0", f"{above}/mine"]
    zfspools.zfs("create", "-o", "mountpoint=none", "-o", f"graphdrivers:home={'0' * 32}", others[0])
    zfspools.zfs("create", "-o", "mountpoint=none", others[1])
    zfspools.zfs("create", "-o", "mountpoint=none", others[2])
    base.driver.settle()
    found = zfspools.listed()
    for name in others:
        zfspools.zfs("destroy", name)

    assert set(others) <= set(found)
    assert base.contents("base") == {"file": "1"}


def test_a_parent_with_children_stays(base: Workbench) -> None:
    """A driver that is asked, against the rules, to remove a parent refuses before anything is done."""
    base.driver.create("child", "base")
    before = zfspools.listed()
    with pytest.raises(errors.LayerHasChildren):
        base.driver.remove("base")

    assert zfspools.listed() == before
    assert [record.name for record in base.driver.layers()] == ["child", "base"]
    assert base.contents("base") == {"file": "1"}


def test_a_layer_mounted_in_another_namespace_is_in_use(base: Workbench) -> None:
    """What another mount namespace has mounted is not removed: nothing is half done, and later it goes."""
    base.contents("base")
    other = subprocess.Popen(
        ["unshare", "--mount", "sh", "-c", "echo; exec sleep 1000"],
        stdout=subprocess.PIPE,
    )
    assert other.stdout is not None
    other.stdout.readline()
    try:
        with pytest.raises(errors.LayerInUse):
            base.driver.remove("base")
        assert [record.name for record in base.driver.layers()] == ["base"]
    finally:
        other.kill()
        other.communicate()
    base.driver.create("child", "base")
    base.driver.seal("child")

    assert base.contents("child") == {"file": "1"}


def test_homes_share_a_dataset(fresh_root: str) -> None:
    """Two homes with layers in one dataset, one of them not on ZFS, do not see each other's."""
    above = f"{zfspools.pool()}/shared"
    zfspools.zfs("create", "-o", "mountpoint=none", above)
    homes = [os.path.join(fresh_root, "one"), os.path.join(fresh_root, "other")]
    drivers = [loading.load_driver("zfs", home, {"dataset": above}) for home in homes]
    for driver in drivers:
        driver.create("layer")
        driver.seal("layer")
    drivers[0].settle()
    drivers[0].remove("layer")
    drivers[0].settle()

    assert [record.name for record in drivers[1].layers()] == ["layer"]
    assert len([name for name in zfspools.listed(above) if "@" in name]) == 1
    assert loading.load_driver("zfs", homes[1]).options == {}  # it is recorded where the layers are
    with pytest.raises(errors.InvalidOption, match="was made with dataset="):
        loading.load_driver("zfs", homes[1], {"dataset": zfspools.pool()})
    drivers[1].remove("layer")
    zfspools.zfs("destroy", above)


def test_a_chain_of_snapshots_goes_in_any_order(base: Workbench) -> None:
    """Snapshots of one live layer are removed first to last or otherwise; each other stays whole, no rest is left."""
    driver = base.driver
    assert isinstance(driver, Snapshots)
    for order in (["one", "two", "three", "live"], ["two", "live", "one", "three"], ["live", "three", "two", "one"]):
        driver.create("live", "base")
        wanted = {}
        for number, name in enumerate(("one", "two", "three")):
            with base.writing("live") as root:
                Create(name, b"%d" % number).perform(root)
            driver.snapshot("live", name)
            wanted[name] = {"file": "1", **{made: f"{index}" for index, made in enumerate([*wanted, name])}}
        with base.writing("live") as root:
            Remove("one").perform(root)
        for number, name in enumerate(order):
            driver.remove(name)
            for left in order[number + 1 :]:
                if left != "live":
                    assert base.contents(left) == wanted[left]
            if "live" in order[number + 1 :]:
                with base.viewing("live") as root:
                    assert sorted(os.listdir(root)) == ["file", "three", "two"]
        driver.settle()
        name = dataset("base")
        assert zfspools.listed(name.rpartition("/")[0])[1:] == [name, f"{name}@sealed"]


def test_a_home_that_lies_elsewhere_needs_a_dataset(tmp_path: pathlib.Path) -> None:
    """On another file system the error says how to choose a dataset; one that is missing or impossible says so too."""
    home = str(tmp_path / "home")
    with pytest.raises(errors.IncompatibleFilesystem, match="dataset=POOL/NAME"):
        loading.load_driver("zfs", home)
    with pytest.raises(errors.PrerequisiteMissing, match="does not exist"):
        loading.load_driver("zfs", home, {"dataset": f"{zfspools.pool()}/absent"})
    for wrong in ("-r", "pool/-x", "pool//x", "pool/x@y", "", "pool/../x"):
        with pytest.raises((errors.InvalidOption, errors.PrerequisiteMissing)):
            loading.load_driver("zfs", home, {"dataset": wrong})
    with pytest.raises(errors.InvalidOption, match="unknown"):
        loading.load_driver("zfs", home, {"pool": "x"})

    assert os.listdir(tmp_path) == []
