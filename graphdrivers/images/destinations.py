"""Where images are written to: a tar that depends on nothing but its content, or a folder that appears when whole."""

import errno
import hashlib
import os
import tempfile
from collections.abc import Iterable
from typing import BinaryIO, Self

from graphdrivers.archive.entries import DIRECTORY, REGULAR
from graphdrivers.archive.writer import TarWriter
from graphdrivers.linux import durable, trees

_NS = 1_000_000_000
_FILE = (0o644, 0, 0)
_FOLDER = (0o755, 0, 0)
_BLOBS = "blobs/sha256"


class TarDestination:
    """Writes files into a tar: owner 0:0, fixed modes, one time for all."""

    def __init__(self, sink: BinaryIO, time: int) -> None:
        """Write to ``sink``, which stays open; ``time`` (seconds since the epoch) is that of every member."""
        self._sink = sink
        self._time = time * _NS
        self._tar = TarWriter(self._write)

    def folder(self, name: str) -> None:
        """Write a folder."""
        self._tar.header(os.fsencode(name) + b"/", DIRECTORY, _FOLDER, 0, self._time)

    def file(self, name: str, size: int, chunks: Iterable[bytes]) -> None:
        """Write a file; ``chunks`` have to be ``size`` bytes together."""
        self._tar.header(os.fsencode(name), REGULAR, _FILE, size, self._time)
        for chunk in chunks:
            self._tar.payload(chunk)
        self._tar.pad(size)

    def close(self) -> None:
        """End the archive."""
        self._tar.close()

    def _write(self, piece: bytes) -> None:
        """Write a piece, also to a raw stream that takes only some of it."""
        view = memoryview(piece)
        while view:
            view = view[self._sink.write(view) :]


class FolderDestination:
    """Builds an OCI layout in a hidden folder beside its place; a context manager. What is not published is removed."""

    def __init__(self, path: str) -> None:
        """Start the folder that is to become ``path``.

        Raises:
            FileExistsError: something is there already.
            OSError: the folder around it is not there, or cannot be written to.
        """
        place = os.path.abspath(path)
        if os.path.lexists(place):
            raise FileExistsError(errno.EEXIST, "it exists already, and an image is saved to a new folder", path)
        parent, self._name = os.path.split(place)
        self._path: str | None = None
        self._parent = os.open(parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            self._path = tempfile.mkdtemp(prefix=".graphdriver-", suffix=".part", dir=parent)
            self._blobs = os.path.join(self._path, _BLOBS)
            os.makedirs(self._blobs)
        except BaseException:
            self.close()
            raise

    def file(self, name: str, chunks: Iterable[bytes]) -> None:
        """Write a file; durable."""
        with open(os.path.join(self._open, name), "xb") as file:
            file.writelines(chunks)
            _sync(file)

    def blob(self, chunks: Iterable[bytes]) -> tuple[str, int]:
        """Write a blob whose digest is not known before; durable. Returns the digest and the size."""
        digest = hashlib.sha256()
        size = 0
        temporary = os.path.join(self._blobs, "part")
        with open(temporary, "xb") as file:
            for chunk in chunks:
                digest.update(chunk)
                size += len(chunk)
                file.write(chunk)
            _sync(file)
        os.rename(temporary, os.path.join(self._blobs, digest.hexdigest()))
        return f"sha256:{digest.hexdigest()}", size

    def publish(self) -> None:
        """Put the folder in its place; it has the permissions that a new folder has. Atomic, durable.

        Raises:
            OSError: ``EEXIST`` where something is there by now; ``close`` then removes what was built.
        """
        path = self._open
        os.chmod(path, os.stat(os.path.join(path, "blobs")).st_mode)
        for folder in (self._blobs, os.path.dirname(self._blobs), path):
            durable.fsync_directory(folder)
        durable.rename_noreplace(self._parent, os.path.basename(path), self._parent, self._name)
        self._path = None
        durable.fsync_directory(self._parent)

    def close(self) -> None:
        """Remove what was not published. Idempotent."""
        if self._parent == -1:
            return
        try:
            if self._path is not None:
                trees.remove_tree(self._parent, os.fsencode(os.path.basename(self._path)))
        finally:
            os.close(self._parent)
            self._parent = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    @property
    def _open(self) -> str:
        if self._path is None:
            raise ValueError("the folder has been published")
        return self._path


def _sync(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())
