# ruff: noqa: INP001, S101 -- pytest asserts, and a folder of tests is no package
"""The thin pool: full before and after it happens, room that comes back, devices that are given, damage."""

import contextlib
import errno
import io
import os
import pathlib
import subprocess
from collections.abc import Iterator

import pytest
from graphdrivers_devicemapper import dm
from graphdrivers_devicemapper.driver import DeviceMapperDriver
from rig import MIB, TAR, checked, devices_of, disk, filled, noise, numbers_in, opened, recorded, shown, used

from graphdrivers import errors
from graphdrivers.linux import mounts
from graphdrivers.model import LayerSpec, Mount

FILES = {"file", "dir/other", "large"}
SMALL = {"data_size": "64M", "metadata_size": "4M", "size": "256M"}


@pytest.fixture
def home(tmp_path: pathlib.Path) -> Iterator[pathlib.Path]:
    """A folder for a home; at the end the kernel has no device of it any more."""
    yield tmp_path / "home"
    if (tmp_path / "home" / "driver.json").exists():
        assert devices_of(tmp_path / "home") == []


@contextlib.contextmanager
def closing(driver: DeviceMapperDriver) -> Iterator[DeviceMapperDriver]:
    """Close a driver in the end, and look at what it leaves."""
    yield driver
    checked(pathlib.Path(driver.home), driver)


def _write(root: int, mebibytes: int) -> None:
    with open(os.open("large", os.O_WRONLY | os.O_CREAT, dir_fd=root), "wb", buffering=0) as file:
        file.writelines(os.urandom(MIB) for _ in range(mebibytes))
        os.fsync(file.fileno())


def _refused(error: BaseException) -> bool:
    return isinstance(error, errors.LimitExceeded) or (
        isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EIO, errno.EDQUOT}
    )


def test_a_pool_that_gets_full_is_refused_before(home: pathlib.Path) -> None:
    """With less free than was asked for, no layer is made or unpacked; with a layer less, it is again."""
    with closing(opened(home, **SMALL, min_free_data="40")) as driver:
        filled(driver, "base")
        driver.create("waiting", "base")
        filled(driver, "large", "base", noise(40))
        with pytest.raises(OSError, match=r"data are .* full, 40 % have to stay free.*min_free_data") as caught:
            driver.create("layer", "base")
        assert caught.value.errno == errno.ENOSPC
        with pytest.raises(OSError, match=r"min_free_data"):
            driver.apply("waiting", io.BytesIO(TAR))
        with pytest.raises(OSError, match=r"min_free_data"):
            driver.snapshot("waiting", "branch")
        assert {record.name for record in driver.layers()} == {"base", "waiting", "large"}
        driver.remove("large")
        filled(driver, "layer", "base")
        assert set(shown(driver, "layer")) == FILES


def test_metadata_that_get_full_are_refused_before(home: pathlib.Path) -> None:
    """The same for the metadata, which cannot be made larger by removing content."""
    with closing(opened(home, data_size="200G", metadata_size="4M")) as driver:
        filled(driver, "base")
    with closing(opened(home, min_free_metadata="85")) as driver:
        with pytest.raises(OSError, match=r"metadata are .* full.*min_free_metadata") as caught:
            driver.create("layer", "base")
        assert caught.value.errno == errno.ENOSPC
        assert set(shown(driver, "base")) == FILES


def test_a_pool_that_is_full_nonetheless(home: pathlib.Path) -> None:
    """What does not fit is an error of who wrote it; the home opens, other layers are whole, removing makes room."""
    driver = opened(home, **SMALL, min_free_data="0")
    filled(driver, "base")
    driver.create("layer", "base")
    with mounts.opened(driver.mounts("layer")) as root:
        with pytest.raises(OSError, match=r"space|Input/output") as caught:
            _write(root, 100)
        assert caught.value.errno in {errno.ENOSPC, errno.EIO}
    assert driver.facts()["state"] == "out_of_data_space"
    with pytest.raises(OSError, match=r"100 % full"):
        driver.create("another", "base")
    driver.close()
    with closing(opened(home, min_free_data="0")) as driver:
        assert set(shown(driver, "base")) == FILES
        driver.remove("layer")
        assert driver.facts()["state"] == "rw"
        filled(driver, "another", "base", noise(20))
        assert set(shown(driver, "another")) == {*FILES, "noise"}


