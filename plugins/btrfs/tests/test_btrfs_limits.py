# ruff: noqa: INP001, S101 -- pytest asserts, and a folder of tests is no package
"""Limits by qgroups, where the suite does not look: live snapshots, quotas that are off, both kinds of quotas."""

import errno
import fcntl
import io
import os
import pathlib
import struct
import tarfile

import pytest
from btrfstools import driver_of, make_subvolume, program, small_btrfs, tree_of
from graphdrivers_btrfs.driver import BtrfsDriver

import graphdrivers
from graphdrivers import errors, loading
from graphdrivers.conformance.workbench import Workbench
from graphdrivers.driver import Driver
from graphdrivers.edits import Create, Remove, replay
from graphdrivers.model import LayerSpec

MIB = 1 << 20
DISK = 512 * MIB


def write(root: str, name: str, mebibytes: int) -> None:
    """Write a file, and see to it that the disk has it."""
    with open(os.path.join(root, name), "wb") as file:
        file.writelines(os.urandom(MIB) for _ in range(mebibytes))
        file.flush()
        os.fsync(file.fileno())


def opened(home: str) -> BtrfsDriver:
    """Open a home of the driver's."""
    driver = loading.load_driver("btrfs", home)
    assert isinstance(driver, BtrfsDriver)
    return driver


def test_a_snapshot_does_not_begin_the_count_again(bench: Workbench) -> None:
    """What a live layer shares with its snapshot still counts: the two together are no way around the limit."""
    bench.needs("quota")
    bench.driver.create("base")
    with bench.writing("base") as root:
        write(root, "large", 20)
    bench.driver.seal("base")
    bench.driver.create("layer", "base", LayerSpec(size=16 * MIB))
    with bench.writing("layer") as root:
        write(root, "first", 10)
    driver_of(bench).snapshot("layer", "branch")
    with bench.writing("layer") as root:
        with pytest.raises(OSError, match="quota") as caught:
            write(root, "second", 10)
        assert caught.value.errno == errno.EDQUOT


def test_deleting_what_a_parent_holds_gives_no_room(bench: Workbench) -> None:
    """A file of the parent that the layer deletes stays on the disk, and the layer has its size and no more."""
    bench.needs("quota")
    bench.driver.create("base")
    with bench.writing("base") as root:
        write(root, "large", 20)
    bench.driver.seal("base")
    bench.driver.create("layer", "base", LayerSpec(size=16 * MIB))
    with bench.writing("layer") as root:
        os.unlink(os.path.join(root, "large"))
        with pytest.raises(OSError, match="quota"):
            write(root, "own", 20)


def test_facts_tell_what_is_used(bench: Workbench) -> None:
    """Number and limit of the subvolume, and what it takes, are told."""
    bench.needs("quota")
    bench.driver.create("layer", None, LayerSpec(size=16 * MIB))
    with bench.writing("layer") as root:
        write(root, "file", 3)
    bench.driver.seal("layer")
    facts = driver_of(bench).facts("layer")

    assert facts["subvolume"] in program("btrfs", "subvolume", "show", tree_of(bench.driver, "layer"))
    assert 3 * MIB <= int(facts["exclusive"]) < 4 * MIB
    assert facts["limit"] == str(16 * MIB)
    with pytest.raises(errors.LayerNotFound):
        driver_of(bench).facts("nothing")


@pytest.mark.parametrize("kind", [(), ("--simple",)], ids=["full", "simple"])
def test_both_kinds_of_quotas(kind: tuple[str, ...]) -> None:
    """A limit holds, over a parent and after a snapshot, with either kind that the kernel and the tools have."""
    with small_btrfs(DISK) as place:
        _enable(place, *kind)
        driver = opened(f"{place}/home")
        assert driver.support.capabilities.quota
        driver.create("base")
        write(tree_of(driver, "base"), "large", 20)
        driver.seal("base")
        driver.create("layer", "base", LayerSpec(size=16 * MIB))
        driver.mounts("layer")
        write(tree_of(driver, "layer"), "first", 10)
        driver.snapshot("layer", "branch")
        with pytest.raises(OSError, match="quota"):
            write(tree_of(driver, "layer"), "second", 10)
        for layer in ("branch", "layer", "base"):
            driver.remove(layer)


def test_a_subvolume_inside_is_no_way_out() -> None:
    """With simple quotas what is written in a subvolume of the layer counts as well; no qgroup of it is left."""
    with small_btrfs(DISK, "commit=1") as place:
        _enable(place, "--simple")
        driver = opened(f"{place}/home")
        driver.create("base")
        driver.seal("base")
        driver.create("layer", "base", LayerSpec(size=16 * MIB))
        driver.mounts("layer")
        write(make_subvolume(os.path.join(tree_of(driver, "layer"), "inside")), "first", 10)
        with pytest.raises(OSError, match="quota"):
            write(os.path.join(tree_of(driver, "layer"), "inside"), "second", 10)
        os.unlink(os.path.join(tree_of(driver, "layer"), "inside", "second"))
        driver.settle("layer")
        assert [change.path for change in driver.changes("layer")] == ["/inside", "/inside/first"]
        driver.mounts("layer")
        write(tree_of(driver, "layer"), "third", 3)
        driver.remove("layer")
        driver.remove("base")
        _cleaned(place, driver)


