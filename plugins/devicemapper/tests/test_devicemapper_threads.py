# ruff: noqa: INP001, S101 -- pytest asserts, and a folder of tests is no package
"""Threads that share a driver: one is done with a layer that another one is about to mount."""

import pathlib
from concurrent.futures import ThreadPoolExecutor

from rig import checked, filled, opened, shown

from graphdrivers.linux import mounts


def test_a_plan_outlives_the_settling_of_others(tmp_path: pathlib.Path) -> None:
    """A layer that another thread, or another process, settles between a plan and its mount can still be mounted."""
    driver = opened(tmp_path / "home")
    filled(driver, "base")
    second = opened(tmp_path / "home")
    with ThreadPoolExecutor(1) as pool:
        plan = pool.submit(driver.mounts, "base", view=True).result()
        assert set(shown(driver, "base")) == {"file", "dir/other", "large"}
        driver.settle("base")
        second.settle("base")
        second.settle()
        with mounts.opened(plan):
            pass
    second.close()
    checked(tmp_path / "home", driver)