def test_a_tar_that_does_not_fit_into_the_pool(home: pathlib.Path) -> None:
    """What could only be noticed when it was written to the disk is still an error of the apply."""
    with closing(opened(home, **SMALL, min_free_data="0")) as driver:
        filled(driver, "base")
        driver.create("layer", "base")
        with pytest.raises((OSError, errors.GraphDriverError)) as caught:
            driver.apply("layer", io.BytesIO(noise(100)))
        assert _refused(caught.value)
        driver.remove("layer")
        assert set(shown(driver, "base")) == FILES
        filled(driver, "layer", "base", noise(20))


def test_a_removed_layer_gives_its_room_back(home: pathlib.Path) -> None:
    """To the pool, and to the disk below it; what it shared with others stays."""
    with closing(opened(home)) as driver:
        filled(driver, "base", None, noise(8))
        before, below = used(driver), (home / "pool" / "data").stat().st_blocks
        filled(driver, "layer", "base", noise(32))
        content = shown(driver, "base")
        assert used(driver) > before + 30
        driver.remove("layer")

        assert used(driver) <= before + 1
        assert (home / "pool" / "data").stat().st_blocks * 512 < below * 512 + 4 * MIB
        assert shown(driver, "base") == content


def test_a_deleted_file_gives_its_room_back(home: pathlib.Path) -> None:
    """Also while the layer lives on."""
    with closing(opened(home)) as driver:
        driver.create("layer")
        driver.apply("layer", io.BytesIO(noise(32)))
        before = used(driver)
        with mounts.opened(driver.mounts("layer")) as root:
            os.unlink("noise", dir_fd=root)
            os.sync()
        driver.settle("layer")

        assert used(driver) < before - 28


def test_files_are_for_trying_out(home: pathlib.Path, caplog: pytest.LogCaptureFixture) -> None:
    """Who gives no devices is told in the notes, and warned once, when the pool is made."""
    with closing(opened(home)) as driver:
        assert [note for note in driver.support.notes if "for trying out only" in note]
        assert caplog.messages == []
        driver.create("one")
        driver.create("two")
        assert [message for message in caplog.messages if "for trying out only" in message] == caplog.messages
        assert len(caplog.messages) == 1


def test_numbers_are_counted(home: pathlib.Path) -> None:
    """The pool's transaction ID is how many devices were asked for; no number comes twice."""
    with closing(opened(home)) as driver:
        for turn in range(5):
            driver.create("layer")
            assert driver.facts("layer")["device"] == str(turn + 1)
            driver.remove("layer")
        assert driver.facts()["transaction"] == "5"


def test_only_what_is_used_is_active(home: pathlib.Path) -> None:
    """A device comes with a plan and goes when its layer is settled, the pool when its driver is closed."""
    driver = opened(home)
    for name in ("one", "two"):
        driver.create(name)
    one, two, pool = driver.facts("one"), driver.facts("two"), driver.facts()["pool"]
    assert devices_of(home) == [pool]
    with mounts.opened(driver.mounts("one")), mounts.opened(driver.mounts("two")):
        assert len(devices_of(home)) == 3
        opened(home).close()
        driver.settle("one")
        assert len(devices_of(home)) == 3
    driver.settle("one")
    assert devices_of(home) == sorted([pool, pool.replace("pool", two["device"])])
    assert not os.path.exists(f"/dev/mapper/{pool.replace('pool', one['device'])}")
    with mounts.opened(driver.mounts("two")):
        driver.close()
        assert len(devices_of(home)) == 2
    opened(home).close()
    assert devices_of(home) == []


