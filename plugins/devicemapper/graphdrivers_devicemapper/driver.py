"""The devicemapper driver: each layer is a thin device with a file system, each child a snapshot of its parent's.

The kernel copies nothing when a child is made and shares every block that
nobody has written to. See ``pool`` for where the blocks are, ``numbers`` for how
pool and records agree, ``devices`` for when a device exists, ``filesystems`` for
what is on it. A layer's tree is the whole file system.

What is durable when: the pool keeps its word on its own (each message is
committed before it returns). What a verb writes *into* a layer it makes durable
itself, in the file system, the pool and the disk below, before it returns; the
home, which the caller syncs as the contract has it, holds only the records. So
a record never speaks of content that a power cut could still take.
"""

import contextlib
import errno
import os
from collections.abc import Iterator, Mapping
from typing import BinaryIO, ClassVar

from graphdrivers import errors
from graphdrivers.archive.apply import Target, apply
from graphdrivers.archive.equality import Proof
from graphdrivers.archive.whiteouts import PLAIN
from graphdrivers.kit import layerdirs, quotas, remembering
from graphdrivers.linux import mountinfo
from graphdrivers.model import Applied, LayerRecord, LayerSpec, Limits, Mount, Progress, Support
from graphdrivers.naivediff import NaiveDiff
from graphdrivers_devicemapper import base, facts, filesystems, layers, sizes, trials
from graphdrivers_devicemapper import devices as active
from graphdrivers_devicemapper import settings as choices
from graphdrivers_devicemapper.numbers import Numbers
from graphdrivers_devicemapper.pool import BASE, Pool, lock_of


