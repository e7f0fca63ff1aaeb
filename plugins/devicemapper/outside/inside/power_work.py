# ruff: noqa: INP001, T201 -- run by its path; prints
"""Work on layers until the power is cut; say so before each step and when it is acknowledged.

power_work.py HOME_DISK SEED BROKEN [KEY=VALUE...]
"""

import io
import json
import os
import sys

from graphdrivers_devicemapper.driver import DeviceMapperDriver
from model import Step, files_of, steps

from graphdrivers import loading
from graphdrivers.conformance.workbench import Member, layer_tar
from graphdrivers.linux import durable, mounts
from graphdrivers.model import Mount

PLACE = "/run/home-disk"


def main() -> None:
    """Mount the disk, open the home, work."""
    disk, seed, broken, *options = sys.argv[1:]
    os.mkdir(PLACE)
    mounts.attach((Mount("ext4", disk, (("commit", "1000"),)),), PLACE)
    home = os.path.join(PLACE, "home")
    driver = loading.load_driver("devicemapper", home, dict(pair.split("=", 1) for pair in options))
    assert isinstance(driver, DeviceMapperDriver)  # noqa: S101 - it is
    driver.settle()
    fd = os.open(home, os.O_RDONLY)
    say("opened")
    for number, step in enumerate(steps(int(seed))):
        say("begin", number)
        take(driver, step)
        if broken != "syncfs":
            durable.syncfs(fd)
        say("done", number)


def say(*what: object) -> None:
    """Print a line, at once."""
    print(json.dumps(what), flush=True)


def take(driver: DeviceMapperDriver, step: Step) -> None:
    """Take a step as a store does."""
    if step.verb == "import":
        driver.create(step.layer, step.parent)
        members = [Member(name, content) for name, content in files_of(step.layer).items()]
        driver.apply(step.layer, io.BytesIO(layer_tar(members)))
        driver.seal(step.layer)
    elif step.verb == "run":
        driver.create(step.layer, step.parent)
        with mounts.opened(driver.mounts(step.layer)) as root:
            for name, content in files_of(step.layer).items():
                with open(os.open(name, os.O_WRONLY | os.O_CREAT, dir_fd=root), "wb") as file:
                    file.write(content)
        driver.settle(step.layer)
    elif step.verb == "snapshot":
        assert step.parent  # noqa: S101 - a snapshot is of something
        driver.snapshot(step.parent, step.layer)
    elif step.verb == "seal":
        driver.seal(step.layer)
    else:
        driver.remove(step.layer)


if __name__ == "__main__":
    main()
