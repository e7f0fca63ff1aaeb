"""Images on their way out of a store: to a file, a folder or a registry."""

import functools
from collections.abc import Mapping

from graphdrivers.api.images import Image, full_reference
from graphdrivers.images import descriptors
from graphdrivers.images.descriptors import Descriptor
from graphdrivers.images.manifests import Manifest
from graphdrivers.images.outgoing import OutgoingImage, OutgoingLayer
from graphdrivers.model import DiffID, Digest
from graphdrivers.store import images as records
from graphdrivers.store import tars
from graphdrivers.store.images import BlobRecord
from graphdrivers.store.ledger import Layer
from graphdrivers.store.site import Site


def outgoing(site: Site, image: Image, repository: str | None = None) -> OutgoingImage:
    """Describe an image for a destination; its layers are read when the destination asks for them.

    Args:
        site: the store.
        image: which.
        repository: the destination, where it is one: what was pushed to it or pulled from it before is there.
    """
    named = _named_blobs(image)
    return OutgoingImage(
        config=image.config.text,
        layers=tuple(_layer(site, layer, named, repository) for layer in image.layers),
        names=image.names,
        manifest=image.manifest,
        manifest_type=image.manifest_type,
    )


def relatives(site: Site, image: Image, repository: str) -> list[str]:
    """Give the other repositories of a registry that had layers of an image: pulled from there, or pushed to them.

    Sorted, each as a path without its host.
    """
    host = repository.partition("/")[0] + "/"
    known = (blob for layer in image.layers for blob in records.blobs_of(site, layer.diff_id or ""))
    found = {_repository(blob.origin) for blob in known if blob.origin.startswith(host)}
    return sorted(name.removeprefix(host) for name in found - {repository} if full_reference(name) is not None)


def remember(site: Site, layers: Mapping[DiffID, Descriptor], repository: str) -> None:
    """Keep as which blobs a registry has layers now: the next push finds them there."""
    for diff_id, found in layers.items():
        records.put_blob(site, BlobRecord(found.digest, diff_id, found.size, found.media_type, repository))


def _layer(site: Site, layer: Layer, named: Mapping[str, Descriptor], repository: str | None) -> OutgoingLayer:
    diff_id = layer.diff_id or DiffID("")
    known = records.blobs_of(site, diff_id)
    # A blob of the same registry that the manifest does not name is better than one that is nowhere there.
    wanted = sorted(known, key=lambda blob: (_distance(blob.origin, repository), blob.digest not in named))
    origin = None
    if wanted:
        blob = wanted[0]
        origin = named.get(blob.digest) or Descriptor(blob.media_type, Digest(blob.digest), blob.size)
    return OutgoingLayer(diff_id, layer.tar_size or 0, functools.partial(tars.open_tar, site, layer), origin)


def _distance(origin: str, repository: str | None) -> int:
    """Tell how near a blob is: 0 in the repository, 1 in its registry, 2 elsewhere."""
    if repository is None or not origin.startswith(repository.partition("/")[0] + "/"):
        return 2
    return 0 if _repository(origin) == repository else 1


def _repository(origin: str) -> str:
    """Take tag and digest off a reference, as origins in registries are."""
    name = origin.partition("@")[0]
    return name.rpartition(":")[0] if ":" in name.rpartition("/")[2] else name


def _named_blobs(image: Image) -> dict[str, Descriptor]:
    """Give the layers' descriptors in the manifest that the image came with, by digest."""
    if image.manifest is None or image.manifest_type not in descriptors.MANIFESTS:
        return {}
    manifest = Manifest.parse(image.manifest, image.image_id, "the manifest it came with", image.manifest_type)
    return {layer.digest: layer for layer in manifest.layers}
