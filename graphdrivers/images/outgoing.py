"""An image on its way out: all that a destination needs to know of it, whoever keeps it."""

from collections.abc import Callable
from typing import BinaryIO

import attrs

from graphdrivers.images.descriptors import Descriptor
from graphdrivers.model import DiffID


@attrs.frozen(eq=False)
class OutgoingLayer:
    """One layer that can be read as often as needed."""

    diff_id: DiffID
    size: int
    """Bytes of the uncompressed tar."""
    open: Callable[[], BinaryIO]
    """Opens the uncompressed tar, the identical one if the layer was imported; the caller closes it. Reading to the
    end verifies the DiffID and raises ``DigestMismatch`` there. From different threads too."""
    origin: Descriptor | None = None
    """The blob it came as, compressed or not: a place that still has that blob needs no copy of the layer."""


@attrs.frozen(eq=False, kw_only=True)
class OutgoingImage:
    """One image."""

    config: bytes
    """The configuration, exact: its sha256 is the image's ID."""
    layers: tuple[OutgoingLayer, ...]
    """Lowest first."""
    names: tuple[str, ...] = ()
    """References it is known by, as `reference.Reference` writes them."""
    manifest: bytes | None = None
    """The manifest it came with, which names the layers by their ``origin``; ``None`` when there was none."""
    manifest_type: str = ""
    """The media type of ``manifest``."""
