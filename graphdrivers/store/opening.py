"""The only way into a store: its driver chosen, its ledger opened, and what a crash left repaired."""

import contextlib
import os
from collections.abc import Mapping

from graphdrivers import errors, loading
from graphdrivers.driver import Driver
from graphdrivers.linux import durable
from graphdrivers.model import validate_layer_name
from graphdrivers.store import names
from graphdrivers.store.database import Database
from graphdrivers.store.private import make_private, refuse_shared
from graphdrivers.store.recover import Problem, recover
from graphdrivers.store.site import Durability, Site

_DRIVER = "driver"


def open_site(
    root: str,
    *,
    driver: str = loading.AUTO,
    options: Mapping[str, str] = loading.NO_OPTIONS,
    durability: Durability = Durability.LAYER,
) -> tuple[Site, list[Problem]]:
    """Open the store in ``root``, making it (mode 0700) where it is missing; the caller closes it.

    Returns:
        The store's place, and what could not be repaired.

    Raises:
        PriorDriverState: the store was made with another driver.
        UnsafeStore: ``root`` belongs to another user, or others may write to it.
        DriverUnavailable, DriverNotFound, DriverConflict, InvalidOption: see `loading.load_driver`.
        StoreVersion, StoreCorrupt, LockTimeout: see `database.Database`; also corrupt is one without its ledger.
    """
    place = os.path.realpath(root)
    for folder in (place, *(os.path.join(place, name) for name in ("store", "store/records", "mounts"))):
        make_private(place, folder)
    with contextlib.ExitStack() as stack:
        database = stack.enter_context(contextlib.closing(Database(os.path.join(place, "store"))))
        made_with = _driver_of(database)
        if made_with is not None and driver not in {loading.AUTO, made_with}:
            raise errors.PriorDriverState(place, (made_with,), driver)
        chosen = made_with or driver
        home = place if chosen == loading.AUTO else os.path.join(place, chosen)
        if os.path.isdir(home):
            refuse_shared(place, os.path.realpath(home))
        loaded = stack.enter_context(contextlib.closing(loading.load_driver(chosen, home, options)))
        if made_with is None:
            _begin(place, database, loaded)
        site = Site(place, loaded, database, durability)
        stack.callback(site.close)
        site.appear()
        problems = recover(site)
        stack.pop_all()
    return site, problems


def _driver_of(database: Database) -> str | None:
    row = database.one("SELECT value FROM facts WHERE key = ?", (_DRIVER,))
    if row is None:
        return None
    try:
        return validate_layer_name(row[0])  # it becomes a folder's
    except errors.InvalidName as error:
        raise errors.StoreCorrupt(database.path, f"no driver is called {error.name!r:.200}") from None


def _begin(place: str, database: Database, driver: Driver) -> None:
    """Record the driver, and make the names of the new folders durable.

    Raises:
        PriorDriverState: another process began with another driver at the same time.
        StoreCorrupt: the driver has layers of a store already: it was not empty, its ledger is lost.
    """
    with database.write(durable=True) as step:
        first = step.execute("INSERT OR IGNORE INTO facts (key, value) VALUES (?, ?)", (_DRIVER, driver.name)).rowcount
        lost = sum(names.is_own(layer.name) for layer in driver.layers()) if first else 0
        if lost:
            raise errors.StoreCorrupt(place, f"the ledger is lost, but {lost} layer(s) are there; put it back")
    made_with = _driver_of(database)
    if made_with != driver.name:
        raise errors.PriorDriverState(place, (str(made_with),), driver.name)
    for folder in (os.path.join(place, "store"), place):
        durable.fsync_directory(folder)
    try:
        durable.fsync_directory(os.path.dirname(place))
    except PermissionError:  # nobody needs to read it to make the store's folder in it
        opened = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            durable.syncfs(opened)
        finally:
            os.close(opened)
