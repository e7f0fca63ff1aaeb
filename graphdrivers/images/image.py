"""An opened image: its facts as values, and its layers as streams."""

from collections.abc import Callable
from typing import BinaryIO, Self

import attrs

from graphdrivers.images.manifests import ImageConfig
from graphdrivers.model import DiffID, Digest


@attrs.frozen
class ImageLayer:
    """One layer of an image, as it is stored there."""

    digest: Digest | None
    """Of the stored (usually compressed) bytes. ``None`` in a ``docker save`` archive, which does not say:
    the stream is then unverified, and whoever decompresses it has to compare with ``diff_id``."""
    size: int
    """Stored bytes."""
    media_type: str
    """As the manifest has it. Compression is better told from the bytes; Docker's archives compress or do not."""
    diff_id: DiffID
    """Digest of the uncompressed tar."""


@attrs.frozen(eq=False, kw_only=True)
class Image:
    """One image in a layout or an archive; a context manager, usable until it is closed."""

    source: str
    """The path it was opened from."""
    names: tuple[str, ...]
    """What the source calls it: references, or any other text, or nothing."""
    manifest: bytes | None
    """The manifest's bytes; ``None`` in a ``docker save`` archive without one."""
    manifest_digest: Digest | None
    manifest_type: str = ""
    """The media type of ``manifest``."""
    config_digest: Digest
    """The image's ID."""
    config: ImageConfig
    layers: tuple[ImageLayer, ...]
    """Lowest first; none at all for an image made from nothing."""
    distant: bool = False
    """Its layers come over a network."""

    _open_layer: Callable[[ImageLayer], BinaryIO]
    _close: Callable[[], None]

    def open_layer(self, layer: ImageLayer) -> BinaryIO:
        """Open the stored bytes of one of ``layers``; the caller closes the stream, also after the image.

        With a digest, reading to the end verifies it and the size, and raises
        ``DigestMismatch`` there; without one see `ImageLayer.digest`. Any
        number of layers may be read at once, from different threads.
        """
        return self._open_layer(layer)

    def close(self) -> None:
        """Let go of the folder or archive. Idempotent."""
        self._close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
