"""New images: of what a container changed, and of plain root file systems."""

import datetime as dt
import hashlib
from collections.abc import Sequence
from typing import BinaryIO

from graphdrivers.api import images
from graphdrivers.api.description import Description
from graphdrivers.api.images import Image
from graphdrivers.images import configs
from graphdrivers.images.manifests import ImageConfig
from graphdrivers.model import Digest, Limits
from graphdrivers.store import images as records
from graphdrivers.store import importing, leases, ledger
from graphdrivers.store.images import ImageRecord
from graphdrivers.store.incoming import Watch
from graphdrivers.store.ledger import Layer
from graphdrivers.store.site import Site


def make_image(
    site: Site,
    base: Image | None,
    tar: BinaryIO,
    names: Sequence[str],
    description: Description,
    *,
    limits: Limits = Limits(),
    watch: Watch | None = None,
) -> Image:
    """Make an image of a base and one more layer. Durable and atomic: it is there with its names, or not at all.

    Args:
        site: the store.
        base: what the layer stands on; ``None`` for nothing.
        tar: the layer, uncompressed.
        names: references in full.
        description: what its configuration says.
        limits: what the layer may ask for.
        watch: told how it goes.

    Raises:
        InvalidChange: a change is not understood; nothing was made.
        ArchiveError, OSError: the layer cannot be made.
    """
    created = description.created or dt.datetime.now(dt.UTC)
    _configure(base, description, created, None)  # so that a mistake is told before the work
    parent = base.layers[-1] if base is not None and base.layers else None
    with leases.of_import(site) as lease:
        layer = importing.import_tar(site, parent, tar, lease=lease, limits=limits, watch=watch)
        config = _configure(base, description, created, layer)
        image_id = Digest(f"sha256:{hashlib.sha256(config).hexdigest()}")
        record = ImageRecord(
            image_id=image_id,
            config=config,
            manifest=None,
            manifest_type="",
            manifest_digest=None,
            layer=layer.name,
            created=ledger.now(),
        )
        records.put(site, record, names, lease=lease)
    return images.find(site, image_id)


def _configure(base: Image | None, description: Description, created: dt.datetime, layer: Layer | None) -> bytes:
    config: ImageConfig | None = None if base is None else base.config
    return configs.derived(
        config,
        [] if layer is None or layer.diff_id is None else [layer.diff_id],
        created=created,
        author=description.author,
        comment=description.comment,
        created_by=description.created_by,
        changes=description.changes,
        platform=description.platform,
        source="the new image" if base is None else base.image_id,
    )
