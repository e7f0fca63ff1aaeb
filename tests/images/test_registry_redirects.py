"""Redirects never carry a login, cookies or trust to another place; real servers on both ends."""

import os
import pathlib
import ssl
import threading
from collections.abc import Callable, Iterator

import pytest
from layouts import sha256
from registries import PASSWORD, QUICK, USER, Content, Request, Server, basic, run

from graphdrivers import errors
from graphdrivers.images.registry.connection import Request as Asked
from graphdrivers.images.registry.credentials import Credentials
from graphdrivers.images.registry.pulling import open_remote
from graphdrivers.images.registry.trust import AddressRefused, Trust, is_loopback, same_origin, system_certificates

LOGIN = Credentials(USER, PASSWORD)


def challenged(answer: Callable[[Request], None]) -> Callable[[Request], None]:
    """Answer only who is logged in."""

    def guarded(request: Request) -> None:
        if request.at != "/v2/" and request.headers.get("Authorization") != basic(USER, PASSWORD):
            request.reply(401, WWW_Authenticate='Basic realm="test"', Set_Cookie="session=secret; Path=/")
        else:
            answer(request)

    return guarded


def read(server: Server, **more: object) -> bytes:
    """Pull the one layer, logged in."""
    image = open_remote(f"{server.host}/app:1", credentials=LOGIN, patience=QUICK, **more)  # type: ignore[arg-type]
    with image, image.open_layer(image.layers[0]) as stream:
        return b"".join(iter(lambda: stream.read(1 << 20), b""))


def sent_on(content: Content, target: Callable[[str], str], status: int = 307) -> Callable[[Request], None]:
    """Send who asks for the layer elsewhere."""

    def answer(request: Request) -> None:
        if request.at.endswith(f"blobs/{sha256(content.layer)}"):
            request.reply(status, b"see there", Location=target(request.path), Set_Cookie="session=secret; Path=/")
        else:
            content.answer(request)

    return challenged(answer)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_login_stays_at_home(status: int) -> None:
    """An object store that a registry sends us to sees neither the login nor a cookie, whatever the status."""
    content = Content()
    with Server(lambda request: request.reply(200, content.layer)) as store:
        with Server(sent_on(content, lambda _: f"{store.url}/bucket/layer?signature=x", status)) as server:
            assert read(server) == content.layer
        (asked,) = store.seen
        assert asked.path == "/bucket/layer?signature=x"
        assert "Authorization" not in asked.headers
        assert all("Cookie" not in request.headers for request in [*store.seen, *server.seen])
        assert any("Authorization" in request.headers for request in server.seen)


def test_login_is_lost_for_good() -> None:
    """A redirect that comes back home does not get the login again: the place between chose the address."""
    content = Content()
    came_back: list[str | None] = []

    def at_home(request: Request) -> None:
        if request.at == "/back":
            came_back.append(request.headers.get("Authorization"))
            request.reply(200, content.layer)
        else:
            home(request)

    with Server(at_home) as server, Server(lambda request: request.reply(302, Location=f"{server.url}/back")) as store:
        home = sent_on(content, lambda _: f"{store.url}/x")
        assert read(server) == content.layer
    assert came_back == [None]


def test_redirect_within_the_registry() -> None:
    """On the same host the login goes along."""
    content = Content()

    def answer(request: Request) -> None:
        if request.at == "/elsewhere":
            request.reply(200, content.layer)
        else:
            sent_on(content, lambda _: "/elsewhere")(request)

    with Server(challenged(answer)) as server:
        assert read(server) == content.layer
        assert server.asked("GET", "/elsewhere")[0].headers["Authorization"] == basic(USER, PASSWORD)


@pytest.mark.parametrize("scheme", ["Basic", "Bearer"])
def test_challenge_of_a_stranger(scheme: str) -> None:
    """An object store that asks for a login gets none, nor does a token server that it names; the pull is refused."""
    content = Content()

    def ask(request: Request) -> None:
        request.reply(401, WWW_Authenticate=f'{scheme} realm="{store.url}/token",service="x",scope="y"')

    with Server(ask) as store, Server(sent_on(content, lambda _: f"{store.url}/x")) as server:
        with pytest.raises(errors.AuthenticationFailed):
            read(server)
        assert [request.at for request in store.seen] == ["/x"]
        assert "Authorization" not in store.seen[0].headers


