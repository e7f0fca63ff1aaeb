"""Blobs: files named by their digest, checked against it whatever reads them."""

import hashlib
from typing import BinaryIO, cast

from graphdrivers import errors
from graphdrivers.archive.digests import VerifiedReader
from graphdrivers.images.descriptors import Descriptor
from graphdrivers.images.documents import SIZE_MAX
from graphdrivers.images.files import Files


def blob_name(descriptor: Descriptor) -> str:
    """Give the place of a blob in a layout; the descriptor's digest has been checked, so it is safe in a path."""
    algorithm, _, encoded = descriptor.digest.partition(":")
    return f"blobs/{algorithm}/{encoded}"


def open_blob(files: Files, descriptor: Descriptor, what: str) -> BinaryIO:
    """Open a blob; reading it to its end verifies digest and size.

    Nothing read before the end may be believed.

    Raises:
        BlobNotFound: the source does not have it.
        DigestMismatch: its size is another one; on the last read, its digest is.
    """
    stream, size = _open_sized(files, descriptor, what)
    if size != descriptor.size:
        stream.close()
        raise errors.DigestMismatch(what, f"{descriptor.size} bytes", f"{size} bytes")
    return cast("BinaryIO", VerifiedReader(stream, descriptor.digest, descriptor.size, what))


def check_blob(files: Files, descriptor: Descriptor, what: str) -> None:
    """Check, without reading it, that a blob is there with the right size; raises as `open_blob` does."""
    open_blob(files, descriptor, what).close()


def read_document(files: Files, descriptor: Descriptor, what: str) -> bytes:
    """Read a manifest, index or configuration: first the size is limited, then the digest checked.

    Raises:
        InvalidManifest: it is too large to be one.
        BlobNotFound, DigestMismatch: as for `open_blob`.
    """
    if descriptor.size > SIZE_MAX:
        raise errors.InvalidManifest(files.source, f"{what} has {descriptor.size} bytes; {SIZE_MAX} is the limit")
    with open_blob(files, descriptor, what) as stream:
        return _read_all(stream, descriptor.size + 1)


def read_control_file(files: Files, name: str) -> bytes:
    """Read a file that no digest protects (``index.json``), limited in size.

    Raises:
        BlobNotFound: the source does not have it.
        InvalidManifest: it is too large.
    """
    stream, size = files.open(name)
    with stream:
        if size > SIZE_MAX:
            raise errors.InvalidManifest(files.source, f"{name} has {size} bytes; {SIZE_MAX} is the limit")
        return _read_all(stream, SIZE_MAX + 1)


def sha256_of(text: bytes) -> str:
    """Digest of a document in memory."""
    return f"sha256:{hashlib.sha256(text).hexdigest()}"


def _open_sized(files: Files, descriptor: Descriptor, what: str) -> tuple[BinaryIO, int]:
    try:
        return files.open(blob_name(descriptor))
    except errors.BlobNotFound as error:
        reason = f"{what} ({descriptor.digest}) is missing"
        if descriptor.urls:
            reason += "; it is kept elsewhere, and such addresses are never followed"
        raise errors.BlobNotFound(files.source, reason) from error


def _read_all(stream: BinaryIO, limit: int) -> bytes:
    """Read to the end, where a verified stream reports; at most ``limit`` bytes."""
    parts, left = [], limit
    while left and (part := stream.read(left)):
        parts.append(part)
        left -= len(part)
    return b"".join(parts)
