"""Whose a layer is: what the store's ledger knows of a layer that the verbs of ``layer`` meet."""

import os

from graphdrivers import errors
from graphdrivers.images.reference import Reference
from graphdrivers.store import ledger, names
from graphdrivers.store.database import FILE, Database, Row, Values
from graphdrivers.store.private import refuse_shared


class Ledger:
    """The ledger of a root, asked and never written; a root without a store has an empty one."""

    def __init__(self, root: str) -> None:
        """Open it where it is.

        Raises:
            StoreVersion, StoreCorrupt: it cannot be read.
            UnsafeStore: it belongs to another user, or others may write to it.
        """
        folder = os.path.join(root, "store")
        there = os.path.lexists(os.path.join(folder, FILE))
        if there:
            refuse_shared(root, os.path.realpath(root))
            refuse_shared(root, folder)
        self._database = Database(folder) if there else None

    def owner_of(self, layer: str) -> str | None:
        """Say what needs a layer of the store's own; ``None`` for a layer made by hand."""
        if not names.is_own(layer):
            return None
        users = sorted(self._users(layer))
        return users[0] if users else "the store"

    def driver(self) -> str | None:
        """Name the driver that the store was made with; ``None`` where there is no store."""
        rows = self._read("SELECT value FROM facts WHERE key = 'driver'", ())
        return str(rows[0][0]) if rows else None

    def close(self) -> None:
        """Close it. Idempotent."""
        if self._database is not None:
            self._database.close()

    def _users(self, layer: str) -> set[str]:
        """Name the images and containers that stand on a layer, however far above; each layer is asked about once."""
        found: set[str] = set()
        waiting, seen = [layer], {layer}
        while waiting:
            for kind, name in self._read(ledger.USED, {"name": waiting.pop(), "now": ledger.now()}):
                if kind == "layer" and name not in seen:
                    seen.add(name)
                    waiting.append(name)
                elif kind == "image":
                    found.add(f"image {self._called(name)}")
                elif kind in {"container", "checkpoint"}:
                    found.add(f"container {name.partition(' ')[0]}")
        return {one for one in found if one.startswith("image")} or found

    def _called(self, image_id: str) -> str:
        rows = self._read("SELECT reference FROM tags WHERE image_id = ? ORDER BY reference LIMIT 1", (image_id,))
        return Reference.parse(rows[0][0]).familiar if rows else image_id.removeprefix("sha256:")[:12]

    def _read(self, query: str, values: Values) -> list[Row]:
        return [] if self._database is None else self._database.read(query, values)


def refuse_own(root: str, *layers: str) -> None:
    """Keep the verbs that change layers from those that belong to the store.

    Raises:
        LayerOwned: one does; the error says to what.
    """
    own = [layer for layer in layers if names.is_own(layer)]
    if own:
        found = Ledger(root)
        try:
            raise errors.LayerOwned(own[0], found.owner_of(own[0]) or "the store")
        finally:
            found.close()
