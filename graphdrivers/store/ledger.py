"""Rows of layers as values, and the questions about them that several parts of the store ask."""

import time

import attrs

from graphdrivers import errors
from graphdrivers.model import Applied, ChainID, DiffID
from graphdrivers.store.database import Database, Row, Step, is_text
from graphdrivers.store.holders import Holder

COLUMNS = "name, parent, chain_id, diff_id, tar_size, content_size, entries, notes, created"

DEPTH_MAX = 20_000
"""Layers of the deepest stack that is believed: a circle in a ledger that was tampered with has no end."""

USED = """
    SELECT 'image', image_id FROM images WHERE layer = :name
    UNION ALL SELECT 'container', name FROM containers WHERE layer = :name OR init = :name
    UNION ALL SELECT 'image', image_id FROM images WHERE init = :name
    UNION ALL SELECT 'checkpoint', containers.name || ' ' || point FROM checkpoints
        JOIN containers USING (container_id) WHERE checkpoints.layer = :name
    UNION ALL SELECT 'lease', lease FROM leases WHERE layer = :name AND (expires IS NULL OR expires > :now)
    UNION ALL SELECT 'mount', target FROM mounts WHERE layer = :name
    UNION ALL SELECT 'layer', name FROM layers WHERE parent = :name AND state != 'removing'
"""
"""What needs a layer: kind and name of each."""


@attrs.frozen
class Layer:
    """One layer that is complete, as the ledger has it."""

    name: str
    """In the driver."""
    parent: str | None
    chain_id: ChainID | None
    """``None`` for layers of containers."""
    diff_id: DiffID | None
    tar_size: int | None
    """Bytes of the uncompressed tar."""
    content_size: int | None
    """Sum of the sizes of the regular files in it."""
    entries: int | None
    notes: tuple[str, ...]
    """What the driver could not keep of it."""
    created: int
    """When, in ns since the epoch."""


def now() -> int:
    """Give the time, in ns since the epoch."""
    return time.time_ns()


def layer_of(row: Row) -> Layer:
    """Make a value of a row of `COLUMNS`."""
    name, parent, chain, diff, tar_size, size, entries, notes, created = row
    return Layer(name, parent, chain, diff, tar_size, size, entries, tuple(notes.splitlines()), created)


def find_layer(database: Database, name: str) -> Layer:
    """Give a complete layer.

    Raises:
        LayerNotFound: the store has none of this name.
    """
    query = f"SELECT {COLUMNS} FROM layers WHERE name = ? AND state = 'ready'"  # noqa: S608 - constants
    row = database.one(query, (name,)) if is_text(name) else None
    if row is None:
        raise errors.LayerNotFound(name)
    return layer_of(row)


def find_chain(database: Database, chain: ChainID) -> Layer | None:
    """Give the layer that is the top of a stack with this ChainID."""
    query = f"SELECT {COLUMNS} FROM layers WHERE chain_id = ? AND state = 'ready'"  # noqa: S608 - constants
    row = database.one(query, (chain,))
    return None if row is None else layer_of(row)


def stack_of(database: Database, name: str | None) -> list[Layer]:
    """Give a layer and its ancestors, top first; nothing for ``None`` and for one that is not there.

    Raises:
        StoreCorrupt: an ancestor is missing, or the layer is an ancestor of itself.
    """
    if name is None:
        return []
    query = f"""
        WITH RECURSIVE stack (step, layer) AS (
            SELECT 0, :name UNION ALL
            SELECT step + 1, parent FROM stack JOIN layers ON name = layer WHERE parent IS NOT NULL LIMIT :limit)
        SELECT {COLUMNS} FROM stack JOIN layers ON name = layer ORDER BY step"""  # noqa: S608 - constants
    found = [layer_of(row) for row in database.read(query, {"name": name, "limit": DEPTH_MAX + 1})]
    if len(found) > DEPTH_MAX:
        raise errors.StoreCorrupt(database.path, f"layer {name!r} is its own ancestor")
    if found and found[-1].parent is not None:
        raise errors.StoreCorrupt(database.path, f"layer {found[-1].name!r} has lost its parent")
    return found


def intend(step: Step, name: str, parent: str | None, holder: Holder) -> None:
    """Record that a layer is going to be made, before the driver hears of it.

    Raises:
        LayerNotFound: there is no such parent (any more).
    """
    if (
        parent is not None
        and not step.execute("SELECT 1 FROM layers WHERE name = ? AND state != 'removing'", (parent,)).fetchone()
    ):
        raise errors.LayerNotFound(parent)
    values = (name, parent, now(), str(holder))
    step.execute("INSERT INTO layers (name, parent, state, created, holder) VALUES (?, ?, 'making', ?, ?)", values)


def complete(
    step: Step, name: str, applied: Applied | None = None, chain: ChainID | None = None, tar_size: int | None = None
) -> None:
    """Record that a layer is made.

    Raises:
        LayerNotFound: it is not in the making: somebody took it back.
    """
    facts = (
        (None, None, None, "")
        if applied is None
        else (applied.diff_id, applied.size, applied.entries, "\n".join(applied.notes))
    )
    done = step.execute(
        """UPDATE layers SET state = 'ready', holder = NULL, diff_id = ?, content_size = ?, entries = ?, notes = ?,
           chain_id = ?, tar_size = ? WHERE name = ? AND state = 'making'""",
        (*facts, chain, tar_size, name),
    )
    if not done.rowcount:
        raise errors.LayerNotFound(name)


def users_of(step: Step, name: str) -> list[tuple[str, str]]:
    """Give what needs a layer, as (kind, name)."""
    return step.execute(USED, {"name": name, "now": now()}).fetchall()
