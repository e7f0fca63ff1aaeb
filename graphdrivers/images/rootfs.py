"""Plain root file systems as a source: a tar of one (any layer's tar is), or a folder.

What makes a thing an image and what makes it a root file system is told from
the names at its top alone, never from what stands in a file:

* ``oci-layout`` with ``index.json``, or ``manifest.json``, or ``repositories``: an image;
* ``etc``, ``usr``, ``bin`` and the like: a root file system;
* both: refused. It would be one thing here and another to whoever looked at it
  before, so the caller has to say which is meant;
* a part of the image's names (``blobs``, ``index.json``): an image, whose error says what is missing;
* none of them: in a tar a root file system, as any tar is a layer; a folder is
  refused, for it is more likely one that *holds* images.

Of a tar only the first `PEEKED` bytes are looked at when they show directories
of a root and nothing of an image: then it is one, whatever follows, and it is
read as a stream, in one pass and without a copy on disk.
"""

import contextlib
import enum
import os
from collections.abc import Collection, Generator
from typing import BinaryIO, Self, cast

import attrs

from graphdrivers import errors
from graphdrivers.archive.compare import compare
from graphdrivers.archive.plain import EmptyTree, PlainTree
from graphdrivers.archive.produce import produce
from graphdrivers.archive.reader import TarReader
from graphdrivers.archive.stream import ChunkStream
from graphdrivers.images.docker_archive import MANIFEST, REPOSITORIES
from graphdrivers.images.files import clean
from graphdrivers.images.oci_layout import INDEX, MARKER
from graphdrivers.linux import mountinfo
from graphdrivers.model import Limits

PEEKED = 1 << 20
"""Bytes of an uncompressed tar that are looked at before anything is copied."""

CHUNK = 1 << 20
_READ = 64 << 10

ROOT_DIRECTORIES = frozenset(
    ["bin", "boot", "dev", "etc", "home", "lib", "lib32", "lib64", "libx32", "media", "mnt"]
).union(["opt", "proc", "root", "run", "sbin", "srv", "sys", "tmp", "usr", "var"])
"""What is at the top of a root file system. Source: Filesystem Hierarchy Standard 3.0, section 3.2; hier(7)."""

_IMAGE_NAMES = frozenset({MARKER, INDEX, MANIFEST, REPOSITORIES, "blobs"})


class Kind(enum.StrEnum):
    """What a path can hold."""

    IMAGE = "image"
    """An OCI layout or a ``docker save`` archive."""

    ROOTFS = "rootfs"
    """A plain root file system."""


@attrs.frozen(eq=False)
class RootFS:
    """A root file system to be made an image's only layer; a context manager."""

    source: str
    """The path it was opened from."""
    layer: BinaryIO
    """The uncompressed layer tar: of a tar its own bytes, of a folder made while it is read (all of each file, as
    `archive.produce` writes it). It can be read once; its errors are those of what is below."""

    def close(self) -> None:
        """Let go of the tar or folder. Idempotent."""
        self.layer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def judge(source: str, names: Collection[str], *, folder: bool) -> Kind:
    """Tell from all names at the top what a folder or tar is; see the beginning of this module.

    Raises:
        InvalidManifest: neither, or both.
    """
    root = sorted(ROOT_DIRECTORIES & set(names))
    image = [name for name in (MARKER, INDEX, MANIFEST, REPOSITORIES) if name in names]
    whole = {MANIFEST, REPOSITORIES} & set(image) or {MARKER, INDEX} <= set(image)
    if whole and root:
        reason = f"it could be an image ({', '.join(image)}) as well as a root file system ({', '.join(root[:5])})"
        raise errors.InvalidManifest(source, f"{reason}: say which it is, or take the others away")
    if whole or (not root and _IMAGE_NAMES & set(names)):
        return Kind.IMAGE
    if root or (names and not folder):
        return Kind.ROOTFS
    found = ", ".join(repr(name) for name in sorted(names)[:8]) or "nothing"
    reason = "no image (oci-layout with index.json, or manifest.json) and no root file system (etc, usr, bin)"
    raise errors.InvalidManifest(source, f"{reason}; it holds {found}")


class Peek:
    """The beginning of an uncompressed tar, looked at and kept."""

    def __init__(self, tar: BinaryIO, limits: Limits) -> None:
        """Read up to `PEEKED` bytes of ``tar``, and hardly more.

        Raises:
            MalformedArchive: it does not begin as a tar.
            LimitExceeded: its first member asks for too much.
        """
        self._tar = tar
        self._total = 0
        self.pieces: list[bytes] = []
        """What was read."""
        self.names: set[str] = set()
        """At the top, as far as was read."""
        reader = TarReader(self, limits, chunk=_READ)
        with contextlib.suppress(_Enough):
            self._look(reader)

    @property
    def is_rootfs(self) -> bool:
        """Whether that shows directories of a root and nothing of an image."""
        return bool(self.names & ROOT_DIRECTORIES) and not self.names & _IMAGE_NAMES

    def read(self, size: int = -1, /) -> bytes:
        """Read on for the tar reader, which wants no more than that of a source."""
        if self._total >= PEEKED:
            raise _Enough
        piece = self._tar.read(size)
        self._total += len(piece)
        if piece:
            self.pieces.append(piece)
        return piece

    def _look(self, reader: TarReader) -> None:
        """Collect names. What is wrong behind the first member is found again by whoever reads all."""
        try:
            while entry := reader.next():
                name = clean(os.fsdecode(entry.name).lstrip("/"))
                if name:
                    self.names.add(name.partition("/")[0])
        except errors.MalformedArchive as error:
            if error.offset == 0:
                reason = f"neither a tar nor a folder, so neither an image nor a root file system ({error.reason})"
                raise errors.MalformedArchive(reason) from error
        except errors.ArchiveError as error:
            if error.offset == 0:
                raise


class _Enough(Exception):
    """Enough was read."""


def rejoined(pieces: list[bytes], tar: BinaryIO, close: contextlib.ExitStack) -> BinaryIO:
    """Give a tar from its beginning, of which ``pieces`` were read already; ``close`` is closed with it."""
    return cast("BinaryIO", ChunkStream(_chunks(pieces, tar), close.close))


def open_folder(descriptor: int, path: str, source_date_epoch: int | None) -> RootFS:
    """Open a folder as a root file system; the layer is made while it is read.

    Args:
        descriptor: the open directory, which is taken over, also after an error.
        path: of it, for messages and to look for mounts.
        source_date_epoch: in seconds; later modification times become this one.

    Raises:
        InvalidManifest: something is mounted in it, so the layer would hold another file system's files.
    """
    with contextlib.ExitStack() as stack:
        stack.callback(os.close, descriptor)
        if mounts := mountinfo.mounted_below(path):
            raise errors.InvalidManifest(path, f"something is mounted in it, at {mounts[0].target!r}: unmount it first")
        close = stack.pop_all()
    layer = ChunkStream(_produced(descriptor, source_date_epoch), close.close)
    return RootFS(path, cast("BinaryIO", layer))


def _chunks(pieces: list[bytes], tar: BinaryIO) -> Generator[bytes]:
    yield from pieces
    while chunk := tar.read(CHUNK):
        yield chunk


def _produced(descriptor: int, source_date_epoch: int | None) -> Generator[bytes]:
    """Make the layer of a folder: all that is in it, over nothing."""
    with (
        PlainTree(descriptor) as tree,
        produce(compare(EmptyTree(), tree), source_date_epoch=source_date_epoch) as layer,
    ):
        while chunk := layer.read(CHUNK):
            yield chunk
