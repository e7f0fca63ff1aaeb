"""What keeps a layer: everything that needs it, directly or through the layers that stand on it."""

import os

import attrs

from graphdrivers.store import ledger
from graphdrivers.store.site import Site

_MAKING = "SELECT 1 FROM layers WHERE name = ? AND state = 'making'"


@attrs.frozen
class Need:
    """One thing that needs a layer."""

    kind: str
    """``image``, ``container``, ``checkpoint``, ``lease``, ``mount``, or ``making`` for a layer that is being made."""
    name: str
    """An image's ID, a container's name, a container's name and its point, a lease, a place, a layer."""
    through: tuple[str, ...]
    """Layers from the one asked about up to the one that is named by it."""


def needs_of(site: Site, layer: str) -> list[Need]:
    """Give all that keeps a layer from being collected, the nearest first; empty where nothing does."""
    found: list[Need] = []
    waiting: list[tuple[str, ...]] = [(layer,)]
    while waiting:
        through = waiting.pop(0)
        users = site.database.read(ledger.USED, {"name": through[-1], "now": ledger.now()})
        if not users and site.database.one(_MAKING, (through[-1],)):
            users = [("making", through[-1])]
        for kind, name in users:
            if kind == "layer":
                waiting += [] if name in through else [(*through, name)]
            else:
                found.append(Need(kind, os.fsdecode(name), through))
    return found