def _cleaned(place: str, driver: Driver, *others: str) -> None:
    """Wait until the kernel has cleaned up, sweep, and check that ``0/5`` and ``others`` are all that is left."""
    program("btrfs", "subvolume", "sync", place)
    program("btrfs", "filesystem", "sync", place)
    os.mkdir(os.path.join(place, "begins-a-transaction"))
    driver.settle()
    os.rmdir(os.path.join(place, "begins-a-transaction"))
    shown = program("btrfs", "qgroup", "show", place).splitlines()[2:]
    assert [line.split()[0] for line in shown] == ["0/5", *others]


def _enable(place: str, *kind: str) -> None:
    """Switch quotas on; the simple kind through the ioctl, as Debian 12's tools do not know it."""
    if not kind:
        program("btrfs", "quota", "enable", place)
        program("btrfs", "quota", "rescan", "-W", place)
        return
    fd = os.open(place, os.O_RDONLY)
    try:
        fcntl.ioctl(fd, 0xC0109428, struct.pack("=QQ", 4, 0))  # BTRFS_IOC_QUOTA_CTL, ENABLE_SIMPLE_QUOTA
    finally:
        os.close(fd)


def test_quotas_that_are_off() -> None:
    """Without quotas a size is refused, with what to do; where they are off later, a limited layer is not mounted."""
    with small_btrfs(DISK) as place:
        driver = opened(f"{place}/home")
        assert not driver.support.capabilities.quota
        assert any("btrfs quota enable" in note for note in driver.support.notes)
        with pytest.raises(errors.NotSupported, match="btrfs quota enable"):
            driver.create("layer", None, LayerSpec(size=16 * MIB))
        assert list(driver.layers()) == []

        _enable(place)
        driver = opened(f"{place}/home")
        driver.create("layer", None, LayerSpec(size=16 * MIB))
        program("btrfs", "quota", "disable", place)
        with pytest.raises(errors.NotSupported, match="btrfs quota enable"):
            driver.mounts("layer")
        driver.seal("layer")
        driver.remove("layer")


def test_no_qgroup_is_left() -> None:
    """The qgroup of a limited layer goes with it, by the kernel's hand or by ours."""
    with small_btrfs(DISK, "commit=1") as place:  # deleted subvolumes are cleaned up after a commit
        _enable(place)
        driver = opened(f"{place}/home")
        for _ in range(3):
            driver.create("layer", None, LayerSpec(size=16 * MIB))
            driver.remove("layer")
        _cleaned(place, driver)


@pytest.mark.parametrize("kind", [(), ("--simple",)], ids=["full", "simple"])
def test_no_qgroup_of_shared_content_is_left(kind: tuple[str, ...]) -> None:
    """What a layer wrote and others still have is counted in its name; when they go, so does the qgroup."""
    with small_btrfs(DISK, "commit=1") as place:
        _enable(place, *kind)
        driver = opened(f"{place}/home")
        driver.create("base")
        driver.seal("base")
        driver.create("layer", "base")
        write(tree_of(driver, "layer"), "shared", 3)
        driver.snapshot("layer", "branch")
        driver.create("fork", "branch")
        driver.remove("layer")
        program("btrfs", "subvolume", "sync", place)
        program("btrfs", "filesystem", "sync", place)
        driver.settle()
        for layer in ("fork", "branch", "base"):
            driver.remove(layer)
        _cleaned(place, driver)


def test_qgroups_of_others_are_left_alone() -> None:
    """A group of an administrator's stays, and the qgroup of a subvolume that counts next to nothing."""
    with small_btrfs(DISK) as place:
        _enable(place)
        program("btrfs", "qgroup", "create", "1/1", place)
        number = program("btrfs", "inspect-internal", "rootid", make_subvolume(os.path.join(place, "own"))).strip()
        _cleaned(place, opened(f"{place}/home"), f"0/{number}", "1/1")


