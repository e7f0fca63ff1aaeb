"""Open an image or a root file system from a path, whatever form it has there."""

import contextlib
import os
import stat
import tempfile
from typing import BinaryIO, NoReturn

from graphdrivers import errors
from graphdrivers.archive import compression
from graphdrivers.images import docker_archive, oci_layout
from graphdrivers.images.archived_files import TarFiles
from graphdrivers.images.descriptors import Platform
from graphdrivers.images.files import Files, FolderFiles
from graphdrivers.images.image import Image
from graphdrivers.images.rootfs import Kind, Peek, RootFS, judge, open_folder, rejoined
from graphdrivers.model import Limits

_MAGIC_BYTES = 512
_CHUNK = 1 << 20


def open_image(
    path: str | os.PathLike[str],
    *,
    platform: str | Platform | None = None,
    reference: str | None = None,
    limits: Limits = Limits(),
    scratch: str | None = None,
) -> Image:
    """Open one image of an OCI layout or a ``docker save`` archive, and check all of it but its layers' content.

    Args:
        path: a folder, or a tar of one: plain, or compressed in any way that
            layers are; then it is decompressed once into an unnamed file. A FIFO
            (``/dev/stdin``) is read into one as well, once somebody writes to it.
        platform: ``linux/arm64/v8`` and the like. By default this machine's is
            chosen among several; a single image is taken whatever it is for.
        reference: which image, when there are several: its name or digest.
        limits: what a compressed or hostile archive may ask for.
        scratch: folder for the unnamed file; by default the system's for temporary files.

    Raises:
        InvalidReference: no image fits, or several do; the error lists what there is.
        InvalidManifest: neither form, or a document in it breaks its specification.
        BlobNotFound, DigestMismatch: the image is incomplete or damaged.
        ArchiveError: the outer tar is damaged, or asks for too much.
        OSError: the path cannot be read.
    """
    wanted = Platform.parse(platform) if isinstance(platform, str) else platform
    files = _open_files(os.fspath(path), limits, scratch)
    try:
        return _read(files, wanted, reference)
    except BaseException:
        files.close()
        raise


def open_source(
    path: str | os.PathLike[str],
    *,
    kind: Kind | None = None,
    platform: str | Platform | None = None,
    reference: str | None = None,
    limits: Limits = Limits(),
    scratch: str | None = None,
    source_date_epoch: int | None = None,
) -> Image | RootFS:
    """Open whatever can be imported: an image as `open_image` does, or a plain root file system.

    The path is opened and read once, so a FIFO will do. How the two are told
    apart says `rootfs`.

    Args:
        path: as for `open_image`; a folder or a tar may be a root file system too.
        kind: what it is, where that is known; by default it is found out.
        platform: as for `open_image`; means nothing for a root file system.
        reference: as for `open_image`; a root file system has no names, so it is refused.
        limits: as for `open_image`.
        scratch: as for `open_image`. A compressed tar is copied there unless its beginning shows a root file system.
        source_date_epoch: for a root file system in a folder: later modification times become this one.

    Raises:
        InvalidManifest: neither, or it could be both; as for `open_image`; a folder in which something is mounted.
        MalformedArchive: no tar.
        InvalidReference, BlobNotFound, DigestMismatch, ArchiveError, OSError: as for `open_image`.
    """
    name = os.fspath(path)
    if kind is Kind.IMAGE:
        return open_image(name, platform=platform, reference=reference, limits=limits, scratch=scratch)
    wanted = Platform.parse(platform) if isinstance(platform, str) else platform
    found = _open_any(name, kind, limits, scratch, source_date_epoch)
    if isinstance(found, RootFS) and reference is None:
        return found
    try:
        if isinstance(found, RootFS):
            return _refuse_reference(name, reference)
        return _read(found, wanted, reference)
    except BaseException:
        found.close()
        raise


def _refuse_reference(path: str, reference: str | None) -> NoReturn:
    raise errors.InvalidReference(path, f"it is a root file system, and holds no image called {reference!r}")


def _open_any(
    path: str, kind: Kind | None, limits: Limits, scratch: str | None, source_date_epoch: int | None
) -> Files | RootFS:
    """Open a path and tell what it is; ``kind`` is ``ROOTFS`` where that is known."""
    descriptor, mode = _open(path)
    if not stat.S_ISDIR(mode):
        stream = os.fdopen(descriptor, "rb")
        return _open_tar(stream, path, kind, limits, scratch, whole=stat.S_ISREG(mode))
    folder = FolderFiles(descriptor, path)
    try:
        if kind is None and judge(path, folder.names(), folder=True) is Kind.IMAGE:
            return folder
        found = open_folder(os.dup(descriptor), path, source_date_epoch)
    except BaseException:
        folder.close()
        raise
    folder.close()
    return found


