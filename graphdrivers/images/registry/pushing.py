"""Send an image to a registry: only the layers that it does not have, compressed while they are sent.

Source: OCI distribution-spec, heading *Push*; OCI image-spec, ``manifest.md``.
"""

import contextlib
import enum
import hashlib
import json
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from http import HTTPStatus
from typing import BinaryIO

import attrs

from graphdrivers import errors
from graphdrivers.archive.pipeline import ReadAhead
from graphdrivers.images import descriptors
from graphdrivers.images.descriptors import Descriptor
from graphdrivers.images.manifests import Manifest
from graphdrivers.images.outgoing import OutgoingImage, OutgoingLayer
from graphdrivers.images.reference import Reference
from graphdrivers.images.registry.compressing import PushCompression, compressed
from graphdrivers.images.registry.connection import Connection, Request
from graphdrivers.images.registry.uploads import blob_size, check_told_digest, mount_blob, put_small, send_stream
from graphdrivers.model import DiffID, Digest

_AHEAD = 4
_CHUNK = 1 << 20


class PushState(enum.StrEnum):
    """Where a layer is."""

    SENDING = "sending"
    SENT = "sent"
    MOUNTED = "mounted"
    """From another repository, without sending it."""
    EXISTS = "exists"
    """It was there."""


PushProgress = Callable[[DiffID, int, PushState], None]
"""Called with a layer, how many bytes of its plain tar are done, and where it is; from several threads. Starting anew
after a failure, it begins at 0 again. Raise from it to cancel."""


@attrs.frozen
class PushedLayer:
    """One layer as the registry has it now."""

    diff_id: DiffID
    descriptor: Descriptor
    state: PushState


@attrs.frozen
class Pushed:
    """What a push made."""

    manifest_digest: Digest
    manifest: bytes
    media_type: str
    layers: tuple[PushedLayer, ...]
    """Lowest first."""


def push(
    image: OutgoingImage,
    connection: Connection,
    *,
    tag: str | None = None,
    compression: PushCompression = PushCompression.GZIP,
    mount_from: Sequence[str] = (),
    progress: PushProgress | None = None,
    jobs: int = 3,
) -> Pushed:
    """Send an image, its manifest last: the tag means either what it meant before, or all of the image.

    A layer is sent only if the blob it came as is neither in the repository nor
    can be mounted; then it is compressed while it is sent, in bounded memory. If
    all layers are the blobs they came as, the manifest is the one it came with,
    byte by byte. A layer whose connection breaks is sent anew from its start.
    After a failure uploads are cancelled, for half a second at most
    (`Patience.cancelling`), and the connection is of no more use.

    Args:
        image: what to send.
        connection: where to; its reference gives the tag.
        tag: another tag than that.
        compression: of what has to be sent.
        mount_from: other repositories of this registry that may have the layers (``team/base``).
        progress: called while layers are sent.
        jobs: layers at a time.

    Raises:
        InvalidReference: the tag, or a name in ``mount_from``, is none; or the reference has another digest than the
            image gets.
        DigestMismatch: a layer is not what it was; or the registry says that it received something else.
        AuthenticationFailed, RegistryError: the registry refuses, or cannot be reached.
    """
    if tag is not None:
        Reference.parse(f"{connection.source}:{tag}")
    repositories = [_same_registry(connection.reference, name) for name in mount_from]
    sender = _Sender(connection, compression, repositories, progress or _ignore)
    layers = sender.all(image.layers, jobs)
    config = put_small(connection, image.config)
    text, media_type = _manifest(image, config, [layer.descriptor for layer in layers])
    digest = Digest(f"sha256:{hashlib.sha256(text).hexdigest()}")
    _put_manifest(connection, tag, digest, text, media_type)
    return Pushed(digest, text, media_type, tuple(layers))


