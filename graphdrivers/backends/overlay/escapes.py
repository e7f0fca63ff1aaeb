"""Notices when a tar brings xattrs that are overlay's own, stored under escaped names.

Only an overlay mount undoes the escape. A base layer is otherwise shown by a
bind mount, so the driver has to know that this one needs more.
"""

import attrs

from graphdrivers.archive.whiteouts import Dialect


@attrs.frozen
class EscapeWatch(Dialect):
    """A dialect that remembers what it escaped."""

    escaped: list[str] = attrs.field(factory=list, eq=False)

    @classmethod
    def over(cls, dialect: Dialect) -> "EscapeWatch":
        """Watch what is done in this dialect."""
        return cls(**attrs.asdict(dialect))

    def escape(self, name: str) -> str:
        """Return the name to store; see `Dialect.escape`."""
        stored = super().escape(name)
        if stored != name:
            self.escaped.append(name)
        return stored
