"""How layers are compressed on their way to a registry."""

import enum
from collections.abc import Generator, Iterable

from graphdrivers.archive.compression import Compression
from graphdrivers.images.compressing import compress


class PushCompression(enum.StrEnum):
    """How layers are compressed that the registry does not have yet."""

    GZIP = "gzip"
    ZSTD = "zstd"
    NONE = "none"

    @property
    def media_type(self) -> str:
        """What an OCI manifest calls such a layer."""
        suffix = "" if self is PushCompression.NONE else f"+{self.value}"
        return f"application/vnd.oci.image.layer.v1.tar{suffix}"


def compressed(chunks: Iterable[bytes], size: int, compression: PushCompression) -> Generator[bytes]:
    """Give the compressed bytes of a tar, piece by piece; the same as in a saved image.

    Args:
        chunks: the tar.
        size: its bytes, which zstd writes into its header.
        compression: how.
    """
    if compression is PushCompression.NONE:
        yield from chunks
    else:
        yield from compress(chunks, Compression(compression.value), size)
