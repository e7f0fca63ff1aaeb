# ruff: noqa: INP001, S101 -- pytest asserts, and a folder of tests is no package
"""What the tests of this folder share: homes, and the processes that serve mounts."""

import contextlib
import os
import pathlib
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator

from graphdrivers_fuse_overlayfs import layout
from graphdrivers_fuse_overlayfs.driver import FuseOverlayDriver

from graphdrivers.linux import mounts


def opened(home: pathlib.Path, **options: str) -> FuseOverlayDriver:
    """Open the driver on a home."""
    return FuseOverlayDriver(str(home), options, FuseOverlayDriver.probe(str(home), options))


def with_base(home: pathlib.Path) -> FuseOverlayDriver:
    """Open a new home with a sealed layer ``base`` that holds ``file`` and ``dir/inner``, and ``layer`` over it."""
    driver = opened(home)
    driver.create("base")
    with mounts.opened(driver.mounts("base")) as root:
        os.mkdir("dir", dir_fd=root)
        for name in ("file", "dir/inner"):
            write(root, name, "old")
    driver.seal("base")
    driver.create("layer", "base")
    return driver


def write(root: int, name: str, text: str) -> None:
    """Write a file below an open directory."""
    with open(f"/proc/self/fd/{root}/{name}", "w", encoding="utf-8") as file:
        file.write(text)


def servers(driver: FuseOverlayDriver, layer: str) -> list[int]:
    """Give the processes that hold the lock of a layer, other than this one."""
    wanted = os.path.join(driver.home, "layers", layer, layout.SERVED)
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) != os.getpid():
            with contextlib.suppress(OSError):
                places = [os.readlink(f"/proc/{name}/fd/{fd}") for fd in os.listdir(f"/proc/{name}/fd")]
                if wanted in places:
                    found.append(int(name))
    return found


def kill(driver: FuseOverlayDriver, layer: str) -> None:
    """Kill what serves a layer, as the kernel does when there is no memory left."""
    (server,) = servers(driver, layer)
    os.kill(server, signal.SIGKILL)


@contextlib.contextmanager
def attached(driver: FuseOverlayDriver, layer: str, place: pathlib.Path) -> Iterator[pathlib.Path]:
    """Mount a layer on a new folder."""
    place.mkdir()
    mounts.attach(driver.mounts(layer), str(place))
    try:
        yield place
    finally:
        mounts.detach(str(place))
        place.rmdir()


def run(script: str, *prefix: str) -> str:
    """Run a script in another Python; give what it prints."""
    command = [*prefix, sys.executable, "-c", textwrap.dedent(script)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert not done.returncode, done.stderr
    return done.stdout
