"""Pushes to registries that lose connections and answers, lie about what they got, or send us elsewhere."""

import gzip
import io
import json
import random
import threading
import time
from collections.abc import Callable

import attrs
import pytest
import zstandard
from layouts import layer_tar, sha256
from registries import PASSWORD, QUICK, USER, Request, Server, basic
from test_registry_real import outgoing

from graphdrivers import errors
from graphdrivers.images.descriptors import Descriptor
from graphdrivers.images.outgoing import OutgoingImage, OutgoingLayer
from graphdrivers.images.registry.compressing import PushCompression, compressed
from graphdrivers.images.registry.credentials import Credentials
from graphdrivers.images.registry.pushing import Pushed, PushState, push
from graphdrivers.model import DiffID, Digest

TAR = layer_tar("file", random.Random(1).randbytes(3 << 20))


class Target:
    """A registry that takes blobs and manifests; a test may answer single requests in its place."""

    def __init__(self, instead: Callable[[Request, "Target"], bool] | None = None) -> None:
        """Start empty."""
        self.blobs: dict[str, bytes] = {}
        self.manifests: dict[str, bytes] = {}
        self.uploads: dict[str, bytes] = {}
        self.cancelled: list[str] = []
        self._instead = instead
        self._lock = threading.Lock()

    def answer(self, request: Request) -> None:
        """Answer as a registry."""
        with self._lock:
            if self._instead is None or not self._instead(request, self):
                self.usual(request)

    def usual(self, request: Request) -> None:
        """Answer as it should be."""
        name = request.at.rpartition("/")[2]
        if request.at == "/v2/":
            request.reply(200)
        elif request.command == "HEAD":
            content = self.blobs.get(name)
            request.reply(404 if content is None else 200, content or b"")
        elif request.command == "POST":
            upload = f"/uploads/{len(self.uploads)}"
            self.uploads[upload] = b""
            request.reply(202, Location=f"{upload}?state=1&x=%2F")
        elif request.command == "PATCH":
            assert "state=" in request.path
            self.uploads[request.at] += request.body()
            request.reply(202, Location=f"{request.at}?state=2")
        elif request.command == "DELETE":
            self.cancelled.append(request.at)
            request.reply(204)
        elif "/manifests/" in request.at:
            self.manifests[name] = request.body()
            request.reply(201, Docker_Content_Digest=sha256(self.manifests[name]))
        else:
            self.commit(request)

    def commit(self, request: Request) -> str:
        """End an upload."""
        content = self.uploads[request.at] + request.body()
        digest = request.path.rpartition("digest=")[2].replace("%3A", ":")
        good = sha256(content) == digest
        if good:
            self.blobs[digest] = content
        request.reply(201 if good else 400, Docker_Content_Digest=digest)
        return digest


def pushed(target: Target, **more: object) -> Pushed:
    """Push one layer."""
    with Server(target.answer) as server, server.connect("app:1") as connection:
        return push(outgoing([TAR]), connection, **more)  # type: ignore[arg-type]


def on(command: str, do: Callable[[Request, Target], None], times: int = 1) -> Callable[[Request, Target], bool]:
    """Do something else with the first requests of a method."""
    left = [times]

    def instead(request: Request, target: Target) -> bool:
        if request.command != command or not left[0]:
            return False
        left[0] -= 1
        do(request, target)
        return True

    return instead


def test_usual_push() -> None:
    """What arrives is the layer, compressed, its configuration, and a manifest that names both, under the tag."""
    target = Target()
    result = pushed(target)
    (layer,) = result.layers
    assert gzip.decompress(target.blobs[layer.descriptor.digest]) == TAR
    assert target.manifests == {"1": result.manifest}
    manifest = json.loads(result.manifest)
    assert target.blobs[manifest["config"]["digest"]] == outgoing([TAR]).config
    assert manifest["layers"][0]["size"] == len(target.blobs[layer.descriptor.digest])
    assert target.cancelled == []


def cut(request: Request, _target: Target) -> None:
    """Read a part of the body and break the connection."""
    request.rfile.read(100_000)
    request.cut()


def test_cut_upload_is_sent_anew() -> None:
    """A layer whose connection breaks is sent from its start, and its progress begins anew."""
    target = Target(on("PATCH", cut))
    steps: list[int] = []
    result = pushed(target, progress=lambda _layer, done, _state: steps.append(done))
    assert gzip.decompress(target.blobs[result.layers[0].descriptor.digest]) == TAR
    assert steps.count(0) == 2
    assert target.cancelled == ["/uploads/0"]


def test_upload_that_is_always_cut() -> None:
    """A layer that never arrives is an error after as many attempts as allowed; nothing is left of it."""
    target = Target(on("PATCH", cut, times=100))
    with pytest.raises(errors.RegistryError):
        pushed(target)
    assert len(target.uploads) == QUICK.attempts
    assert sorted(target.cancelled) == sorted(target.uploads)
    assert target.manifests == {}
    assert target.blobs == {}