@pytest.mark.parametrize(
    "target",
    [
        "ftp://127.0.0.1/x",
        "file:///etc/passwd",
        "http://example.org/x",
        "http://anna:secret@127.0.0.1:1/x",
        "http://[::1",
    ],
)
def test_refused_addresses(target: str) -> None:
    """Other schemes, plain http to foreign hosts, and addresses with passwords in them are never followed."""
    content = Content()
    with Server(sent_on(content, lambda _: target)) as server:
        with pytest.raises(errors.RegistryError, match="refused to go on") as caught:
            read(server)
        assert "secret" not in str(caught.value)
        assert len(server.asked("GET", f"blobs/{sha256(content.layer)}")) == 1


def test_endless_redirects() -> None:
    """A registry that sends us round in circles is left."""
    content = Content()
    with Server(sent_on(content, lambda path: path)) as server:
        with pytest.raises(errors.RegistryError, match="10 redirects"):
            read(server)
        assert len(server.asked("GET", f"blobs/{sha256(content.layer)}")) == 10


def test_endless_body_of_a_redirect() -> None:
    """The body of a redirect is not read, however long it is."""
    content = Content()
    stop = threading.Event()

    def endless(request: Request) -> None:
        request.send_response(302)
        request.send_header("Location", "/elsewhere")
        request.send_header("Content-Length", str(1 << 40))
        request.end_headers()
        while not stop.is_set():
            request.wfile.write(bytes(1 << 16))

    def answer(request: Request) -> None:
        if request.at == "/elsewhere":
            request.reply(200, content.layer)
        elif request.at.endswith(f"blobs/{sha256(content.layer)}"):
            endless(request)
        else:
            content.answer(request)

    with Server(answer) as server:
        try:
            assert read(server) == content.layer
        finally:
            stop.set()


def test_redirected_upload_is_refused() -> None:
    """What is sent is not sent elsewhere by a redirect."""
    content = Content()
    with Server(lambda request: request.reply(200)) as elsewhere:

        def answer(request: Request) -> None:
            if request.command == "POST":
                request.reply(307, Location=f"{elsewhere.url}/steal")
            else:
                content.answer(request)

        with Server(answer) as server:
            connection = server.connect("app:2")
            with connection, pytest.raises(errors.RegistryError, match="HTTP 307"):
                connection.call(Asked("POST", connection.url("blobs/uploads/"), {202}))
        assert elsewhere.seen == []


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A certificate for 127.0.0.1 with its key in one file, that nobody else signed."""
    folder = tmp_path_factory.mktemp("tls")
    names = ["-subj", "/CN=loopback", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "2"]
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    run("openssl", "req", "-x509", *key, *names, "-keyout", folder / "key.pem", "-out", folder / "cert.pem")
    (folder / "both.pem").write_bytes((folder / "cert.pem").read_bytes() + (folder / "key.pem").read_bytes())
    return folder / "both.pem"


@pytest.fixture
def encrypted(certificate: pathlib.Path) -> Iterator[Callable[[Callable[[Request], None]], Server]]:
    """Start servers that speak https."""
    started: list[Server] = []

    def start(answer: Callable[[Request], None]) -> Server:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        started.append(Server(answer, context))
        return started[-1]

    yield start
    for server in started:
        server.close()


def test_never_from_https_to_http(encrypted: Callable[[Callable[[Request], None]], Server]) -> None:
    """A registry that speaks https cannot send us on to plain http, not even when certificates do not count."""
    content = Content()
    with Server(lambda request: request.reply(200, content.layer)) as store:
        server = encrypted(sent_on(content, lambda _: f"{store.url}/x"))
        with pytest.raises(errors.RegistryError, match="not encrypted"):
            read(server, insecure=True)
        assert store.seen == []


def test_certificates_count(
    encrypted: Callable[[Callable[[Request], None]], Server], certificate: pathlib.Path
) -> None:
    """A certificate that nobody trusts is refused at once and in one line; it counts when it was named."""
    content = Content()
    server = encrypted(content.answer)
    with pytest.raises(errors.RegistryError, match="its certificate is not trusted: self-signed"):
        read(server, insecure=False)
    assert server.seen == []
    assert read(server, insecure=False, ca_file=os.fspath(certificate)) == content.layer
    assert read(server) == content.layer
    assert read(server, insecure=True) == content.layer


def test_certificates_of_the_system(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    """The system's own certificates count: its file, else its folder unless that is empty."""
    folder, file = tmp_path / "certs", tmp_path / "cert.pem"
    places = ssl.DefaultVerifyPaths("env", "env", "SSL_CERT_FILE", os.fspath(file), "SSL_CERT_DIR", os.fspath(folder))
    monkeypatch.setattr(ssl, "get_default_verify_paths", lambda: places)
    assert system_certificates() == ""
    folder.mkdir()
    assert system_certificates() == ""
    (folder / "0123abcd.0").touch()
    assert system_certificates() == os.fspath(folder)
    file.touch()
    assert system_certificates() == os.fspath(file)


