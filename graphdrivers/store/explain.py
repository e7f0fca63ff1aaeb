"""What keeps a layer: everything that needs it, directly or through the layers that stand on it."""

import attrs

from graphdrivers.store import ledger
from graphdrivers.store.site import Site


@attrs.frozen
class Need:
    """One thing that needs a layer."""

    kind: str
    """``image``, ``container``, ``checkpoint``, ``lease`` or ``mount``."""
    name: str
    """An image's ID, a container's name, a container's name and its point, a lease, a place."""
    through: tuple[str, ...]
    """Layers from the one asked about up to the one that is named by it."""


def needs_of(site: Site, layer: str) -> list[Need]:
    """Give all that keeps a layer from being collected, the nearest first; empty where nothing does."""
    found: list[Need] = []
    waiting: list[tuple[str, ...]] = [(layer,)]
    while waiting:
        through = waiting.pop(0)
        for kind, name in site.database.read(ledger.USED, {"name": through[-1], "now": ledger.now()}):
            if kind == "layer":
                waiting += [] if name in through else [(*through, name)]
            else:
                found.append(Need(kind, name, through))
    return found
