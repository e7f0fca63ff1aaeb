"""Indexes, manifests and configurations, parsed and checked; nothing here reads a file.

Source: OCI image-spec, ``image-index.md``, ``manifest.md`` and ``config.md``.
"""

from collections.abc import Mapping
from typing import Self

import attrs

from graphdrivers.images import descriptors
from graphdrivers.images.descriptors import Descriptor, Platform, read_digest, read_platform
from graphdrivers.images.documents import Document, parse_object
from graphdrivers.model import DiffID


@attrs.frozen(eq=False)
class Index:
    """Several manifests (for several platforms, or names), or indexes of such."""

    manifests: tuple[Descriptor, ...]

    @classmethod
    def parse(cls, text: bytes, source: str, what: str, media_type: str | None) -> Self:
        """Check and take over an index.

        Args:
            text: its bytes, whose digest has been checked where there is one.
            source: the image's path, for messages.
            what: which index, for messages.
            media_type: what the descriptor says it is; ``None`` for a layout's ``index.json``.

        Raises:
            InvalidManifest: it breaks the specification or could be read as something else.
        """
        document = parse_object(text, source, what)
        _check_kind(document, media_type, descriptors.INDEXES)
        _check_alone(document, "config", "layers", "fsLayers", "history")
        return cls(tuple(Descriptor.read(item) for item in document.objects("manifests")))


@attrs.frozen(eq=False)
class Manifest:
    """One image: its configuration and its layers, lowest first."""

    text: bytes
    """The manifest's own bytes, which its digest is of."""
    config: Descriptor
    layers: tuple[Descriptor, ...]

    @classmethod
    def parse(cls, text: bytes, source: str, what: str, media_type: str) -> Self:
        """Check and take over a manifest; the arguments are those of ``Index.parse``.

        Raises:
            InvalidManifest: as for an index; or it describes something else than an image, or unknown layers.
        """
        document = parse_object(text, source, what)
        _check_kind(document, media_type, descriptors.MANIFESTS)
        _check_alone(document, "manifests", "fsLayers", "history")
        config = Descriptor.read(document.child("config"))
        if config.media_type not in descriptors.CONFIGS:
            document.refuse(f"is not an image: its configuration is {config.media_type!r}")
        return cls(text, config, tuple(_layer(item) for item in document.objects("layers")))


@attrs.frozen(eq=False)
class ImageConfig:
    """An image's configuration."""

    text: bytes
    """Its own bytes; their sha256 is the image's ID."""
    fields: Mapping[str, object]
    """All of it, as parsed. Content of the image: shown and passed on, never obeyed."""
    platform: Platform
    diff_ids: tuple[DiffID, ...]
    """Of the layers, lowest first."""

    @classmethod
    def parse(cls, text: bytes, source: str, what: str, layers: int) -> Self:
        """Check and take over a configuration; ``layers`` is how many its manifest has.

        Raises:
            InvalidManifest: it breaks the specification, or has another number of layers.
        """
        document = parse_object(text, source, what)
        rootfs = document.child("rootfs")
        if rootfs.text("type") != "layers":
            rootfs.refuse(f"is of the type {rootfs.text('type')!r}, not 'layers'")
        diff_ids = tuple(_diff_id(rootfs, item) for item in rootfs.texts("diff_ids"))
        if len(diff_ids) != layers:
            document.refuse(f"has {len(diff_ids)} diff_ids for {layers} layers")
        return cls(text, document.fields, read_platform(document), diff_ids)


def _diff_id(rootfs: Document, text: str) -> DiffID:
    """Check one DiffID; the specification allows other algorithms, but what verifies layers here is sha256."""
    if not text.startswith("sha256:"):
        rootfs.refuse(f"has the DiffID {text!r}, which is not a sha256 digest")
    return DiffID(read_digest(rootfs, text))


def _layer(document: Document) -> Descriptor:
    """Take over a layer's descriptor if the layer is one that can be unpacked."""
    layer = Descriptor.read(document)
    if layer.media_type not in descriptors.LAYERS | descriptors.DISTANT_LAYERS:
        document.refuse(f"has the media type {layer.media_type!r}, which is no layer that can be unpacked")
    return layer


def _check_kind(document: Document, media_type: str | None, allowed: frozenset[str]) -> None:
    """Refuse a body that is not of the kind its descriptor says (CVE-2021-41190)."""
    own = document.text("mediaType", "")
    expected = {media_type} if media_type else allowed
    if own and own not in expected:
        document.refuse(f"calls itself {own!r}, not {' or '.join(sorted(expected))}")
    if document.number("schemaVersion") != 2:
        document.refuse(f"has schemaVersion {document.number('schemaVersion')}, not 2")


def _check_alone(document: Document, *others: str) -> None:
    """Refuse a body that another parser could take for another kind of document (CVE-2021-41190).

    Keys count in any case, and with any value: Go's parser folds case.
    """
    present = {key.casefold() for key in document.fields}
    for key in others:
        if key.casefold() in present:
            document.refuse(f"has {key!r} too, so it could be read as something else")
