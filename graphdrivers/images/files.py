"""Where an image's files come from: named, regular, read-only files of a folder or of a tar."""

import errno
import io
import os
import posixpath
import stat
from typing import BinaryIO, NoReturn, Protocol

from graphdrivers import errors
from graphdrivers.linux import resolve


class Files(Protocol):
    """A flat view of named files. Names are relative, ``/``-separated, without ``.`` and ``..``."""

    @property
    def source(self) -> str:
        """The path that was opened, for messages."""

    def names(self) -> list[str]:
        """What is there at the top, sorted."""

    def has(self, name: str) -> bool:
        """Tell whether something has this name, a link too."""

    def repeats(self, name: str) -> bool:
        """Tell whether the name comes more than once."""

    def link(self, name: str) -> str | None:
        """Give the target of a symbolic link as written; ``None`` for anything else."""

    def open(self, name: str) -> tuple[BinaryIO, int]:
        """Open a regular file: its bytes, and how many there are. It outlives `close`.

        Raises:
            BlobNotFound: nothing has this name.
            InvalidManifest: it is something else than a regular file; links are not followed.
        """

    def close(self) -> None:
        """Let go of the folder or the tar. Idempotent."""


class FolderFiles:
    """The files below a folder, looked up from its descriptor: no link is followed, nothing outside is met."""

    def __init__(self, descriptor: int, source: str) -> None:
        """Take over ``descriptor``, an open directory."""
        self.source = source
        self._root: int | None = descriptor

    def names(self) -> list[str]:
        """List the folder."""
        return sorted(os.listdir(self._descriptor))

    def has(self, name: str) -> bool:
        """Look the name up without opening anything for reading."""
        try:
            os.close(self._resolve(name, os.O_PATH))
        except errors.BlobNotFound:
            return False
        return True

    def repeats(self, name: str) -> bool:  # noqa: ARG002 - a folder cannot
        """Say no."""
        return False

    def link(self, name: str) -> str | None:
        """Read the link through its folder's descriptor."""
        folder, base = posixpath.split(name)
        parent = self._resolve(folder or ".", os.O_PATH | os.O_DIRECTORY)
        try:
            return os.readlink(base, dir_fd=parent)
        except OSError as error:
            if error.errno in {errno.EINVAL, errno.ENOENT}:
                return None
            raise
        finally:
            os.close(parent)

    def open(self, name: str) -> tuple[BinaryIO, int]:
        """Open without waiting for a writer, should it be a FIFO."""
        descriptor = self._resolve(name, os.O_RDONLY | os.O_NONBLOCK)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                refuse_kind(self.source, name)
            return io.FileIO(descriptor), status.st_size
        except BaseException:
            os.close(descriptor)
            raise

    def close(self) -> None:
        """Close the folder."""
        if self._root is not None:
            os.close(self._root)
            self._root = None

    @property
    def _descriptor(self) -> int:
        if self._root is None:
            raise ValueError(f"{self.source}: the image is closed")
        return self._root

    def _resolve(self, name: str, flags: int) -> int:
        try:
            return resolve.open_beneath(self._descriptor, os.fsencode(name), flags | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError as error:
            if error.errno in {errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG}:
                raise errors.BlobNotFound(self.source, f"there is no {name!r}") from error
            if error.errno in {errno.ELOOP, errno.EXDEV}:
                refuse_kind(self.source, name)
            raise


def refuse_kind(source: str, name: str) -> NoReturn:
    """Raise for what is there but is not a plain file."""
    raise errors.InvalidManifest(source, f"{name!r} is not a regular file")


def clean(name: str) -> str | None:
    """Return a name in its only form (no ``./``, no ``//``), or ``None`` for one that is empty, climbs or is none."""
    if name.startswith("/") or "\0" in name or not _encodable(name):
        return None
    parts = [part for part in name.split("/") if part not in {"", "."}]
    return None if not parts or ".." in parts else "/".join(parts)


def _encodable(name: str) -> bool:
    """Tell whether it can be a file's name at all: JSON can write half a surrogate pair."""
    try:
        os.fsencode(name)
    except UnicodeEncodeError:
        return False
    return True
