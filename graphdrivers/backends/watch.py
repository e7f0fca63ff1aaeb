"""Notices what a tar puts into a layer that the driver has to remember: escaped xattrs, and whiteouts.

Only an overlay mount undoes the escape of an xattr that is named as overlay's
own, and only a union hides what a whiteout deletes; a layer without either can
be shown as the plain directory that it is.
"""

import attrs

from graphdrivers.archive.whiteouts import Dialect


@attrs.frozen
class Watch(Dialect):
    """A dialect that remembers whether it escaped and deleted anything."""

    escaped: list[str] = attrs.field(factory=list, eq=False)
    """Xattrs that were stored under another name."""

    deleted: list[bytes] = attrs.field(factory=list, eq=False)
    """Names that were deleted; empty ones stand for the content of whole directories."""

    @classmethod
    def over(cls, dialect: Dialect) -> "Watch":
        """Watch what is done in this dialect."""
        return cls(**attrs.asdict(dialect))

    def escape(self, name: str) -> str:
        """Return the name to store; see `Dialect.escape`."""
        stored = super().escape(name)
        if stored != name:
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
