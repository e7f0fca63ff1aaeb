"""The thin pool of a home: found or made, started when it is needed, asked, never formatted twice.

All of it is in the kernel's hands: metadata and data devices are given, or files
in ``HOME/pool`` on loop devices. ``HOME/pool.json`` says how far the pool's
making has come; every change of a pool is made under the lock ``HOME/pool.lock``,
so processes agree. The kernel formats a metadata device whose first block is
zero. So that block is looked at: a pool that was made must have its superblock,
a new one must find nothing.

Source: kernel, Documentation/admin-guide/device-mapper/thin-provisioning.rst.
"""

import contextlib
import errno
import fcntl
import json
import os
import struct
from collections.abc import Iterator

import attrs

from graphdrivers import errors
from graphdrivers.kit import layerdirs
from graphdrivers.linux import durable, locks
from graphdrivers_devicemapper import dm, loop
from graphdrivers_devicemapper.settings import NAME, Settings

BLOCK = 64 << 10
"""Bytes that are mapped, shared and copied at once."""
SECTOR = 512
BASE = 0
"""Number of the device with an empty file system, which layers without a parent are snapshots of."""
_BLKFLSBUF = 0x1261
"""Forget what was read of a block device before. Source: kernel, include/uapi/linux/fs.h."""
_MAGIC = struct.Struct("<Q")
_MAGIC_AT = 32
_SUPERBLOCK = 27022010
"""``THIN_SUPERBLOCK_MAGIC``. Source: kernel, drivers/md/dm-thin-metadata.c, ``struct thin_disk_superblock``."""
_DATA_ON_FILES = 100 << 30
_SPARE = 1 << 20
"""Bytes at the start of a given data device that must be empty: labels and superblocks of others lie there."""
_CHECK = (
    "check them with thin_check --clear-needs-check-flag {device}, and if that finds faults repair them with "
    "thin_repair -i {device} -o OTHER"
)


@attrs.frozen
class Progress:
    """What ``pool.json`` says."""

    stage: str = "none"
    """``none``; ``formatting``: the devices are ours; ``ready``: the base device has its file system."""

    reconciled: int = 0
    """Up to which transaction all device numbers are recorded, or free."""

    boot: str = ""
    """In which run of the machine that was found out."""


@attrs.frozen
class Usage:
    """What the pool says about itself; blocks are of 64 KiB, of metadata 4 KiB."""

    transaction: int
    used_metadata: int
    total_metadata: int
    used_data: int
    total_data: int
    mode: str
    """``rw``, ``ro``, ``out_of_data_space``, or ``Fail``."""
    needs_check: bool

    @property
    def data_percent(self) -> float:
        """Give how full the data device is."""
        return 100 * self.used_data / max(self.total_data, 1)

    @property
    def metadata_percent(self) -> float:
        """Give how full the metadata device is."""
        return 100 * self.used_metadata / max(self.total_metadata, 1)


