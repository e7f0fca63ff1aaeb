"""Layers that come badly: cut, stalled, too long, too short, with ranges that are not what was asked for, or false."""

import hashlib
import itertools
import os
import re
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import attrs
import pytest
from registries import QUICK, Content, Request, Server

from graphdrivers import errors
from graphdrivers.images.image import Image
from graphdrivers.images.registry.patience import Patience
from graphdrivers.images.registry.pulling import open_remote, read_image

Spoil = Callable[[Request, bytes], None]


class Blobs:
    """A registry whose layer is served by a test's function."""

    def __init__(self, spoil: Spoil) -> None:
        """Make an image."""
        self.content = Content()
        self._spoil = spoil

    def answer(self, request: Request) -> None:
        """Answer as a registry."""
        if request.at.endswith(f"blobs/sha256:{hashlib.sha256(self.content.layer).hexdigest()}"):
            self._spoil(request, self.content.layer)
        else:
            self.content.answer(request)


def read(server: Server, patience: Patience = QUICK) -> bytes:
    """Pull the one layer."""
    with open_remote(f"{server.host}/app:1", patience=patience) as image:
        return read_layer(image)


def read_layer(image: Image) -> bytes:
    """Read the first layer of an image."""
    with image.open_layer(image.layers[0]) as stream:
        return b"".join(iter(lambda: stream.read(300_000), b""))


def start_of(request: Request) -> int:
    """Tell from where on bytes are asked for."""
    found = re.fullmatch(r"bytes=(\d+)-", request.headers.get("Range", "bytes=0-"))
    assert found
    return int(found[1])


def announce(request: Request, layer: bytes, start: int) -> None:
    """Send the head of an answer that goes on at ``start``."""
    request.send_response(206 if start else 200)
    request.send_header("Content-Length", str(len(layer) - start))
    if start:
        request.send_header("Content-Range", f"bytes {start}-{len(layer) - 1}/{len(layer)}")
    request.end_headers()


def test_resumes_where_it_was_cut() -> None:
    """A layer whose connection breaks again and again is read to its end, and no byte is asked for twice."""
    starts: list[int] = []

    def cut(request: Request, layer: bytes) -> None:
        start = start_of(request)
        starts.append(start)
        announce(request, layer, start)
        request.wfile.write(layer[start : start + 1_300_000])
        request.cut()

    blobs = Blobs(cut)
    blobs.content = Content(os.urandom(8 << 20))
    with Server(blobs.answer) as server:
        assert read(server) == blobs.content.layer
    assert starts[0] == 0
    assert len(starts) > 2 * QUICK.attempts  # an attempt that brings something is no failure
    assert all(later > earlier for earlier, later in itertools.pairwise(starts))
    assert all(start >= 1_300_000 * number - (1 << 20) for number, start in enumerate(starts))


def test_server_without_ranges() -> None:
    """A server that always starts anew is read up to where the stream was."""
    served: list[int] = []

    def whole(request: Request, layer: bytes) -> None:
        served.append(start_of(request))
        announce(request, layer, 0)
        if len(served) == 1:
            request.wfile.write(layer[:2_000_000])
            request.cut()
        else:
            request.wfile.write(layer)

    blobs = Blobs(whole)
    with Server(blobs.answer) as server:
        assert read(server) == blobs.content.layer
    assert len(served) == 2
    assert served[1] > 0


def test_gives_up_without_progress() -> None:
    """A connection that always breaks at once ends in an error, after as many attempts as are allowed."""

    def nothing(request: Request, layer: bytes) -> None:
        announce(request, layer, start_of(request))
        request.cut()

    blobs = Blobs(nothing)
    with Server(blobs.answer) as server:
        with pytest.raises(errors.RegistryError, match="the connection broke"):
            read(server)
        assert len([request for request in server.seen if "blobs/" in request.at]) == 1 + QUICK.attempts


def test_endless_trickle_is_bounded() -> None:
    """A server that gives a few bytes per connection does not keep us for ever."""

    def trickle(request: Request, layer: bytes) -> None:
        start = start_of(request)
        announce(request, layer, start)
        request.wfile.write(layer[start : start + 10])
        request.cut()

    blobs = Blobs(trickle)
    with Server(blobs.answer) as server, pytest.raises(errors.RegistryError):
        read(server)


