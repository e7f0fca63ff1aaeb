"""The drivers of this package and of the distributions beside it, as contenders."""

import contextlib
import os
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping

import attrs

import graphdrivers
from graphdrivers.api.store import Store
from graphdrivers.archive import compression
from graphdrivers.driver import Driver
from graphdrivers.linux import mounts
from graphdrivers.model import Limits
from measuring import Bench, run

COMMANDS = "graphdriver (commands)"
"""Our own command line, a process for each verb as the others'."""


@attrs.frozen
class Choice:
    """The drivers that work on a folder's file system, and why others do not."""

    usable: tuple[str, ...]
    refused: Mapping[str, str]


def drivers(folder: str) -> Choice:
    """Try every driver that is installed; the fastest by reputation (its rank) first."""
    found = graphdrivers.list_drivers(folder)
    usable = [one.name for one in found if one.usable]
    usable.sort(key=lambda name: ("overlay", "aufs", "vfs").index(name) if name in {"overlay", "aufs", "vfs"} else 3)
    return Choice(tuple(usable), {one.name: one.reason for one in found if not one.usable})


@contextlib.contextmanager
def opened(bench: Bench, names: Iterable[str]) -> Iterator[dict[str, Driver]]:
    """Open drivers, each in a new home; at the end all their layers are removed in their own way.

    The homes are where our command line looks for them when the bench's folder is its root.
    """
    with contextlib.ExitStack() as stack:
        yield {name: stack.enter_context(_opened(bench.path(name), name)) for name in names}


@contextlib.contextmanager
def _opened(home: str, name: str) -> Iterator[Driver]:
    driver = graphdrivers.load_driver(name, home)
    try:
        yield driver
        for layer in list(driver.layers()):
            driver.remove(layer.name)
    finally:
        driver.close()
        shutil.rmtree(home, ignore_errors=True)


def apply(driver: Driver, layer: str, tar: str, parent: str | None = None) -> None:
    """Make a sealed layer of a tar."""
    driver.create(layer, parent)
    with open(tar, "rb") as stream, compression.open_plain(stream, Limits()) as plain:
        driver.apply(layer, plain)
    driver.seal(layer)


def stack(driver: Driver, tars: Iterable[str]) -> str:
    """Make a sealed layer of each tar, one over the other; give the top."""
    top: str | None = None
    for number, tar in enumerate(tars):
        apply(driver, f"stack-{number}", tar, top)
        top = f"stack-{number}"
    if top is None:
        raise ValueError("no tars")
    return top


@contextlib.contextmanager
def mounted(driver: Driver, layer: str, target: str) -> Iterator[str]:
    """Mount a layer at a directory, and bring it to rest afterwards."""
    os.makedirs(target, exist_ok=True)
    mounts.attach(driver.mounts(layer), target)
    try:
        yield target
    finally:
        mounts.detach(target)
        driver.settle(layer)


@contextlib.contextmanager
def fresh_store(folder: str, durability: str) -> Iterator[Store]:
    """Open a new store with the overlay driver, and remove it at the end."""
    root = os.path.join(folder, "root")
    try:
        with graphdrivers.open_store(root, "overlay", durability=durability) as store:
            yield store
    finally:
        shutil.rmtree(root, ignore_errors=True)


def command(root: str, *words: str) -> str:
    """Run our command line as a process, with the overlay driver; give what it printed."""
    return run(sys.executable, "-m", "graphdrivers", "--root", root, "--driver", "overlay", *words)


@contextlib.contextmanager
def removed(path: str) -> Iterator[str]:
    """Remove what is made at a path."""
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
