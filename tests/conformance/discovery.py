"""What the modules of ``broken`` hold, and what the suite holds."""

import importlib
import pathlib
import pkgutil
from collections.abc import Mapping

import broken

import graphdrivers.conformance
from graphdrivers.driver import Driver

SUITE = pathlib.Path(graphdrivers.conformance.__file__).parent


def claims() -> dict[str, Mapping[type[Driver], tuple[str, ...]]]:
    """Give each module's ``CAUGHT_BY`` by the name of the file of the suite that it is about."""
    found = {}
    for module in pkgutil.iter_modules(broken.__path__):
        caught_by = getattr(importlib.import_module(f"broken.{module.name}"), "CAUGHT_BY", None)
        if caught_by is not None:
            found[f"test_{module.name}.py"] = caught_by
    return found


def caught_by() -> dict[type[Driver], tuple[str, ...]]:
    """Give every broken driver with all checks that must catch it, as ``FILE::FUNCTION`` or with ``[PARAMETER]``."""
    found: dict[type[Driver], tuple[str, ...]] = {}
    for file, drivers in claims().items():
        for driver, checks in drivers.items():
            found[driver] = (*found.get(driver, ()), *(f"{file}::{check}" for check in checks))
    return found


def function(check: str) -> str:
    """Take the parameter off a check's name."""
    return check.partition("[")[0]
