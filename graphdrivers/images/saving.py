"""Images out: OCI layouts in a folder or a tar, and ``docker save`` archives.

All three hold every layer and configuration once, however many images share it.
What is written depends only on the images and the arguments.

Source: OCI image-spec, ``image-layout.md``; moby ``image/spec/v1.2.md``, heading
*Combined Image JSON + Filesystem Changeset Format*.
"""

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from typing import BinaryIO

from graphdrivers import errors
from graphdrivers.archive.compression import Compression
from graphdrivers.images.archived_files import Section
from graphdrivers.images.batch import Batch, hexadecimal
from graphdrivers.images.blobs import blob_name
from graphdrivers.images.compressing import compress
from graphdrivers.images.descriptors import Descriptor
from graphdrivers.images.destinations import FolderDestination, TarDestination
from graphdrivers.images.docker_archive import MANIFEST
from graphdrivers.images.oci_layout import INDEX, MARKER
from graphdrivers.images.outgoing import OutgoingImage
from graphdrivers.model import DiffID, Digest, Progress

CHUNK = 1 << 20
"""Bytes of a layer read at a time."""

_Write = Callable[[Iterable[bytes]], tuple[str, int]]
"""Writes a blob; gives its digest and size."""

_Content = tuple[int, Iterable[bytes]]
"""A file's size and bytes."""

_FIRST = (MARKER, INDEX, MANIFEST)

_MEDIA_TYPES = {
    Compression.NONE: "application/vnd.oci.image.layer.v1.tar",
    Compression.GZIP: "application/vnd.oci.image.layer.v1.tar+gzip",
    Compression.ZSTD: "application/vnd.oci.image.layer.v1.tar+zstd",
}


def bytes_to_read(images: Sequence[OutgoingImage]) -> int:
    """Tell what ``progress`` of the functions here ends at: the bytes of all layers, each counted once."""
    return sum({layer.diff_id: layer.size for image in images for layer in image.layers}.values())


def save_oci(
    images: Sequence[OutgoingImage],
    sink: BinaryIO,
    *,
    compression: str = "none",
    source_date_epoch: int | None = None,
    scratch: str | None = None,
    progress: Progress | None = None,
) -> None:
    """Write an OCI layout as a tar, which ``docker load`` and all that read ``docker save`` archives take as well.

    ``oci-layout``, ``index.json`` and ``manifest.json`` come first, then the
    blobs, sorted. The same images give the same bytes.

    Args:
        images: one or more; see `batch` for their names and manifests.
        sink: takes the tar; any stream, left open. After an error what it got is garbage.
        compression: of the layers: ``none`` (each is then the identical tar that
            was imported), ``gzip`` or ``zstd``. Compressed ones are first written
            to an unnamed file, for a tar says the size before the content.
        source_date_epoch: the time of every member, in seconds; 0 by default.
        scratch: folder for the unnamed file; by default the system's for temporary files.
        progress: called with the bytes of layers read so far; see `bytes_to_read`.

    Raises:
        ValueError: no image, or another compression.
        InvalidReference, InvalidManifest: as for `batch.Batch.of` and `batch.Batch.layout`; nothing was written.
        DigestMismatch: a layer is not what it was; the error names image and layer.
        OSError: the sink or the unnamed file failed.
    """
    batch = Batch.of(images)
    method = _method(compression)
    reading = _Reading(batch, progress)
    contents: dict[str, _Content]
    with contextlib.ExitStack() as stack:
        if method is Compression.NONE:
            blobs = reading.as_they_are()
            contents = {blob_name(blob): (blob.size, reading.chunks(layer)) for layer, blob in blobs.items()}
        else:
            spool = _Spool(stack.enter_context(tempfile.TemporaryFile(dir=scratch)))
            blobs = reading.compressed(method, spool.add)
            contents = {blob_name(blob): (blob.size, spool.chunks(blob)) for blob in blobs.values()}
        documents = batch.layout(blobs) | {MANIFEST: batch.docker_index(blobs)}
        _write_tar(TarDestination(sink, source_date_epoch or 0), documents, contents)


def save_folder(
    images: Sequence[OutgoingImage],
    path: str | os.PathLike[str],
    *,
    compression: str = "none",
    progress: Progress | None = None,
) -> None:
    """Write an OCI layout as a folder. Atomic and durable: ``path`` is complete or not there, whatever happens.

    A process that is killed leaves a hidden folder ``.graphdriver-*.part`` beside it.

    Args:
        images: one or more; see `batch` for their names and manifests.
        path: must not exist; its parent must.
        compression: as for `save_oci`.
        progress: as for `save_oci`.

    Raises:
        FileExistsError: there is something at ``path``.
        ValueError, InvalidReference, InvalidManifest, DigestMismatch: as for `save_oci`.
        OSError: something could not be written.
    """
    batch = Batch.of(images)
    method = _method(compression)
    reading = _Reading(batch, progress)
    with FolderDestination(os.fspath(path)) as folder:
        if method is Compression.NONE:
            blobs = reading.as_they_are()
            for layer, blob in blobs.items():
                folder.file(blob_name(blob), reading.chunks(layer))
        else:
            blobs = reading.compressed(method, folder.blob)
        for name, text in batch.layout(blobs).items():
            folder.file(name, [text])
        folder.publish()