def test_token_that_runs_out_before_a_layer_is_sent() -> None:
    """A login that is asked for anew when a layer is sent is got, and the layer is sent from its start."""
    tokens = iter(("first", "second"))
    valid: list[str] = []

    def answer(request: Request) -> None:
        if request.at == "/token":
            valid[:] = [next(tokens)]
            request.reply(200, json.dumps({"token": valid[0]}).encode())
        elif request.at != "/v2/" and request.headers.get("Authorization") not in {f"Bearer {one}" for one in valid}:
            request.body()
            request.reply(401, WWW_Authenticate=f'Bearer realm="http://{request.headers["Host"]}/token",scope="x"')
        else:
            if request.command == "POST" and valid == ["first"]:
                valid[:] = ["none"]  # it runs out now
            target.answer(request)

    target = Target()
    with Server(answer) as server, server.connect("app:1") as connection:
        result = push(outgoing([TAR]), connection)
        assert len(server.asked("PATCH", "")) == 2
    assert gzip.decompress(target.blobs[result.layers[0].descriptor.digest]) == TAR
    assert list(tokens) == []


def test_login_that_never_suffices_for_a_layer() -> None:
    """A registry that wants another login for each attempt is an error in the end."""

    def answer(request: Request) -> None:
        if request.at == "/token":
            request.reply(200, json.dumps({"token": "any"}).encode())
        elif request.command == "PATCH":
            request.body()
            told = b'{"errors":[{"code":"UNAUTHORIZED","message":"not you"}]}'
            request.reply(401, told, WWW_Authenticate=f'Bearer realm="http://{request.headers["Host"]}/token"')
        else:
            target.answer(request)

    target = Target()
    with (
        Server(answer) as server,
        server.connect("app:1") as connection,
        pytest.raises(errors.AuthenticationFailed, match="not you"),
    ):
        push(outgoing([TAR]), connection)
    assert len(target.uploads) == QUICK.attempts


def test_registry_that_is_slow_with_a_large_layer() -> None:
    """What a registry does with a layer before it answers may take longer than an answer usually takes."""

    def wait(request: Request, target: Target) -> None:
        target.uploads[request.at] += request.body()
        time.sleep(1)
        request.reply(202, Location=f"{request.at}?state=2")

    target = Target(on("PATCH", wait))
    with Server(target.answer) as server, server.connect("app:1") as connection:
        connection.patience = attrs.evolve(QUICK, timeout=0.5)  # what else comes late, as it may, is asked for again
        push(outgoing([TAR]), connection)
    assert len(server.asked("PATCH", "")) == 1


@pytest.mark.parametrize("length", ["", "many"])
def test_registry_that_does_not_say_how_large_a_blob_is(length: str) -> None:
    """A blob whose size is not told is sent, as if it were not there."""

    def untold(request: Request, target: Target) -> None:
        if sha256(TAR) in request.at:
            request.reply(200, Content_Length=length)
            request.cut()
        else:
            target.usual(request)

    target = Target(on("HEAD", untold, times=100))
    image = outgoing([TAR])
    origin = Descriptor(PushCompression.NONE.media_type, Digest(sha256(TAR)), len(TAR))
    layer = OutgoingLayer(image.layers[0].diff_id, len(TAR), lambda: io.BytesIO(TAR), origin)
    with Server(target.answer) as server, server.connect("app:1") as connection:
        result = push(OutgoingImage(config=image.config, layers=(layer,)), connection)
    assert result.layers[0].state is PushState.SENT


def test_lost_answer() -> None:
    """If the answer to the last request is lost, the blob is looked for, and not sent again when it is there."""

    def lose(request: Request, target: Target) -> None:
        written = request.wfile
        request.wfile = io.BytesIO()
        target.commit(request)
        request.wfile = written
        request.cut()

    target = Target(on("PUT", lose))
    pushed(target)
    assert len(target.uploads) == 2  # of the layer and the configuration
    assert len(target.blobs) == 2


@pytest.mark.parametrize("at", ["blob", "manifest"])
def test_registry_that_got_something_else(at: str) -> None:
    """A registry that names another digest than that of what was sent is not believed."""

    def lie(request: Request, _target: Target) -> bool:
        wanted = request.command == "PUT" and ("/manifests/" in request.at) is (at == "manifest")
        if wanted:
            request.body()
            request.reply(201, Docker_Content_Digest=sha256(b"another"))
        return wanted

    target = Target(lie)
    with pytest.raises(errors.DigestMismatch):
        pushed(target)
    assert target.manifests == {}


def test_refused_upload() -> None:
    """What a registry says against a blob reaches the user, and is not tried again."""
    body = b'{"errors":[{"code":"DENIED","message":"quota exceeded"}]}'

    def refuse(request: Request, _target: Target) -> None:
        request.body()
        request.reply(403, body)

    target = Target(on("PATCH", refuse, times=100))
    with pytest.raises(errors.AuthenticationFailed, match="DENIED: quota exceeded"):
        pushed(target)
    assert len(target.uploads) == 1


