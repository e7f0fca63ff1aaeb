"""The thin devices of a home's layers while somebody needs them: made ready, kept, and taken away again.

A device is named after the home and its number in the pool, so that no two
homes meet. Between a plan and its mount nothing is open yet: a *lease* (a shared
lock on one place of ``HOME/leases``) keeps other processes from tidying the
device away, and is gone with its process. That a device is in use, in whatever
mount namespace, the kernel knows: it counts who has it open.
"""

import contextlib
import errno
import fcntl
import os
import struct
import threading
import time
from collections.abc import Iterator

from graphdrivers.linux import locks
from graphdrivers_devicemapper import dm
from graphdrivers_devicemapper.pool import BASE, SECTOR, Pool

_BLKDISCARD = 0x1277
_BLKGETSIZE64 = 0x80081272
_TRIES = 5
_PAUSE = 0.02
"""Seconds between tries to take away a device that is open only for a moment: somebody looks at all disks."""


class Devices:
    """The devices of one home; what is marked so is called with the pool's lock held."""

    def __init__(self, pool: Pool) -> None:
        """Touch nothing yet."""
        self._pool = pool
        self._prefix = f"graphdrivers-{pool.settings.identity}-"
        self._leases: dict[tuple[int, int], locks.FileLock] = {}
        self._threads = threading.Lock()

    def prepare(self) -> None:
        """Make the file of the leases, which a full disk would have no room for later. Idempotent."""
        self._lease(BASE).is_free()

    def name(self, number: int) -> str:
        """Give the name of a device."""
        return f"{self._prefix}{number}"

    def find(self, number: int) -> dm.Device | None:
        """Look at a device; ``None`` where it is not active."""
        return dm.status(self.name(number))

    def activate(self, number: int) -> str:
        """Make a device ready, starting the pool if need be; give the path of its node. Idempotent; the lock is held.

        Raises:
            SyscallError: ``ENODATA``, the pool has no device of this number.
        """
        pool = self._pool.started()
        name = self.name(number)
        found = dm.status(name)
        if found is not None and not found.has_table:  # a process was killed between making and filling it
            dm.remove(name)
            found = None
        if found is None:
            found = dm.create(name, self._pool.settings.size // SECTOR, "thin", f"{pool.label} {number}")
        elif found.is_suspended:  # a process was killed while it made a snapshot
            dm.resume(name)
        return dm.node(found)

    def deactivate(self, number: int) -> bool:
        """Take a device away unless it is open; say whether it is away. Idempotent; the lock is held."""
        name = self.name(number)
        for _ in range(_TRIES):
            found = dm.status(name)
            if found is None:
                dm.forget_node(name)
                return True
            if found.is_suspended:
                dm.resume(name)
            if not found.open_count and self._removed(found):
                return True
            time.sleep(_PAUSE)
        return False

    def is_open(self, number: int) -> bool:
        """Say whether a device is in use, in whatever namespace; one that is open for a moment only is not."""
        for _ in range(_TRIES):
            found = self.find(number)
            if found is None or not found.open_count:
                return False
            time.sleep(_PAUSE)
        return True

    def lease(self, number: int) -> None:
        """Keep a device from being tidied away for as long as this object lives, or until this thread calls `unlease`.

        Each thread has leases of its own: what one has planned and not mounted yet, another one may be done with.
        """
        place = (number, threading.get_ident())
        with self._threads:
            if place not in self._leases:
                lease = self._lease(number)
                lease.acquire()
                self._leases[place] = lease

    def unlease(self, number: int, *, everybody: bool = False) -> None:
        """End the lease of this thread, or of ``everybody`` in this process: the device is about to go. Idempotent."""
        mine = threading.get_ident()
        with self._threads:
            for place in [one for one in self._leases if one[0] == number and (everybody or one[1] == mine)]:
                self._leases.pop(place).release()

    def leased(self) -> set[int]:
        """Give what this object has leased."""
        with self._threads:
            return {number for number, _ in self._leases}

    def tidy(self) -> None:
        """Take away every device that nobody has open or leased, and let go on what a killed process held.

        The lock is held.
        """
        for number in self.active():
            found = self.find(number)
            if found is not None and found.is_suspended:
                dm.resume(found.name)
            self.tidy_one(number)

    def tidy_one(self, number: int) -> None:
        """Take one device away unless somebody has it open or leased. The lock is held."""
        if self._lease(number, shared=False).is_free():
            self.deactivate(number)

    @contextlib.contextmanager
    def still(self, number: int) -> Iterator[None]:
        """Keep a device suspended for the time of a block: what was written to its file system is on it.

        One that is not active is still. The lock is held.
        """
        found = self.find(number)
        if found is None or not found.has_table:
            yield
            return
        dm.suspend(found.name)
        try:
            yield
        finally:
            dm.resume(found.name)

    def active(self) -> list[int]:
        """Give the numbers of the active devices."""
        rests = [name.removeprefix(self._prefix) for name in dm.names() if name.startswith(self._prefix)]
        return [int(rest) for rest in rests if rest.isdecimal()]

    def _removed(self, device: dm.Device) -> bool:
        """Take a device away; false where it was opened meanwhile."""
        dm.forget_node(device.name)  # first: a plan that is still about must find nothing, not another device
        try:
            dm.remove(device.name)
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
            dm.node(device)
            return False
        return True

    def _lease(self, number: int, *, shared: bool = True) -> locks.FileLock:
        return locks.FileLock(os.path.join(self._pool.home, "leases"), shared=shared, slot=number)


def discard(opened: int) -> None:
    """Give all blocks of an open device that it does not share back, also to the disk below."""
    size = struct.unpack("=Q", fcntl.ioctl(opened, _BLKGETSIZE64, bytes(8)))[0]
    with contextlib.suppress(OSError):  # a full or read-only pool, a disk that cannot: deleting does the rest
        fcntl.ioctl(opened, _BLKDISCARD, struct.pack("=2Q", 0, size))


def flush(node: str) -> None:
    """Make durable what was written to a device: the pool commits which blocks are whose, its disk empties its cache.

    Raises:
        OSError: something could not be written.
    """
    fd = os.open(node, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
