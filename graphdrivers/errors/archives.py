"""Tars that are refused, and bytes that are not those that were promised."""

from typing import ClassVar

import attrs

from graphdrivers.errors.base import GraphDriverError


@attrs.define(eq=False)
class ArchiveError(GraphDriverError):
    """A layer's tar was refused; the layer was rolled back."""

    reason: str
    member: str = ""
    offset: int = -1

    template: ClassVar[str] = "{reason}"
    exit_code: ClassVar[int] = 40

    @property
    def message(self) -> str:
        """Say what is wrong, with the member and the byte offset of its header where known."""
        text = self.template.format(**self.fields())
        if self.member:
            text += f" (member {self.member!r}"
            text += f", byte {self.offset})" if self.offset >= 0 else ")"
        elif self.offset >= 0:
            text += f" (byte {self.offset})"
        return text


@attrs.define(eq=False)
class MalformedArchive(ArchiveError):
    """Not a tar, a truncated one, or one whose fields contradict each other."""

    template: ClassVar[str] = "malformed archive: {reason}"
    remedy: ClassVar[str] = "fetch or make the archive again"
    exit_code: ClassVar[int] = 41


@attrs.define(eq=False)
class UnsafePath(ArchiveError):
    """A member's name, link or whiteout points outside the layer."""

    template: ClassVar[str] = "unsafe path refused: {reason}"
    remedy: ClassVar[str] = "do not trust the origin of this archive"
    exit_code: ClassVar[int] = 42


@attrs.define(eq=False)
class UnsupportedEntry(ArchiveError):
    """A legal member that this driver, kernel or user cannot hold."""

    template: ClassVar[str] = "cannot store a member here: {reason}"
    remedy: ClassVar[str] = "run as root, or use a driver and file system that can hold it"
    exit_code: ClassVar[int] = 43


@attrs.define(eq=False)
class LimitExceeded(ArchiveError):
    """A limit on what an archive may ask for was reached.

    ``limit`` names the ``Limits`` field; empty where it is the disk that has no
    more room.
    """

    limit: str = ""

    template: ClassVar[str] = "limit reached: {reason}"
    remedy: ClassVar[str] = "if the archive is trusted, raise the limit {limit}"
    exit_code: ClassVar[int] = 44

    @property
    def fix(self) -> str:
        """Say which limit to raise, or that there has to be more room."""
        return self.remedy.format(limit=self.limit) if self.limit else "free some space there"


@attrs.define(eq=False)
class FileChanged(ArchiveError):
    """A file was written to while it was read for a diff; nothing after it was produced."""

    template: ClassVar[str] = "a file changed while it was read: {reason}"
    remedy: ClassVar[str] = "make the diff again when nothing writes to the layer"
    exit_code: ClassVar[int] = 45


@attrs.define(eq=False)
class DigestMismatch(GraphDriverError):
    """Bytes are not those that the digest promised."""

    what: str
    expected: str
    actual: str

    template: ClassVar[str] = "{what}: expected {expected}, got {actual}"
    remedy: ClassVar[str] = "the source is damaged or was changed: fetch it again"
    exit_code: ClassVar[int] = 50
