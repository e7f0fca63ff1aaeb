"""Manifests, indexes and configurations that lie, are too large, or are served as something else; and refusals."""

import json
import os
import socket
import time
from collections.abc import Callable

import attrs
import pytest
from layouts import INDEX, MANIFEST, Json, sha256
from registries import QUICK, Content, Request, Server

from graphdrivers import errors
from graphdrivers.images.documents import SIZE_MAX
from graphdrivers.images.image import Image
from graphdrivers.images.registry.patience import Patience
from graphdrivers.images.registry.pulling import open_remote
from graphdrivers.images.registry.refusals import told

DOCKER = "application/vnd.docker.distribution.manifest.v2+json"
OLD = "application/vnd.docker.distribution.manifest.v1+prettyjws"


def opened(answer: Callable[[Request], None], name: str = "app:1", platform: str | None = None) -> Image:
    """Open an image of a server, and close it."""
    with Server(answer) as server, open_remote(f"{server.host}/{name}", platform=platform, patience=QUICK) as image:
        return image


def serving(documents: dict[str, tuple[bytes, str]], content: Content) -> Callable[[Request], None]:
    """Answer with documents by their name below ``manifests/``, and with the blobs of an image."""

    def answer(request: Request) -> None:
        name = request.at.rpartition("/")[2]
        if "/manifests/" in request.at and name in documents:
            text, kind = documents[name]
            request.reply(200, text, Content_Type=kind)
        else:
            content.answer(request)

    return answer


def test_kind_with_parameters() -> None:
    """Parameters behind the media type, and its absence in the body, are fine."""
    content = Content()
    del content.manifest_fields["mediaType"]
    content.manifest = content.json(content.manifest_fields)
    image = opened(serving({"1": (content.manifest, f"{MANIFEST}; charset=utf-8")}, content))
    assert image.manifest == content.manifest
    assert image.manifest_digest == sha256(content.manifest)


@pytest.mark.parametrize("kind", [INDEX, DOCKER, OLD, "application/json", "text/html", "", "application/octet-stream"])
def test_served_as_something_else(kind: str) -> None:
    """A manifest that is served as another kind of document is refused (CVE-2021-41190)."""
    content = Content()
    with pytest.raises(errors.InvalidManifest):
        opened(serving({"1": (content.manifest, kind)}, content))


@pytest.mark.parametrize("more", [{"manifests": []}, {"Manifests": None}, {"fsLayers": []}, {"schemaVersion": 1}])
def test_ambiguous_manifest(more: Json) -> None:
    """A manifest that could be read as another kind of document is refused (CVE-2021-41190)."""
    content = Content()
    text = content.json({**content.manifest_fields, **more})
    with pytest.raises(errors.InvalidManifest):
        opened(serving({"1": (text, MANIFEST)}, content))


def test_child_served_as_another_kind() -> None:
    """The kind of a manifest has to be the same in its index, its body and the answer."""
    content = Content()
    digest = sha256(content.manifest)
    index = content.json({"schemaVersion": 2, "manifests": [content.descriptor(content.manifest, MANIFEST)]})
    documents = {"1": (index, INDEX), digest: (content.manifest, MANIFEST)}
    assert opened(serving(documents, content)).manifest_digest == digest
    for kind in (DOCKER, INDEX, "application/json"):
        documents[digest] = (content.manifest, kind)
        with pytest.raises(errors.InvalidManifest, match="is served as"):
            opened(serving(documents, content))


def test_nested_indexes() -> None:
    """Indexes in indexes are followed to the depth that layouts have too, and one that is deeper is refused."""
    content = Content()
    documents = {sha256(content.manifest): (content.manifest, MANIFEST)}
    inner = content.descriptor(content.manifest, MANIFEST)
    opens = []
    for _ in range(5):
        text = content.json({"schemaVersion": 2, "manifests": [inner]})
        inner = content.descriptor(text, INDEX)
        documents[sha256(text)] = documents["1"] = (text, INDEX)
        try:
            opens.append(opened(serving(documents, content)).manifest == content.manifest)
        except errors.InvalidManifest as error:
            assert "nested deeper" in str(error)  # noqa: PT017 - which of them is what is asked
            opens.append(False)
    assert opens == [True, True, True, False, False]


def test_platforms_of_an_index() -> None:
    """The image for the platform is chosen, and one that is for another than its index says is refused."""
    content = Content()
    entry = content.descriptor(content.manifest, MANIFEST)
    entries = [{**entry, "platform": {"os": "linux", "architecture": "arm64"}}]
    documents = {sha256(content.manifest): (content.manifest, MANIFEST)}
    documents["1"] = (content.json({"schemaVersion": 2, "manifests": entries}), INDEX)
    with pytest.raises(errors.InvalidManifest, match=r"is for linux/amd64, not for linux/arm64"):
        opened(serving(documents, content), platform="arm64")
    with pytest.raises(errors.InvalidReference, match="only for linux/arm64"):
        opened(serving(documents, content), platform="amd64")


