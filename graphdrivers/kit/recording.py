"""Which homes record the owners of files (`graphdrivers.archive.owners`): decided once, when a home is begun."""

from collections.abc import Mapping

from graphdrivers import errors
from graphdrivers.archive import owners
from graphdrivers.model import Capabilities

_KEY = "owners"


def lasting_options(*, recorded: bool) -> dict[str, str]:
    """Return what ``driver.json`` says about it."""
    return {_KEY: owners.XATTR} if recorded else {}


def records_owners(driver: str, home: str, found: Capabilities, lasting: Mapping[str, str] | None) -> bool:
    """Say whether the layers of a home record owners.

    Args:
        driver: whose home.
        home: its path.
        found: what files can be here, now and for this process.
        lasting: the home's own options; ``None`` where it is not begun yet.

    Raises:
        StoreVersion: they do in a way that is unknown here.
        IncompatibleFilesystem: they do, and the file system cannot (any more).
    """
    if lasting is None:
        return found.user_xattrs and not found.ownership
    way = lasting.get(_KEY)
    if way is None:
        return False
    if way != owners.XATTR:
        raise errors.StoreVersion(home, f"driver.json has {_KEY}={way}; this release knows {owners.XATTR}")
    if not found.user_xattrs:
        reason = f"layers in {home!r} record owners in {owners.XATTR}, which the file system no longer stores"
        raise errors.IncompatibleFilesystem(driver, reason, "mount it with user xattrs")
    return True