class Pool:
    """The pool of one home; what is marked so is called with the lock held."""

    def __init__(self, home: str, settings: Settings) -> None:
        """Touch nothing yet."""
        self.home = home
        self.settings = settings
        self.name = f"graphdrivers-{settings.identity}-pool"
        self._folder = os.path.join(home, "pool")

    def locked(self) -> locks.FileLock:
        """Give the lock that every change of the pool and its devices is made under."""
        return lock_of(self.home)

    def is_begun(self) -> bool:
        """Say whether the home has a pool, running or not."""
        return os.path.lexists(os.path.join(self.home, "pool.json"))

    def is_running(self) -> bool:
        """Say whether the kernel has it."""
        return dm.status(self.name) is not None

    def progress(self) -> Progress:
        """Read ``pool.json``.

        Raises:
            StoreCorrupt: it cannot be understood.
        """
        try:
            with open(os.path.join(self.home, "pool.json"), "rb") as file:
                found = json.load(file)
            return Progress(str(found["stage"]), int(found["reconciled"]), str(found["boot"]))
        except FileNotFoundError:
            return Progress()
        except (ValueError, KeyError, TypeError) as error:
            raise errors.StoreCorrupt(self.home, f"pool.json cannot be understood: {error}") from None

    def record(self, progress: Progress) -> None:
        """Write ``pool.json``. Atomic, durable; the lock is held."""
        with layerdirs.directory(self.home) as opened:
            durable.write_atomic(opened, "pool.json", json.dumps(attrs.asdict(progress)).encode())

    def started(self) -> dm.Device:
        """Give the running pool, started if need be. Idempotent; the lock is held.

        Raises:
            StoreCorrupt: its metadata are gone, or the kernel refuses them.
            PrerequisiteMissing: the given devices hold something else.
        """
        found = dm.status(self.name)
        if found is not None and not found.has_table:  # a process was killed between making and filling it
            dm.remove(self.name)
            found = None
        if found is None:
            return self._start()
        self._refuse_copy()
        if found.is_suspended:
            dm.resume(self.name)
        return found

    def stop(self) -> bool:
        """Take the pool out of the kernel unless a device uses it; say whether it is out. The lock is held."""
        try:
            dm.remove(self.name)
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
            return False
        dm.forget_node(self.name)
        return True

    def message(self, text: str) -> None:
        """Send a message; what it changes is durable when this returns. The pool runs, the lock is held.

        Raises:
            StoreCorrupt: the pool has become read-only.
            SyscallError: what the kernel answers else.
        """
        try:
            dm.message(self.name, text)
        except OSError as error:
            if error.errno == errno.EOPNOTSUPP:
                raise self._readonly() from error
            raise

    def usage(self, *, exact: bool = False) -> Usage:
        """Ask the pool, which runs; ``exact`` has it write out first what would change the numbers.

        Raises:
            StoreCorrupt: it has failed.
        """
        line = dm.table_status(self.name, exact=exact)
        words = line.split()
        if len(words) < 5:
            raise errors.StoreCorrupt(self.home, f"the thin pool has failed ({line}); {self._advice()}")
        used_metadata, total_metadata = map(int, words[1].split("/"))
        used_data, total_data = map(int, words[2].split("/"))
        return Usage(
            int(words[0]), used_metadata, total_metadata, used_data, total_data, words[4], "needs_check" in words
        )

    def refuse_unfit(self) -> None:
        """Check that the pool takes something new. The lock is held.

        Raises:
            OSError: ``ENOSPC``, it is too full.
            StoreCorrupt: it takes no change any more; the text says what to do.
        """
        usage = self.usage()
        if usage.needs_check or usage.mode == "ro":
            raise self._readonly()
        settings = self.settings
        for what, full, least in (
            ("data", usage.data_percent, settings.min_free_data),
            ("metadata", usage.metadata_percent, settings.min_free_metadata),
        ):
            if 100 - full < least or full >= 100:
                text = f"the thin pool's {what} are {full:.0f} % full, {least} % have to stay free"
                raise OSError(
                    errno.ENOSPC, f"{text} (option min_free_{what}): remove layers or enlarge the pool", self.home
                )
        if settings.on_files:
            self._refuse_full_disk()

    def _readonly(self) -> errors.StoreCorrupt:
        reason = "the thin pool is read-only since a disk failed or its metadata were full"
        return errors.StoreCorrupt(self.home, f"{reason}: layers can be read; {self._advice()}")

    def _refuse_full_disk(self) -> None:
        found = os.statvfs(self._folder)
        if found.f_bavail * 100 < found.f_blocks * min(self.settings.min_free_data, 2):
            text = "the file system with the thin pool's files is full: the pool could not take what it promises"
            raise OSError(errno.ENOSPC, text, self._folder)

    def _advice(self) -> str:
        device = self.settings.metadata or f"a loop device of {os.path.join(self._folder, 'metadata')}"
        return f"take the metadata out of use ('dmsetup remove {self.name}'), then {_CHECK.format(device=device)}"

    def _start(self) -> dm.Device:
        progress = self.progress()
        if self.settings.on_files and progress.stage == "none":
            self._make_files()
        with self._devices() as (metadata, data):
            self._refuse_foreign(metadata, data, progress.stage)
            if progress.stage == "none":
                self.record(Progress("formatting"))
            sectors = os.lseek(data, 0, os.SEEK_END) // BLOCK * (BLOCK // SECTOR)
            numbers = (_label(metadata), _label(data))
            parameters = f"{numbers[0]} {numbers[1]} {BLOCK // SECTOR} 0 1 error_if_no_space"
            try:
                return dm.create(self.name, sectors, "thin-pool", parameters)
            except OSError as error:
                if error.errno in {errno.EBUSY, errno.ENOMEM, errno.EPERM, errno.EACCES}:
                    raise
                reason = (
                    f"the kernel refuses the thin pool's metadata ({os.strerror(error.errno or 0)}); {self._advice()}"
                )
                raise errors.StoreCorrupt(self.home, reason) from error

    def _refuse_copy(self) -> None:
        """Check that the pool that runs under our name is on our devices: a copied home has the name too."""
        metadata = dm.table(self.name).split()[0]
        if self.settings.on_files:
            is_ours = loop.is_of(metadata, os.path.join(self._folder, "metadata"))
        else:
            number = os.stat(self.settings.metadata).st_rdev
            is_ours = metadata == f"{os.major(number)}:{os.minor(number)}"
        if not is_ours:
            reason = f"the pool {self.name} runs on other devices: this home is a copy of one that is in use"
            raise errors.StoreCorrupt(self.home, f"{reason}; close that one first")

    def _make_files(self) -> None:
        """Make the files of the pool, which take room only where something is written."""
        layerdirs.make_private(self._folder)
        room = os.statvfs(self._folder)
        free = room.f_bavail * room.f_frsize
        data = self.settings.data_size or max(min(_DATA_ON_FILES, free * 9 // 10), 1 << 20)
        metadata = self.settings.metadata_size or max(data // 500, 16 << 20)
        for name, size in (("data", data), ("metadata", metadata)):
            fd = os.open(os.path.join(self._folder, name), os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            try:
                os.ftruncate(fd, size >> 20 << 20)
                os.fsync(fd)
            finally:
                os.close(fd)
        durable.fsync_directory(self._folder)
        durable.fsync_directory(self.home)

    @contextlib.contextmanager
    def _devices(self) -> Iterator[tuple[int, int]]:
        """Open the metadata and the data device."""
        with contextlib.ExitStack() as stack:
            opened = []
            for name in ("metadata", "data"):
                if self.settings.on_files:
                    path = os.path.join(self._folder, name)
                    try:
                        opened.append(stack.enter_context(loop.attached(path)))
                    except FileNotFoundError as error:
                        raise errors.StoreCorrupt(self.home, f"{error.filename} of the thin pool is gone") from error
                else:
                    opened.append(os.open(getattr(self.settings, name), os.O_RDONLY | os.O_CLOEXEC))
                    stack.callback(os.close, opened[-1])
            yield opened[0], opened[1]

    def _refuse_foreign(self, metadata: int, data: int, stage: str) -> None:
        for device in (metadata, data):
            fcntl.ioctl(device, _BLKFLSBUF)  # a pool writes past what the kernel remembers of the disk
        block = os.pread(metadata, 4096, 0)
        has_pool = len(block) == 4096 and _MAGIC.unpack_from(block, _MAGIC_AT)[0] == _SUPERBLOCK
        if stage == "ready" and not has_pool:
            reason = "the thin pool's metadata device holds no thin pool (any more), and is not formatted anew"
            raise errors.StoreCorrupt(self.home, f"{reason}; {self._advice()}")
        if stage == "none" and (block.strip(b"\0") or os.pread(data, _SPARE, 0).strip(b"\0")):
            devices = f"{self.settings.metadata} and {self.settings.data}"
            what = "a thin pool that this home did not make" if has_pool else "something"
            fix = "give empty ones, or clear the first MiB of both: dd if=/dev/zero of=DEVICE bs=1M count=1"
            raise errors.PrerequisiteMissing(NAME, f"{devices} are not empty: there is {what} on them", fix)


def lock_of(home: str) -> locks.FileLock:
    """Give the lock of a home's pool, begun or not."""
    return locks.FileLock(os.path.join(home, "pool.lock"))


def _label(device: int) -> str:
    number = os.fstat(device).st_rdev
    return f"{os.major(number)}:{os.minor(number)}"
