"""Notices when a tar brings xattrs that are overlay's own, stored under escaped names.

Only an overlay mount undoes the escape. A base layer is otherwise shown by a
bind mount, so the driver has to know that this one needs more. Before Linux 6.7
not even an overlay mount does, and the member is refused.
"""

from collections.abc import Callable

import attrs

from graphdrivers import errors
from graphdrivers.archive.whiteouts import Dialect


@attrs.frozen
class EscapeWatch(Dialect):
    """A dialect that remembers what it escaped."""

    undone: Callable[[], bool] = attrs.field(kw_only=True, eq=False)
    """Says whether this kernel undoes escapes; asked at the first one, which few archives have."""

    escaped: list[str] = attrs.field(factory=list, eq=False)

    @classmethod
    def over(cls, dialect: Dialect, undone: Callable[[], bool]) -> "EscapeWatch":
        """Watch what is done in this dialect."""
        return cls(**attrs.asdict(dialect), undone=undone)

    def escape(self, name: str) -> str:
        """Return the name to store; see `Dialect.escape`.

        Raises:
            UnsupportedEntry: no mount would show it under its own name.
        """
        stored = super().escape(name)
        if stored != name:
            if not self.escaped and not self.undone():
                raise errors.UnsupportedEntry(f"xattr {name!r} is overlay's own, content only from Linux 6.7 on")
            self.escaped.append(name)
        return stored
