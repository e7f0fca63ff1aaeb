"""OCI image layouts: ``oci-layout``, ``index.json`` and ``blobs/``, in a folder or a tar.

Source: OCI image-spec, ``image-layout.md``.
"""

from collections.abc import Iterator
from typing import BinaryIO

import attrs

from graphdrivers import errors
from graphdrivers.images import descriptors
from graphdrivers.images.blobs import check_blob, open_blob, read_control_file, read_document
from graphdrivers.images.descriptors import Descriptor, Platform
from graphdrivers.images.documents import parse_object
from graphdrivers.images.files import Files
from graphdrivers.images.image import Image, ImageLayer
from graphdrivers.images.manifests import ImageConfig, Index, Manifest
from graphdrivers.images.selection import Offer, choose, choose_platform

MARKER = "oci-layout"
INDEX = "index.json"

NESTING_MAX = 4
"""Indexes inside indexes, ``index.json`` included."""


def is_layout(files: Files) -> bool:
    """Tell whether this is an OCI layout (Docker's archives since version 25 are one as well)."""
    return files.has(MARKER) and files.has(INDEX)


def read_layout(files: Files, platform: Platform | None, reference: str | None) -> Image:
    """Choose one image of a layout and check all of it but its layers' content.

    Raises:
        InvalidReference: it holds several images, or none of this name or platform.
        InvalidManifest: a document breaks its specification.
        BlobNotFound: a blob is missing.
        DigestMismatch: a blob is not what its digest says.
    """
    if files.repeats(INDEX):
        raise errors.InvalidManifest(files.source, f"{INDEX} comes twice, and readers differ in which one counts")
    layout = parse_object(read_control_file(files, MARKER), files.source, MARKER)
    if not layout.text("imageLayoutVersion").startswith("1."):
        layout.refuse(f"has the version {layout.text('imageLayoutVersion')!r}; 1.0.0 can be read")
    index = Index.parse(read_control_file(files, INDEX), files.source, INDEX, None)
    offer = choose(files.source, _offers(index), reference)
    return _Chooser(files, platform).image(offer)


def _offers(index: Index) -> list[Offer[Descriptor]]:
    """List what the top level offers.

    One manifest under several names is one image; so are manifests of the same
    names that say for which platform each is.
    """
    entries: dict[str, Descriptor] = {}
    names: dict[str, dict[str, None]] = {}
    for entry in index.manifests:
        if not entry.is_attestation:
            entries.setdefault(entry.digest, entry)
            names.setdefault(entry.digest, {}).update(dict.fromkeys(entry.names))
    groups: dict[object, dict[str, Descriptor]] = {}
    for digest, entry in entries.items():
        groups.setdefault(frozenset(names[digest]) if entry.platform else digest, {})[digest] = entry
    return [Offer(tuple(names[next(iter(items))]), items) for items in groups.values()]


@attrs.frozen(eq=False)
class _Candidate:
    """A manifest with its configuration, both checked."""

    descriptor: Descriptor
    manifest: Manifest
    config: ImageConfig


@attrs.frozen(eq=False)
class _Chooser:
    """Finds the manifest for one platform, and makes the image of it."""

    files: Files
    platform: Platform | None
    _seen: set[str] = attrs.field(factory=set, init=False)

    def image(self, offer: Offer[Descriptor]) -> Image:
        """Read the manifest that fits, and check that its layers are there."""
        found = self._find([leaf for item in offer.items.values() for leaf in self._leaves(item, 1)])
        for blob in found.manifest.layers:
            check_blob(self.files, blob, f"layer {blob.digest}")
        layers = zip(found.manifest.layers, found.config.diff_ids, strict=True)
        return Image(
            source=self.files.source,
            names=offer.names,
            manifest=found.manifest.text,
            manifest_digest=found.descriptor.digest,
            manifest_type=found.descriptor.media_type,
            config_digest=found.manifest.config.digest,
            config=found.config,
            layers=tuple(ImageLayer(blob.digest, blob.size, blob.media_type, diff_id) for blob, diff_id in layers),
            open_layer=self._open_layer,
            close=self.files.close,
        )

    def _open_layer(self, layer: ImageLayer) -> BinaryIO:
        if layer.digest is None:
            raise ValueError("not a layer of this image")
        return open_blob(self.files, Descriptor(layer.media_type, layer.digest, layer.size), f"layer {layer.digest}")

    def _leaves(self, descriptor: Descriptor, depth: int) -> Iterator[Descriptor]:
        """Give the manifests of images at and below a descriptor, in order, each once."""
        if descriptor.digest in self._seen:
            return
        self._seen.add(descriptor.digest)
        if descriptor.media_type in descriptors.MANIFESTS:
            yield descriptor
        elif descriptor.media_type not in descriptors.INDEXES:
            reason = f"{descriptor.digest} has the media type {descriptor.media_type!r}, which is no image"
            raise errors.InvalidManifest(self.files.source, reason)
        elif depth >= NESTING_MAX:
            raise errors.InvalidManifest(self.files.source, f"its indexes are nested deeper than {NESTING_MAX}")
        else:
            for entry in self._read_index(descriptor).manifests:
                if not entry.is_attestation:
                    yield from self._leaves(entry, depth + 1)

    def _find(self, leaves: list[Descriptor]) -> _Candidate:
        """Choose for the platform; the only image there is needs no platform, unless one was asked for."""
        if not leaves:
            raise errors.InvalidReference(self.files.source, "its index names no image")
        if len(leaves) == 1 and self.platform is None:
            return self._read(leaves[0])
        platforms = [leaf.platform or self._read(leaf).config.platform for leaf in leaves]
        best = choose_platform(self.files.source, platforms, self.platform or Platform.here())
        return self._read(leaves[best])

    def _read(self, descriptor: Descriptor) -> _Candidate:
        """Read a manifest and its configuration, and hold what they say against each other."""
        what = f"manifest {descriptor.digest}"
        text = read_document(self.files, descriptor, what)
        manifest = Manifest.parse(text, self.files.source, what, descriptor.media_type)
        what = f"configuration {manifest.config.digest}"
        text = read_document(self.files, manifest.config, what)
        config = ImageConfig.parse(text, self.files.source, what, len(manifest.layers))
        told, own = descriptor.platform, config.platform
        if told and (told.os, told.architecture) != (own.os, own.architecture):
            raise errors.InvalidManifest(self.files.source, f"{what} is for {own}, not for {told} as its index says")
        return _Candidate(descriptor, manifest, config)

    def _read_index(self, descriptor: Descriptor) -> Index:
        what = f"index {descriptor.digest}"
        text = read_document(self.files, descriptor, what)
        return Index.parse(text, self.files.source, what, descriptor.media_type)