def save_docker(
    images: Sequence[OutgoingImage],
    sink: BinaryIO,
    *,
    source_date_epoch: int | None = None,
    progress: Progress | None = None,
) -> None:
    """Write a ``docker save`` archive as Docker 1.10 to 24 did, for tools that know nothing else.

    ``manifest.json`` first, then, sorted, ``ID.json`` for each image and
    ``DIFFID/layer.tar`` for each layer, uncompressed. Without what Docker before 1.10 read
    (``repositories``, ``json``, ``VERSION``). Arguments and errors are those of `save_oci`.
    """
    batch = Batch.of(images)
    reading = _Reading(batch, progress)
    layers = batch.layers()
    files = {diff_id: f"{hexadecimal(diff_id)}/layer.tar" for diff_id in layers}
    contents: dict[str, _Content] = {
        files[diff_id]: (layer.size, reading.chunks(diff_id)) for diff_id, (layer, _) in layers.items()
    }
    _write_tar(TarDestination(sink, source_date_epoch or 0), batch.docker_archive(files), contents)


def _method(compression: str) -> Compression:
    """Return how layers are to be compressed, if manifests have a word for it."""
    for method in _MEDIA_TYPES:
        if method.value == compression:
            return method
    raise ValueError(f"layers are not saved with the compression {compression!r}; use none, gzip or zstd")


def _write_tar(tar: TarDestination, documents: Mapping[str, bytes], contents: Mapping[str, _Content]) -> None:
    """Write the files that say what this is, then the others, sorted, each folder before its first file."""
    files = {name: (len(text), [text]) for name, text in documents.items()} | dict(contents)
    first = [name for name in _FIRST if name in files]
    folders: set[str] = set()
    for name in first + sorted(files.keys() - set(first)):
        for end in (at for at, char in enumerate(name) if char == "/"):
            if name[:end] not in folders:
                folders.add(name[:end])
                tar.folder(name[:end])
        tar.file(name, *files[name])
    tar.close()


class _Reading:
    """Reads the layers of a batch, each once, and tells how far it is."""

    def __init__(self, batch: Batch, progress: Progress | None) -> None:
        self._layers = batch.layers()
        self._progress = progress
        self._read = 0

    def as_they_are(self) -> dict[DiffID, Descriptor]:
        """Describe the layers as uncompressed blobs."""
        kind = _MEDIA_TYPES[Compression.NONE]
        return {diff_id: Descriptor(kind, Digest(diff_id), layer.size) for diff_id, (layer, _) in self._layers.items()}

    def compressed(self, method: Compression, write: _Write) -> dict[DiffID, Descriptor]:
        """Compress all layers, one after the other, and describe what was written."""
        blobs = {}
        for diff_id, (layer, _) in self._layers.items():
            with contextlib.closing(compress(self.chunks(diff_id), method, layer.size)) as chunks:
                digest, size = write(chunks)
            blobs[diff_id] = Descriptor(_MEDIA_TYPES[method], Digest(digest), size)
        return blobs

    def chunks(self, diff_id: DiffID) -> Generator[bytes]:
        """Give a layer's bytes.

        Raises:
            DigestMismatch: at its end, or where it gets longer than it should be.
        """
        layer, what = self._layers[diff_id]
        size = 0
        try:
            with layer.open() as stream:
                while chunk := stream.read(CHUNK):
                    size += len(chunk)
                    _check_size(what, layer.size, size, ended=False)
                    self._tell(len(chunk))
                    yield chunk
            _check_size(what, layer.size, size, ended=True)
        except errors.DigestMismatch as error:
            raise errors.DigestMismatch(what, error.expected, error.actual) from error

    def _tell(self, size: int) -> None:
        self._read += size
        if self._progress:
            self._progress(self._read)


def _check_size(what: str, expected: int, size: int, *, ended: bool) -> None:
    """Refuse a layer of another size than its record says: a tar's member would reach into the next one."""
    if size > expected or (ended and size < expected):
        raise errors.DigestMismatch(what, f"{expected} bytes", "more" if size > expected else f"{size} bytes")


class _Spool:
    """Compressed blobs, one behind the other in one file."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._end = 0
        self._starts: dict[Digest, int] = {}

    def add(self, chunks: Iterable[bytes]) -> tuple[str, int]:
        """Append a blob; return its digest and size."""
        digest = hashlib.sha256()
        start = self._end
        for chunk in chunks:
            digest.update(chunk)
            self._file.write(chunk)
            self._end += len(chunk)
        found = Digest(f"sha256:{digest.hexdigest()}")
        self._starts[found] = start
        return found, self._end - start

    def chunks(self, blob: Descriptor) -> Iterator[bytes]:
        """Give a blob's bytes."""
        self._file.flush()
        with Section(self._file.fileno(), self._starts[blob.digest], blob.size) as section:
            while chunk := section.read(CHUNK):
                yield chunk
