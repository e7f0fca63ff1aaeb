"""What lies at a path, brought into a store: an image, or a plain root file system that becomes one.

Apart from `bringing`, because what reads layouts and archives is slow to import, and a registry needs none of it.
"""

import os
from collections.abc import Sequence

import attrs

from graphdrivers.api import bringing, committing
from graphdrivers.api.description import Description
from graphdrivers.api.images import Image
from graphdrivers.images import image as sources
from graphdrivers.images import opening
from graphdrivers.images.descriptors import Platform
from graphdrivers.images.rootfs import Kind
from graphdrivers.model import Limits
from graphdrivers.store.incoming import Watch
from graphdrivers.store.site import Site


def bring_path(
    site: Site,
    source: str | os.PathLike[str],
    *,
    names: Sequence[str] | None,
    kind: str | None,
    platform: str | Platform | None,
    reference: str | None,
    description: Description,
    limits: Limits,
    watch: Watch | None,
    jobs: int | None,
) -> Image:
    """Bring in what lies at a path; see ``Store.import_image``. Without ``names`` it is called what it is there."""
    known = None if kind is None else Kind(kind)
    with opening.open_source(
        source, kind=known, platform=platform, reference=reference, limits=limits, scratch=site.folder
    ) as opened:
        if isinstance(opened, sources.Image):
            chosen = bringing.names_for(opened) if names is None else names
            return bringing.bring(site, opened, chosen, limits=limits, watch=watch, jobs=jobs)
        said = attrs.evolve(description, created_by=description.created_by or f"import {os.path.basename(source)}")
        return committing.make_image(site, None, opened.layer, names or [], said, limits=limits, watch=watch)
