"""Documents of an image, written: one value has one text, whoever writes it and whenever.

Keys are sorted, nothing stands between tokens, and everything beyond ASCII is
escaped, so that any string a document can hold can be written, half a surrogate
pair too.

Source: OCI image-spec, ``manifest.md``, ``image-index.md`` and ``image-layout.md``.
"""

import json
from collections.abc import Iterable, Mapping

import attrs

from graphdrivers import errors
from graphdrivers.images.blobs import sha256_of
from graphdrivers.images.descriptors import OCI_INDEX, OCI_MANIFEST, Descriptor
from graphdrivers.images.documents import SIZE_MAX
from graphdrivers.model import Digest

LAYOUT = b'{"imageLayoutVersion":"1.0.0"}'
"""What stands in the file ``oci-layout``."""


def encode(value: object, source: str, what: str) -> bytes:
    """Write one JSON document.

    Args:
        value: of what `documents.parse` gives.
        source: the image, for messages.
        what: which document this is, for messages.

    Raises:
        InvalidManifest: it has a number that JSON cannot hold, or would be larger than anybody reads.
    """
    try:
        text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode("ascii")
    except ValueError as error:
        raise errors.InvalidManifest(source, f"{what} cannot be written: {error}") from error
    if len(text) > SIZE_MAX:
        raise errors.InvalidManifest(source, f"{what} would have {len(text)} bytes; {SIZE_MAX} is the limit")
    return text


def describe(content: bytes, media_type: str) -> Descriptor:
    """Give the descriptor of a document."""
    return Descriptor(media_type, Digest(sha256_of(content)), len(content))


def write_manifest(
    config: Descriptor, layers: Iterable[Descriptor], annotations: Mapping[str, str], source: str
) -> bytes:
    """Write an OCI manifest; ``source`` names the image in messages. Raises as `encode` does."""
    fields: dict[str, object] = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": _fields(config),
        "layers": [_fields(layer) for layer in layers],
    }
    if annotations:
        fields["annotations"] = dict(annotations)
    return encode(fields, source, "its manifest")


def write_index(manifests: Iterable[Descriptor], source: str) -> bytes:
    """Write an OCI index, ``index.json`` of a layout; ``source`` names it in messages. Raises as `encode` does."""
    entries = [_fields(manifest) for manifest in manifests]
    return encode({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}, source, "its index")


def _fields(descriptor: Descriptor) -> dict[str, object]:
    """Give a descriptor as JSON has it; what is not set is left out."""
    fields: dict[str, object] = {
        "mediaType": descriptor.media_type,
        "digest": descriptor.digest,
        "size": descriptor.size,
    }
    if descriptor.annotations:
        fields["annotations"] = dict(descriptor.annotations)
    if descriptor.platform:
        fields["platform"] = {name: part for name, part in attrs.asdict(descriptor.platform).items() if part}
    if descriptor.urls:
        fields["urls"] = list(descriptor.urls)
    return fields
