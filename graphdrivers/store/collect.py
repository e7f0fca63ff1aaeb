"""Removing layers that nothing needs, and their ancestors in turn.

A layer whose deletion does not succeed stays in state 'removing', and its row
is handed back (`holders.NOBODY`). Whoever collects next, in any process, takes
it up in a step, so only one does. What a process had in work when it died is
taken up in the same way.
"""

import contextlib
import functools
import json
import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

import attrs

from graphdrivers import errors
from graphdrivers.store import ledger
from graphdrivers.store.database import Step
from graphdrivers.store.holders import NOBODY, Holder
from graphdrivers.store.site import Site

_CUT = "its removal was cut short"


@attrs.frozen(eq=False)
class Collected:
    """What became of a collection."""

    removed: tuple[str, ...] = ()
    """Layers, in the order in which they went."""
    resisted: tuple[tuple[str, str], ...] = ()
    """Layers that could not be deleted now, and why. They are out of use; `Store.collect`, and opening the store, try
    again. The driver's name stands for files of which it is not known what layer they were."""


@attrs.frozen
class Abandoned:
    """A layer that is half made or half removed, and that nobody works on."""

    name: str
    holder: str
    """Whoever had it last, as in the ledger."""
    reason: str
    """Why it is still there."""


def drop_unused(site: Site, layers: Collection[str]) -> Collected:
    """Remove what earlier removals left, those of ``layers`` that nothing needs, and then those below them.

    They are out of use, durably, before the first is deleted. What another
    thread or process is removing at this moment is left to it.
    """
    left = abandoned(site, "removing")
    if not left and not layers:
        return Collected()
    with site.database.write(durable=site.is_durable) as step:
        taken = _take_up(step, left)
        marked = mark_unused(step, layers)
    return sweep(site, marked, taken)


def collect(site: Site) -> Collected:
    """Remove all that `unused` gives, and files of layers that were deleted in part (`driver.Driver.settle`)."""
    done = drop_unused(site, unused(site))
    left = None if done.resisted else _failure_of(site.driver.settle)
    return done if left is None else attrs.evolve(done, resisted=((site.driver.name, left),))


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


def sweep(site: Site, marked: Iterable[str], taken: Collection[str] = ()) -> Collected:
    """Delete layers that are out of use, children first; one that resists does not keep the others.

    What is not deleted when this ends, however it ends, is handed back to whoever collects next.

    Args:
        site: the store.
        marked: what `mark_unused` gave.
        taken: what earlier removals left. The driver may have no such layer any more, and still have its files: these
            are deleted when it has settled.
    """
    left = dict.fromkeys((*taken, *marked), _CUT)
    if not left:
        return Collected()
    removed: list[str] = []
    try:
        unsettled = _failure_of(site.driver.settle) if taken else None
        for name in tuple(left):
            reason = _failure_of(functools.partial(delete, site, name)) or (unsettled if name in taken else None)
            if reason is None:
                removed.append(name)
                del left[name]
            else:
                left[name] = reason
    finally:
        site.database.take_back(lambda step: _record(step, removed, left))
    return Collected(tuple(removed), tuple(left.items()))


def delete(site: Site, name: str) -> None:
    """Delete a layer, and what is kept beside it. Idempotent."""
    site.driver.remove(name)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(site.record_path(name))
    with contextlib.suppress(FileNotFoundError):
        os.rmdir(site.mount_point(name))


def forget(step: Step, name: str) -> bool:
    """Drop the row of a layer that is deleted; say whether there was one that could go. Idempotent.

    A child that is out of use and still there has no parent any more, and no place in a stack. Others there are only
    in a ledger that is damaged: then the row stays.
    """
    drop = "DELETE FROM layers WHERE name = :name AND NOT EXISTS (SELECT 1 FROM layers WHERE parent = :name)"
    orphan = """
        UPDATE layers SET parent = NULL, chain_id = NULL, diff_id = NULL, tar_size = NULL
        WHERE parent = :name AND state = 'removing'"""
    key = {"name": name}
    if step.execute(drop, key).rowcount:
        return True
    return bool(step.execute(orphan, key).rowcount and step.execute(drop, key).rowcount)


def hand_back(step: Step, name: str, reason: str) -> None:
    """Let any process take up the removal of a layer that could not be deleted; remember why. Idempotent."""
    query = "UPDATE layers SET holder = ?, notes = ? WHERE name = ? AND state = 'removing'"
    step.execute(query, (str(NOBODY), reason.encode(errors="backslashreplace").decode(), name))


def abandoned(site: Site, state: str) -> list[Abandoned]:
    """Give the layers in a state (``making``, ``removing``) that nobody works on any more, children first."""
    query = f"""
        WITH RECURSIVE depths (layer, depth) AS (
            SELECT name, 0 FROM layers WHERE state != 'ready'
            UNION SELECT name, depth + 1 FROM layers JOIN depths ON parent = layer
            WHERE state != 'ready' AND depth < {ledger.DEPTH_MAX})
        SELECT name, holder, notes, max(depth) AS deepest FROM layers JOIN depths ON layer = name
        WHERE state = ? AND name NOT IN (
            SELECT substitute FROM repairs JOIN layers AS whole ON whole.name = repairs.layer AND whole.state = 'ready')
        GROUP BY name ORDER BY deepest DESC, name"""  # noqa: S608 - constants
    found = site.database.read(query, (state,))
    return [
        Abandoned(name, holder, notes if holder == str(NOBODY) else _CUT)
        for name, holder, notes, _ in found
        if site.is_dead(holder)
    ]


def _take_up(step: Step, left: Iterable[Abandoned]) -> list[str]:
    """Let this process go on with removals; give those that no other was faster with."""
    query = "UPDATE layers SET holder = ? WHERE name = ? AND holder = ? AND state = 'removing'"
    here = str(Holder.here())
    return [one.name for one in left if step.execute(query, (here, one.name, one.holder)).rowcount]


def _failure_of(work: Callable[[], object]) -> str | None:
    """Do something; say why it failed, ``None`` where it did not."""
    try:
        work()
    except (errors.GraphDriverError, OSError) as error:
        return str(error) or type(error).__name__
    return None


def _record(step: Step, removed: Iterable[str], left: Mapping[str, str]) -> None:
    for name in removed:
        if not forget(step, name):
            hand_back(step, name, "other layers stand on it")
    for name, reason in left.items():
        hand_back(step, name, reason)


def unused(site: Site, *, over: Sequence[str] = ()) -> list[str]:
    """Give the layers that a collection would remove, children first; nothing is changed.

    The first are those that are out of use already (`abandoned`).

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
    found = [row[0] for row in site.database.read(query, {"now": ledger.now(), "over": json.dumps(over)})]
    return [*(one.name for one in abandoned(site, "removing")), *found]