class DeviceMapperDriver(NaiveDiff):
    """One thin device per layer."""

    name: ClassVar[str] = choices.NAME
    rank: ClassVar[int] = 0
    contract: ClassVar[int] = 1

    def __init__(self, home: str, options: Mapping[str, str], support: Support) -> None:
        """Open ``home``; see `graphdrivers.driver.Driver`."""
        super().__init__(home, options, support)
        choices.settings_for(home, options)
        layerdirs.make_private(home)
        with lock_of(home):  # two processes that begin one home must draw one identity
            self._pool = Pool(home, choices.settings_for(home, options))
            self._devices = active.Devices(self._pool)
            self._devices.prepare()
            self._numbers = Numbers(self._pool, self._devices)
            self._dirs = layers.ThinDirs(self._pool, self._devices, self._numbers)
        self._fs = self._pool.settings.fs
        remembering.remember(home, trials.circumstances(self._pool.settings), support)

    @classmethod
    def probe(cls, home: str, options: Mapping[str, str]) -> Support:
        """Ask for a device mapper, and try what files can be; see `graphdrivers.driver.Driver.probe`."""
        return trials.probed(home, options)

    def create(self, layer: str, parent: str | None = None, spec: LayerSpec = LayerSpec()) -> None:
        """Make a snapshot of the parent's device, or of the one with an empty file system; O(1)."""
        ancestry = self._dirs.check_new(layer, parent, None)
        quotas.check(self.name, spec.size, claimed=self.support.capabilities.quota, tried=lambda: sizes.REFUSAL)
        origin = BASE if parent is None else self._dirs.number(parent)
        inherits = parent is not None and sizes.is_limited(self._dirs.path(parent))
        with self._dirs.making(layer, ancestry) as folder:
            number = self._snapshot(origin, folder)
            if inherits or spec.size is not None:
                with self._written(number) as root:
                    sizes.lift(root)
                    if spec.size is not None:
                        sizes.limit(root, folder, spec.size)
            layers.bear(folder)

    def snapshot(self, layer: str, name: str) -> None:
        """Make the sealed layer ``name`` with the present state of a writable one; see `driver.Snapshots`.

        The file system is frozen for the moment that it takes: everything written is in the snapshot.
        """
        ancestry = self._dirs.check_new(name, self._dirs.writable(layer).parent, None)
        origin = self._dirs.number(layer)
        with self._dirs.making(name, ancestry) as folder:
            number = self._snapshot(origin, folder)
            # What the frozen file system left in its journal is brought to its place, once for all views.
            with self._written(number) as root:
                if sizes.is_limited(self._dirs.path(layer)):
                    sizes.lift(root)
            layers.inherit(self._dirs.path(layer), folder)
            with open(os.path.join(folder, "sealed"), "xb"):
                pass
        self._let_go(number)

    def seal(self, layer: str) -> None:
        """Set a mark file, after the file system came to rest."""
        number = self._dirs.number(layer)
        if self._dirs.is_sealed(layer):
            return
        self._refuse_open(layer, number)
        self._rest(layer, number)
        layers.expire(self._dirs.path(layer))
        self._dirs.seal(layer)
        self._let_go(number)

    def mounts(self, layer: str, *, view: bool = False) -> tuple[Mount, ...]:
        """Make the layer's device ready and plan its mount."""
        if not view:
            self._dirs.writable(layer)
        number = self._dirs.number(layer)
        if not view:
            self._dirs.touch(layer)
        node = self._ready(number)
        if view:
            return (filesystems.view(self._fs, node, sealed=self._dirs.is_sealed(layer)),)
        return (filesystems.plan(self._fs, node),)

    def apply(
        self,
        layer: str,
        tar: BinaryIO,
        *,
        headers: BinaryIO | None = None,
        limits: Limits = Limits(),
        progress: Progress | None = None,
    ) -> Applied:
        """Unpack into the mounted file system; deletions delete. Durable when it returns."""
        self._dirs.writable(layer)
        number = self._dirs.number(layer)
        self._refuse_open(layer, number)
        with self._pool.locked():
            self._pool.started()
            self._pool.refuse_unfit()
        with self._written(number) as root:
            target = Target(root, PLAIN, None, self.support.capabilities)
            return apply(tar, target, headers=headers, limits=limits, progress=progress)

    def layers(self) -> Iterator[LayerRecord]:
        """Read the ``layer.json`` of every layer."""
        return self._dirs.records()

    def record(self, layer: str) -> LayerRecord:
        """Read one ``layer.json``; see `naivediff.NaiveDiff.record`."""
        return LayerRecord(layer, self._dirs.read(layer).parent, self._dirs.is_sealed(layer))

    def unchanged(self, layer: str) -> Proof | None:
        """Give the proof that a file is its parent's: inode and ctime; see `naivediff.NaiveDiff.unchanged`."""
        return layers.unchanged(self._dirs.path(layer), lasting=self._dirs.is_sealed(layer))

    def remove(self, layer: str) -> None:
        """Rename the layer's folder away, give back the blocks of its device, and delete both."""
        if not self._dirs.exists(layer):
            return
        with contextlib.suppress(errors.LayerNotFound, errors.StoreCorrupt):
            self._refuse_open(layer, self._dirs.number(layer))
        self._dirs.remove(layer)

    def settle(self, layer: str | None = None) -> None:
        """Take away devices that nobody uses, delete leftovers; put names reserved for whiteouts aside.

        Raises:
            ReservedNameError: some were found in this layer; they are out of it now.
        """
        if layer is None:
            self._settle_all()
            return
        number = self._dirs.number(layer)
        if self._devices.is_open(number):
            return
        try:
            if not self._dirs.is_sealed(layer):
                self._rest(layer, number)
        finally:
            self._let_go(number)

    def close(self) -> None:
        """Take away the devices that this object made ready and nobody uses, and the pool after its last device."""
        leased = self._devices.leased()
        for number in leased:
            self._devices.unlease(number, everybody=True)
        if not self._pool.is_begun():
            return
        with self._pool.locked():
            for number in leased:
                self._devices.tidy_one(number)
            self._pool.stop()

    def facts(self, layer: str | None = None) -> Mapping[str, str]:
        """Say how full the pool is, or what a layer's device is; see `driver.Tells`."""
        if layer is None:
            with self._pool.locked():
                return facts.of_pool(self._pool)
        return facts.of_layer(self._pool, self._devices, self._dirs.number(layer))

    def _snapshot(self, origin: int, folder: str) -> int:
        """Make the device of a layer whose folder is being made; give its number.

        Raises:
            StoreCorrupt: the pool has no such origin.
        """
        with self._pool.locked():
            base.prepare(self._pool, self._devices)
            self._pool.refuse_unfit()
            with self._explained(origin):
                return self._numbers.snapshot(origin, folder)

    def _ready(self, number: int) -> str:
        """Make a device ready, and keep it so until the layer is settled or this object closed; give its node."""
        self._devices.lease(number)
        try:
            with self._pool.locked(), self._explained(number):
                return self._devices.activate(number)
        except BaseException:
            self._devices.unlease(number)
            raise

    @contextlib.contextmanager
    def _written(self, number: int) -> Iterator[int]:
        """Open the root of a layer's file system to write to it; all of it is durable when the block has ended."""
        node = self._ready(number)
        with filesystems.mounted(filesystems.plan(self._fs, node)) as root:
            yield root
        active.flush(node)

    def _let_go(self, number: int) -> None:
        """Take a device away that this process needs no more, unless others do."""
        self._devices.unlease(number)
        with self._pool.locked():
            self._devices.tidy_one(number)

    @contextlib.contextmanager
    def _explained(self, number: int) -> Iterator[None]:
        """Say what it means where the pool does not know a device."""
        try:
            yield
        except OSError as error:
            if error.errno != errno.ENODATA:
                raise
            reason = f"the thin pool has no device {number}: its layer is lost, all that can be done is to remove it"
            raise errors.StoreCorrupt(self.home, reason) from error

    def _refuse_open(self, layer: str, number: int) -> None:
        if not self._devices.is_open(number):
            return
        found = self._devices.find(number)
        label = found.label if found else ""
        where = next((f"at {use.target!r}" for use in mountinfo.read() if use.device == label), "")
        raise errors.LayerInUse(layer, where or "by a mount that cannot be seen from here, or by an unfinished diff")

    def _rest(self, layer: str, number: int) -> None:
        """Clean up after somebody wrote to a layer, which is not mounted now; durable when it returns."""
        if not self._dirs.is_touched(layer):
            return
        with self._written(number) as root:
            aside = filesystems.put_aside(root, self._dirs.path(layer, "reserved"))
        self._dirs.rest(layer)
        if aside:
            raise errors.ReservedNameError(layer, aside)

    def _settle_all(self) -> None:
        # A pool that takes no change any more keeps its leftovers, and nobody from reading layers.
        with contextlib.suppress(errors.StoreCorrupt):
            self._dirs.sweep()
        if not self._pool.is_begun():
            return
        with self._pool.locked():
            if self._numbers.is_to_reconcile():
                self._pool.started()
                self._numbers.reconcile()
            if self._pool.is_running():
                self._devices.tidy()
