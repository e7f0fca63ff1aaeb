"""Layers of root file systems, stored and union-mounted by pluggable drivers.

The public names are resolved when they are first used (PEP 562), so importing
the package costs next to nothing.
"""

import importlib

TYPE_CHECKING = False
"""Type checkers take this name for true; importing ``typing`` for it would cost more than all the rest here."""

if TYPE_CHECKING:
    from graphdrivers.api.containers import Container
    from graphdrivers.api.images import Image
    from graphdrivers.api.store import Store, open_store
    from graphdrivers.driver import Driver
    from graphdrivers.loading import list_drivers, load_driver

_PUBLIC = {
    "Container": "graphdrivers.api.containers",
    "Image": "graphdrivers.api.images",
    "Store": "graphdrivers.api.store",
    "open_store": "graphdrivers.api.store",
    "Driver": "graphdrivers.driver",
    "load_driver": "graphdrivers.loading",
    "list_drivers": "graphdrivers.loading",
}

__all__ = ["Container", "Driver", "Image", "Store", "list_drivers", "load_driver", "open_store"]


def __getattr__(name: str) -> object:
    """Import the module that defines a public name on first use."""
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_PUBLIC[name]), name)
