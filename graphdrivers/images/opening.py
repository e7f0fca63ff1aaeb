"""Open an image from a path, whatever form it has there."""

import os
import stat
import tempfile
from typing import BinaryIO

from graphdrivers import errors
from graphdrivers.archive import compression
from graphdrivers.images import docker_archive, oci_layout
from graphdrivers.images.archived_files import TarFiles
from graphdrivers.images.descriptors import Platform
from graphdrivers.images.files import Files, FolderFiles
from graphdrivers.images.image import Image
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
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        kind = _kind(descriptor, path)
    except BaseException:
        os.close(descriptor)
        raise
    if stat.S_ISDIR(kind):
        return FolderFiles(descriptor, path)
    tar = _plain(os.fdopen(descriptor, "rb"), limits, scratch, whole=stat.S_ISREG(kind))
    try:
        return TarFiles(tar, path, limits)
    except BaseException:
        tar.close()
        raise


def _kind(descriptor: int, path: str) -> int:
    """Return the mode of what was opened, if images are kept in such."""
    kind = os.fstat(descriptor).st_mode
    if not stat.S_ISDIR(kind) and not stat.S_ISREG(kind) and not stat.S_ISFIFO(kind):
        raise errors.InvalidManifest(path, "it is neither a folder nor a file")
    return kind


def _plain(stream: BinaryIO, limits: Limits, scratch: str | None, *, whole: bool) -> BinaryIO:
    """Return ``stream`` if it can be read in place, else its plain bytes in an unnamed file, closing it."""
    if whole and compression.detect(os.pread(stream.fileno(), _MAGIC_BYTES, 0)) is compression.Compression.NONE:
        return stream
    spool: BinaryIO = tempfile.TemporaryFile(dir=scratch)  # noqa: SIM115 - it is returned open
    try:
        with stream, compression.open_plain(stream, limits) as plain:
            while piece := plain.read(_CHUNK):
                spool.write(piece)
        spool.flush()
    except BaseException:
        spool.close()
        raise
    return spool
