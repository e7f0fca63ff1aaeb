"""Notices what a tar puts into a layer that the driver has to remember: escaped xattrs, and whiteouts.

Only an overlay mount undoes the escape of an xattr that is named as overlay's
own (not even that before Linux 6.7), and only a union hides what a whiteout deletes; a layer without either can
be shown as the plain directory that it is.
"""

from collections.abc import Callable

import attrs

from graphdrivers import errors
from graphdrivers.archive.whiteouts import Dialect


@attrs.frozen
class WatchedDialect(Dialect):
    """A dialect that remembers whether it escaped and deleted anything."""

    escaped: list[str] = attrs.field(factory=list, eq=False)
    """Xattrs that were stored under another name."""

    deleted: list[bytes] = attrs.field(factory=list, eq=False)
    """Names that were deleted; empty ones stand for the content of whole directories."""

    undone: Callable[[], bool] | None = attrs.field(default=None, eq=False)
    """Says whether this kernel undoes escapes; asked at the first one, which few archives have."""

    @classmethod
    def over(cls, dialect: Dialect, undone: Callable[[], bool] | None = None) -> "WatchedDialect":
        """Watch what is done in this dialect."""
        return cls(**attrs.asdict(dialect), undone=undone)

    def escape(self, name: str) -> str:
        """Return the name to store; see `Dialect.escape`.

        Raises:
            UnsupportedEntry: no mount would show it under its own name.
        """
        stored = super().escape(name)
        if stored != name:
            if self.undone and not self.escaped and not self.undone():
                raise errors.UnsupportedEntry(f"xattr {name!r} is overlay's own, content only from Linux 6.7 on")
            self.escaped.append(name)
        return stored

    def write_whiteout(self, directory: int, name: bytes) -> None:
        """Delete a name; see `Dialect.write_whiteout`."""
        self.deleted.append(name)
        super().write_whiteout(directory, name)

    def write_opaque(self, directory: int) -> None:
        """Hide what is below; see `Dialect.write_opaque`."""
        self.deleted.append(b"")
        super().write_opaque(directory)