def test_upload_elsewhere_gets_no_login() -> None:
    """A registry may have uploads go to another host; the login does not go there, and plain http abroad never."""
    target = Target()
    with Server(target.usual) as store:

        def answer(request: Request) -> None:
            if request.at != "/v2/" and request.headers.get("Authorization") != basic(USER, PASSWORD):
                request.body()
                request.reply(401, WWW_Authenticate='Basic realm="x"')
            elif request.command == "POST":
                target.uploads[f"/elsewhere/{len(target.uploads)}"] = b""
                request.reply(202, Location=f"{store.url}{list(target.uploads)[-1]}?state=1")
            else:
                target.usual(request)

        with Server(answer) as server, server.connect("app:1", Credentials(USER, PASSWORD)) as connection:
            result = push(outgoing([TAR]), connection)
        assert len(store.seen) == 3  # PATCH and PUT of the layer, PUT of the configuration
        assert all("Authorization" not in request.headers for request in store.seen)
    assert gzip.decompress(target.blobs[result.layers[0].descriptor.digest]) == TAR


@pytest.mark.parametrize("location", ["http://example.org/upload", "file:///tmp/x", "", "http://u:p@127.0.0.1/x"])
def test_uploads_that_are_not_begun(location: str) -> None:
    """Nothing is sent to an address that is none of a registry."""
    target = Target(on("POST", lambda request, _: request.reply(202, Location=location), times=100))
    with pytest.raises(errors.RegistryError, match=r"refused to go on|does not say where"):
        pushed(target)
    assert target.uploads == {}


def test_false_size_of_an_origin() -> None:
    """A blob that is there with another size than the layer came with is not taken for it."""
    target = Target()
    image = outgoing([TAR])
    origin = Descriptor(PushCompression.NONE.media_type, Digest(sha256(TAR)), 5)
    target.blobs[origin.digest] = TAR
    layer = OutgoingLayer(image.layers[0].diff_id, len(TAR), lambda: io.BytesIO(TAR), origin)
    with Server(target.answer) as server, server.connect("app:1") as connection:
        result = push(OutgoingImage(config=image.config, layers=(layer,)), connection)
    assert result.layers[0].state is PushState.SENT


def test_first_failure_stops_the_others() -> None:
    """When one layer fails, those that are being sent are given up, and those that wait are not begun."""
    started = threading.Event()
    opened: list[int] = []

    class Endless(io.RawIOBase):
        def read(self, size: int | None = -1, /) -> bytes:
            started.set()
            return bytes(size or 0)

    class Failing(io.RawIOBase):
        def read(self, size: int | None = -1, /) -> bytes:  # noqa: ARG002 - it gives nothing
            started.wait()
            raise errors.DigestMismatch("layer", "one", "another")

    def opener(number: int, stream: io.RawIOBase) -> Callable[[], io.RawIOBase]:
        def start() -> io.RawIOBase:
            opened.append(number)
            return stream

        return start

    streams = [Endless(), Failing(), *(Endless() for _ in range(20))]
    layers = [
        OutgoingLayer(DiffID(sha256(bytes([number]))), 1 << 50, opener(number, stream))  # type: ignore[arg-type]
        for number, stream in enumerate(streams)
    ]
    target = Target()
    with Server(target.usual) as server, server.connect("app:1") as connection, pytest.raises(errors.DigestMismatch):
        push(OutgoingImage(config=b"{}", layers=tuple(layers)), connection, jobs=2)
    assert len(opened) <= 3
    assert target.manifests == {}


@pytest.mark.parametrize("compression", PushCompression)
@pytest.mark.parametrize("content", [b"x", TAR, bytes(5 << 20)])
def test_compression(compression: PushCompression, content: bytes) -> None:
    """Compressed layers decompress to what they were, and are the same each time."""
    packed = [b"".join(compressed(iter([content]), len(content), compression)) for _ in range(2)]
    plain = {"gzip": gzip.decompress, "zstd": zstandard.decompress, "none": bytes}[compression]
    assert plain(packed[0]) == content
    assert packed[0] == packed[1]


@pytest.mark.parametrize("name", ["UPPER", "other.example.org:5000/a b", "..", "a//b", ""])
def test_mount_from_no_repository(name: str) -> None:
    """A name that cannot be a repository's is refused before anything is sent."""
    target = Target()
    with pytest.raises(errors.InvalidReference):
        pushed(target, mount_from=[name])
    assert target.uploads == {}


@pytest.mark.parametrize("tag", ["", "../../other/manifests/1", "a b", "a?b", "x" * 129])
def test_no_tag(tag: str) -> None:
    """What cannot be a tag is refused before anything is sent, and a tag goes before the reference's own."""
    target = Target()
    with pytest.raises(errors.InvalidReference):
        pushed(target, tag=tag)
    assert target.uploads == {}
    assert list(target.manifests) == []
    pushed(target, tag="2")
    assert list(target.manifests) == ["2"]
