"""The zfs driver: a dataset per layer, a snapshot when it is sealed, a clone per child.

Creating a child costs the same whatever its parent holds, and what both hold is
on disk once. A layer's tree is a plain directory in its dataset, which is
mounted when a plan is asked for, and unmounted when the layer comes to rest.

How often each verb calls ``zfs``, which is what it costs: create 1 (without a
parent 2), seal 1, snapshot 3, mounts 0 or 1, remove 2 (of a sealed layer 3),
settle of the whole home 1, all others 0; and 1 more for each layer that is not
mounted and has to be.
"""

import contextlib
import os
from collections.abc import Iterator, Mapping
from typing import ClassVar

from graphdrivers import errors
from graphdrivers.archive.entries import Node
from graphdrivers.archive.equality import Proof
from graphdrivers.kit import layerdirs, remembering, reserved, roots
from graphdrivers.linux import durable
from graphdrivers.model import LayerRecord, LayerSpec, Mount, Support
from graphdrivers.naivediff import NaiveDiff
from graphdrivers_zfs import datasets, support, tool
from graphdrivers_zfs.home import ZfsHome, be_born, intend, mark_sealed


class ZfsDriver(NaiveDiff):
    """One dataset per layer."""

    name: ClassVar[str] = support.NAME
    rank: ClassVar[int] = 30
    contract: ClassVar[int] = 1

    def __init__(self, home: str, options: Mapping[str, str], support_: Support) -> None:
        """Open ``home``; see `driver.Driver`."""
        super().__init__(home, options, support_)
        lasting = support.check_options(home, options)
        above = support.dataset_of(home, lasting)
        self._home = ZfsHome(home, self.name, lasting, above, support.extras_of(support_))
        self._datasets, self._places = self._home.datasets, self._home.places
        remembering.remember(home, options, support_)

    @classmethod
    def probe(cls, home: str, options: Mapping[str, str]) -> Support:
        """Make a dataset, look what files in it can be, and destroy it."""
        return remembering.probed(home, options, lambda: support.probed(home, options))

    def create(self, layer: str, parent: str | None = None, spec: LayerSpec = LayerSpec()) -> None:
        """Make a dataset, or clone the parent's snapshot."""
        ancestry = self._home.check_new(layer, parent, None)
        if spec.size is not None and spec.size <= 0:
            raise errors.NotSupported(self.name, f"{spec.size} bytes are no size", "ask for one byte or more")
        dataset = datasets.new_name()
        with self._home.making(layer, ancestry) as folder:
            intend(folder, dataset, spec.size)
            if parent is None:
                self._make_root(dataset, layer, spec.size)
            else:
                self._clone(dataset, layer, parent, spec.size)
        self._home.persist(layer)

    def _make_root(self, dataset: str, layer: str, size: int | None) -> None:
        self._datasets.make(dataset, layer, size)
        place = self._places.begin(dataset, layer)
        os.chmod(place, 0o700)
        roots.make_root(self._places.tree(dataset), ownership=self.support.capabilities.ownership)
        self._places.unmount(dataset, layer)

    def _clone(self, dataset: str, layer: str, parent: str, size: int | None) -> None:
        origin = self._home.dataset(parent)
        try:
            self._datasets.clone(dataset, layer, origin, parent, size)
        except tool.Missing:
            # A removal of the parent was cut or refused behind its first step. What it holds has not changed since.
            self._datasets.seal(origin)
            self._datasets.clone(dataset, layer, origin, parent, size)

    def seal(self, layer: str) -> None:
        """Unmount the dataset, snapshot it, and set a mark."""
        dataset = self._dataset(layer)
        if self._home.is_sealed(layer):
            return
        self._refuse_mounted(layer, dataset)
        self._rest(layer, dataset)
        self._datasets.seal(dataset)
        self._home.seal(layer)

    def snapshot(self, layer: str, name: str) -> None:
        """Snapshot the dataset as it is, and make a sealed layer of that; see `driver.Snapshots`."""
        ancestry = self._home.writable(layer)
        if self._home.exists(name):
            raise errors.LayerExists(name)
        live, dataset = self._home.dataset(layer), datasets.new_name()
        size = self._home.limit(layer)
        if size is not None:
            below = None if ancestry.parent is None else self._home.dataset(ancestry.parent)
            self._datasets.hold(live, size, below)
        with self._home.making(name, ancestry) as folder:
            intend(folder, dataset)
            be_born(folder, self._home.born(layer))
            self._flush(live)
            self._datasets.fork(live, dataset, name, ancestry.parent)
            mark_sealed(folder)
        self._home.persist(name)

    def _flush(self, dataset: str) -> None:
        """Write what the kernel holds back of what was written, if the dataset is mounted."""
        with contextlib.suppress(FileNotFoundError), layerdirs.directory(self._places.tree(dataset)) as tree:
            durable.syncfs(tree)

    def mounts(self, layer: str, *, view: bool = False) -> tuple[Mount, ...]:
        """Mount the dataset, and give the tree in it, read-only in a view."""
        if not view:
            self._home.writable(layer)
            self._home.touch(layer)
        tree = self._places.ready(self._dataset(layer), layer)
        return (Mount("bind", tree, readonly=view and self.support.capabilities.readonly_views),)

    def layers(self) -> Iterator[LayerRecord]:
        """Read the ``layer.json`` of every layer."""
        return self._home.records()

    def remove(self, layer: str) -> None:
        """Move the layer's folder out of sight, then destroy snapshot and dataset."""
        try:
            dataset = self._home.dataset(layer)
        except errors.LayerNotFound:  # never there, or another process was faster
            return
        self._refuse_mounted(layer, dataset)
        self._home.remove(layer)

    def settle(self, layer: str | None = None) -> None:
        """Destroy what crashes left; of a layer put reserved names aside, and unmount it while it is writable.

        A sealed layer stays mounted: others may be about to read it.

        Raises:
            ReservedNameError: some were found in this layer; they are out of it now.
        """
        if layer is None:
            self._home.sweep()
            self._datasets.sweep(self._home.known)
            return
        dataset = self._dataset(layer)
        if not self._home.is_sealed(layer) and not self._places.users(dataset):
            self._rest(layer, dataset)

    def _rest(self, layer: str, dataset: str) -> None:
        """Clean up after somebody wrote to a layer, and unmount it: that writes what programs have mapped."""
        if self._home.is_touched(layer):
            tree = self._places.ready(dataset, layer)
            aside = reserved.put_aside(tree, os.path.join(os.path.dirname(tree), "reserved"))
            self._home.rest(layer)
            if aside:
                raise errors.ReservedNameError(layer, aside)
        self._places.unmount(dataset, layer)

    def _refuse_mounted(self, layer: str, dataset: str) -> None:
        for place in self._places.users(dataset):
            raise errors.LayerInUse(layer, f"at {place!r}")

    def _dataset(self, layer: str) -> str:
        self._home.read(layer)
        return self._home.dataset(layer)

    def record(self, layer: str) -> LayerRecord:
        """Read one ``layer.json``; see `naivediff.NaiveDiff.record`."""
        return LayerRecord(layer, self._home.read(layer).parent, self._home.is_sealed(layer))

    def unchanged(self, layer: str) -> Proof:
        """Give the proof that a file is the parent's; see `naivediff.NaiveDiff.unchanged`.

        A clone has its origin's inodes, numbers and change times too. Nobody can
        set a change time, so an inode that last changed before the clone was made
        has the content that it had then. Its xattrs are compared: zfs-fuse lets
        them change without it.
        """
        born = self._home.born(layer)

        def is_old(lower: Node, upper: Node) -> bool:
            old, new = lower.stat, upper.stat
            untouched = old.st_ino == new.st_ino and old.st_ctime_ns == new.st_ctime_ns < born
            return untouched and lower.xattrs() == upper.xattrs()

        return is_old
