"""The folders of layers whose content is a thin device; see `graphdrivers.kit.layerdirs`.

A layer's folder has besides ``device`` (see ``numbers``) and ``born``: when the
snapshot was made. A file that has not changed since has the inode number and
the ctime of its parent's.
"""

import contextlib
import os
import time

from graphdrivers import errors
from graphdrivers.archive.entries import Node
from graphdrivers.archive.equality import Proof
from graphdrivers.kit import layerdirs
from graphdrivers.linux import boot, durable
from graphdrivers_devicemapper import devices
from graphdrivers_devicemapper.devices import Devices
from graphdrivers_devicemapper.numbers import Numbers, number_of
from graphdrivers_devicemapper.pool import Pool
from graphdrivers_devicemapper.settings import NAME

_BORN = "born"
_CLOCK_REALTIME_COARSE = 5
"""The clock that file systems take ctimes from. Source: clock_getres(2), linux/time.h."""


class ThinDirs(layerdirs.LayerDirs):
    """Folders whose devices go with them."""

    def __init__(self, pool: Pool, devices: Devices, numbers: Numbers) -> None:
        """Open a home; see `layerdirs.LayerDirs`."""
        super().__init__(pool.home, NAME, pool.settings.lasting())
        self._pool = pool
        self._devices = devices
        self._numbers = numbers

    def number(self, layer: str) -> int:
        """Give the number of a layer's device.

        Raises:
            LayerNotFound: there is no such layer.
            StoreCorrupt: it has none: nobody had made the layer durable before a power cut.
        """
        self.read(layer)
        number = number_of(self.home, self.path(layer))
        if number is None:
            if not self.exists(layer):
                raise errors.LayerNotFound(layer)
            raise errors.StoreCorrupt(self.home, f"layer {layer!r} has no device; all that can be done is to remove it")
        return number

    def release(self, folder: str) -> None:
        """Delete the device of a folder, wherever it is by now; its blocks are given back. Idempotent."""
        super().release(folder)
        number = None
        with contextlib.suppress(errors.StoreCorrupt):  # it must be possible to remove a layer that is damaged
            number = number_of(self.home, folder)
        if number is None:
            return
        # Before the pool forgets: a power cut must not bring back a layer whose device is gone.
        for name in ("layers", "tmp"):
            durable.fsync_directory(os.path.join(self.home, name))
        self._devices.unlease(number, everybody=True)
        opened = self._opened(number)
        if opened is not None:
            try:
                devices.discard(opened)
            finally:
                os.close(opened)
        with self._pool.locked():
            self._pool.started()
            self._numbers.delete(number)

    def _opened(self, number: int) -> int | None:
        """Open a device, so that nobody tidies it away; ``None`` for one that is none, or can be deleted only."""
        with self._pool.locked():
            self._pool.started()
            try:
                return os.open(self._devices.activate(number), os.O_RDWR | os.O_CLOEXEC)
            except OSError:
                return None


def bear(folder: str) -> None:
    """Write down that the snapshot of a layer's parent is made now; nothing of the layer has changed yet."""
    tick = time.clock_gettime_ns(_CLOCK_REALTIME_COARSE)
    with open(os.path.join(folder, _BORN), "x", encoding="ascii") as file:
        file.write(f"{boot.boot_id()} {tick}\n")


def inherit(layer: str, folder: str) -> None:
    """Let what is a snapshot of a layer, not of its parent, have been born with it."""
    run, tick = _born(layer)
    if run == boot.boot_id():
        with open(os.path.join(folder, _BORN), "x", encoding="ascii") as file:
            file.write(f"{run} {tick}\n")


def expire(folder: str) -> None:
    """Forget when a layer was born if that was before the machine was restarted; called before it is sealed.

    A power cut can take a ctime back and leave the content that came with it: see `graphdrivers.kit.baseline`.
    """
    if _born(folder)[0] != boot.boot_id():
        try:
            os.unlink(os.path.join(folder, _BORN))
        except FileNotFoundError:
            return


def unchanged(folder: str, *, lasting: bool) -> Proof | None:
    """Give what proves a file to be its parent's; ``None`` where nothing does.

    Args:
        folder: the layer's.
        lasting: the layer is sealed.
    """
    run, born = _born(folder)
    if not born or not (lasting or run == boot.boot_id()):
        return None

    def is_parents(lower: Node, upper: Node) -> bool:
        old, new = lower.stat, upper.stat
        return old.st_ino == new.st_ino and old.st_ctime_ns == new.st_ctime_ns < born

    return is_parents


def _born(folder: str) -> tuple[str, int]:
    try:
        with open(os.path.join(folder, _BORN), encoding="ascii") as file:
            run, _, tick = file.read().partition(" ")
        return run, int(tick)
    except (FileNotFoundError, ValueError):
        return "", 0
