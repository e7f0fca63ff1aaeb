"""Find the one image for a platform behind manifests and indexes, wherever their blobs are kept."""

from collections.abc import Iterable, Iterator
from typing import BinaryIO, Protocol

import attrs

from graphdrivers import errors
from graphdrivers.images import descriptors
from graphdrivers.images.descriptors import Descriptor, Platform
from graphdrivers.images.image import Image, ImageLayer
from graphdrivers.images.manifests import ImageConfig, Index, Manifest
from graphdrivers.images.selection import choose_platform

NESTING_MAX = 4
"""Indexes inside indexes, the outermost included."""


class Blobs(Protocol):
    """Where documents and layers come from by their descriptors: a layout, a registry."""

    @property
    def source(self) -> str:
        """What was opened, for messages."""

    def document(self, descriptor: Descriptor, what: str) -> bytes:
        """Read a manifest, index or configuration, limited in size and with its digest verified.

        Raises:
            InvalidManifest: it is too large, or the source calls it something else than the descriptor does.
            BlobNotFound, DigestMismatch: it is missing, or not what its digest says.
        """

    def check_layer(self, descriptor: Descriptor) -> None:
        """Check that a layer is there, where that costs nothing; raises as `document` does."""

    def open_layer(self, layer: ImageLayer) -> BinaryIO:
        """Open a layer's stored bytes, as `Image.open_layer` promises."""

    def close(self) -> None:
        """Let go of the source. Idempotent."""


@attrs.frozen(eq=False)
class _Candidate:
    """A manifest with its configuration, both checked."""

    descriptor: Descriptor
    manifest: Manifest
    config: ImageConfig


@attrs.frozen(eq=False)
class Chooser:
    """Finds the manifest for one platform, and makes the image of it."""

    blobs: Blobs
    platform: Platform | None
    """``None`` for this machine's, where there are several."""
    _seen: set[str] = attrs.field(factory=set, init=False)

    def image(self, roots: Iterable[Descriptor], names: tuple[str, ...], depth: int) -> Image:
        """Read the manifest that fits, and check that its layers are there.

        Args:
            roots: manifests and indexes, any of which may be meant.
            names: what the source calls the image.
            depth: indexes that were read on the way to the roots, plus one.

        Raises:
            InvalidReference: there is none for the platform.
            InvalidManifest, BlobNotFound, DigestMismatch: as for `Blobs.document`.
        """
        found = self._find([leaf for item in roots for leaf in self._leaves(item, depth)])
        for blob in found.manifest.layers:
            self.blobs.check_layer(blob)
        layers = zip(found.manifest.layers, found.config.diff_ids, strict=True)
        return Image(
            source=self.blobs.source,
            names=names,
            manifest=found.manifest.text,
            manifest_digest=found.descriptor.digest,
            manifest_type=found.descriptor.media_type,
            config_digest=found.manifest.config.digest,
            config=found.config,
            layers=tuple(ImageLayer(blob.digest, blob.size, blob.media_type, diff_id) for blob, diff_id in layers),
            open_layer=self.blobs.open_layer,
            close=self.blobs.close,
        )

    def _leaves(self, descriptor: Descriptor, depth: int) -> Iterator[Descriptor]:
        """Give the manifests of images at and below a descriptor, in order, each once."""
        if descriptor.digest in self._seen:
            return
        self._seen.add(descriptor.digest)
        if descriptor.media_type in descriptors.MANIFESTS:
            yield descriptor
        elif descriptor.media_type not in descriptors.INDEXES:
            reason = f"{descriptor.digest} has the media type {descriptor.media_type!r}, which is no image"
            raise errors.InvalidManifest(self.blobs.source, reason)
        elif depth >= NESTING_MAX:
            raise errors.InvalidManifest(self.blobs.source, f"its indexes are nested deeper than {NESTING_MAX}")
        else:
            for entry in descriptors.images_among(self._read_index(descriptor).manifests):
                yield from self._leaves(entry, depth + 1)

    def _find(self, leaves: list[Descriptor]) -> _Candidate:
        """Choose for the platform; the only image there is needs no platform, unless one was asked for."""
        if not leaves:
            raise errors.InvalidReference(self.blobs.source, "its index names no image")
        if len(leaves) == 1 and self.platform is None:
            return self._read(leaves[0])
        platforms = [leaf.platform or self._read(leaf).config.platform for leaf in leaves]
        best = choose_platform(self.blobs.source, platforms, self.platform or Platform.here())
        return self._read(leaves[best])

    def _read(self, descriptor: Descriptor) -> _Candidate:
        """Read a manifest and its configuration, and hold what they say against each other."""
        what = f"manifest {descriptor.digest}"
        text = self.blobs.document(descriptor, what)
        manifest = Manifest.parse(text, self.blobs.source, what, descriptor.media_type)
        what = f"configuration {manifest.config.digest}"
        text = self.blobs.document(manifest.config, what)
        config = ImageConfig.parse(text, self.blobs.source, what, len(manifest.layers))
        told, own = descriptor.platform, config.platform
        if told and (told.os, told.architecture) != (own.os, own.architecture):
            raise errors.InvalidManifest(self.blobs.source, f"{what} is for {own}, not for {told} as its index says")
        return _Candidate(descriptor, manifest, config)

    def _read_index(self, descriptor: Descriptor) -> Index:
        what = f"index {descriptor.digest}"
        text = self.blobs.document(descriptor, what)
        return Index.parse(text, self.blobs.source, what, descriptor.media_type)
