"""The base device: an empty file system, made once in each pool, of which layers without a parent are snapshots."""

import errno
import logging

from graphdrivers.linux import boot
from graphdrivers_devicemapper import devices as active
from graphdrivers_devicemapper import filesystems
from graphdrivers_devicemapper.devices import Devices
from graphdrivers_devicemapper.pool import BASE, Pool, Progress
from graphdrivers_devicemapper.settings import LOUD

_log = logging.getLogger(__name__)


def prepare(pool: Pool, devices: Devices) -> None:
    """Start the pool, and make it and the base device where they are not there yet. Idempotent; the lock is held.

    A process that is killed here leaves what the next one does again.
    """
    pool.started()
    if pool.progress().stage == "ready":
        return
    if pool.settings.on_files:
        _log.warning("%s: %s", pool.home, LOUD)
    devices.deactivate(BASE)
    _delete(pool)
    pool.message(f"create_thin {BASE}")
    node = devices.activate(BASE)
    filesystems.make(pool.settings.fs, node)
    active.flush(node)
    devices.deactivate(BASE)
    pool.record(Progress("ready", pool.usage().transaction, boot.boot_id()))


def _delete(pool: Pool) -> None:
    try:
        pool.message(f"delete {BASE}")
    except OSError as error:
        if error.errno != errno.ENODATA:
            raise