def test_wrong_digest_of_a_manifest() -> None:
    """A manifest that was asked for by its digest has to have it, before anything of it is believed."""
    content = Content()
    wrong = sha256(b"another")
    for text in (content.manifest, b"no JSON at all", b"[" * 100_000):
        with pytest.raises(errors.DigestMismatch):
            opened(serving({wrong: (text, MANIFEST)}, content), f"app:1@{wrong}")


@pytest.mark.parametrize(
    "told_digest", [sha256(b"another"), "sha256:short", "../../etc", "sha256:" + "A" * 64, "md5:x"]
)
def test_told_digest(told_digest: str) -> None:
    """The digest that a registry tells with a tag has to be one, and to fit (CVE-2024-3727)."""
    content = Content()

    def answer(request: Request) -> None:
        if request.at.endswith("manifests/1"):
            request.reply(200, content.manifest, Content_Type=MANIFEST, Docker_Content_Digest=told_digest)
        else:
            content.answer(request)

    with pytest.raises((errors.DigestMismatch, errors.InvalidManifest)):
        opened(answer)


@pytest.mark.parametrize("spoil", [lambda text: text + b" ", lambda text: text[:-1], lambda text: text[:-1] + b" "])
def test_false_configuration(spoil: Callable[[bytes], bytes]) -> None:
    """A configuration of another size or digest than the manifest says is refused."""
    content = Content()
    asked = f"blobs/{sha256(content.config)}"

    def answer(request: Request) -> None:
        if request.at.endswith(asked):
            request.reply(200, spoil(content.config))
        else:
            content.answer(request)

    with pytest.raises(errors.DigestMismatch, match="configuration"):
        opened(answer)


@pytest.mark.parametrize("change", [-1, 1, 1 << 40])
def test_manifest_that_lies_about_its_configuration(change: int) -> None:
    """A size in a descriptor that is not the configuration's is refused, and a huge one before it is asked for."""
    content = Content()
    content.manifest_fields["config"]["size"] += change
    content.manifest = content.json(content.manifest_fields)
    with pytest.raises((errors.DigestMismatch, errors.InvalidManifest)), Server(content.answer) as server:
        open_remote(f"{server.host}/app:1", patience=QUICK)
    assert bool(server.asked("GET", f"blobs/{sha256(content.config)}")) is (change < SIZE_MAX)


def test_layer_size_that_lies() -> None:
    """A layer of another size than the manifest says is refused before its content is read."""
    content = Content()
    content.manifest_fields["layers"][0]["size"] += 5
    content.manifest = content.json(content.manifest_fields)
    with Server(content.answer) as server, open_remote(f"{server.host}/app:1", patience=QUICK) as image:
        with pytest.raises(errors.DigestMismatch, match="bytes"):
            image.open_layer(image.layers[0])
        assert len(server.asked("GET", f"blobs/{sha256(content.layer)}")) == 1


@pytest.mark.parametrize("chunked", [False, True])
def test_huge_manifest(*, chunked: bool) -> None:
    """A manifest above 4 MiB is refused, and not read on: an endless one too."""
    content = Content()
    sent = 0

    def answer(request: Request) -> None:
        nonlocal sent
        if not request.at.endswith("manifests/1"):
            content.answer(request)
            return
        request.send_response(200)
        request.send_header("Content-Type", MANIFEST)
        if chunked:
            request.send_header("Transfer-Encoding", "chunked")
        else:
            request.send_header("Content-Length", str(1 << 40))
        request.end_headers()
        piece = b" " * (1 << 16)
        while True:  # until the client goes away
            request.wfile.write(b"10000\r\n%b\r\n" % piece if chunked else piece)
            sent += len(piece)

    with pytest.raises(errors.InvalidManifest, match="more than 4194304 bytes"):
        opened(answer)
    assert sent < 64 << 20


def test_largest_manifest() -> None:
    """A manifest of just 4 MiB is read."""
    content = Content()
    content.manifest += b" " * (SIZE_MAX - len(content.manifest))
    assert opened(content.answer).manifest == content.manifest


