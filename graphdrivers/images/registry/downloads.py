"""A blob as a stream that survives cut connections."""

import io
import re
import sys
import time
from collections.abc import Callable
from http import HTTPStatus
from typing import TYPE_CHECKING

import requests
import urllib3.exceptions

from graphdrivers import errors
from graphdrivers.images.descriptors import DISTANT_LAYERS, Descriptor
from graphdrivers.images.registry.connection import Connection, Request

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

PIECE = 256 << 10
"""Most bytes of one read; larger ones are not faster, for a socket rarely has more at once."""

_PROGRESS = 1 << 20
"""Bytes after which a new connection counts as one that works: failures are counted anew."""

_TRICKLE = 16 << 10
"""Bytes that have to come in the time of one timeout, counting only time in which we wait for them."""

_GOOD = frozenset({HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT})
_CONTENT_RANGE = re.compile(r"bytes ([0-9]+)-([0-9]+)/(?:[0-9]+|\*)", re.ASCII)


class BlobStream(io.RawIOBase):
    """The bytes of a blob as the registry sends them; verifying them is for whoever reads.

    When a connection breaks, stalls or ends too early, the next one goes on where
    it was (``Range``); a server that starts anew is read up to there. A raw
    stream: a read may give less than was asked for, nothing only at the end. It
    ends where the server ends, so that a blob that is too long is noticed.
    """

    def __init__(self, connection: Connection, descriptor: Descriptor) -> None:
        """Ask for the blob, so that an error about all of it comes here.

        Raises:
            BlobNotFound: the registry does not have it.
            DigestMismatch: the registry has it with another size.
            RegistryError: it refuses, or cannot be reached.
        """
        super().__init__()
        self._connection = connection
        self._descriptor = descriptor
        self._what = f"layer {descriptor.digest}"
        self._url = connection.url(f"blobs/{descriptor.digest}")
        self._offset = 0
        self._failed = 0
        self._working = 0
        self._came = 0
        self._waited = 0.0
        self._response: requests.Response | None = None
        self._ended = False
        self._attempt(lambda: None)

    def readable(self) -> bool:
        """Always."""
        return True

    def read(self, size: int | None = -1, /) -> bytes:
        """Return up to ``size`` bytes; all that is left for -1 or ``None``.

        Raises:
            RegistryError: no attempt brought more.
            BlobNotFound, DigestMismatch: it is gone, or has another size now.
        """
        if size is None or size < 0:
            return self.readall()
        if self.closed:
            raise ValueError("read of a closed stream")
        if self._ended or not size:
            return b""
        return self._attempt(lambda: self._piece(min(size, PIECE)))

    def readall(self) -> bytes:
        """Return all that is left."""
        return b"".join(iter(lambda: self.read(sys.maxsize), b""))

    def readinto(self, buffer: "WriteableBuffer", /) -> int:
        """Fill the front of ``buffer``; return how many bytes, 0 at the end. Raises as `read` does."""
        with memoryview(buffer) as view, view.cast("B") as target:
            piece = self.read(len(target))
            target[: len(piece)] = piece
        return len(piece)

    def close(self) -> None:
        """Let the connection go; one that was not read to its end is closed. Idempotent."""
        self._drop()
        super().close()

    def _attempt(self, use: Callable[[], "bytes | None"]) -> bytes:
        """Do something with a response, a new one after each failure, as long as `Patience` has it."""
        while True:
            try:
                if self._response is None:
                    self._response = self._open()
                return use() or b""
            except (requests.RequestException, errors.RegistryError) as error:
                self._drop()
                failure, again = self._connection.failure(error)
                self._failed += 1
                pause = self._connection.patience.before_next(self._failed, failure.retry_after) if again else None
                if pause is None:
                    raise failure from error
            except BaseException:
                self._drop()
                raise
            self._connection.pause(pause)

    def _open(self) -> requests.Response:
        """Ask for the rest of the blob."""
        self._working = self._came = 0
        self._waited = 0.0
        rest = {"Range": f"bytes={self._offset}-"} if self._offset else {}
        try:
            response = self._connection.send(Request("GET", self._url, _GOOD, rest))
        except errors.RegistryError as error:
            if error.status == HTTPStatus.NOT_FOUND:
                raise self._missing(error) from error
            raise
        try:
            self._place(response)
        except BaseException:
            response.close()
            raise
        return response

    def _missing(self, error: errors.RegistryError) -> errors.BlobNotFound:
        reason = f"{self._what} is missing: {error.reason}"
        if self._descriptor.media_type in DISTANT_LAYERS:
            reason += "; such layers are often kept elsewhere, and those addresses are never asked"
        return errors.BlobNotFound(self._connection.source, reason)

    def _place(self, response: requests.Response) -> None:
        """Bring a response to where we are, and hold its size against the descriptor's."""
        start = self._offset
        if response.status_code == HTTPStatus.OK:
            start = 0
        else:
            found = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
            if not self._offset or found is None or int(found[1]) != start:
                told = response.headers.get("Content-Range", "")[:80]
                raise errors.RegistryError(
                    self._connection.source, f"{self._what} was asked for from byte {start}, and came as {told!r}"
                )
        length = response.headers.get("Content-Length", "")
        if length.isascii() and length.isdigit() and start + int(length) != self._descriptor.size:
            raise errors.DigestMismatch(self._what, f"{self._descriptor.size} bytes", f"{start + int(length)} bytes")
        left = self._offset - start
        while left:  # the server knows no ranges
            left -= len(_read(response, min(left, PIECE), more=True))

    def _piece(self, size: int) -> bytes:
        """Read the next bytes."""
        if self._response is None:
            raise ValueError("no response is open")
        self._check_pace()
        began = time.monotonic()
        try:
            piece = _read(self._response, size, more=self._offset < self._descriptor.size)
        except requests.RequestException:
            if self._offset != self._descriptor.size:
                raise
            piece = b""  # only the last word of the server is missing
        self._waited += time.monotonic() - began
        self._came += len(piece)
        self._offset += len(piece)
        self._working += len(piece)
        if self._working >= _PROGRESS:
            self._failed = 0
        if not piece:
            self._ended = True
            self._drop()
        return piece

    def _check_pace(self) -> None:
        """Give up a connection that only trickles: each byte would start the timeout of the socket anew."""
        if self._waited < self._connection.patience.timeout:
            return
        if self._came < _TRICKLE:
            raise requests.ConnectionError("it brings next to nothing")
        self._waited, self._came = 0.0, 0

    def _drop(self) -> None:
        response, self._response = self._response, None
        if response is not None:
            response.close()


def _read(response: requests.Response, size: int, *, more: bool) -> bytes:
    """Read the next bytes; with ``more`` an end is a failure."""
    try:
        piece = bytes(response.raw.read1(size, decode_content=False))
    except (urllib3.exceptions.HTTPError, OSError) as error:
        raise requests.ConnectionError(error) from error
    if more and not piece:
        raise requests.ConnectionError("it ended too early")
    return piece
