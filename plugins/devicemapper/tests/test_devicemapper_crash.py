# ruff: noqa: INP001, S101 -- pytest asserts, and a folder of tests is no package
"""A process killed at each of its ioctls: pool and folders agree again, all else is as it was, nothing stays active."""

import contextlib
import functools
import io
import os
import pathlib
from collections.abc import Callable

import pytest
from graphdrivers_devicemapper import dm
from graphdrivers_devicemapper.driver import DeviceMapperDriver
from rig import TAR, calls_of, checked, filled, killed_at, noise, opened, shown

from graphdrivers import errors
from graphdrivers.linux import mounts

Verb = Callable[[DeviceMapperDriver], object]


def _nothing(_driver: DeviceMapperDriver) -> None:
    """Prepare nothing."""


def _created(driver: DeviceMapperDriver) -> None:
    driver.create("layer", "base")


def _written(driver: DeviceMapperDriver) -> None:
    driver.create("layer", "base")
    driver.apply("layer", io.BytesIO(noise(1)))


VERBS: dict[str, tuple[Verb, Verb]] = {
    "create": (_nothing, lambda driver: driver.create("layer", "base")),
    "apply": (_created, lambda driver: driver.apply("layer", io.BytesIO(TAR))),
    "seal": (_written, lambda driver: driver.seal("layer")),
    "snapshot": (_written, lambda driver: driver.snapshot("layer", "branch")),
    "remove": (_written, lambda driver: driver.remove("layer")),
    "settle": (_created, lambda driver: (driver.mounts("layer"), driver.settle("layer"))),
    "close": (_created, lambda driver: (driver.mounts("layer"), driver.close())),
}


@pytest.mark.parametrize("verb", VERBS)
def test_killed_at_each_ioctl(tmp_path: pathlib.Path, verb: str) -> None:
    """Whatever a process did not come to, the next one finds whole layers, and ends with every device recorded."""
    home = tmp_path / "home"
    before, act = VERBS[verb]
    driver = opened(home)
    filled(driver, "base")
    filled(driver, "other", "base", noise(1))
    wanted = shown(driver, "base"), shown(driver, "other")
    before(driver)
    driver.close()
    calls = calls_of(lambda: act(driver))
    assert calls > 0
    kills = 0
    for call in range(calls):
        _away(driver)
        before(driver)
        driver.close()
        kills += killed_at(call, functools.partial(act, driver))
        driver = opened(home)  # what the next process does
        assert (shown(driver, "base"), shown(driver, "other")) == wanted
        names = {record.name for record in driver.layers()}
        assert names >= {"base", "other"}
        if "layer" in names:
            driver.seal("layer")
            driver.create("child", "layer")
            driver.remove("child")
        checked(home, driver)
    assert kills > calls // 2  # how often a busy device is tried again differs


def _away(driver: DeviceMapperDriver) -> None:
    for name in ("branch", "layer"):
        driver.remove(name)


def test_killed_while_a_home_is_begun(tmp_path: pathlib.Path) -> None:
    """The pool and the base device are made by the next process, wherever the first one was killed."""
    counted = opened(tmp_path / "counted")
    for call in range(calls_of(functools.partial(counted.create, "layer"))):
        home = tmp_path / f"home{call}"
        driver = opened(home)
        assert killed_at(call, functools.partial(driver.create, "layer"))
        driver = opened(home)
        driver.remove("layer")
        filled(driver, "layer")
        assert set(shown(driver, "layer")) == {"file", "dir/other", "large"}
        checked(home, driver)


def test_a_layer_that_was_frozen_by_a_dead_process_goes_on(tmp_path: pathlib.Path) -> None:
    """A process that dies between freezing a mounted layer and letting it go holds its writers up only until then."""
    driver = opened(tmp_path / "home")
    driver.create("layer")
    for call in range(calls_of(functools.partial(driver.snapshot, "layer", "counted"))):
        with mounts.opened(driver.mounts("layer")) as root:
            killed_at(call, functools.partial(driver.snapshot, "layer", "branch"))
            second = opened(tmp_path / "home")
            with open(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=root), "wb") as file:
                file.write(b"%d" % call)
                os.fsync(file.fileno())
            second.remove("branch")
            second.close()
        assert shown(driver, "layer") == {"file": b"%d" % call}
    checked(tmp_path / "home", driver)


def test_a_lost_device_is_told(tmp_path: pathlib.Path) -> None:
    """A layer whose device is not in the pool is an error that says so; it can be removed, and the others are whole."""
    driver = opened(tmp_path / "home")
    filled(driver, "base")
    filled(driver, "layer", "base")
    number = driver.facts("layer")["device"]
    driver.settle("layer")
    pool = driver.facts()["pool"]
    driver.close()
    driver.mounts("base", view=True)
    dm.message(pool, f"delete {number}")

    with pytest.raises(errors.StoreCorrupt, match=r"lost"):
        driver.mounts("layer", view=True)
    with pytest.raises(errors.StoreCorrupt, match=r"lost"):
        driver.create("child", "layer")
    driver.remove("layer")
    assert set(shown(driver, "base")) == {"file", "dir/other", "large"}
    checked(tmp_path / "home", driver)


def test_devices_that_a_power_cut_left_are_deleted(tmp_path: pathlib.Path) -> None:
    """What the pool made and no folder knows any more is gone after the next start of the machine; all else stays."""
    home = tmp_path / "home"
    driver = opened(home)
    filled(driver, "base")
    driver.create("forgotten", "base")
    driver.create("kept", "base")
    driver.close()
    (home / "layers" / "forgotten").rename(tmp_path / "gone")
    text = (home / "pool.json").read_text()
    (home / "pool.json").write_text(text.replace('"boot": "', '"boot": "another run, '))
    driver = opened(home)

    assert {record.name for record in driver.layers()} == {"base", "kept"}
    with contextlib.closing(driver):
        assert set(shown(driver, "kept")) == {"file", "dir/other", "large"}
    checked(home, driver)
