"""Registries on the loopback: Debian's docker-registry, and small HTTP servers that misbehave as told."""

import base64
import contextlib
import http.server
import json
import os
import pathlib
import re
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Self

import attrs
import pytest
from layouts import CONFIG, LAYER, MANIFEST, Json, layer_tar, sha256

from graphdrivers.images.reference import Reference
from graphdrivers.images.registry.connection import Connection, connect
from graphdrivers.images.registry.credentials import ANONYMOUS, Credentials
from graphdrivers.images.registry.patience import Patience

USER, PASSWORD = "anna", "opensesame"
BCRYPT = "$2b$04$7HKZMTG82ejyBcNELDFfuOY5Y/zQCs31NPid5QhgBZOpYKH7ZyhZK"

QUICK = Patience(timeout=60, attempts=3, pause=0.01, cancelling=5)


def run(*command: str | os.PathLike[str]) -> str:
    """Run a program that this suite needs and return what it prints; see `need`."""
    need(os.fspath(command[0]))
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def need(program: str) -> None:
    """Fail without a program, unless tools were declared optional."""
    if shutil.which(program) is None:
        if os.environ.get("GRAPHDRIVERS_OPTIONAL_TOOLS") == "1":
            pytest.skip(f"{program} is not installed")
        pytest.fail(f"{program} is not installed (GRAPHDRIVERS_OPTIONAL_TOOLS=1 skips what needs it)")


class Registry:
    """A running docker-registry."""

    def __init__(self, host: str, folder: pathlib.Path) -> None:
        """Know where it is."""
        self.host = host
        self.folder = folder

    def blobs(self) -> set[str]:
        """Digests of what it keeps as blobs."""
        found = (self.folder / "docker" / "registry" / "v2" / "blobs").glob("*/*/*/data")
        return {f"{path.parts[-4]}:{path.parts[-2]}" for path in found}

    def open_uploads(self) -> list[pathlib.Path]:
        """What was begun to be sent, and neither ended nor cancelled."""
        return list(self.folder.glob("docker/registry/v2/repositories/**/_uploads/*/data"))

    def begun(self, path: str) -> set[str]:
        """Names of all uploads to a repository but those that became blobs; a cancelled one leaves an empty folder."""
        return {place.name for place in self.folder.glob(f"docker/registry/v2/repositories/{path}/_uploads/*")}

    def connect(self, name: str, credentials: Credentials = ANONYMOUS, **more: Any) -> Connection:
        """Connect to a repository."""
        return connect_to(self.host, name, credentials, **more)


def connect_to(host: str, name: str, credentials: Credentials, **more: Any) -> Connection:
    """Connect to a repository of a registry, without much patience."""
    return connect(Reference.parse(f"{host}/{name}"), credentials=credentials, **{"patience": QUICK, **more})


