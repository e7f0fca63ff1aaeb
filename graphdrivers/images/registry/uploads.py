"""Blobs on their way into a repository.

Source: OCI distribution-spec, headings *Pushing blobs* and *Mounting a blob from another repository*.
"""

import contextlib
import hashlib
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Self
from urllib.parse import quote, urlsplit, urlunsplit

import requests

from graphdrivers import errors
from graphdrivers.archive.digests import Digester
from graphdrivers.images.registry.connection import Connection, Request
from graphdrivers.model import Digest

_BYTES = {"Content-Type": "application/octet-stream"}
_EMPTY = {"Content-Length": "0"}
_TAKEN = frozenset({HTTPStatus.ACCEPTED, HTTPStatus.NO_CONTENT, HTTPStatus.CREATED})


def blob_size(connection: Connection, digest: Digest) -> int | None:
    """Return the size of a blob in the repository; ``None`` if it has none, or does not say how large it is."""
    asked = Request("HEAD", connection.url(f"blobs/{digest}"), {HTTPStatus.OK, HTTPStatus.NOT_FOUND})
    answer = connection.call(asked)
    length = answer.headers.get("Content-Length", "")
    known = answer.status == HTTPStatus.OK and length.isascii() and length.isdigit()
    return int(length) if known else None


def mount_blob(connection: Connection, digest: Digest, path: str) -> bool:
    """Let the repository have a blob of another one; tell whether it could be done. Idempotent."""
    url = f"{connection.url('blobs/uploads/')}?mount={quote(digest, safe='')}&from={quote(path, safe='')}"
    try:
        answer = connection.call(Request("POST", url, {HTTPStatus.CREATED, HTTPStatus.ACCEPTED}, _EMPTY))
    except errors.RegistryError as error:
        # Repositories that we may not read, or that are none, are no reason to give up: the layer can be sent.
        if error.status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.NOT_FOUND}:
            return False
        raise
    if answer.status == HTTPStatus.CREATED:
        return True
    _cancel(connection, _location(connection, answer.headers.get("Location", ""), url))
    return False


def put_small(connection: Connection, content: bytes) -> Digest:
    """Send a blob of some kilobytes, unless the repository has it; return its digest. Idempotent.

    Raises:
        RegistryError: the registry refuses, or cannot be reached.
        DigestMismatch: it says that it got something else.
    """
    digest = Digest(f"sha256:{hashlib.sha256(content).hexdigest()}")
    if blob_size(connection, digest) != len(content):
        connection.repeat(lambda: _put(connection, digest, content))
    return digest


def _put(connection: Connection, digest: Digest, content: bytes) -> None:
    url = _start(connection)
    try:
        _commit(connection, url, digest, content)
    except BaseException:
        _cancel(connection, url)
        raise


def send_stream(connection: Connection, chunks: Iterable[bytes]) -> tuple[Digest, int]:
    """Send a blob whose digest is known only at its end; return digest and size.

    One attempt: one ``PATCH`` of all of it, which every registry takes, and then
    the ``PUT`` that makes it a blob. What fails before that leaves no blob, and
    the upload is cancelled. Where ``chunks`` fail (by an error of ours or the
    system's), or the connection is stopped, the ``PATCH`` is ended early, not
    cut: docker-registry cancels no upload whose length it has not told.

    Raises:
        requests.RequestException: the connection broke, or was stopped.
        RegistryError: the registry refuses.
        DigestMismatch: it says that it got something else.
        Whatever ``chunks`` raises; the connection is stopped then.
    """
    url = _start(connection)
    body = _Body(chunks, connection)
    try:
        with connection.send(Request("PATCH", url, _TAKEN, _BYTES, body, slow=True)) as response:
            url = _location(connection, response.headers.get("Location", url), url)
        connection.check()
        digest = body.digest()
        _commit(connection, url, digest)
    except BaseException:
        body.close()
        _cancel(connection, url)
        if body.error is not None:
            raise body.error from None
        raise
    return digest, body.size


def check_told_digest(connection: Connection, headers: Mapping[str, str], digest: Digest) -> None:
    """Refuse an answer that names another digest than that of what was sent; none at all is allowed.

    Raises:
        DigestMismatch: it does.
    """
    told = headers.get("Docker-Content-Digest", "")
    if told and told != digest and told.startswith("sha256:"):
        raise errors.DigestMismatch(f"what {connection.source} received", digest, told)


def _start(connection: Connection) -> str:
    """Begin an upload; return where it goes."""
    url = connection.url("blobs/uploads/")
    answer = connection.call(Request("POST", url, {HTTPStatus.ACCEPTED}, _EMPTY))
    return _location(connection, answer.headers.get("Location", ""), url)


def _commit(connection: Connection, url: str, digest: Digest, body: bytes | None = None) -> None:
    """Make what was sent a blob; if the answer is lost, look whether it became one."""
    headers = _EMPTY if body is None else _BYTES
    put = Request("PUT", _with_digest(url, digest), {HTTPStatus.CREATED}, headers, body, slow=True)
    try:
        response = connection.send(put)
    except requests.RequestException:
        if blob_size(connection, digest) is None:
            raise
        return
    with response:
        check_told_digest(connection, response.headers, digest)


def _cancel(connection: Connection, url: str) -> None:
    """Tell the registry to forget an upload, without waiting for it long.

    Whether it does is its own affair: docker-registry refuses where a connection
    broke in the middle of a body, and forgets the upload after a week. Nothing
    refers to it until then.

    Source: distribution's *HTTP API V2*, heading *Canceling an Upload*.
    """
    with contextlib.suppress(requests.RequestException, errors.RegistryError):
        connection.send(Request("DELETE", url, {HTTPStatus.NO_CONTENT, HTTPStatus.ACCEPTED}, last=True)).close()


def _location(connection: Connection, location: str, sent_by: str) -> str:
    if not location:
        raise errors.RegistryError(connection.source, "the registry does not say where to send a blob")
    return connection.follow(location, sent_by)


def _with_digest(url: str, digest: Digest) -> str:
    """Add the digest to an upload's address, whatever its query has."""
    parts = urlsplit(url)
    query = f"{parts.query}&" if parts.query else ""
    return urlunsplit(parts._replace(query=f"{query}digest={quote(digest, safe='')}"))


class _Body:
    """Chunks that are sent, digested on their way; ends where they fail, or the connection is stopped."""

    def __init__(self, chunks: Iterable[bytes], connection: Connection) -> None:
        """Take nothing yet."""
        self._chunks = iter(chunks)
        self._connection = connection
        self._digester = Digester()
        self.error: BaseException | None = None
        """Of the chunks."""
        self.size = 0

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> bytes:
        if self._connection.stopped:
            raise StopIteration
        try:
            chunk = next(self._chunks)
        except StopIteration:
            raise
        except (errors.GraphDriverError, OSError) as error:
            self._fail(error)
            raise StopIteration from error
        except BaseException as error:
            self._fail(error)
            raise
        self.size += len(chunk)
        self._digester.put(chunk)
        return chunk

    def _fail(self, error: BaseException) -> None:
        self.error = error
        self._connection.stop(error)

    def digest(self) -> Digest:
        """Return the digest of all chunks; they must have been taken."""
        return Digest(self._digester.close())

    def close(self) -> None:
        """End the thread of the digest. Idempotent."""
        self._digester.abort()
