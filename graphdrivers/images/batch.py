"""Several images on their way out together: checked against each other, and what they share told apart once.

How images are named in a layout. Each name gets an entry of ``index.json``
with two annotations, as Docker and containerd write them: the whole reference
under containerd's key, and just the tag under OCI's. Where two images have the
same tag, the latter holds the whole reference as well, for it is what other
tools choose by. Names without a tag are left out: a digest is one of a
manifest, which may have to be written anew.

Which manifest is written. The one that came with the image, byte for byte, if
every layer is written as it came, uncompressed; then the image keeps its digest
too. Else an OCI manifest is written anew, which keeps the annotations.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Self

import attrs

from graphdrivers import errors
from graphdrivers.images import descriptors
from graphdrivers.images.blobs import blob_name, sha256_of
from graphdrivers.images.descriptors import CONTAINERD_NAME, REF_NAME, Descriptor
from graphdrivers.images.docker_archive import MANIFEST
from graphdrivers.images.documents import SIZE_MAX, parse_object
from graphdrivers.images.manifests import ImageConfig, Manifest
from graphdrivers.images.oci_layout import INDEX, MARKER
from graphdrivers.images.outgoing import OutgoingImage, OutgoingLayer
from graphdrivers.images.reference import Reference
from graphdrivers.images.writing import LAYOUT, describe, encode, write_index, write_manifest
from graphdrivers.model import DiffID, Digest

Blobs = Mapping[DiffID, Descriptor]
"""What each layer is written as."""

_UNCOMPRESSED = frozenset(kind for kind in descriptors.LAYERS | descriptors.DISTANT_LAYERS if kind.endswith(".tar"))


@attrs.frozen(eq=False)
class BatchImage:
    """One image, with all its names."""

    outgoing: OutgoingImage
    digest: Digest
    """Its ID."""
    names: tuple[Reference, ...]
    """Those with a tag, their digests taken off."""

    @classmethod
    def read(cls, outgoing: OutgoingImage) -> Self:
        """Check one image.

        Raises:
            InvalidReference: a name is none.
            InvalidManifest: its configuration breaks the specification, or has other layers.
        """
        digest = Digest(sha256_of(outgoing.config))
        label = outgoing.names[0] if outgoing.names else digest
        what = f"configuration {digest}"
        if len(outgoing.config) > SIZE_MAX:
            reason = f"{what} has {len(outgoing.config)} bytes; {SIZE_MAX} is the limit"
            raise errors.InvalidManifest(label, reason)
        config = ImageConfig.parse(outgoing.config, label, what, len(outgoing.layers))
        if config.diff_ids != tuple(layer.diff_id for layer in outgoing.layers):
            raise errors.InvalidManifest(label, f"{what} names other layers than the image has")
        return cls(outgoing, digest, _tagged(outgoing.names))

    @property
    def label(self) -> str:
        """What messages call it."""
        return self.names[0].familiar if self.names else self.digest

    def manifest(self, blobs: Blobs) -> tuple[bytes, Descriptor]:
        """Give the manifest for layers written as ``blobs``, and its descriptor.

        Raises:
            InvalidManifest: the one it came with breaks the specification.
        """
        given = self.outgoing.manifest
        config = describe(self.outgoing.config, descriptors.OCI_CONFIG)
        layers = [blobs[layer.diff_id] for layer in self.outgoing.layers]
        if given is not None and self.outgoing.manifest_type and self._fits(given, layers):
            return given, describe(given, self.outgoing.manifest_type)
        annotations = {} if given is None else parse_object(given, self.label, "manifest").text_map("annotations")
        text = write_manifest(config, layers, annotations, self.label)
        return text, describe(text, descriptors.OCI_MANIFEST)

    def _fits(self, text: bytes, layers: Sequence[Descriptor]) -> bool:
        """Tell whether a manifest describes just this configuration and these blobs, none of them compressed."""
        manifest = Manifest.parse(text, self.label, "manifest", self.outgoing.manifest_type)
        same = [(layer.digest, layer.size) for layer in layers] == [(old.digest, old.size) for old in manifest.layers]
        plain = all(old.media_type in _UNCOMPRESSED for old in manifest.layers)
        return same and plain and manifest.config.digest == self.digest


@attrs.frozen(eq=False)
class Batch:
    """The images of one archive or layout: each once, and no name twice."""

    images: tuple[BatchImage, ...]

    @classmethod
    def of(cls, images: Sequence[OutgoingImage]) -> Self:
        """Check the images; one that comes several times is one, with all the names.

        Raises:
            ValueError: there is none.
            InvalidReference: a name is none, or two images have it.
            InvalidManifest: a configuration breaks the specification, or has other layers than its image.
        """
        if not images:
            raise ValueError("no image to save")
        found: dict[Digest, BatchImage] = {}
        for image in map(BatchImage.read, images):
            known = found.get(image.digest, image)
            found[image.digest] = attrs.evolve(known, names=tuple(dict.fromkeys(known.names + image.names)))
        names = Counter(name for image in found.values() for name in image.names)
        for name, count in names.items():
            if count > 1:
                raise errors.InvalidReference(name.familiar, "several of the images to save have this name")
        return cls(tuple(found.values()))

    @property
    def source(self) -> str:
        """What messages call all of it."""
        return ", ".join(image.label for image in self.images[:3]) + (", ..." if len(self.images) > 3 else "")

    def layers(self) -> dict[DiffID, tuple[OutgoingLayer, str]]:
        """Give each layer once, with what messages call it."""
        found: dict[DiffID, tuple[OutgoingLayer, str]] = {}
        for image in self.images:
            for layer in image.outgoing.layers:
                found.setdefault(layer.diff_id, (layer, f"{image.label}: layer {layer.diff_id}"))
        return found

    def layout(self, blobs: Blobs) -> dict[str, bytes]:
        """Give every document of an OCI layout by its name: the marker, the index, manifests and configurations.

        Raises:
            InvalidManifest: a document would be larger than anybody reads, or a manifest that came is broken.
        """
        documents: dict[str, bytes] = {}
        entries: list[Descriptor] = []
        tags = Counter(name.tag for image in self.images for name in image.names)
        for image in self.images:
            text, manifest = image.manifest(blobs)
            documents[blob_name(manifest)] = text
            documents[_place(image.digest)] = image.outgoing.config
            entries += [attrs.evolve(manifest, annotations=_annotations(name, tags)) for name in image.names]
            entries += [] if image.names else [manifest]
        return {MARKER: LAYOUT, INDEX: write_index(entries, self.source)} | documents

    def docker_index(self, blobs: Blobs) -> bytes:
        """Give the ``manifest.json`` that makes a layout in a tar an archive for ``docker load`` too."""
        configs = {image.digest: _place(image.digest) for image in self.images}
        return self._docker_manifest({layer: blob_name(blob) for layer, blob in blobs.items()}, configs)

    def docker_archive(self, files: Mapping[DiffID, str]) -> dict[str, bytes]:
        """Give every document of a ``docker save`` archive by its name; ``files`` are the names of the layers'."""
        configs = {image.digest: f"{hexadecimal(image.digest)}.json" for image in self.images}
        documents = {configs[image.digest]: image.outgoing.config for image in self.images}
        return {MANIFEST: self._docker_manifest(files, configs)} | documents

    def _docker_manifest(self, files: Mapping[DiffID, str], configs: Mapping[Digest, str]) -> bytes:
        """Write ``manifest.json``; names as people write them, as Docker does."""
        items = [
            {
                "Config": configs[image.digest],
                "RepoTags": [name.familiar for name in image.names] or None,
                "Layers": [files[layer.diff_id] for layer in image.outgoing.layers],
            }
            for image in self.images
        ]
        return encode(items, self.source, MANIFEST)


def hexadecimal(digest: str) -> str:
    """Give the digits of a digest."""
    return digest.partition(":")[2]


def _place(digest: Digest) -> str:
    """Give the place of a document in a layout."""
    return f"blobs/sha256/{hexadecimal(digest)}"


def _tagged(names: Sequence[str]) -> tuple[Reference, ...]:
    """Parse names, and keep each once of those that have a tag."""
    parsed = [attrs.evolve(name, digest=None) for name in map(Reference.parse, names) if name.tag]
    return tuple(dict.fromkeys(parsed))


def _annotations(name: Reference, tags: Mapping[str | None, int]) -> dict[str, str]:
    """Name an entry of the index, for containerd and Docker and for the others."""
    return {CONTAINERD_NAME: str(name), REF_NAME: str(name) if tags[name.tag] > 1 else name.tag or ""}
