"""What people name: containers, images and layers, looked up in this order; the one place that does so."""

import contextlib
from collections.abc import Sequence

import attrs

from graphdrivers import errors, naivediff
from graphdrivers.api import images
from graphdrivers.api.containers import Container
from graphdrivers.api.images import Image
from graphdrivers.model import LayerRecord
from graphdrivers.store import containers, ledger
from graphdrivers.store.site import Site

Thing = Container | Image | LayerRecord
"""What a name can mean."""

CONTAINER, IMAGE, LAYER = "container", "image", "layer"
KINDS = (CONTAINER, IMAGE, LAYER)
"""In the order in which a name is looked up."""


@attrs.frozen
class Named:
    """One tree that a name means."""

    kind: str
    """``container``, ``image`` or ``layer``."""
    name: str
    """As its kind is known by: a container's name, an image's ID, a layer's name."""
    layer: str | None
    """The top layer; ``None`` for an image without any."""
    base: str | None
    """What it is compared with when nothing else is named: a container's init layer, the layer below."""


def find(site: Site, name: str, kinds: Sequence[str] = KINDS) -> Thing:
    """Find what a name means: a container (name or ID), else an image (reference or ID), else a layer of the driver.

    Raises:
        ObjectNotFound: none of ``kinds`` has this name.
        AmbiguousName: it is the beginning of several IDs.
    """
    if CONTAINER in kinds:
        with contextlib.suppress(errors.ContainerNotFound):
            return Container(site, containers.find(site, name))
    if IMAGE in kinds:
        with contextlib.suppress(errors.ImageNotFound):
            return images.find(site, name)
    if LAYER in kinds:
        with contextlib.suppress(errors.LayerNotFound, errors.InvalidName):
            return naivediff.find_record(site.driver, name)
    raise errors.ObjectNotFound(name, tuple(kinds))


def named(site: Site, name: str) -> Named:
    """Find what a name means in the ledger: as `find`, but for layers that were made by hand, which nothing keeps.

    Raises:
        ObjectNotFound, AmbiguousName: as for `find`.
    """
    thing = find(site, name)
    if isinstance(thing, Container):
        record = thing.record()
        return Named(CONTAINER, record.name, record.layer, record.init)
    if isinstance(thing, Image):
        below = thing.layers[-2].name if len(thing.layers) > 1 else None
        return Named(IMAGE, thing.image_id, thing.top, below)
    try:
        layer = ledger.find_layer(site.database, thing.name)
    except errors.LayerNotFound:
        raise errors.ObjectNotFound(name, KINDS) from None
    return Named(LAYER, layer.name, layer.name, layer.parent)
