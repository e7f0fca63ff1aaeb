"""What ``graphdriver doctor`` looks at in a store; nothing is changed, and what is being made right now is left out."""

import contextlib
import os
from collections.abc import Iterator

from graphdrivers import errors, loading
from graphdrivers.cli.checks import Check, State
from graphdrivers.cli.owners import Ledger
from graphdrivers.store import check, collect, recover
from graphdrivers.store.database import Database
from graphdrivers.store.site import Site

FAULTS_MAX = 10
"""Faults that are told one by one."""


def store(root: str) -> Iterator[Check]:
    """Look at the ledger, and hold it against the driver's layers; nothing where there is no store."""
    try:
        with contextlib.closing(Ledger(root)) as ledger:
            name = ledger.driver()
        if name is not None:
            yield from _looked_at(root, name)
    except (errors.GraphDriverError, OSError) as error:
        yield Check("store", State.PROBLEM, str(error), "graphdriver check")


def _looked_at(root: str, name: str) -> Iterator[Check]:
    with (
        contextlib.closing(Database(os.path.join(root, "store"))) as database,
        contextlib.closing(loading.load_driver(name, os.path.join(root, name))) as driver,
    ):
        site = Site(root, driver, database)
        counts = ", ".join(_counted(site, kind) for kind in ("images", "containers", "mounts"))
        faults = list(check.check(site))
        for fault in faults[:FAULTS_MAX]:
            what = " ".join(part for part in (fault.layer, fault.path) if part) or "ledger"
            yield Check("store", State.PROBLEM, f"{what}: {fault.detail}", "graphdriver check --repair")
        if len(faults) > FAULTS_MAX:
            yield Check("store", State.PROBLEM, f"{len(faults) - FAULTS_MAX} more", "graphdriver check")
        if not faults:
            yield Check("store", State.OK, f"{counts}; made with {name}")
        left = collect.abandoned(site, "removing")
        for one in left:
            what = f"{one.name} is out of use, but not deleted yet: {one.reason}"
            yield Check("store", State.NOTE, what, "graphdriver gc")
        unused = len(collect.unused(site, over=recover.dead_leases(site))) - len(left)
        if unused:
            yield Check("store", State.NOTE, f"{unused} layer(s) that nothing needs", "graphdriver gc")


def _counted(site: Site, kind: str) -> str:
    number = int(site.database.read(f"SELECT count(*) FROM {kind}")[0][0])  # noqa: S608 - constants
    return f"{number} {kind if number != 1 else kind[:-1]}"
