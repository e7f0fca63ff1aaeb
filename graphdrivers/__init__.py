"""Layers of root file systems, stored and union-mounted by pluggable drivers.

`open_store` gives a `Store` of images and containers (`Image`, `Container`);
`load_driver` gives a `Driver` alone, whose contract is in `graphdrivers.driver`,
and `list_drivers` tells what is installed. `errors` is the tree of what is raised.

The public names are resolved when they are first used (PEP 562), so importing
the package costs next to nothing.
"""

import importlib

TYPE_CHECKING = False
"""Type checkers take this name for true; importing ``typing`` for it would cost more than all the rest here."""

if TYPE_CHECKING:
    from graphdrivers import errors
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

__all__ = ["Container", "Driver", "Image", "Store", "errors", "list_drivers", "load_driver", "open_store"]

if not TYPE_CHECKING:  # which would else take every name for one that exists

    def __getattr__(name: str) -> object:
        """Import the module that defines a public name on first use."""
        if name == "errors":
            return importlib.import_module("graphdrivers.errors")
        if name not in _PUBLIC:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(importlib.import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    """Name what is public too, for those who look around in an interpreter."""
    return sorted({*globals(), *__all__})
