"""Uploads of pushes that fail or are interrupted are cancelled, and nobody waits long for that."""

import io
import os
import pathlib
import threading
import time
from collections.abc import Callable, Iterator

import attrs
import pytest
from layouts import layer_tar, sha256
from registries import PASSWORD, QUICK, USER, Registry, Request, Server, basic, htpasswd, running_registry
from test_registry_interrupts import BOUND, FOREVER, Silent, interrupted_soon
from test_registry_push import TAR, Target, on
from test_registry_real import outgoing

from graphdrivers import errors, open_store
from graphdrivers.images.outgoing import OutgoingImage, OutgoingLayer
from graphdrivers.images.registry.compressing import PushCompression
from graphdrivers.images.registry.connection import Connection
from graphdrivers.images.registry.credentials import Credentials
from graphdrivers.images.registry.interrupts import ending
from graphdrivers.images.registry.pushing import PushState, push
from graphdrivers.model import DiffID

ANNA = Credentials(USER, PASSWORD)
PATIENT = attrs.evolve(FOREVER, cancelling=BOUND)
"""For tests in which the registry must have the time to cancel."""


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """A registry that knows one user."""
    folder = tmp_path_factory.mktemp("registry")
    with running_registry(folder, auth=htpasswd(folder)) as running:
        yield running


class Source(io.RawIOBase):
    """A layer without an end; ``at_each`` is called with how often it was read."""

    def __init__(self, at_each: Callable[[int], object] = lambda _: None) -> None:
        """Begin."""
        super().__init__()
        self._at_each = at_each
        self._times = 0

    def read(self, size: int | None = -1, /) -> bytes:
        """Give random bytes."""
        self._times += 1
        self._at_each(self._times)
        return os.urandom(size or 0)


def image_of(*streams: io.RawIOBase) -> OutgoingImage:
    """Make an image of layers that are read from streams."""
    layers = [
        OutgoingLayer(DiffID(sha256(bytes([number]))), 1 << 50, lambda stream=stream: stream)  # type: ignore[misc]
        for number, stream in enumerate(streams)
    ]
    return OutgoingImage(config=b"{}", layers=tuple(layers))


def damaged(times: int) -> None:
    """Fail at the fourth read: three pieces of a megabyte are on their way."""
    if times > 3:
        raise errors.DigestMismatch("layer", "one", "another")


@pytest.mark.parametrize("compression", PushCompression)
def test_layer_that_fails(registry: Registry, compression: PushCompression) -> None:
    """Of a layer that is damaged here nothing is left there, of those beside it neither; the error is the layer's."""
    begun = registry.begun("fails")
    with (
        registry.connect("fails:1", ANNA) as connection,
        pytest.raises(errors.DigestMismatch, match="layer"),
    ):
        push(image_of(Source(), Source(damaged), Source()), connection, compression=compression)
    assert registry.begun("fails") - begun
    assert registry.open_uploads() == []


def test_interrupted_push(registry: Registry) -> None:
    """After Ctrl-C nothing is left of the layers that were being sent."""
    sending = threading.Event()

    def at_each(times: int) -> None:
        if times > 8:
            sending.set()

    with (
        registry.connect("interrupted:1", ANNA, patience=PATIENT) as connection,
        interrupted_soon(sending),
        ending(connection.interrupt),
    ):
        push(image_of(*(Source(at_each) for _ in range(3))), connection)
    assert len(registry.begun("interrupted")) == 3
    assert registry.open_uploads() == []


def test_interrupted_push_of_a_store(registry: Registry, tmp_path: pathlib.Path) -> None:
    """Ctrl-C ends ``Store.push`` in the middle of a layer, and its upload is gone."""
    (tmp_path / "layer.tar").write_bytes(layer_tar("file", os.urandom(16 << 20)))
    sending = threading.Event()

    def progress(_layer: str, done: int, _state: PushState) -> None:
        if done > 8 << 20:
            sending.set()
            time.sleep(0.1)

    with open_store(tmp_path / "store", driver="vfs") as store:
        image = store.import_image(tmp_path / "layer.tar", name="app:1")
        with interrupted_soon(sending):
            store.push(image, f"{registry.host}/store:1", credentials=ANNA, patience=PATIENT, progress=progress)
    assert len(registry.begun("store")) == 1
    assert registry.open_uploads() == []


def test_failure_while_the_registry_is_silent() -> None:
    """A layer that fails is an error at once, also where the registry does not answer for what it got of it."""
    silent = Silent("PATCH")
    with Server(silent.answer) as server, silent, server.connect("app:1", patience=FOREVER) as connection:
        stop = threading.Timer(BOUND, silent.over.set)
        stop.start()
        with pytest.raises(errors.DigestMismatch):
            push(image_of(Source(damaged), Source()), connection)
        late = silent.over.is_set()
        stop.cancel()
    assert not late


