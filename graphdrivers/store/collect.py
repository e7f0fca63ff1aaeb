"""Removing layers that nothing needs, and their ancestors in turn."""

import contextlib
import json
import os
from collections.abc import Iterable, Sequence

import attrs

from graphdrivers import errors
from graphdrivers.store import ledger
from graphdrivers.store.database import Step
from graphdrivers.store.holders import Holder
from graphdrivers.store.site import Site


@attrs.frozen(eq=False)
class Collected:
    """What became of a collection."""

    removed: tuple[str, ...] = ()
    """Layers, in the order in which they went."""
    resisted: tuple[tuple[str, str], ...] = ()
    """Layers that could not be deleted now, and why. They are out of use; opening the store tries again."""


def drop_unused(site: Site, layers: Iterable[str]) -> Collected:
    """Remove those of ``layers`` that nothing needs, then those below them.

    They are out of use, durably, before the first is deleted.
    """
    with site.database.write(durable=site.is_durable) as step:
        marked = mark_unused(step, layers)
    return sweep(site, marked)


def mark_unused(step: Step, layers: Iterable[str]) -> list[str]:
    """Put layers that nothing needs out of use, and then those below them; give them, children first."""
    marked: list[str] = []
    waiting = list(layers)
    while waiting:
        name = waiting.pop()
        row = step.execute("SELECT parent FROM layers WHERE name = ? AND state = 'ready'", (name,)).fetchone()
        if row is None or ledger.users_of(step, name):
            continue
        step.execute("DELETE FROM leases WHERE layer = ?", (name,))  # those that are over
        step.execute("UPDATE layers SET state = 'removing', holder = ? WHERE name = ?", (str(Holder.here()), name))
        marked.append(name)
        if row[0] is not None and row[0] not in waiting:
            waiting.append(row[0])
    return marked


def sweep(site: Site, marked: Iterable[str]) -> Collected:
    """Delete layers that are out of use, children first; one that resists does not keep the others."""
    removed: list[str] = []
    resisted: list[tuple[str, str]] = []
    for name in marked:
        try:
            site.driver.remove(name)
            with contextlib.suppress(FileNotFoundError):
                os.unlink(site.record_path(name))
            with contextlib.suppress(FileNotFoundError):
                os.rmdir(site.mount_point(name))
        except (errors.GraphDriverError, OSError) as error:
            resisted.append((name, str(error)))
        else:
            removed.append(name)

    def forget(step: Step) -> None:
        for name in removed:
            # A child that resisted still names it; then the row stays until the child is gone.
            if not step.execute("SELECT 1 FROM layers WHERE parent = ?", (name,)).fetchone():
                step.execute("DELETE FROM layers WHERE name = ?", (name,))

    site.database.take_back(forget)
    return Collected(tuple(removed), tuple(resisted))


def unused(site: Site, *, over: Sequence[str] = ()) -> list[str]:
    """Give the layers that a collection would remove, children first; nothing is changed.

    Args:
        site: the store.
        over: leases that count no more.
    """
    query = """
        WITH RECURSIVE roots (layer) AS (
            SELECT layer FROM images UNION SELECT init FROM images
            UNION SELECT layer FROM containers UNION SELECT init FROM containers UNION SELECT layer FROM checkpoints
            UNION SELECT layer FROM mounts
            UNION SELECT layer FROM leases WHERE (expires IS NULL OR expires > :now)
            AND lease NOT IN (SELECT value FROM json_each(:over))
            UNION SELECT name FROM layers WHERE state = 'making'),
        live (layer) AS (
            SELECT layer FROM roots UNION SELECT parent FROM live JOIN layers ON name = layer WHERE parent IS NOT NULL),
        depths (layer, depth) AS (
            SELECT name, 0 FROM layers WHERE parent IS NULL
            UNION ALL SELECT name, depth + 1 FROM layers JOIN depths ON parent = layer)
        SELECT name FROM layers JOIN depths ON layer = name
        WHERE state = 'ready' AND name NOT IN (SELECT layer FROM live WHERE layer IS NOT NULL)
        ORDER BY depth DESC, name"""
    return [row[0] for row in site.database.read(query, {"now": ledger.now(), "over": json.dumps(over)})]