@pytest.mark.parametrize("kinds", [((), ("--simple",)), (("--simple",), ())], ids=["to simple", "to full"])
def test_quotas_of_the_other_kind(kinds: tuple[tuple[str, ...], tuple[str, ...]]) -> None:
    """After quotas were switched off, and on as the other kind, a layer has its limit from its next mount on."""
    with small_btrfs(DISK) as place:
        _enable(place, *kinds[0])
        driver = opened(f"{place}/home")
        driver.create("layer", None, LayerSpec(size=16 * MIB))
        program("btrfs", "quota", "disable", place)
        _enable(place, *kinds[1])
        driver = opened(f"{place}/home")
        assert driver.facts()["quotas"] == f"on, {'simple' if kinds[1] else 'full'}"
        assert any("--simple" in note for note in driver.support.notes) == (not kinds[1])
        driver.mounts("layer")
        counted = (
            make_subvolume(os.path.join(tree_of(driver, "layer"), "inside")) if kinds[1] else tree_of(driver, "layer")
        )
        with pytest.raises(OSError, match="quota"):
            write(counted, "large", 20)


@pytest.mark.parametrize("kind", [(), ("--simple",)], ids=["full", "simple"])
def test_limits_of_branches(kind: tuple[str, ...]) -> None:
    """A checkpoint gives a container no more room; a fork, and what was taken back, may write as much as the size."""
    with small_btrfs(DISK, "commit=1") as place:
        _enable(place, *kind)
        image = os.path.join(place, "image.tar")
        with tarfile.open(image, "w") as tar:
            member = tarfile.TarInfo("large")
            member.size = 8 * MIB
            tar.addfile(member, io.BytesIO(os.urandom(member.size)))
        with graphdrivers.open_store(f"{place}/store", "btrfs", durability="none") as store:
            box = store.create(store.import_image(image, name="image:1"), name="box", size=16 * MIB)
            with box.mounted() as rootfs:
                write(os.fspath(rootfs), "first", 10)
                box.checkpoint("point")
                fork = box.fork("fork")
                _fills(rootfs, at_most=7)
            box.rollback("point")
            for one in (box, fork):
                with one.mounted() as rootfs:
                    assert (rootfs / "first").stat().st_size == 10 * MIB
                    write(os.fspath(rootfs), "second", 10)
                    _fills(rootfs, at_most=7)
            driver = store.driver
            for one in (box, fork):
                one.remove()
            store.remove_image("image:1")
            assert list(driver.layers()) == []
            assert isinstance(driver, BtrfsDriver)
            _cleaned(place, driver)


def _fills(root: pathlib.Path, *, at_most: int) -> None:
    """Check that no more than so many MiB can be written, and delete them."""
    with pytest.raises(OSError, match="quota"):
        write(os.fspath(root), "more", at_most)
    (root / "more").unlink()


def test_a_lost_count() -> None:
    """Where btrfs has lost count a limited layer is not mounted, with what to do; any other is, and both can go."""
    with small_btrfs(DISK, "commit=1") as place:
        _enable(place)
        driver = opened(f"{place}/home")
        driver.create("layer", None, LayerSpec(size=16 * MIB))
        driver.create("free")
        _lose_count(place)
        with pytest.raises(errors.NotSupported, match="quota rescan -w"):
            driver.mounts("layer")
        with pytest.raises(errors.NotSupported, match="quota rescan -w"):
            driver.create("new", None, LayerSpec(size=16 * MIB))
        assert "lost count" in driver.facts()["quotas"]
        assert {record.name for record in driver.layers()} == {"layer", "free"}
        driver.mounts("free")
        driver.remove("free")
        program("btrfs", "quota", "rescan", "-w", place)
        driver.mounts("layer")
        with pytest.raises(OSError, match="quota"):
            write(tree_of(driver, "layer"), "large", 20)
        driver.seal("layer")


def _lose_count(place: str) -> None:
    """Put a subvolume that shares blocks with another into a group, which only counting anew can add up."""
    tree = make_subvolume(os.path.join(place, "shared"))
    write(tree, "file", 1)
    program("btrfs", "subvolume", "snapshot", tree, os.path.join(place, "sharing"))
    program("btrfs", "filesystem", "sync", place)
    number = program("btrfs", "inspect-internal", "rootid", tree).strip()
    program("btrfs", "qgroup", "create", "1/1", place)
    program("btrfs", "qgroup", "assign", "--no-rescan", f"0/{number}", "1/1", place)
    program("btrfs", "filesystem", "sync", place)


def test_a_child_costs_the_same_over_any_parent(bench: Workbench) -> None:
    """A child of a large parent takes next to nothing on the disk."""
    bench.needs("quota")
    bench.layer("small", None, [Create("file")])
    bench.layer("large", None, [Create(f"file{number}", os.urandom(9000)) for number in range(500)])
    bench.driver.create("one", "small")
    bench.driver.create("other", "large")
    facts = driver_of(bench).facts("other")

    assert int(facts["exclusive"]) <= 64 << 10
    assert int(facts["referenced"]) > 500 * 9000
    replay([Remove("file7")], tree_of(bench.driver, "other"))
    assert bench.changes("other") == [("D", "/file7")]
