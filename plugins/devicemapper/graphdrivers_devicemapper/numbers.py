"""Which device of the pool belongs to which layer, and how the two agree again after a crash.

The number stands in the file ``device`` of the layer's folder. It is written
there while the folder still lies in ``tmp``, before the pool is told to make the
device: whatever a killed process leaves is found with the folder, and deleted
with it (`kit.layerdirs.LayerDirs.sweep`).

The pool's transaction ID counts the numbers that were handed out, and is raised
*before* each: no number is used twice, so what a dead process meant to make can
never be what a living one has made. (The kernel's numbers have 24 bits. When the
count comes round, numbers that are in use are passed over.)

A power cut can take back folders that nobody had made durable, but not what the
pool was told: its messages are durable when they return. So the first process
after a start of the machine deletes every device whose number was handed out
since the last such time and stands in no folder.
"""

import errno
import json
import os
from collections.abc import Iterator

from graphdrivers import errors
from graphdrivers.kit import layerdirs
from graphdrivers.linux import boot, durable
from graphdrivers_devicemapper.devices import Devices
from graphdrivers_devicemapper.pool import BASE, Pool, Progress

FILE = "device"
LAST = (1 << 24) - 1


def number_of(home: str, folder: str) -> int | None:
    """Read which device a layer's folder, anywhere by now, has; ``None`` for none (yet).

    Raises:
        StoreCorrupt: the file holds no number.
    """
    try:
        with open(os.path.join(folder, FILE), "rb") as file:
            text = file.read()
    except (FileNotFoundError, NotADirectoryError):
        return None
    if not text.strip(b"\0"):  # a power cut came before the caller had made the layer durable
        return None
    try:
        number = int(json.loads(text)["number"])
    except (ValueError, KeyError, TypeError):
        raise errors.StoreCorrupt(home, f"{os.path.join(folder, FILE)} holds no number of a device") from None
    if not BASE < number <= LAST:
        raise errors.StoreCorrupt(home, f"{number} in {os.path.join(folder, FILE)} is no number of a layer's device")
    return number


class Numbers:
    """The numbers of one home. Every method is called with the pool's lock held and the pool running."""

    def __init__(self, pool: Pool, devices: Devices) -> None:
        """Touch nothing yet."""
        self._pool = pool
        self._devices = devices

    def snapshot(self, origin: int, folder: str) -> int:
        """Make a device that has the content of another one; O(1), and written to meanwhile or not.

        Its number stands in ``folder`` before it exists.

        Raises:
            SyscallError: ``ENODATA``, there is no such origin.
        """
        number = self._next()
        text = json.dumps({"version": 1, "number": number}).encode()
        with layerdirs.directory(folder) as opened:
            durable.write_atomic(opened, FILE, text, durable=False)
        with self._devices.still(origin):
            self._pool.message(f"create_snap {number} {origin}")
        return number

    def delete(self, number: int) -> None:
        """Delete a device. Idempotent.

        Raises:
            SyscallError: ``EBUSY``, it is open.
        """
        if not self._devices.deactivate(number):
            raise OSError(errno.EBUSY, "a device of a layer that is to be deleted is open", self._devices.name(number))
        self._deleted(number)

    def is_to_reconcile(self) -> bool:
        """Say whether the machine was started since the numbers were last compared; the pool need not run."""
        progress = self._pool.progress()
        return progress.stage == "ready" and progress.boot != boot.boot_id()

    def reconcile(self) -> list[int]:
        """Delete the devices that a power cut left without a folder; give their numbers. See `is_to_reconcile`.

        Raises:
            StoreCorrupt: the pool is older than what is recorded about it.
        """
        progress = self._pool.progress()
        usage = self._pool.usage()
        transaction = usage.transaction
        if transaction < progress.reconciled:
            seen = f"the thin pool has seen {transaction} devices, this home {progress.reconciled}"
            reason = f"{seen}: the pool is an old copy, or another home's"
            raise errors.StoreCorrupt(self._pool.home, reason)
        if usage.mode != "rw":
            return []  # not now, and the next process will try again
        # Durable first: what stands in a folder now must not be forgotten by the next power cut.
        with layerdirs.directory(self._pool.home) as opened:
            durable.syncfs(opened)
        recorded = set(self._recorded())
        deleted = []
        for count in range(max(progress.reconciled, transaction - LAST), transaction):
            number = _number(count)
            if number not in recorded and self._deleted(number):
                deleted.append(number)
        self._pool.record(Progress("ready", transaction, boot.boot_id()))
        return deleted

    def _next(self) -> int:
        """Hand out a number; durable before it is used."""
        while True:
            count = self._pool.usage().transaction
            self._pool.message(f"set_transaction_id {count} {count + 1}")
            number = _number(count)
            if count < LAST:
                return number
            if number not in set(self._recorded()):
                self._deleted(number)
                return number

    def _deleted(self, number: int) -> bool:
        """Delete a device that belongs to nobody; false where there is none."""
        self._devices.deactivate(number)
        try:
            self._pool.message(f"delete {number}")
        except OSError as error:
            if error.errno != errno.ENODATA:
                raise
            return False
        return True

    def _recorded(self) -> Iterator[int]:
        """Give the numbers in all folders. First ``tmp``: a layer that is made meanwhile moves from there."""
        home = self._pool.home
        for above in (os.path.join(home, "tmp"), os.path.join(home, "layers")):
            for name in os.listdir(above):
                for folder in (name, *(os.path.join(name, made) for made in layerdirs.LayerDirs.made_as)):
                    number = number_of(home, os.path.join(above, folder))
                    if number is not None:
                        yield number


def _number(count: int) -> int:
    return 1 + count % LAST
