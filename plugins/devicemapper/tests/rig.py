# ruff: noqa: INP001, S101 -- pytest asserts, and a folder of tests is no package
"""What the driver's own tests work with: homes on pools in files, and ways to look at pools from outside."""

import contextlib
import io
import itertools
import os
import pathlib
import re
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from typing import Any

from graphdrivers_devicemapper import dm, loop
from graphdrivers_devicemapper.driver import DeviceMapperDriver

from graphdrivers import loading
from graphdrivers.conformance.workbench import Member, layer_tar
from graphdrivers.driver import Driver
from graphdrivers.linux import mounts

MIB = 1 << 20
TAR = layer_tar(["file", "dir/", "dir/other", Member("large", bytes(range(256)) * 4096)])


def opened(home: pathlib.Path, **options: str) -> DeviceMapperDriver:
    """Open a home as a process does that begins."""
    driver = loading.load_driver("devicemapper", str(home), options)
    assert isinstance(driver, DeviceMapperDriver)
    driver.settle()
    return driver


def filled(driver: Driver, layer: str, parent: str | None = None, tar: bytes = TAR) -> str:
    """Make a sealed layer of a tar."""
    driver.create(layer, parent)
    driver.apply(layer, io.BytesIO(tar))
    driver.seal(layer)
    return layer


def shown(driver: Driver, layer: str) -> dict[str, bytes]:
    """Give the content of a layer's files."""
    found = {}
    with mounts.opened(driver.mounts(layer, view=True)) as root:
        for folder, _, names, fd in os.fwalk(".", dir_fd=root):
            for name in names:
                with open(os.open(name, os.O_RDONLY, dir_fd=fd), "rb") as file:
                    found[os.path.normpath(os.path.join(folder, name))] = file.read()
    return found


def noise(mebibytes: int) -> bytes:
    """Give a tar with a file that nothing makes smaller."""
    return layer_tar([Member("noise", os.urandom(mebibytes * MIB))])


def used(driver: DeviceMapperDriver) -> int:
    """Give the blocks that the pool has handed out, exactly."""
    text = driver.facts()["data used"]
    return int(re.match(r"(\d+) of", text)[1])  # type: ignore[index]


def devices_of(home: pathlib.Path) -> list[str]:
    """Give the names of the devices that the kernel has of a home."""
    identity = re.search(r'"identity": "([0-9a-f]+)"', (home / "driver.json").read_text())
    assert identity
    return [name for name in dm.names() if identity[1] in name]


def numbers_in(metadata: pathlib.Path) -> list[int]:
    """Give the numbers of a stopped pool's devices as ``thin_dump`` sees them, after ``thin_check`` found no fault."""
    subprocess.run(["thin_check", "-q", str(metadata)], check=True)
    dumped = subprocess.run(["thin_dump", str(metadata)], check=True, capture_output=True, text=True).stdout
    return sorted(int(found) for found in re.findall(r'<device dev_id="(\d+)"', dumped))


def recorded(home: pathlib.Path) -> list[int]:
    """Give the numbers that stand in the folders of layers, and that of the base device."""
    texts = [path.read_text() for path in home.glob("layers/*/device")]
    return sorted([0, *(int(re.search(r'"number": (\d+)', text)[1]) for text in texts)])  # type: ignore[index]


def checked(home: pathlib.Path, driver: DeviceMapperDriver) -> None:
    """Close a driver; nothing is active, the metadata are whole, and pool and folders have the same devices."""
    driver.close()
    assert devices_of(home) == []
    assert numbers_in(home / "pool" / "metadata") == recorded(home)
    assert os.listdir(home / "tmp") == []


@contextlib.contextmanager
def disk(path: pathlib.Path, size: int) -> Iterator[str]:
    """Give a loop device of a new file."""
    path.touch()
    os.truncate(path, size)
    with loop.attached(str(path)) as device:
        yield os.readlink(f"/proc/self/fd/{device}")


def calls_of(work: Callable[[], object]) -> int:
    """Count the ioctls of some work, done in a process of its own."""
    reader, writer = os.pipe()

    def counted() -> None:
        calls = itertools.count()
        sys.addaudithook(lambda event, _: event == "fcntl.ioctl" and next(calls) < 0)
        work()
        os.write(writer, b"%d" % next(calls))

    status = _forked(counted)
    os.close(writer)
    with open(reader, "rb") as file:
        text = file.read()
    assert status == 0
    return int(text)


def killed_at(call: int, work: Callable[[], object]) -> bool:
    """Do work in a process that is killed just before one of its ioctls, counted from 0; say whether it came so far."""

    def doomed() -> None:
        calls = itertools.count()

        def watch(event: str, _: tuple[Any, ...]) -> None:
            if event == "fcntl.ioctl" and next(calls) == call:
                os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(watch)
        work()

    return _forked(doomed) == -signal.SIGKILL


def _forked(work: Callable[[], object]) -> int:
    child = os.fork()
    if not child:
        try:
            work()
            os._exit(0)
        except BaseException:  # noqa: BLE001 - a forked process must not go on
            traceback.print_exc()
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