def _open_tar(
    stream: BinaryIO, path: str, kind: Kind | None, limits: Limits, scratch: str | None, *, whole: bool
) -> Files | RootFS:
    """Tell what a tar is, from its beginning where that is enough; ``stream`` is taken over."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(stream)
        in_place = whole and _is_plain(stream)
        plain = stream if in_place else stack.enter_context(compression.open_plain(stream, limits))
        if kind is Kind.ROOTFS:
            return RootFS(path, rejoined([], plain, stack.pop_all()))
        peek = Peek(plain, limits)
        if peek.is_rootfs:
            return RootFS(path, rejoined(peek.pieces, plain, stack.pop_all()))
        if in_place:
            stack.pop_all()
            files = _index(stream, path, limits)
        else:
            with rejoined(peek.pieces, plain, contextlib.ExitStack()) as tar:
                files = _index(_spooled(tar, scratch), path, limits)
    try:
        if judge(path, files.names(), folder=False) is Kind.IMAGE:
            return files
        return RootFS(path, files.whole())
    except BaseException:
        files.close()
        raise


def _read(files: Files, platform: Platform | None, reference: str | None) -> Image:
    """Tell the forms apart. Docker's archives since version 25 are both; the OCI side has digests for all."""
    if oci_layout.is_layout(files):
        return oci_layout.read_layout(files, platform, reference)
    if docker_archive.is_docker_archive(files):
        return docker_archive.read_archive(files, platform, reference)
    if docker_archive.is_too_old(files):
        reason = "Docker before 1.10 saved it, without digests; load and save it with a newer one"
        raise errors.InvalidManifest(files.source, reason)
    found = ", ".join(repr(name) for name in files.names()[:8]) or "nothing"
    reason = f"no OCI layout (oci-layout, index.json) and no docker archive (manifest.json); it holds {found}"
    raise errors.InvalidManifest(files.source, reason)


def _open_files(path: str, limits: Limits, scratch: str | None) -> Files:
    descriptor, mode = _open(path)
    if stat.S_ISDIR(mode):
        return FolderFiles(descriptor, path)
    tar = _plain(os.fdopen(descriptor, "rb"), limits, scratch, whole=stat.S_ISREG(mode))
    return _index(tar, path, limits)


def _index(tar: BinaryIO, path: str, limits: Limits) -> TarFiles:
    """Index an uncompressed tar, which is taken over."""
    try:
        return TarFiles(tar, path, limits)
    except BaseException:
        tar.close()
        raise


def _open(path: str) -> tuple[int, int]:
    """Open a path; return the descriptor and the mode of what it is."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return descriptor, _kind(descriptor, path)
    except BaseException:
        os.close(descriptor)
        raise


def _kind(descriptor: int, path: str) -> int:
    """Return the mode of what was opened, if images are kept in such."""
    kind = os.fstat(descriptor).st_mode
    if not stat.S_ISDIR(kind) and not stat.S_ISREG(kind) and not stat.S_ISFIFO(kind):
        raise errors.InvalidManifest(path, "it is neither a folder nor a file")
    return kind


def _is_plain(stream: BinaryIO) -> bool:
    """Tell whether a regular file is not compressed."""
    return compression.detect(os.pread(stream.fileno(), _MAGIC_BYTES, 0)) is compression.Compression.NONE


def _plain(stream: BinaryIO, limits: Limits, scratch: str | None, *, whole: bool) -> BinaryIO:
    """Return ``stream`` if it can be read in place, else its plain bytes in an unnamed file, closing it."""
    if whole and _is_plain(stream):
        return stream
    with stream, compression.open_plain(stream, limits) as plain:
        return _spooled(plain, scratch)


def _spooled(plain: BinaryIO, scratch: str | None) -> BinaryIO:
    """Copy a stream into an unnamed file."""
    spool: BinaryIO = tempfile.TemporaryFile(dir=scratch)  # noqa: SIM115 - it is returned open
    try:
        while piece := plain.read(_CHUNK):
            spool.write(piece)
        spool.flush()
    except BaseException:
        spool.close()
        raise
    return spool
