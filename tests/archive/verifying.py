"""Layers applied through a driver with their records, and verified, for the tests of deep verification."""

import contextlib
import io
import os
from collections.abc import Iterator
from pathlib import Path

import graphdrivers
from graphdrivers.archive.plain import PlainTree
from graphdrivers.archive.restore import Damage, restore
from graphdrivers.archive.verify import Finding, verify
from graphdrivers.driver import Driver, Tells
from graphdrivers.linux import mounts, resolve

DRIVERS = {"vfs": ("vfs", {}), "overlay": ("overlay", {}), "aufs": ("aufs", {"engine": "copy"})}
"""What the tests call them, their names and options; the first one works for everybody."""


class Stack:
    """A stack of sealed layers of one driver, each made from a tar."""

    def __init__(self, home: Path, kind: str) -> None:
        """Open a driver on a fresh home."""
        name, options = DRIVERS[kind]
        home.mkdir(parents=True)
        self.driver: Driver = graphdrivers.load_driver(name, home / name, options)
        self.top: str | None = None
        self.parents: dict[str, str | None] = {}
        self.tars: dict[str, bytes] = {}
        self._records: dict[str, bytes] = {}

    def add(self, tar: bytes) -> str:
        """Apply one more layer, and seal it; gives its name."""
        layer = f"layer{len(self.tars)}"
        self.driver.create(layer, self.top)
        record = io.BytesIO()
        try:
            self.driver.apply(layer, io.BytesIO(tar), headers=record)
        except BaseException:
            self.driver.remove(layer)
            raise
        self.driver.seal(layer)
        self.tars[layer], self._records[layer] = tar, record.getvalue()
        self.parents[layer], self.top = self.top, layer
        return layer

    def storage(self, layer: str) -> bytes:
        """Give the directory that holds what the layer changes, wherever the driver has it."""
        if isinstance(self.driver, Tells):
            return os.fsencode(self.driver.facts(layer)["br0"].rpartition("=")[0])
        (plan,) = self.driver.mounts(layer, view=True)
        lowers = [value for key, value in plan.options if key == "lowerdir+"]
        return os.fsencode((lowers or [plan.source])[0] or "")

    def findings(self, layer: str) -> list[Finding]:
        """Verify against the restored tar."""
        damages: list[Damage] = []
        with self._storage_opened(layer) as root:
            opened = lambda path: resolve.open_beneath(root, path, os.O_RDONLY | os.O_NONBLOCK)  # noqa: E731
            with restore(io.BytesIO(self._records[layer]), opened, damages.append) as original:
                return self.verified(layer, original, damages)

    def verified(self, layer: str, original: io.RawIOBase | io.BytesIO, damages: list[Damage]) -> list[Finding]:
        """Verify against a tar."""
        with self._parent_tree(layer) as lower, self.driver.diff(layer) as present:
            can = self.driver.support.capabilities
            return list(verify(original, present, can, lower=lower, damages=damages))  # type: ignore[arg-type]

    @contextlib.contextmanager
    def _storage_opened(self, layer: str) -> Iterator[int]:
        root = os.open(self.storage(layer), os.O_RDONLY | os.O_DIRECTORY)
        try:
            yield root
        finally:
            os.close(root)

    @contextlib.contextmanager
    def _parent_tree(self, layer: str) -> Iterator[PlainTree | None]:
        parent = self.parents[layer]
        if parent is None:
            yield None
            return
        recorded = self.driver.support.capabilities.recorded_owners
        with mounts.opened(self.driver.mounts(parent, view=True)) as root, PlainTree(root, recorded=recorded) as tree:
            yield tree
