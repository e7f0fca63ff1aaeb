"""What people name: containers, images and layers, in this order."""

import attrs

from graphdrivers import errors
from graphdrivers.api import images
from graphdrivers.api.images import Image
from graphdrivers.store import containers, ledger
from graphdrivers.store.site import Site


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


def find(site: Site, name: str) -> Named:
    """Find what a name means: a container's name or ID, an image's reference or ID, or a layer's name in the driver.

    Raises:
        ImageNotFound: nothing of this name.
        AmbiguousName: the beginning of several IDs.
    """
    try:
        container = containers.find(site, name)
    except errors.ContainerNotFound:
        pass
    else:
        return Named("container", container.name, container.layer, container.init)
    try:
        image = images.find(site, name)
    except errors.ImageNotFound:
        return _layer(site, name)
    return of_image(image)


def of_image(image: Image) -> Named:
    """Name an image."""
    return Named("image", image.image_id, image.top, image.layers[-2].name if len(image.layers) > 1 else None)


def _layer(site: Site, name: str) -> Named:
    try:
        layer = ledger.find_layer(site.database, name)
    except errors.LayerNotFound:
        raise errors.ImageNotFound(name, ": neither a container nor an image nor a layer") from None
    return Named("layer", layer.name, layer.name, layer.parent)
