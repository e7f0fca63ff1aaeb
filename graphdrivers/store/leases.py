"""Leases: layers kept from being collected for a while, whatever becomes of the images and containers with them."""

import contextlib
import os
from collections.abc import Iterator

from graphdrivers import errors
from graphdrivers.store import ledger
from graphdrivers.store.database import Step
from graphdrivers.store.holders import Holder
from graphdrivers.store.site import Site

SECOND = 10**9

SECONDS_MAX = 100 * 366 * 86400
"""The longest lease, a century; SQLite's integers end 292 years after 1970."""


def take(site: Site, layer: str, seconds: float | None = None) -> str:
    """Keep a layer, and so all below it; give the lease, for `end`. Atomic.

    Args:
        site: the store.
        layer: which.
        seconds: how long, also beyond this process; ``None`` for as long as this process lives.

    Raises:
        LayerNotFound: it is not there, or out of use already.
        ValueError: ``seconds`` are no length of a lease.
    """
    if seconds is not None and not 0 <= seconds <= SECONDS_MAX:
        raise ValueError(
            f"a lease cannot last {seconds} seconds: 0 to {SECONDS_MAX}, or None for as long as this process"
        )
    lease = os.urandom(16).hex()
    expires = None if seconds is None else ledger.now() + int(seconds * SECOND)
    with site.database.write(durable=seconds is not None and site.is_durable) as step:
        if not step.execute("SELECT 1 FROM layers WHERE name = ? AND state = 'ready'", (layer,)).fetchone():
            raise errors.LayerNotFound(layer)
        hold(step, lease, layer, expires=expires)
    return lease


def hold(step: Step, lease: str, layer: str, *, expires: int | None = None) -> None:
    """Let a lease keep a layer: until a time (in ns since the epoch), or as long as this process lives."""
    values = (lease, layer, expires, None if expires is not None else str(Holder.here()))
    step.execute("INSERT OR REPLACE INTO leases (lease, layer, expires, holder) VALUES (?, ?, ?, ?)", values)


@contextlib.contextmanager
def of_import(site: Site) -> Iterator[str]:
    """Give a new lease for the layers that are made or found in the block.

    `images.put` ends it with the image that needs them; after an error it ends
    here, and the layers that are complete stay until they are collected.
    """
    lease = os.urandom(16).hex()
    try:
        yield lease
    except BaseException:
        end(site, lease)
        raise


def end(site: Site, lease: str) -> None:
    """End a lease; what it alone kept stays until it is collected. Idempotent."""
    site.database.take_back(lambda step: step.execute("DELETE FROM leases WHERE lease = ?", (lease,)))
