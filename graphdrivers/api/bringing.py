"""Images brought into a store: layers made or found, then recorded under their names."""

import functools
import os
import re
from collections.abc import Callable, Sequence
from typing import BinaryIO

from graphdrivers.api import images
from graphdrivers.api.images import Image
from graphdrivers.images import image as sources
from graphdrivers.images.reference import Reference
from graphdrivers.model import DiffID, Limits
from graphdrivers.store import images as records
from graphdrivers.store import importing, leases, ledger
from graphdrivers.store.images import BlobRecord, ImageRecord
from graphdrivers.store.incoming import Source, Watch
from graphdrivers.store.site import Site

_BARE_TAG = re.compile(r"\w[\w.-]{0,127}", re.ASCII)
_SUFFIX = re.compile(r"(?:\.(?:tar|oci|tgz|txz|tbz2?|gz|xz|zst|bz2))+$")


def bring(
    site: Site,
    source: sources.Image,
    names: Sequence[str],
    *,
    limits: Limits = Limits(),
    watch: Watch | None = None,
    jobs: int | None = None,
) -> Image:
    """Bring an opened image into the store, under these names (references in full).

    Only layers that are not there are read. Durable when it returns; after an
    error the layers that are complete stay for the next try, until they are collected.

    Raises:
        DigestMismatch, ArchiveError: a layer is not what it should be.
    """
    with leases.of_import(site) as lease:
        wanted = [
            Source(layer.diff_id, functools.partial(source.open_layer, layer), layer.size, source.distant)
            for layer in source.layers
        ]
        layers = importing.import_layers(site, wanted, lease=lease, limits=limits, watch=watch, jobs=jobs)
        origin = os.fsencode(source.source).decode(errors="backslashreplace")  # a path may be no text
        blobs = [
            BlobRecord(layer.digest, layer.diff_id, layer.size, layer.media_type, origin)
            for layer in source.layers
            if layer.digest is not None
        ]
        record = ImageRecord(
            image_id=source.config_digest,
            config=source.config.text,
            manifest=source.manifest,
            manifest_type=source.manifest_type,
            manifest_digest=source.manifest_digest,
            layer=layers[-1].name if layers else None,
            created=ledger.now(),
        )
        records.put(site, record, names, blobs=blobs, lease=lease)
    return images.find(site, source.config_digest)


def names_for(source: sources.Image) -> list[str]:
    """Give the references in full that an image's source calls it by.

    A bare tag, as layouts often have, is completed with the name of the file or
    folder: ``12`` in ``debian.tar`` is ``debian:12``. What is no reference is left out.
    """
    whole = [name for name in source.names if not _is_bare(source, name)]
    references = [reference for name in whole if (reference := images.full_reference(name)) is not None]
    tags = {Reference.parse(reference).tag for reference in references}
    for name in source.names:
        if _is_bare(source, name) and name not in tags:
            reference = images.full_reference(f"{_base(source.source)}:{name}")
            references += [] if reference is None else [reference]
    return list(dict.fromkeys(references))


def finder(opened: Sequence[sources.Image]) -> Callable[[DiffID], BinaryIO | None]:
    """Give what opens a layer by its DiffID, from whichever of some opened images has it."""

    def find(diff_id: DiffID) -> BinaryIO | None:
        for image in opened:
            for layer in image.layers:
                if layer.diff_id == diff_id:
                    return image.open_layer(layer)
        return None

    return find


def _is_bare(source: sources.Image, name: str) -> bool:
    """Say whether a name is a tag alone; ``docker save`` archives have none such."""
    return source.manifest is not None and _BARE_TAG.fullmatch(name) is not None


def _base(path: str) -> str:
    return _SUFFIX.sub("", os.path.basename(os.path.abspath(path))).lower()
