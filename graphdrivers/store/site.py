"""What every part of the store works with: the root folder, the driver, the ledger and the locks.

Layout::

    ROOT/                     mode 0700
        DRIVER/               the driver's home
        store/ledger.sqlite   the records (see `schema`)
        store/locks           one file; a byte of it is locked for each thing that is worked on
        store/room            kept for the day when the disk is full
        store/records/NAME    the header record of layer NAME: what gives back its identical tar
        mounts/NAME/          where layer NAME is mounted when no target is named
"""

import contextlib
import enum
import functools
import hashlib
import os
from collections.abc import Callable, Iterator

import attrs

from graphdrivers.driver import Driver
from graphdrivers.linux import durable, locks
from graphdrivers.linux.boot import boot_id
from graphdrivers.model import validate_layer_name
from graphdrivers.store.database import Database
from graphdrivers.store.holders import Holder


class Durability(enum.StrEnum):
    """How much is on the disk before anything is acknowledged."""

    NONE = "none"
    """What the kernel has written by then: a killed process loses nothing, a power cut may take the latest steps."""

    LAYER = "layer"
    """All of it, by one syncfs(2) for each layer and one fsync(2) for its record."""

    FILE = "file"
    """The same, and each file and directory of the layer by an fsync(2) of its own, which tells which one failed."""


@attrs.frozen(eq=False)
class Site:
    """An open store's place; services share it."""

    root: str
    driver: Driver
    database: Database
    durability: Durability = Durability.LAYER
    _presence: contextlib.ExitStack = attrs.field(factory=contextlib.ExitStack, init=False)

    def close(self) -> None:
        """Let go of the driver and the ledger. Idempotent."""
        self.driver.close()
        self.database.close()
        self._presence.close()

    def appear(self) -> None:
        """Hold a lock that tells others, also in other PID namespaces, that this process has the store open.

        A process that is forked from it does the same when it first uses the ledger.
        """
        # No method of this: the ledger would hold who holds it, and keep a store that nobody has or closed.
        hold = functools.partial(_appear, self.folder, self._presence)
        self.database.after_fork = hold
        hold()

    def is_alive(self, holder: Holder) -> bool:
        """Say whether a process lives, whether we can see it or it only has the store open (see `appear`)."""
        if holder.is_alive():
            return True
        return holder.boot == boot_id() and not self.lock(_presence_of(holder)).is_free()

    def is_dead(self, holder: str | None) -> bool:
        """Say whether a row's holder is a process that is gone."""
        return holder is not None and not self.is_alive(Holder.parse(holder))

    @property
    def folder(self) -> str:
        """Where the store's own files are."""
        return os.path.join(self.root, "store")

    @property
    def is_durable(self) -> bool:
        """Say whether what is acknowledged survives a power cut."""
        return self.durability is not Durability.NONE

    def record_path(self, layer: str) -> str:
        """Give the path of a layer's header record; the name is checked."""
        return os.path.join(self.folder, "records", validate_layer_name(layer))

    def mount_point(self, layer: str) -> str:
        """Give the folder on which a layer is mounted when no target is named; the name is checked."""
        return os.path.join(self.root, "mounts", validate_layer_name(layer))

    def lock(self, what: str, *, shared: bool = False, timeout: float | None = None) -> locks.FileLock:
        """Give the lock of a thing (``container:NAME``, ``chain:CHAINID``); threads exclude each other too."""
        return _lock(self.folder, what, shared=shared, timeout=timeout)

    @contextlib.contextmanager
    def syncing(self) -> Iterator[Callable[[], None]]:
        """Give what makes all that was written in the block durable; does nothing where nobody asked for that.

        The file systems are opened first: only then does the kernel report what could not be written in between.
        """
        with contextlib.ExitStack() as stack:
            opened: list[int] = []
            if self.is_durable:
                devices: set[int] = set()
                for path in (self.driver.home, self.folder):
                    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                    stack.callback(os.close, fd)
                    if (device := os.fstat(fd).st_dev) not in devices:
                        devices.add(device)
                        opened.append(fd)

            def sync() -> None:
                for fd in opened:
                    durable.syncfs(fd)

            yield sync


def _lock(folder: str, what: str, *, shared: bool = False, timeout: float | None = None) -> locks.FileLock:
    slot = int.from_bytes(hashlib.sha256(what.encode(errors="surrogateescape")).digest()[:8], "big") >> 2
    return locks.FileLock(os.path.join(folder, "locks"), shared=shared, timeout=timeout, slot=slot)


def _appear(folder: str, presence: contextlib.ExitStack) -> None:
    presence.enter_context(_lock(folder, _presence_of(Holder.here()), shared=True))


def _presence_of(holder: Holder) -> str:
    return f"process:{holder}"
