"""OCI image layouts: ``oci-layout``, ``index.json`` and ``blobs/``, in a folder or a tar.

Source: OCI image-spec, ``image-layout.md``.
"""

from typing import BinaryIO

import attrs

from graphdrivers import errors
from graphdrivers.images.blobs import check_blob, open_blob, read_control_file, read_document
from graphdrivers.images.choosing import Chooser
from graphdrivers.images.descriptors import Descriptor, Platform, images_among
from graphdrivers.images.documents import parse_object
from graphdrivers.images.files import Files
from graphdrivers.images.image import Image, ImageLayer
from graphdrivers.images.manifests import Index
from graphdrivers.images.selection import Offer, choose

MARKER = "oci-layout"
INDEX = "index.json"


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
    return Chooser(_LayoutBlobs(files), platform).image(offer.items.values(), offer.names, 1)


def _offers(index: Index) -> list[Offer[Descriptor]]:
    """List what the top level offers.

    One manifest under several names is one image; so are manifests of the same
    names that say for which platform each is.
    """
    entries: dict[str, Descriptor] = {}
    names: dict[str, dict[str, None]] = {}
    for entry in images_among(index.manifests):
        entries.setdefault(entry.digest, entry)
        names.setdefault(entry.digest, {}).update(dict.fromkeys(entry.names))
    groups: dict[object, dict[str, Descriptor]] = {}
    for digest, entry in entries.items():
        groups.setdefault(frozenset(names[digest]) if entry.platform else digest, {})[digest] = entry
    return [Offer(tuple(names[next(iter(items))]), items) for items in groups.values()]


@attrs.frozen(eq=False)
class _LayoutBlobs:
    """The blobs of a layout, as `choosing.Blobs`."""

    files: Files

    @property
    def source(self) -> str:
        """The layout's path."""
        return self.files.source

    def document(self, descriptor: Descriptor, what: str) -> bytes:
        """Read a file below ``blobs/``."""
        return read_document(self.files, descriptor, what)

    def check_layer(self, descriptor: Descriptor) -> None:
        """Check the file and its size."""
        check_blob(self.files, descriptor, f"layer {descriptor.digest}")

    def open_layer(self, layer: ImageLayer) -> BinaryIO:
        """Open the file."""
        if layer.digest is None:
            raise ValueError("not a layer of this image")
        return open_blob(self.files, Descriptor(layer.media_type, layer.digest, layer.size), f"layer {layer.digest}")

    def close(self) -> None:
        """Let go of the folder or the tar."""
        self.files.close()
