"""Digests of bytes on their way: computed beside the work, and verified before the end is believed."""

import hashlib
import io
from typing import TYPE_CHECKING, BinaryIO

from graphdrivers import errors
from graphdrivers.archive.pipeline import Pump

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer


_HAND_OVER = 4 << 20


class Digester:
    """Compute the sha256 of a stream in its own thread.

    Chunks are handed over some megabytes at a time: each hand-over makes two
    threads compete for the GIL. A stream shorter than that needs no thread.
    """

    def __init__(self) -> None:
        """Start with no bytes."""
        self._hash = hashlib.sha256()
        self._pump: Pump[list[bytes]] = Pump(self._update, depth=3)
        self._waiting: list[bytes] = []
        self._bytes = 0
        self.size = 0
        """Bytes taken so far."""

    def put(self, chunk: bytes) -> None:
        """Take the next bytes; they must not change any more."""
        self.size += len(chunk)
        self._bytes += len(chunk)
        self._waiting.append(chunk)
        if self._bytes >= _HAND_OVER:
            self._hand_over()

    def close(self) -> str:
        """Wait for what is still hashed and return the digest, ``sha256:`` and 64 hex digits."""
        if self.size == self._bytes:  # nothing was handed over yet
            self._update(self._waiting)
        else:
            self._hand_over()
            self._pump.close()
        return "sha256:" + self._hash.hexdigest()

    def abort(self) -> None:
        """End the thread without a result. Idempotent."""
        self._pump.abort()

    def _hand_over(self) -> None:
        self._pump.put(self._waiting)
        self._waiting = []
        self._bytes = 0

    def _update(self, chunks: list[bytes]) -> None:
        for chunk in chunks:
            self._hash.update(chunk)


class VerifiedReader(io.RawIOBase):
    """Pass a stream through, and refuse its end if the bytes were not those that were promised.

    A reader who stops before the end has verified nothing. Closing closes the stream.
    """

    def __init__(self, stream: BinaryIO, digest: str, size: int | None, what: str) -> None:
        """Verify ``stream``.

        Args:
            stream: the bytes.
            digest: what they must hash to, ``sha256:`` or ``sha512:`` and hex digits (see `model.validate_digest`).
            size: how many they must be; ``None`` where nobody said.
            what: names them in errors.
        """
        super().__init__()
        self._stream = stream
        self._hash = hashlib.new(digest.partition(":")[0])
        self._digest = digest
        self._size = size
        self._what = what
        self._seen = 0

    def readable(self) -> bool:
        """Always."""
        return True

    def read(self, size: int | None = -1, /) -> bytes:
        """Return up to ``size`` bytes; all that is left for -1 or ``None``.

        Raises:
            DigestMismatch: at the end of the stream, or as soon as it is longer than promised.
        """
        if size is None or size < 0:
            return self.readall()
        chunk = self._stream.read(size)
        self._seen += len(chunk)
        self._hash.update(chunk)
        if self._size is not None and (self._seen > self._size or (size and not chunk and self._seen < self._size)):
            raise errors.DigestMismatch(self._what, f"{self._size} bytes", self._count())
        if size and not chunk:
            self._check()
        return chunk

    def readinto(self, buffer: "WriteableBuffer", /) -> int:
        """Fill the front of ``buffer``; return how many bytes, 0 at the end. Raises as `read` does."""
        with memoryview(buffer) as view, view.cast("B") as target:
            chunk = self.read(len(target))
            target[: len(chunk)] = chunk
        return len(chunk)

    def close(self) -> None:
        """Close the stream below. Idempotent."""
        if not self.closed:
            self._stream.close()
        super().close()

    def _count(self) -> str:
        return "more" if self._size is not None and self._seen > self._size else f"{self._seen} bytes"

    def _check(self) -> None:
        actual = f"{self._digest.partition(':')[0]}:{self._hash.hexdigest()}"
        if actual != self._digest:
            raise errors.DigestMismatch(self._what, self._digest, actual)
