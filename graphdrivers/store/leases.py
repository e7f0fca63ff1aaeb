"""Leases: layers kept from being collected for a while, whatever becomes of the images and containers with them."""

import os

from graphdrivers import errors
from graphdrivers.store import ledger, making
from graphdrivers.store.site import Site

SECOND = 10**9


def take(site: Site, layer: str, seconds: float | None = None) -> str:
    """Keep a layer, and so all below it; give the lease, for `end`. Atomic.

    Args:
        site: the store.
        layer: which.
        seconds: how long, also beyond this process; ``None`` for as long as this process lives.

    Raises:
        LayerNotFound: it is not there, or out of use already.
    """
    lease = os.urandom(16).hex()
    expires = None if seconds is None else ledger.now() + int(seconds * SECOND)
    with site.database.write(durable=seconds is not None and site.is_durable) as step:
        if not step.execute("SELECT 1 FROM layers WHERE name = ? AND state = 'ready'", (layer,)).fetchone():
            raise errors.LayerNotFound(layer)
        making.hold(step, lease, layer, expires=expires)
    return lease


def end(site: Site, lease: str) -> None:
    """End a lease; what it alone kept stays until it is collected. Idempotent."""
    with site.database.write() as step:
        step.execute("DELETE FROM leases WHERE lease = ?", (lease,))