def test_second_interrupt() -> None:
    """Who does not want to wait for uploads to be cancelled interrupts again."""
    silent = Silent("PATCH")
    caught: list[BaseException] = []

    def work(connection: Connection) -> None:
        try:
            push(image_of(Source()), connection)
        except errors.RegistryError as error:
            caught.append(error)

    patience = attrs.evolve(FOREVER, cancelling=3600)
    with Server(silent.answer) as server, silent, server.connect("app:1", patience=patience) as connection:
        worker = threading.Thread(target=work, args=[connection])
        worker.start()
        while not server.asked("PATCH", ""):
            time.sleep(0.01)
        connection.interrupt()
        worker.join(0.2)
        waited = worker.is_alive()
        connection.interrupt()
        worker.join(BOUND)
        assert not worker.is_alive()
    assert waited
    assert [error.reason for error in caught if isinstance(error, errors.RegistryError)] == [
        "it was not waited for any longer"
    ]


def test_refused_layer_stops_the_others() -> None:
    """Where the registry refuses one layer, the others are not sent to their ends, but cancelled."""
    target = Target()
    sending = threading.Event()

    def answer(request: Request) -> None:
        if request.command == "POST" and target.uploads:
            sending.wait(BOUND)
            request.reply(413)
        else:
            target.usual(request)

    with (
        Server(answer) as server,
        server.connect("app:1") as connection,
        pytest.raises(errors.RegistryError, match="too large"),
    ):
        push(image_of(*[Source(lambda times: times > 3 and sending.set())] * 2), connection)
    assert target.cancelled == ["/uploads/0"]
    assert target.blobs == {}


def test_small_blob_that_is_refused() -> None:
    """The upload of a configuration that the registry does not take is cancelled."""

    def refuse(request: Request, _: Target) -> None:
        request.body()
        request.reply(403)

    target = Target(on("PUT", refuse, times=100))
    with (
        Server(target.answer) as server,
        server.connect("app:1") as connection,
        pytest.raises(errors.AuthenticationFailed),
    ):
        push(outgoing([]), connection)
    assert target.cancelled == ["/uploads/0"]


def test_upload_elsewhere_is_cancelled_there_without_a_login() -> None:
    """An upload that goes to another host is cancelled there, and the login does not go along."""
    target = Target()
    with Server(target.usual) as store:

        def answer(request: Request) -> None:
            if request.at != "/v2/" and request.headers.get("Authorization") != basic(USER, PASSWORD):
                request.reply(401, WWW_Authenticate='Basic realm="x"')
            else:
                target.uploads["/elsewhere/1"] = b""
                request.reply(202, Location=f"{store.url}/elsewhere/1?state=1")

        with (
            Server(answer) as server,
            server.connect("app:1", ANNA) as connection,
            pytest.raises(errors.DigestMismatch),
        ):
            push(image_of(Source(damaged)), connection)
        assert [(request.command, request.path) for request in store.seen] == [
            ("PATCH", "/elsewhere/1?state=1"),
            ("DELETE", "/elsewhere/1?state=2"),
        ]
        assert all("Authorization" not in request.headers for request in store.seen)
        assert server.asked("DELETE", "") == []


def test_nobody_logs_in_to_cancel() -> None:
    """A registry that wants another login for it gets none, and the error is what it was before."""

    def answer(request: Request) -> None:
        if request.command == "DELETE":
            challenge = f'Bearer realm="http://{request.headers["Host"]}/token",scope="repository:app:delete"'
            request.reply(401, WWW_Authenticate=challenge)
        else:
            target.usual(request)

    target = Target(on("PATCH", lambda request, _: request.cut(), times=100))
    patience = attrs.evolve(QUICK, attempts=1)
    with Server(answer) as server, server.connect("app:1", patience=patience) as connection:
        with pytest.raises(errors.DigestMismatch):
            push(image_of(Source(damaged)), connection)
        assert len(server.asked("DELETE", "")) == 1
        assert server.asked("GET", "/token") == []


def test_cut_upload_whose_registry_is_silent_then() -> None:
    """A layer whose connection breaks is sent anew even if the registry does not answer that it forgets the first."""
    over = threading.Event()
    waited: list[bool] = []

    def answer(request: Request) -> None:
        if request.command == "DELETE":
            waited.append(over.wait(BOUND))
            request.cut()
        else:
            target.answer(request)

    def cut(request: Request, _: Target) -> None:
        request.rfile.read(100_000)
        request.cut()

    target = Target(on("PATCH", cut))
    patience = attrs.evolve(FOREVER, pause=0.01)
    with Server(answer) as server, server.connect("app:1", patience=patience) as connection:
        push(outgoing([TAR]), connection)
        over.set()
    assert waited == [True]