def test_no_plain_http_when_it_must_be_secure() -> None:
    """With certificates required, plain http is not even tried on the loopback."""
    with Server(Content().answer) as server:
        with pytest.raises(errors.RegistryError, match="TLS failed"):
            read(server, insecure=False)
        assert server.seen == []


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        *[(host, True) for host in ("localhost", "127.0.0.1", "127.9.9.9", "::1")],
        *[(host, False) for host in ("localhost.example.org", "127.0.0.1.example.org", "10.0.0.1", "", "0.0.0.0")],  # noqa: S104
    ],
)
def test_what_is_the_loopback(host: str, *, expected: bool) -> None:
    """Only names and addresses that cannot be anywhere else are the loopback."""
    assert is_loopback(host) is expected


def test_trust() -> None:
    """Plain http goes to the loopback or where it was allowed, and never comes after https."""
    assert Trust().admit("http://127.0.0.1:5000/v2/")
    assert Trust(insecure=True).admit("http://example.org/")
    assert Trust().verify("https://example.org/") == (system_certificates() or True)
    assert Trust(ca_file="/ca").verify("https://example.org/") == "/ca"
    assert Trust().verify("https://localhost/") is False
    for trust, url, before in [
        (Trust(), "http://example.org/", None),
        (Trust(insecure=False), "http://localhost/", None),
        (Trust(insecure=True), "http://example.org/", "https://example.org/"),
        (Trust(), "https://user@example.org/", None),
        (Trust(), "https:///path", None),
        (Trust(), "https://example.org:port/", None),
        (Trust(), "https://example.org\\.evil/", None),
        (Trust(), "https://example.org\t/", None),
        (Trust(), "https://[::1/", None),
    ]:
        with pytest.raises(AddressRefused):
            trust.admit(url, before=before)


def test_same_origin() -> None:
    """Scheme, host and port make an origin; the usual ports may be left out."""
    assert same_origin("https://example.org/a", "https://EXAMPLE.org:443/b?c")
    assert not same_origin("https://example.org/", "http://example.org/")
    assert not same_origin("https://example.org/", "https://example.org:444/")
    assert not same_origin("https://example.org/", "https://example.org.evil/")


def test_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Proxies that were given are used, and those of the environment are not."""
    content = Content()

    def answer(request: Request) -> None:
        request.path = request.path.removeprefix("http://registry.invalid:5000")
        content.answer(request)

    with Server(answer) as proxy, Server(lambda request: request.reply(500)) as other:
        for name in ("http_proxy", "https_proxy", "all_proxy"):
            monkeypatch.setenv(name, other.url)
        more = {"insecure": True, "patience": QUICK, "proxies": {"http": proxy.url}}
        with open_remote("registry.invalid:5000/app:1", **more) as image:  # type: ignore[arg-type]
            assert image.manifest == content.manifest
        assert proxy.seen[-1].path.startswith("http://registry.invalid:5000/v2/app/")
        assert other.seen == []