def test_a_mount_of_another_namespace_is_seen(home: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """A layer that is mounted where we cannot look is in use all the same."""
    with closing(opened(home)) as driver:
        driver.create("layer")
        (mount,) = driver.mounts("layer")
        place = tmp_path / "place"
        place.mkdir()
        script = f'mount "{mount.source}" "{place}" && echo mounted && read -r _'
        command = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
            assert other.stdin
            assert other.stdout
            assert other.stdout.readline() == b"mounted\n"
            for verb in (driver.remove, driver.seal):
                with pytest.raises(errors.LayerInUse):
                    verb("layer")
            other.stdin.write(b"\n")
        driver.seal("layer")


def test_a_home_that_moved(home: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """A home in another place has the same layers."""
    driver = opened(home)
    filled(driver, "base")
    driver.close()
    home.rename(tmp_path / "moved")
    with closing(opened(tmp_path / "moved")) as driver:
        assert set(shown(driver, "base")) == FILES
    (tmp_path / "moved").rename(home)


def test_a_copy_of_a_home(home: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """While a home is in use, nothing is done on its pool in the name of a copy of it."""
    driver = opened(home)
    filled(driver, "base")
    driver.close()
    subprocess.run(["cp", "-a", "--sparse=always", home, tmp_path / "copy"], check=True)
    with closing(driver):
        driver.mounts("base", view=True)
        with pytest.raises(errors.StoreCorrupt, match=r"a copy of one that is in use"):
            opened(tmp_path / "copy").create("layer", "base")
    with closing(opened(tmp_path / "copy")) as copied:
        assert set(shown(copied, "base")) == FILES


def test_what_a_home_was_made_with_stays(home: pathlib.Path) -> None:
    """Options that decide what is on the disk cannot be changed; not to give them again is fine."""
    driver = opened(home, fs="xfs", size="512M")
    driver.create("layer")
    driver.close()
    with pytest.raises(errors.InvalidOption, match=r"was made with xfs"):
        opened(home, fs="ext4")
    with pytest.raises(errors.InvalidOption, match=r"cannot be changed"):
        opened(home, size="1G")
    with closing(opened(home)) as driver:
        assert driver.facts()["file system"] == "xfs, 512 MiB"


@pytest.mark.parametrize(
    ("option", "value"),
    [("fs", "btrfs"), ("size", "1M"), ("size", "10"), ("size", "huge"), ("data", "/dev/null"), ("min_free_data", "91")],
)
def test_options_that_cannot_be(home: pathlib.Path, option: str, value: str) -> None:
    """An impossible value is an error that names the option; no home is made."""
    with pytest.raises(errors.InvalidOption) as caught:
        opened(home, **{option: value})

    assert caught.value.option == option
    assert not home.exists()


def test_a_size_is_refused_with_the_reason(home: pathlib.Path) -> None:
    """On ext4 a single layer has no limit of its own."""
    with closing(opened(home)) as driver:
        driver.create("base")
        with pytest.raises(errors.NotSupported, match=r"ext4 holds no limit"):
            driver.create("layer", None, LayerSpec(size=MIB))


def test_given_devices(home: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """A pool on devices of its own; they are formatted once, and taken by no other home."""
    with disk(tmp_path / "data", 512 * MIB) as data, disk(tmp_path / "metadata", 8 * MIB) as metadata:
        given = {"data": data, "metadata": metadata}
        driver = opened(home, **given)
        filled(driver, "base")
        assert "loop" not in " ".join(driver.support.notes)
        driver.close()
        assert numbers_in(tmp_path / "metadata") == [0, 1]
        other = opened(tmp_path / "other", **given)
        with pytest.raises(errors.PrerequisiteMissing, match=r"not empty.*did not make"):
            other.create("layer")
        other.close()
        driver = opened(home)
        assert set(shown(driver, "base")) == FILES
        driver.close()
        (tmp_path / "metadata").write_bytes(bytes(8 * MIB))
        with pytest.raises(errors.StoreCorrupt, match=r"holds no thin pool.*not formatted"):
            opened(home).create("layer")
    assert (tmp_path / "metadata").read_bytes() == bytes(8 * MIB)


def test_a_home_that_is_full(home: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """With no room for a record no layer is made, and nothing of one stays; layers are read and removed as ever."""
    home.mkdir()
    with disk(tmp_path / "data", 512 * MIB) as data, disk(tmp_path / "metadata", 8 * MIB) as metadata:
        mounts.attach((Mount("tmpfs", "tmpfs", (("size", "24m"),)),), str(home))
        try:
            driver = opened(home / "home", data=data, metadata=metadata)
            filled(driver, "base")
            filled(driver, "layer", "base")
            with open(home / "ballast", "wb", buffering=0) as file, contextlib.suppress(OSError):
                while file.write(bytes(4096)):
                    pass
            with pytest.raises(OSError, match=r"space"):
                driver.create("another", "base")
            driver.close()
            driver = opened(home / "home")
            assert {record.name for record in driver.layers()} == {"base", "layer"}
            assert set(shown(driver, "layer")) == FILES
            driver.remove("layer")
            driver.close()
            assert numbers_in(tmp_path / "metadata") == [0, 1] == recorded(home / "home")
        finally:
            mounts.detach(str(home))


def test_devices_with_something_on_them(home: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """A disk that is not empty is left as it is."""
    with disk(tmp_path / "data", 64 * MIB) as data, disk(tmp_path / "metadata", 8 * MIB) as metadata:
        subprocess.run(["mkfs.ext4", "-q", data], check=True)
        before = (tmp_path / "data").read_bytes()
        driver = opened(home, data=data, metadata=metadata)
        with pytest.raises(errors.PrerequisiteMissing, match=r"not empty"):
            driver.create("layer")
        driver.close()
    assert (tmp_path / "data").read_bytes() == before
    assert (tmp_path / "metadata").read_bytes() == bytes(8 * MIB)


def test_damaged_metadata_are_refused(home: pathlib.Path) -> None:
    """Metadata that the kernel does not take are an error that names thin_check and thin_repair; nothing is written."""
    driver = opened(home)
    filled(driver, "base")
    driver.close()
    with open(home / "pool" / "metadata", "r+b") as file:
        file.seek(48)
        file.write(b"damage")
    before = (home / "pool" / "metadata").read_bytes()
    with pytest.raises(errors.StoreCorrupt, match=r"thin_check .* thin_repair"):
        opened(home).mounts("base", view=True)
    with pytest.raises(errors.StoreCorrupt, match=r"thin_check .* thin_repair"):
        opened(home).create("layer", "base")

    driver = opened(home)
    assert "thin_check" in driver.facts()["state"]
    driver.close()
    assert (home / "pool" / "metadata").read_bytes() == before


def test_a_disk_that_fails(home: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """A write that the disk refuses is an error of the verb; then layers can be read, and after a check all goes on."""
    name = "graphdrivers-test-disk"
    with disk(tmp_path / "data", 512 * MIB) as data, disk(tmp_path / "metadata", 8 * MIB) as metadata:
        sectors = 512 * MIB // 512
        wrapped = dm.create(name, sectors, "linear", f"{data} 0")
        try:
            driver = opened(home, data=dm.node(wrapped), metadata=metadata)
            filled(driver, "base")
            driver.create("layer", "base")
            driver.close()
            dm.reload(name, sectors, "flakey", f"{data} 0 0 60 1 error_writes")
            with pytest.raises((OSError, errors.GraphDriverError)):
                driver.apply("layer", io.BytesIO(noise(4)))
            driver.settle()
            driver.close()
            dm.reload(name, sectors, "linear", f"{data} 0")
            driver = opened(home)
            assert set(shown(driver, "base")) == FILES
            with pytest.raises(errors.StoreCorrupt, match=r"read-only.*thin_check --clear-needs-check-flag"):
                driver.create("another", "base")
            with pytest.raises(errors.StoreCorrupt, match=r"read-only"):
                driver.remove("layer")
            driver.close()
            subprocess.run(["thin_check", "-q", "--clear-needs-check-flag", metadata], check=True)
            driver = opened(home)
            filled(driver, "layer", "base")
            assert set(shown(driver, "layer")) == FILES
            driver.close()
            dm.remove(name)
        finally:
            dm.forget_node(name)
        assert numbers_in(tmp_path / "metadata")


@pytest.mark.parametrize("fs", ["ext4", "xfs"])
def test_file_systems_are_whole(home: pathlib.Path, fs: str) -> None:
    """Parent, child and snapshot can be mounted side by side, though they have one UUID; each is clean at rest."""
    with closing(opened(home, fs=fs, size="512M")) as driver:
        filled(driver, "base")
        driver.create("layer", "base")
        with mounts.opened(driver.mounts("layer")) as root, mounts.opened(driver.mounts("base", view=True)):
            os.mkdir("made", dir_fd=root)
            driver.snapshot("layer", "branch")
            with mounts.opened(driver.mounts("branch", view=True)) as branch:
                assert sorted(os.listdir(branch)) == ["dir", "file", "large", "made"]
        driver.settle("layer")
        driver.seal("layer")
        check = ["e2fsck", "-fn"] if fs == "ext4" else ["xfs_repair", "-n"]
        for name in ("base", "layer", "branch"):
            (mount,) = driver.mounts(name, view=True)
            subprocess.run([*check, mount.source], check=True, capture_output=True)
