"""Images in a registry, opened as those in layouts are: nothing but their small documents is fetched yet.

Source: OCI distribution-spec, heading *Pulling manifests*.
"""

import hashlib
from collections.abc import Mapping
from http import HTTPStatus
from typing import BinaryIO, cast

import attrs

from graphdrivers import errors
from graphdrivers.archive.digests import VerifiedReader
from graphdrivers.images import descriptors
from graphdrivers.images.choosing import Chooser
from graphdrivers.images.descriptors import Descriptor, Platform
from graphdrivers.images.documents import SIZE_MAX
from graphdrivers.images.image import Image, ImageLayer
from graphdrivers.images.reference import Reference
from graphdrivers.images.registry.connection import NONE, Answer, Connection, Request, connect
from graphdrivers.images.registry.credentials import ANONYMOUS, Credentials
from graphdrivers.images.registry.downloads import BlobStream
from graphdrivers.images.registry.patience import USUAL, Patience
from graphdrivers.model import Digest, validate_digest

_ACCEPT = {"Accept": ", ".join(sorted(descriptors.MANIFESTS | descriptors.INDEXES))}


def open_remote(
    reference: str | Reference,
    *,
    platform: str | Platform | None = None,
    credentials: Credentials = ANONYMOUS,
    insecure: bool | None = None,
    patience: Patience = USUAL,
    ca_file: str | None = None,
    cert_dir: str | None = None,
    proxies: Mapping[str, str] = NONE,
) -> Image:
    """Open an image in a registry, and check all of it but its layers' content.

    Args:
        reference: ``NAME[:TAG][@DIGEST]``. With a digest the tag is not looked at: what the digest names is opened.
        platform: as for `opening.open_image`.
        credentials: as for `connect`, like all that follow.
        insecure: see there.
        patience: see there.
        ca_file: see there.
        cert_dir: see there.
        proxies: see there.

    Raises:
        InvalidReference: there is no such tag or repository, or no image for the platform.
        InvalidManifest: a document breaks its specification, or the registry calls it something else.
        BlobNotFound, DigestMismatch: the image is incomplete or damaged.
        AuthenticationFailed, RegistryError: the registry refuses, or cannot be reached.
    """
    wanted = Platform.parse(platform) if isinstance(platform, str) else platform
    parsed = Reference.parse(reference) if isinstance(reference, str) else reference
    connection = connect(
        parsed,
        credentials=credentials,
        insecure=insecure,
        patience=patience,
        ca_file=ca_file,
        cert_dir=cert_dir,
        proxies=proxies,
    )
    try:
        return read_image(connection, wanted)
    except BaseException:
        connection.close()
        raise


def read_image(connection: Connection, platform: Platform | None) -> Image:
    """Open the image that a connection's reference means; it takes the connection over. Raises as `open_remote`."""
    reference = connection.reference
    root, text = _fetch_root(connection, reference)
    name = attrs.evolve(reference, tag=None) if reference.digest else reference
    image = Chooser(_RemoteBlobs(connection, root, text), platform).image([root], (str(name),), 1)
    return attrs.evolve(image, distant=True)