class _Sender:
    """Brings layers to one repository."""

    def __init__(
        self, connection: Connection, compression: PushCompression, repositories: Sequence[str], progress: PushProgress
    ) -> None:
        """Send nothing yet."""
        self._connection = connection
        self._compression = compression
        self._repositories = repositories
        self._progress = progress

    def all(self, layers: Sequence[OutgoingLayer], jobs: int) -> list[PushedLayer]:
        """Bring all layers there, several at a time; the first failure stops the others."""
        distinct = {layer.diff_id: layer for layer in layers}
        with ThreadPoolExecutor(max(1, jobs), "graphdrivers-push") as pool:
            try:
                futures = {diff_id: pool.submit(self._one, layer) for diff_id, layer in distinct.items()}
                wait(futures.values())
            except BaseException:
                self._connection.stop()
                raise
        failures = [error for future in futures.values() if (error := future.exception())]
        if failures:
            raise self._connection.cause or failures[0]
        return [futures[layer.diff_id].result() for layer in layers]

    def _one(self, layer: OutgoingLayer) -> PushedLayer:
        """Bring one layer there; a failure stops the connection."""
        try:
            return self._bring(layer)
        except BaseException as error:
            self._connection.stop(error)
            raise

    def _bring(self, layer: OutgoingLayer) -> PushedLayer:
        for blob in self._known(layer):
            if state := self._reuse(blob):
                self._progress(layer.diff_id, layer.size, state)
                return PushedLayer(layer.diff_id, blob, state)
        digest, size = self._connection.repeat(lambda: self._send(layer))
        self._progress(layer.diff_id, layer.size, PushState.SENT)
        return PushedLayer(layer.diff_id, Descriptor(self._compression.media_type, digest, size), PushState.SENT)

    def _known(self, layer: OutgoingLayer) -> list[Descriptor]:
        """List the blobs that would do for a layer."""
        plain = Descriptor(PushCompression.NONE.media_type, Digest(layer.diff_id), layer.size)
        found = [] if layer.origin is None else [layer.origin]
        return [*found, plain] if self._compression is PushCompression.NONE else found

    def _reuse(self, blob: Descriptor) -> PushState | None:
        if blob_size(self._connection, blob.digest) == blob.size:
            return PushState.EXISTS
        for repository in self._repositories:
            if mount_blob(self._connection, blob.digest, repository):
                return PushState.MOUNTED
        return None

    def _send(self, layer: OutgoingLayer) -> tuple[Digest, int]:
        """Send a layer once, read and compressed in a second thread."""
        self._connection.check()
        with layer.open() as tar, contextlib.closing(self._compressed(layer, tar)) as chunks:
            ahead = ReadAhead(chunks, depth=_AHEAD)
            try:
                return send_stream(self._connection, iter(ahead.next_chunk, b""))
            finally:
                ahead.close()

    def _compressed(self, layer: OutgoingLayer, tar: BinaryIO) -> Generator[bytes]:
        counted = _Counted(tar, lambda done: self._progress(layer.diff_id, done, PushState.SENDING))
        return compressed(iter(lambda: counted.read(_CHUNK), b""), layer.size, self._compression)


class _Counted:
    """A stream that tells how far it was read."""

    def __init__(self, stream: BinaryIO, report: Callable[[int], None]) -> None:
        """Start at 0."""
        self._stream = stream
        self._report = report
        self._done = 0

    def read(self, size: int) -> bytes:
        """Read up to ``size`` bytes."""
        self._report(self._done)
        chunk = self._stream.read(size)
        self._done += len(chunk)
        return chunk


def _manifest(image: OutgoingImage, config: Digest, layers: Sequence[Descriptor]) -> tuple[bytes, str]:
    """Give the manifest and its media type: the original one if it says the same, else a new OCI manifest."""
    if image.manifest is not None:
        what = "the manifest that the image came with"
        original = Manifest.parse(image.manifest, "image", what, image.manifest_type)
        if original.config.digest == config and _blobs(original.layers) == _blobs(layers):
            return image.manifest, image.manifest_type
    fields = {
        "schemaVersion": 2,
        "mediaType": descriptors.OCI_MANIFEST,
        "config": _fields(Descriptor(descriptors.OCI_CONFIG, config, len(image.config))),
        "layers": [_fields(attrs.evolve(layer, media_type=_oci_type(layer.media_type))) for layer in layers],
    }
    return json.dumps(fields, separators=(",", ":")).encode(), descriptors.OCI_MANIFEST


def _blobs(layers: Sequence[Descriptor]) -> list[tuple[Digest, int]]:
    return [(layer.digest, layer.size) for layer in layers]


def _fields(descriptor: Descriptor) -> dict[str, object]:
    return {"mediaType": descriptor.media_type, "digest": descriptor.digest, "size": descriptor.size}


def _oci_type(media_type: str) -> str:
    """Give OCI's name of a layer's media type; a layer that is in the registry is kept nowhere else."""
    for ending, compression in ((("gzip",), PushCompression.GZIP), (("zstd",), PushCompression.ZSTD)):
        if media_type.endswith(ending):
            return compression.media_type
    return PushCompression.NONE.media_type


def _put_manifest(connection: Connection, tag: str | None, digest: Digest, text: bytes, media_type: str) -> None:
    reference = connection.reference
    if reference.digest not in {None, digest}:
        raise errors.InvalidReference(
            str(reference), f"the image gets another digest there, {digest}: push it to a tag"
        )
    place = connection.url(f"manifests/{tag or reference.tag or digest}")
    answer = connection.call(Request("PUT", place, {HTTPStatus.CREATED}, {"Content-Type": media_type}, text))
    check_told_digest(connection, answer.headers, digest)


def _same_registry(reference: Reference, name: str) -> str:
    """Check the name of another repository; the host may stand before it."""
    return Reference.parse(f"{reference.host}/{name.removeprefix(reference.host + '/')}").path


def _ignore(_diff_id: DiffID, _done: int, _state: PushState) -> None:
    """Tell nobody."""