@contextlib.contextmanager
def running_registry(folder: pathlib.Path, *, auth: Json | None = None, tls: Json | None = None) -> Iterator[Registry]:
    """Run docker-registry on a free port of the loopback, with its blobs in ``folder``."""
    need("docker-registry")
    config = {
        "version": "0.1",
        "log": {"level": "info", "accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": os.fspath(folder / "store")}, "delete": {"enabled": True}},
        "http": {"addr": "127.0.0.1:0", **({"tls": tls} if tls else {})},
        **({"auth": auth} if auth else {}),
    }
    (folder / "config.json").write_text(json.dumps(config))  # JSON is YAML too
    process = subprocess.Popen(
        ["docker-registry", "serve", folder / "config.json"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={"PATH": os.environ["PATH"]},
    )
    assert process.stderr is not None
    printed: list[str] = []
    port = None
    for line in process.stderr:
        printed.append(line)
        if found := re.search(r"listening on 127\.0\.0\.1:([0-9]+)", line):
            port = found[1]
            break
    reader = threading.Thread(target=process.stderr.read)  # it would stop when the pipe is full
    reader.start()
    try:
        assert port, "".join(printed)
        yield Registry(f"127.0.0.1:{port}", folder / "store")
    finally:
        process.terminate()
        process.wait()
        reader.join()
        process.stderr.close()


def htpasswd(folder: pathlib.Path) -> Json:
    """Configure a registry that knows one user."""
    (folder / "htpasswd").write_text(f"{USER}:{BCRYPT}\n")
    return {"htpasswd": {"realm": "test", "path": os.fspath(folder / "htpasswd")}}


@attrs.frozen
class Seen:
    """A request that came."""

    command: str
    path: str
    headers: Mapping[str, str]

    @property
    def at(self) -> str:
        """The path without its query."""
        return self.path.partition("?")[0]


class Request(http.server.BaseHTTPRequestHandler):
    """One request to a `Server`, with what answers it."""

    server: "_Listener"
    protocol_version = "HTTP/1.1"

    def setup(self) -> None:
        """Note the connection, so that it can be closed with the server."""
        super().setup()
        self.server.owner.connections.append(self.connection)

    def handle_one(self) -> None:
        """Note the request, and let the test's function answer."""
        self.server.owner.seen.append(Seen(self.command, self.path, self.headers))
        self.server.owner.answer(self)

    def __getattr__(self, name: str) -> Callable[[], None]:
        """Take every method."""
        if name.startswith("do_"):
            return self.handle_one
        raise AttributeError(name)

    @property
    def at(self) -> str:
        """The path without its query."""
        return self.path.partition("?")[0]

    def reply(self, status: int, body: bytes = b"", **headers: str) -> None:
        """Send an answer; header names have ``_`` for ``-``."""
        self.send_response(status)
        headers.setdefault("Content_Length", str(len(body)))
        for name, value in headers.items():
            if value:
                self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def cut(self) -> None:
        """Close the connection."""
        self.close_connection = True

    def body(self) -> bytes:
        """Read what was sent, chunked or not."""
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", "0")))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class has it so
        """Print nothing."""


class _Listener(http.server.ThreadingHTTPServer):
    owner: "Server"
    daemon_threads = False

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: clients that go away are what is tested."""


class Server:
    """An HTTP server on the loopback whose every answer comes from a function."""

    def __init__(self, answer: Callable[[Request], None], tls: ssl.SSLContext | None = None) -> None:
        """Listen at once, with TLS if a context is given."""
        self.answer = answer
        self.seen: list[Seen] = []
        self.connections: list[socket.socket] = []
        self._listener = _Listener(("127.0.0.1", 0), Request)
        self._listener.owner = self
        if tls:
            self._listener.socket = tls.wrap_socket(self._listener.socket, server_side=True)
        self.host = f"127.0.0.1:{self._listener.server_port}"
        self.url = f"{'https' if tls else 'http'}://{self.host}"
        self._thread = threading.Thread(target=self._listener.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    def asked(self, method: str, ending: str) -> list[Seen]:
        """Give the requests of a method whose path ends so."""
        return [request for request in self.seen if request.command == method and request.at.endswith(ending)]

    def connect(self, name: str, credentials: Credentials = ANONYMOUS, **more: Any) -> Connection:
        """Connect to a repository."""
        return connect_to(self.host, name, credentials, **more)

    def close(self) -> None:
        """Stop, whoever is still connected."""
        self._listener.shutdown()
        for connection in self.connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self._listener.server_close()
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class Content:
    """What a well-behaved small registry has: an image of one layer, to be spoilt by a test."""

    def __init__(self, layer: bytes = b"", *, layer_type: str = LAYER) -> None:
        """Make an image."""
        self.layer = layer or layer_tar("file", os.urandom(3 << 20))
        self.config = self.json(
            {"os": "linux", "architecture": "amd64", "rootfs": {"type": "layers", "diff_ids": [sha256(self.layer)]}}
        )
        self.manifest_fields: Json = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": self.descriptor(self.config, CONFIG),
            "layers": [self.descriptor(self.layer, layer_type)],
        }
        self.manifest = self.json(self.manifest_fields)

    @staticmethod
    def json(fields: object) -> bytes:
        """Write a document."""
        return json.dumps(fields).encode()

    @staticmethod
    def descriptor(content: bytes, media_type: str) -> Json:
        """Describe a blob."""
        return {"mediaType": media_type, "digest": sha256(content), "size": len(content)}

    def answer(self, request: Request) -> None:
        """Answer as a registry that has the repository ``app``, read only."""
        blobs = {sha256(self.config): self.config, sha256(self.layer): self.layer}
        kind, _, name = request.at.removeprefix("/v2/app/").partition("/")
        if request.at == "/v2/":
            request.reply(200)
        elif kind == "manifests" and name in {"1", "latest", sha256(self.manifest)}:
            request.reply(200, self.manifest, Content_Type=MANIFEST)
        elif kind == "blobs" and name in blobs:
            request.reply(200, blobs[name])
        else:
            request.reply(404, b'{"errors": [{"code": "NOT_HERE", "message": "it is not here"}]}')


def basic(user: str, password: str) -> str:
    """Write a login as an ``Authorization``."""
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
