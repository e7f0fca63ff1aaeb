"""Layers compressed on their way out: the same tar gives the same bytes, for nothing of the moment is in them.

No name and no time is in a gzip header. The bytes still depend on the version
of the compressor, and with ISA-L on the processor's architecture.
"""

import enum
from collections.abc import Iterator
from typing import Protocol

import zstandard
from isal import isal_zlib

_CHUNK = 1 << 20
_GZIP_BITS = 31
_GZIP_LEVEL = 2
_ZSTD_LEVEL = 3


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


class Readable(Protocol):
    """What can be read piece by piece."""

    def read(self, size: int, /) -> bytes:
        """Give up to ``size`` bytes, none at the end."""


class _Compressor(Protocol):
    def compress(self, chunk: bytes, /) -> bytes:
        """Take input and give some output."""

    def flush(self) -> bytes:
        """Give the rest."""


def compressed(stream: Readable, size: int, compression: PushCompression) -> Iterator[bytes]:
    """Give the compressed bytes of a stream, piece by piece; none is empty.

    Args:
        stream: is read to its end, and left open.
        size: of the stream in bytes; zstd writes it into its header, and holds the stream to it.
        compression: how.
    """
    compressor = _compressor(size, compression)
    while chunk := stream.read(_CHUNK):
        if compressor is None:
            yield chunk
        elif piece := compressor.compress(chunk):
            yield piece
    if compressor is not None:
        yield compressor.flush()


def _compressor(size: int, compression: PushCompression) -> _Compressor | None:
    if compression is PushCompression.GZIP:
        return isal_zlib.compressobj(_GZIP_LEVEL, wbits=_GZIP_BITS)
    if compression is PushCompression.ZSTD:
        return zstandard.ZstdCompressor(level=_ZSTD_LEVEL, write_checksum=True).compressobj(size)
    return None
