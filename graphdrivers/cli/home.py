"""The root folder that the layer verbs work on: one driver's home, locks, mount points.

Layout::

    ROOT/                      mode 0700
        DRIVER/                the driver's home
        locks/NAME.lock        held while a verb works on layer NAME
        mounts/NAME/           where ``layer mount NAME`` mounts without a target
        unfinished/NAME.apply  there while (and after a failed) ``layer apply NAME``

The driver contract leaves it to its caller to serialise verbs on one layer, to
know which layers have children, and to treat a layer whose apply failed as
garbage; this file does all three, for scripts that have no ledger of their own.
"""

import contextlib
import os
import warnings
from collections.abc import Iterator

import attrs

from graphdrivers import errors, loading
from graphdrivers.cli import output
from graphdrivers.cli.settings import Settings
from graphdrivers.driver import Driver
from graphdrivers.linux import locks, mountinfo
from graphdrivers.linux.mountinfo import MountPoint
from graphdrivers.model import validate_layer_name
from graphdrivers.store.private import make_private

LOCK_TIMEOUT = 60.0
"""Seconds to wait for another process that works on the same layer."""


@attrs.frozen
class Home:
    """An opened root: its driver, and what the contract asks of the driver's caller."""

    root: str
    driver: Driver

    def mount_point(self, layer: str) -> str:
        """Give the folder that a layer is mounted on when no target is named."""
        return os.path.join(self.root, "mounts", validate_layer_name(layer))

    @contextlib.contextmanager
    def locked(self, layer: str, *, parent: str | None = None) -> Iterator[None]:
        """Be the only one who works on ``layer``; ``parent`` is kept from being removed meanwhile.

        Raises:
            LockTimeout: another process held on for a minute.
            InvalidName: a name that cannot be a layer's.
        """
        wanted = {validate_layer_name(layer): False}
        if parent is not None and parent != layer:
            wanted[validate_layer_name(parent)] = True
        with contextlib.ExitStack() as held:
            for name in sorted(wanted):  # one order for everybody, so nobody waits in a circle
                path = os.path.join(self.root, "locks", f"{name}.lock")
                held.enter_context(locks.FileLock(path, shared=wanted[name], timeout=LOCK_TIMEOUT))
            yield

    @contextlib.contextmanager
    def filling(self, layer: str) -> Iterator[None]:
        """Mark a layer as half filled, until the block ends without an error or the layer is removed."""
        mark = self._mark(layer)
        os.makedirs(os.path.dirname(mark), mode=0o700, exist_ok=True)
        os.close(os.open(mark, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600))
        try:
            yield
        except (errors.LayerError, errors.InvalidName):  # refused before anything was written
            os.unlink(mark)
            raise
        except BaseException as error:
            error.add_note(f"layer {layer!r} is now half filled and of no use: 'graphdriver layer rm {layer}'")
            raise
        os.unlink(mark)

    def check_filled(self, layer: str) -> None:
        """Refuse to go on with a layer whose last apply failed or was killed.

        Raises:
            StoreCorrupt: it must be removed.
        """
        if os.path.lexists(self._mark(layer)):
            error = errors.StoreCorrupt(self.root, f"an apply into layer {layer!r} did not finish")
            error.add_note(f"remove the layer: 'graphdriver layer rm {layer}'")
            raise error

    def forget(self, layer: str) -> None:
        """Drop what this file keeps about a layer that was just removed. Idempotent."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._mark(layer))
        with contextlib.suppress(FileNotFoundError):
            os.rmdir(self.mount_point(layer))

    def _mark(self, layer: str) -> str:
        return os.path.join(self.root, "unfinished", f"{validate_layer_name(layer)}.apply")


@contextlib.contextmanager
def opened(settings: Settings) -> Iterator[Home]:
    """Open the root that the settings name (made 0700 where missing) and bring it to rest.

    Raises:
        DriverUnavailable, DriverNotFound, DriverConflict, PriorDriverState, InvalidOption: see `loading.load_driver`.
        UnsafeStore: the root belongs to another user, or others may write to it.
    """
    for folder in (settings.root, os.path.join(settings.root, "locks")):
        make_private(settings.root, folder)
    automatic = settings.driver == loading.AUTO
    home = settings.root if automatic else os.path.join(settings.root, validate_layer_name(settings.driver))
    with fallback_told(settings):
        driver = loading.load_driver(settings.driver, home, settings.options)
    output.message(settings, f"driver {driver.name} ({driver.support.engine}) in {driver.home}", level=1)
    with contextlib.closing(driver):
        driver.settle()
        yield Home(settings.root, driver)


@contextlib.contextmanager
def fallback_told(settings: Settings) -> Iterator[None]:
    """Tell it in one line when the driver that is chosen in the block is only the best of what works."""
    with warnings.catch_warnings(record=True) as caught, output.aside():
        warnings.simplefilter("always", loading.FallbackWarning)
        yield
    for warning in caught:
        output.message(settings, f"graphdriver: {warning.message}")


def mounted(driver: Driver, layer: str) -> list[MountPoint]:
    """Give the mounts of a layer in this mount namespace, writable ones and views, by whoever made them.

    Most drivers keep a layer in folders ``KIND/NAME`` of their home, which tells
    whose a mount is without asking; only for the others is a mount planned, which
    may make something ready.

    Raises:
        LayerNotFound: no layer of this name.
    """
    found = [mount for mount, path in mountinfo.users_within(driver.home) if layer in path.split("/")[1:2]]
    if found or any(os.path.lexists(os.path.join(driver.home, kind, layer)) for kind in os.listdir(driver.home)):
        return found
    for plan in driver.mounts(layer, view=True):
        found += [one for one in mountinfo.read() if (one.fs_type, one.source) == (plan.type, plan.source)]
    return found