@pytest.mark.parametrize(
    ("status", "kind", "text"),
    [
        (401, errors.AuthenticationFailed, "log in with 'skopeo login"),
        (403, errors.AuthenticationFailed, "log in with 'skopeo login"),
        (404, errors.InvalidReference, "no such image"),
        (400, errors.RegistryError, "HTTP 400"),
        (418, errors.RegistryError, "HTTP 418"),
        (429, errors.RegistryError, "rate limit"),
        (500, errors.RegistryError, "it failed"),
        (503, errors.RegistryError, "out of service"),
        (204, errors.RegistryError, "HTTP 204"),
        (304, errors.RegistryError, "HTTP 304"),
    ],
)
def test_refusals(status: int, kind: type[errors.ImageError], text: str) -> None:
    """What a registry answers becomes one line, with what it says and what to do."""
    body = json.dumps({"errors": [{"code": "WHY", "message": "because\x1b[31m\nof this", "detail": {"a": 1}}]}).encode()

    def answer(request: Request) -> None:
        request.reply(status if "manifests" in request.at else 200, b"" if status in {204, 304} else body)

    with Server(answer) as server:
        with pytest.raises(kind, match=text) as caught:
            open_remote(f"{server.host}/app:1", patience=QUICK)
        attempts = len(server.asked("GET", "manifests/1"))
    assert type(caught.value) is kind
    assert str(caught.value).isprintable()
    assert status in {204, 304} or "WHY: because [31m of this" in str(caught.value).replace("\\", "")
    assert attempts == (QUICK.attempts if status in {429, 500, 503} else 1)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"", ""),
        (b"<html>denied</html>", ""),
        (b"[1, 2]", ""),
        (b'{"errors": 5}', ""),
        (b'{"errors": ["x"]}', ""),
        (b'{"errors": [{"code": "A"}, {"message": "b"}]}', "A, b"),
        (b'{"errors": [{"code": "A", "message": "same"}, {"code": "A", "message": "same"}]}', "A: same"),
        (b"\xff\xfe", ""),
        (b"[" * 100_000, ""),
    ],
)
def test_what_error_bodies_say(body: bytes, expected: str) -> None:
    """Bodies in the form of the specification are understood, and others say nothing."""
    assert told(body) == expected


def test_long_error_bodies() -> None:
    """An endless error body is neither read on nor shown."""

    def answer(request: Request) -> None:
        if request.at == "/v2/":
            request.reply(200)
            return
        request.send_response(400)
        request.send_header("Content-Length", str(1 << 40))
        request.end_headers()
        while True:
            request.wfile.write(b"x" * (1 << 16))

    with Server(answer) as server, pytest.raises(errors.RegistryError) as caught:
        open_remote(f"{server.host}/app:1", patience=QUICK)
    assert len(str(caught.value)) < 500
    long = json.dumps({"errors": [{"message": "x" * 10_000}]}).encode()
    assert len(told(long)) < 400


def test_recovers_from_passing_failures() -> None:
    """What may pass is tried again: a registry that is restarted, and one that is asked too often."""
    content = Content()
    failures = [503, 429]

    def answer(request: Request) -> None:
        if "manifests" in request.at and failures:
            request.reply(failures.pop(), Retry_After="0")
        else:
            content.answer(request)

    assert opened(answer).manifest == content.manifest


def test_retry_after() -> None:
    """The pause that a registry asks for is kept, and one that is too long ends the attempt at once."""
    content = Content()
    wanted = ["1"]

    def answer(request: Request) -> None:
        if "manifests" in request.at and wanted:
            request.reply(429, Retry_After=wanted.pop())
        else:
            content.answer(request)

    began = time.monotonic()
    opened(answer)
    assert time.monotonic() - began >= 1
    wanted = ["3600"]
    with Server(answer) as server:
        with pytest.raises(errors.RegistryError, match="it asks to wait 3600 s") as caught:
            open_remote(f"{server.host}/app:1", patience=QUICK)
        assert len(server.asked("GET", "manifests/1")) == 1
    assert caught.value.retry_after == 3600


def test_pauses() -> None:
    """Pauses double up to a limit, and end with the attempts."""
    patience = Patience(attempts=7, pause=0.5)
    assert [patience.before_next(failed) for failed in range(1, 8)] == [0.5, 1.0, 2.0, 4.0, 8.0, 8.0, None]
    assert patience.before_next(1, 20) == 20
    assert patience.before_next(1, 61) is None
    assert attrs.evolve(patience, attempts=1).before_next(1) is None


def test_nobody_there() -> None:
    """A port where nobody listens, and a host that does not exist, are said to be so."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))  # nobody else can have it meanwhile
        with pytest.raises(errors.RegistryError, match="cannot be reached: Connection refused"):
            open_remote(f"127.0.0.1:{silent.getsockname()[1]}/app:1", patience=QUICK)
    with pytest.raises(errors.RegistryError, match="cannot be reached"):
        open_remote("registry.invalid/app:1", patience=attrs.evolve(QUICK, attempts=1))


def test_what_is_not_http() -> None:
    """A server that speaks something else is an error, not a traceback."""

    def answer(request: Request) -> None:
        request.wfile.write(b"SSH-2.0-OpenSSH_9.2\r\n" + os.urandom(100))
        request.cut()

    with Server(answer) as server, pytest.raises(errors.RegistryError):
        open_remote(f"{server.host}/app:1", patience=QUICK)