@attrs.frozen(eq=False)
class _RemoteBlobs:
    """The blobs of a repository, as `choosing.Blobs`."""

    connection: Connection
    root: Descriptor
    """What the reference means; it has been read."""
    text: bytes

    @property
    def source(self) -> str:
        """The reference."""
        return str(self.connection.reference)

    def document(self, descriptor: Descriptor, what: str) -> bytes:
        """Fetch a document: limited in size first, then its digest checked."""
        if descriptor.digest == self.root.digest and descriptor.media_type == self.root.media_type:
            return self.text
        if descriptor.size > SIZE_MAX:
            raise errors.InvalidManifest(self.source, f"{what} has {descriptor.size} bytes; {SIZE_MAX} is the limit")
        if descriptor.media_type in descriptors.CONFIGS:
            answer = _fetch(self.connection, f"blobs/{descriptor.digest}", what, NONE)
        else:
            answer = _fetch(self.connection, f"manifests/{descriptor.digest}", what, _ACCEPT)
            _check_kind(self.source, _kind(answer), descriptor.media_type, what)
        if len(answer.body) != descriptor.size:
            raise errors.DigestMismatch(what, f"{descriptor.size} bytes", f"{len(answer.body)} bytes")
        _check_digest(answer.body, descriptor.digest, what)
        return answer.body

    def check_layer(self, descriptor: Descriptor) -> None:
        """Do nothing: asking costs a request, and whoever has the layer already needs none."""

    def open_layer(self, layer: ImageLayer) -> BinaryIO:
        """Open the blob; addresses in its descriptor are never asked."""
        if layer.digest is None:
            raise ValueError("not a layer of this image")
        descriptor = Descriptor(layer.media_type, layer.digest, layer.size)
        stream = cast("BinaryIO", BlobStream(self.connection, descriptor))
        return cast("BinaryIO", VerifiedReader(stream, layer.digest, layer.size, f"layer {layer.digest}"))

    def close(self) -> None:
        """Let go of the connection."""
        self.connection.close()


def _fetch_root(connection: Connection, reference: Reference) -> tuple[Descriptor, bytes]:
    """Fetch what the reference means, and give it a descriptor: nobody else has told its size and kind."""
    wanted = reference.digest or reference.tag
    what = f"manifest {wanted}"
    try:
        answer = _fetch(connection, f"manifests/{wanted}", what, _ACCEPT)
    except errors.BlobNotFound as error:
        reason = f"the registry has no such image: {error.reason}"
        raise errors.InvalidReference(str(reference), reason) from error
    digest = reference.digest or _told_digest(answer, str(reference)) or _sha256(answer.body)
    _check_digest(answer.body, digest, what)
    kind = _kind(answer)
    if kind not in descriptors.MANIFESTS | descriptors.INDEXES:
        reason = f"{what} has the media type {kind!r}, which is no image that can be read"
        raise errors.InvalidManifest(str(reference), reason)
    return Descriptor(kind, digest, len(answer.body)), answer.body


def _fetch(connection: Connection, place: str, what: str, headers: Mapping[str, str]) -> Answer:
    """Fetch a document of limited size.

    Raises:
        BlobNotFound: it is not there.
        InvalidManifest: it is too large.
    """
    try:
        answer = connection.call(Request("GET", connection.url(place), {HTTPStatus.OK}, headers), SIZE_MAX)
    except errors.RegistryError as error:
        if error.status == HTTPStatus.NOT_FOUND:
            raise errors.BlobNotFound(str(connection.reference), f"{what} is missing: {error.reason}") from error
        raise
    if len(answer.body) > SIZE_MAX:
        raise errors.InvalidManifest(str(connection.reference), f"{what} has more than {SIZE_MAX} bytes, the limit")
    return answer


def _kind(answer: Answer) -> str:
    """Return the media type of an answer, without parameters."""
    return answer.headers.get("Content-Type", "").partition(";")[0].strip()


def _check_kind(source: str, kind: str, expected: str, what: str) -> None:
    """Refuse what the registry serves as another kind than the descriptor has (CVE-2021-41190)."""
    if kind != expected:
        raise errors.InvalidManifest(source, f"{what} is served as {kind!r}, not as {expected!r}")


def _told_digest(answer: Answer, source: str) -> Digest | None:
    """Return the digest that the registry gives, which has to fit then."""
    text = answer.headers.get("Docker-Content-Digest", "")
    if not text:
        return None
    try:
        return validate_digest(text)
    except errors.InvalidName as error:
        raise errors.InvalidManifest(source, f"the registry gives it the digest {text!r}: {error.reason}") from error


def _sha256(body: bytes) -> Digest:
    return Digest(f"sha256:{hashlib.sha256(body).hexdigest()}")


def _check_digest(body: bytes, digest: Digest, what: str) -> None:
    algorithm = digest.partition(":")[0]
    actual = f"{algorithm}:{hashlib.new(algorithm, body).hexdigest()}"
    if actual != digest:
        raise errors.DigestMismatch(what, digest, actual)