def test_trickle_on_one_connection() -> None:
    """A server that sends a byte now and then is left after the timeout, though none of its pauses is as long."""
    stop = threading.Event()

    def trickle(request: Request, layer: bytes) -> None:
        announce(request, layer, start_of(request))
        for byte in layer[start_of(request) :]:
            request.wfile.write(bytes([byte]))
            if stop.wait(0.01):
                return

    blobs = Blobs(trickle)
    with Server(blobs.answer) as server, server.connect("app:1") as connection:
        image = read_image(connection, None)
        connection.patience = attrs.evolve(QUICK, timeout=1, attempts=2)  # a pause of 1 s is none of the trickle's
        try:
            with pytest.raises(errors.RegistryError, match="the connection broke"):
                read_layer(image)
        finally:
            stop.set()
        assert len([request for request in server.seen if "blobs/" in request.at]) == 1 + 2


def test_stalled_connection() -> None:
    """A server that stops sending is left after the timeout, and the rest asked for on a new connection."""
    stop = threading.Event()
    served: list[int] = []

    def stall(request: Request, layer: bytes) -> None:
        start = start_of(request)
        served.append(start)
        announce(request, layer, start)
        if len(served) == 1:
            connection.patience = QUICK  # from the next connection on: that one is to go through, however busy all is
            request.wfile.write(layer[:1_500_000])
            stop.wait()
        else:
            request.wfile.write(layer[start:])

    blobs = Blobs(stall)
    with Server(blobs.answer) as server, server.connect("app:1") as connection:
        image = read_image(connection, None)
        connection.patience = attrs.evolve(QUICK, timeout=0.3)
        try:
            assert read_layer(image) == blobs.content.layer
        finally:
            stop.set()
    assert len(served) == 2


def test_server_that_never_answers() -> None:
    """A registry that takes connections and says nothing is an error after the timeouts."""
    stop = threading.Event()

    def hang(_request: Request) -> None:
        stop.wait()

    with Server(hang) as server:
        try:
            with pytest.raises(errors.RegistryError, match=r"no answer in 0\.2 s"):
                open_remote(f"{server.host}/app:1", patience=Patience(timeout=0.2, attempts=2, pause=0.01))
        finally:
            stop.set()


def test_cut_behind_the_last_byte() -> None:
    """A layer that came whole is whole, also where the connection breaks before the server says that it was all."""

    def forget(request: Request, layer: bytes) -> None:
        piece = b"%x\r\n%b\r\n" % (len(layer), layer)  # and no last chunk
        request.reply(200, piece, Content_Length="", Transfer_Encoding="chunked")
        request.cut()

    blobs = Blobs(forget)
    with Server(blobs.answer) as server:
        assert read(server) == blobs.content.layer
        assert len(server.asked("GET", hashlib.sha256(blobs.content.layer).hexdigest())) == 1


def flipped(layer: bytes) -> bytes:
    """Change one byte in the middle."""
    at = len(layer) // 2
    return layer[:at] + bytes([layer[at] ^ 1]) + layer[at + 1 :]


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize(
    "spoil", [flipped, lambda layer: layer + b"more", lambda layer: layer[:-1000], lambda layer: layer[:-1] + b"xy"]
)
def test_false_bytes(spoil: Callable[[bytes], bytes], *, chunked: bool) -> None:
    """Other bytes, more or fewer than the manifest says are refused, told in advance or not."""

    def lie(request: Request, layer: bytes) -> None:
        wrong = spoil(layer)[start_of(request) :]
        if not chunked:
            request.reply(206 if start_of(request) else 200, wrong)
            return
        request.reply(
            200, b"%x\r\n%b\r\n0\r\n\r\n" % (len(wrong), wrong), Content_Length="", Transfer_Encoding="chunked"
        )

    with Server(Blobs(lie).answer) as server, pytest.raises((errors.DigestMismatch, errors.RegistryError)) as caught:
        read(server)
    short = len(spoil(bytes(2000))) < 2000
    assert (chunked and short) or isinstance(caught.value, errors.DigestMismatch)


def test_changed_while_cut() -> None:
    """A layer whose second half comes from other bytes is refused at its end."""

    def change(request: Request, layer: bytes) -> None:
        start = start_of(request)
        announce(request, layer, start)
        request.wfile.write(os.urandom(len(layer) - start) if start else layer[:2_000_000])
        request.cut()

    with Server(Blobs(change).answer) as server, pytest.raises(errors.DigestMismatch):
        read(server)


@pytest.mark.parametrize("answer", ["bytes 0-9/10", "bytes 5-", "", "pages 1-2/3", "bytes */100"])
def test_wrong_range(answer: str) -> None:
    """A part that is not the one that was asked for is never put in its place."""

    def wrong(request: Request, layer: bytes) -> None:
        if not start_of(request):
            announce(request, layer, 0)
            request.wfile.write(layer[:1_500_000])
            request.cut()
        else:
            request.reply(206, layer[:1000], Content_Range=answer)

    with Server(Blobs(wrong).answer) as server, pytest.raises(errors.RegistryError, match="was asked for from byte"):
        read(server)


