"""Tar in, tar out, whiteout dialects and the union rule.

The modules are imported when they are first used (PEP 562) by whoever imports
this package and says ``archive.apply.apply(...)``. That is how drivers and
stores do it: most commands open both, and unpack or compare nothing.
"""

import importlib
from types import ModuleType

TYPE_CHECKING = False
"""Type checkers take this name for true; see the package root."""

if TYPE_CHECKING:
    from graphdrivers.archive import (
        apply,
        attributes,
        compare,
        compression,
        digests,
        plain,
        planned,
        produce,
        replicate,
        restore,
        stream,
        union,
    )

__all__ = [
    "apply",
    "attributes",
    "compare",
    "compression",
    "digests",
    "plain",
    "planned",
    "produce",
    "replicate",
    "restore",
    "stream",
    "union",
]


def __getattr__(name: str) -> ModuleType:
    """Import a module on its first use."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return importlib.import_module(f"{__name__}.{name}")
