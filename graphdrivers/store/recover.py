"""What opening a store repairs: work that its process did not live to finish.

Costs as much as there is unfinished. Only after a restart of the machine (when
a power cut may have taken what was not durable) all layers are compared with
the ledger. One thing that resists is told and does not keep the others.
"""

import contextlib
import functools
import os
from collections.abc import Callable

import attrs

from graphdrivers import errors
from graphdrivers.linux.boot import boot_id
from graphdrivers.store import collect, images, ledger, making, mounted, names
from graphdrivers.store.ledger import Layer
from graphdrivers.store.site import Site

_BOOT = "boot"

_NAMED = """
    SELECT parent FROM layers UNION SELECT layer FROM images UNION SELECT init FROM images
    UNION SELECT layer FROM containers UNION SELECT init FROM containers UNION SELECT layer FROM checkpoints"""
"""Layers that some row needs."""


@attrs.frozen
class Problem:
    """Something that could not be repaired now."""

    what: str
    """A layer, or the driver."""
    reason: str
    is_leftover: bool = True
    """False for a layer that is lost."""


def recover(site: Site) -> list[Problem]:
    """Finish or take back what was cut short. Idempotent; what living processes do is left alone."""
    problems: list[Problem] = []
    _try(problems, site.driver.name, site.driver.settle)
    rebooted = _boot_of(site) != boot_id()
    if not rebooted and not _is_unfinished(site) and not mounted.over(site):
        return problems
    with site.lock("recover"):
        _try(problems, "ledger", functools.partial(_finish_removals, site, problems))
        for layer in collect.abandoned(site, "making"):
            _try(problems, layer.name, functools.partial(_take_back, site, layer.name))
        if site.database.one("SELECT 1 FROM repairs"):
            _finish_repairs(site, problems)
        _drop_dead_containers(site)
        drop_dead_leases(site)
        for name in mounted.over(site):
            _try(problems, name, functools.partial(mounted.reap, site, name))
        if rebooted:
            problems += _without_lost_inits(site, compare(site, repair=True))
            _try(problems, "mounts", functools.partial(mounted.tidy, site))
            _expect_writes(site)
            _remember_boot(site)
    return problems


def compare(site: Site, *, repair: bool) -> list[Problem]:
    """Hold the driver's layers, the records beside them and the ledger against each other.

    Where it may ``repair``: our own layers and records that the ledger does not
    know are removed, unless a row of it refers to them. A layer that the ledger has and the driver lost stays in
    the ledger, to be told about and brought back (`check`).
    """
    ready = {row[0] for row in site.database.read("SELECT name FROM layers WHERE state = 'ready'")}
    there = {record.name for record in site.driver.layers()}
    records = set(os.listdir(os.path.join(site.folder, "records")))
    # Asked last: a layer is in the ledger before it is anywhere else, also one that is made right now.
    known = {row[0]: row[1] for row in site.database.read("SELECT name, state FROM layers")}
    named = {row[0] for row in site.database.read(_NAMED)} - set(known)
    problems = [
        Problem(name, "the driver has lost this layer", is_leftover=False)
        for name in sorted(ready - there)
        if known.get(name) == "ready"
    ]
    for name in sorted({layer for layer in there if names.is_own(layer)} | records):
        if name in known:
            continue
        if name in named:
            reason = "the ledger has lost its row, and others refer to it: put an older ledger back"
            problems.append(Problem(name, reason, is_leftover=False))
        elif repair and not names.is_own(name):  # somebody's own layer may have this name
            _try(problems, name, functools.partial(os.unlink, os.path.join(site.folder, "records", name)))
        elif repair:
            _try(problems, name, functools.partial(making.undo, site, name))
        else:
            problems.append(Problem(name, "the ledger does not know this layer"))
    return problems


def _without_lost_inits(site: Site, problems: list[Problem]) -> list[Problem]:
    """Let images make new init layers in the place of lost ones; give the other problems."""
    dropped = images.drop_inits(site, [problem.what for problem in problems if not problem.is_leftover]).removed
    return [problem for problem in problems if problem.what not in dropped]


def _finish_removals(site: Site, problems: list[Problem]) -> None:
    told = {problem.reason for problem in problems}  # by the driver, which could not settle because of it
    resisted = collect.drop_unused(site, ()).resisted
    problems += [Problem(name, reason) for name, reason in resisted if reason not in told]


def _take_back(site: Site, layer: str) -> None:
    with site.database.write() as step:
        step.execute("DELETE FROM containers WHERE NOT ready AND (layer = :name OR init = :name)", {"name": layer})
    making.undo(site, layer)


def _finish_repairs(site: Site, problems: list[Problem]) -> None:
    """Let substitutes take the places that they were made for, but where somebody is about that now."""
    from graphdrivers.store import substitutes  # noqa: PLC0415 - hardly any opening has a repair to finish

    def finish(layer: Layer) -> None:
        with contextlib.suppress(errors.LockTimeout), substitutes.working(site, layer.name, timeout=0):
            substitutes.finish(site, layer)

    for layer in substitutes.left(site):
        _try(problems, layer.name, functools.partial(finish, layer))


def _is_unfinished(site: Site) -> bool:
    """Ask cheaply whether a dead process left anything."""
    query = """
        SELECT holder FROM layers WHERE state != 'ready' UNION SELECT holder FROM leases
        UNION SELECT holder FROM mounts WHERE holder IS NOT NULL"""
    return any(site.is_dead(row[0]) for row in site.database.read(query))


def _drop_dead_containers(site: Site) -> None:
    """Drop containers that were never acknowledged and have no layer in the making any more."""
    with site.database.write() as step:
        step.execute(
            """DELETE FROM containers WHERE NOT ready AND NOT EXISTS
               (SELECT 1 FROM layers WHERE name IN (containers.layer, containers.init) AND state = 'making')"""
        )


def drop_dead_leases(site: Site) -> None:
    """Drop leases that are over, and those of processes that are gone."""
    over = dead_leases(site)
    if over:
        with site.database.write() as step:
            step.executemany("DELETE FROM leases WHERE lease = ?", [(lease,) for lease in over])


def dead_leases(site: Site) -> list[str]:
    """Give the leases that `drop_dead_leases` would drop."""
    rows = site.database.read("SELECT DISTINCT lease, holder, expires FROM leases")
    return [lease for lease, holder, expires in rows if _is_over(site, holder, expires)]


def _is_over(site: Site, holder: str | None, expires: int | None) -> bool:
    """A lease with an end lives until then; one without lives as long as its process."""
    return expires < ledger.now() if expires is not None else site.is_dead(holder)


def _expect_writes(site: Site) -> None:
    """Take every container for written to: a power cut may have taken the note of it and left what was written."""
    with site.database.write() as step:
        step.execute("UPDATE containers SET touched = 1 WHERE NOT touched")


def _boot_of(site: Site) -> str | None:
    row = site.database.one("SELECT value FROM facts WHERE key = ?", (_BOOT,))
    return None if row is None else str(row[0])


def _remember_boot(site: Site) -> None:
    with site.database.write() as step:
        step.execute("INSERT OR REPLACE INTO facts (key, value) VALUES (?, ?)", (_BOOT, boot_id()))


def _try(problems: list[Problem], what: str, repair: Callable[[], object]) -> None:
    try:
        repair()
    except (errors.GraphDriverError, OSError) as error:
        problems.append(Problem(what, str(error)))