def test_partial_answer_nobody_asked_for() -> None:
    """A part of a blob that was asked for as a whole is refused."""

    def part(request: Request, layer: bytes) -> None:
        request.reply(206, layer[10:], Content_Range=f"bytes 10-{len(layer) - 1}/{len(layer)}")

    with Server(Blobs(part).answer) as server, pytest.raises(errors.RegistryError, match="was asked for from byte 0"):
        read(server)


def test_missing_layer() -> None:
    """A layer that the registry does not have is said to be missing, when it is opened."""
    blobs = Blobs(lambda request, _: request.reply(404, b'{"errors":[{"code":"BLOB_UNKNOWN","message":"gone"}]}'))
    with (
        Server(blobs.answer) as server,
        open_remote(f"{server.host}/app:1", patience=QUICK) as image,
        pytest.raises(errors.BlobNotFound, match="BLOB_UNKNOWN: gone"),
    ):
        image.open_layer(image.layers[0])


def test_addresses_in_descriptors_are_never_asked() -> None:
    """A layer that is kept elsewhere is asked for in its repository only (CVE-2020-15157)."""
    with Server(lambda request: request.reply(200, b"stolen")) as elsewhere:
        kind = "application/vnd.oci.image.layer.nondistributable.v1.tar"
        content = Content(layer_type=kind)
        content.manifest_fields["layers"][0]["urls"] = [f"{elsewhere.url}/layer"]
        content.manifest = content.json(content.manifest_fields)
        layer, content.layer = content.layer, b"another"
        with (
            Server(content.answer) as server,
            open_remote(f"{server.host}/app:1", patience=QUICK) as image,
            pytest.raises(errors.BlobNotFound, match="often kept elsewhere"),
        ):
            image.open_layer(image.layers[0])
        content.layer = layer
        with Server(content.answer) as server:
            assert read(server) == layer
        assert elsewhere.seen == []


def test_several_threads() -> None:
    """One layer read from several threads at once comes right in each."""
    blobs = Blobs(lambda request, layer: request.reply(200, layer))
    with (
        Server(blobs.answer) as server,
        open_remote(f"{server.host}/app:1", patience=QUICK) as image,
        ThreadPoolExecutor(8) as pool,
    ):
        assert all(part == blobs.content.layer for part in pool.map(read_layer, [image] * 16))


def test_stream_outlives_the_image() -> None:
    """A layer that was opened is read, and goes on after a cut, when its image is closed."""

    def cut(request: Request, layer: bytes) -> None:
        start = start_of(request)
        announce(request, layer, start)
        request.wfile.write(layer[start : start + 2_000_000])
        request.cut()

    blobs = Blobs(cut)
    with Server(blobs.answer) as server:
        with open_remote(f"{server.host}/app:1", patience=QUICK) as image:
            stream = image.open_layer(image.layers[0])
        with stream:
            assert b"".join(iter(lambda: stream.read(1 << 20), b"")) == blobs.content.layer


def test_closed_stream() -> None:
    """A stream that is closed early lets go of its connection, and gives no more bytes."""
    blobs = Blobs(lambda request, layer: request.reply(200, layer))
    with Server(blobs.answer) as server, open_remote(f"{server.host}/app:1", patience=QUICK) as image:
        stream = image.open_layer(image.layers[0])
        assert stream.read(10) == blobs.content.layer[:10]
        stream.close()
        stream.close()
        with pytest.raises(ValueError, match="closed"):
            stream.read(10)


def test_nothing_is_read_beforehand() -> None:
    """Opening a layer does not take it into memory: the server waits until somebody reads."""
    sent = 0

    def slow(request: Request, layer: bytes) -> None:
        nonlocal sent
        request.send_response(200)
        request.send_header("Content-Length", str(len(layer)))
        request.end_headers()
        for at in range(0, len(layer), 1 << 20):
            request.wfile.write(layer[at : at + (1 << 20)])
            sent = at

    blobs = Blobs(slow)
    blobs.content = Content(os.urandom(64 << 20))
    with (
        Server(blobs.answer) as server,
        open_remote(f"{server.host}/app:1", patience=QUICK) as image,
        image.open_layer(image.layers[0]) as stream,
    ):
        before = -1
        while before != sent:  # until the buffers of the sockets are full
            before = sent
            time.sleep(0.2)
        assert sent < 48 << 20
        assert len(stream.read(1 << 20)) > 0
