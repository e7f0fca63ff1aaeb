"""Logins: where they are found, and what Basic and token registries get to see of them."""

import base64
import json
import os
import pathlib
import subprocess
import time
from collections.abc import Iterator
from urllib.parse import parse_qs, urlsplit

import attrs
import pytest
from layouts import Json, layer_tar
from registries import PASSWORD, QUICK, USER, Content, Registry, Request, Server, basic, htpasswd, run, running_registry
from test_registry_real import copy, outgoing, plain

from graphdrivers import errors
from graphdrivers.images.registry.authentication import read_challenge
from graphdrivers.images.registry.connection import Request as Asked
from graphdrivers.images.registry.credentials import ANONYMOUS, Credentials, Login, auth_files
from graphdrivers.images.registry.pulling import open_remote
from graphdrivers.images.registry.pushing import PushState, push

KEPT = "keep-me"
LOGIN = Credentials(USER, PASSWORD)
REMEDY = "log in with 'skopeo login {host}' or 'docker login {host}'"


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """A docker-registry with one user."""
    folder = tmp_path_factory.mktemp("guarded")
    with running_registry(folder, auth=htpasswd(folder)) as running:
        yield running


def test_htpasswd(guarded: Registry) -> None:
    """A registry with htpasswd takes a push and gives a pull to its user, and to nobody else."""
    tars = [layer_tar("one"), layer_tar("two")]
    with guarded.connect("app:1", LOGIN) as connection:
        push(outgoing(tars), connection)
    name = f"{guarded.host}/app:1"
    with open_remote(name, credentials=LOGIN, patience=QUICK) as image:
        assert [plain(image, layer) for layer in image.layers] == tars
    for wrong in (ANONYMOUS, Credentials(USER, "guess"), Credentials("guess", PASSWORD)):
        with pytest.raises(errors.AuthenticationFailed) as caught:
            open_remote(name, credentials=wrong, patience=QUICK)
        assert REMEDY.format(host=guarded.host) in str(caught.value)
        assert caught.value.status == 401
        with guarded.connect("app:2", wrong) as connection, pytest.raises(errors.AuthenticationFailed):
            push(outgoing(tars), connection)


def test_login_of_skopeo(guarded: Registry, tmp_path: pathlib.Path) -> None:
    """The file that ``skopeo login`` writes lets us in; what we pushed, skopeo copies with it."""
    path = tmp_path / "auth.json"
    run("skopeo", "login", "--tls-verify=false", "--authfile", path, "-u", USER, "-p", PASSWORD, guarded.host)
    found = Credentials(files=(os.fspath(path),))
    assert found.login(guarded.host, "app") == Login(USER, PASSWORD)
    tars = [layer_tar("skopeo")]
    with guarded.connect("login:1", found) as connection:
        push(outgoing(tars), connection)
    copy(f"docker://{guarded.host}/login:1", f"oci:{tmp_path}/layout:app", "--authfile", os.fspath(path))
    with open_remote(f"{guarded.host}/login:1", credentials=found, patience=QUICK) as image:
        assert plain(image, image.layers[0]) == tars[0]


class TokenServer:
    """Gives tokens that docker-registry believes, to the one user and, for pulls of ``open/``, to anybody."""

    def __init__(self, folder: pathlib.Path) -> None:
        """Make a key."""
        self.key = folder / "key.pem"
        self.certificate = folder / "cert.pem"
        subject = ["-subj", "/CN=tokens", "-days", "2", "-nodes", "-newkey", "rsa:2048"]
        run("openssl", "req", "-x509", *subject, "-keyout", self.key, "-out", self.certificate)
        self.queries: list[dict[str, list[str]]] = []
        self.logins: list[str | None] = []
        self.lifetime = 300

    def answer(self, request: Request) -> None:
        """Answer a token request."""
        query = parse_qs(urlsplit(request.path).query)
        login = request.headers.get("Authorization")
        self.queries.append(query)
        self.logins.append(login)
        if login not in {None, basic(USER, PASSWORD)}:
            request.reply(401, b'{"errors":[{"code":"UNAUTHORIZED","message":"wrong password"}]}')
            return
        access = [self.grant(scope, known=login is not None) for scope in query.get("scope", [])]
        request.reply(200, json.dumps({"token": self.token(access)}).encode())

    def grant(self, scope: str, *, known: bool) -> Json:
        """Grant what is asked for, or less."""
        kind, name, actions = scope.split(":")
        granted = actions.split(",") if known else ["pull"] if name.startswith("open/") else []
        return {"type": kind, "name": name, "actions": [action for action in granted if action in actions.split(",")]}

    def token(self, access: list[Json]) -> str:
        """Sign a token (RFC 7515) by openssl."""
        chain = "".join(self.certificate.read_text().split("\n")[1:-2])
        now = int(time.time())
        head = {"typ": "JWT", "alg": "RS256", "x5c": [chain]}
        claims = {"iss": "tests", "aud": "registry", "sub": "", "jti": str(len(self.queries)), "access": access}
        claims |= {"nbf": now - 10, "iat": now, "exp": now + self.lifetime}
        text = ".".join(self.encoded(json.dumps(part).encode()) for part in (head, claims))
        signing = ["openssl", "dgst", "-sha256", "-sign", self.key]
        signature = subprocess.run(signing, input=text.encode(), check=True, capture_output=True).stdout
        return f"{text}.{self.encoded(signature)}"

    @staticmethod
    def encoded(content: bytes) -> str:
        """Encode as tokens have it."""
        return base64.urlsafe_b64encode(content).decode().rstrip("=")


@attrs.frozen
class Tokens:
    """A docker-registry and the server whose tokens it wants."""

    registry: Registry
    server: TokenServer


@pytest.fixture
def tokens(tmp_path: pathlib.Path) -> Iterator[Tokens]:
    """A docker-registry that wants tokens."""
    server = TokenServer(tmp_path)
    with Server(server.answer) as listening:
        auth = {
            "realm": f"{listening.url}/token",
            "service": "registry",
            "issuer": "tests",
            "rootcertbundle": os.fspath(server.certificate),
        }
        with running_registry(tmp_path, auth={"token": auth}) as registry:
            yield Tokens(registry, server)


def test_token_flow(tokens: Tokens) -> None:
    """Tokens are asked for with the login, once for many requests, and with the scopes that the registry names."""
    tars = [layer_tar(str(number)) for number in range(4)]
    with tokens.registry.connect("open/app:1", LOGIN) as connection:
        push(outgoing(tars), connection, jobs=4)
    scopes = [scope for query in tokens.server.queries for scope in query["scope"]]
    assert "repository:open/app:pull,push" in scopes or "repository:open/app:push,pull" in scopes
    assert len(tokens.server.queries) <= 3
    assert all(query["service"] == ["registry"] for query in tokens.server.queries)
    assert set(tokens.server.logins) == {basic(USER, PASSWORD)}
    tokens.server.queries.clear()
    with open_remote(f"{tokens.registry.host}/open/app:1", credentials=LOGIN, patience=QUICK) as image:
        assert [plain(image, layer) for layer in image.layers] == tars
    assert tokens.server.queries == [{"service": ["registry"], "scope": ["repository:open/app:pull"]}]


def test_anonymous_token(tokens: Tokens) -> None:
    """Without a login a token is asked for all the same; it allows what everybody may."""
    tars = [layer_tar("open")]
    for name in ("open/app:1", "closed/app:1"):
        with tokens.registry.connect(name, LOGIN) as connection:
            push(outgoing(tars), connection)
    tokens.server.logins.clear()
    with open_remote(f"{tokens.registry.host}/open/app:1", patience=QUICK) as image:
        assert plain(image, image.layers[0]) == tars[0]
    assert set(tokens.server.logins) == {None}
    with pytest.raises(errors.AuthenticationFailed, match="authentication required"):
        open_remote(f"{tokens.registry.host}/closed/app:1", patience=QUICK)
    with tokens.registry.connect("open/app:2") as connection, pytest.raises(errors.AuthenticationFailed):
        push(outgoing(tars), connection)


def test_mount_with_tokens(tokens: Tokens) -> None:
    """Mounting asks for a token for both repositories, as two parameters; without one the layer is sent."""
    tars = [layer_tar("mounted")]
    with tokens.registry.connect("source:1", LOGIN) as connection:
        push(outgoing(tars), connection)
    with open_remote(f"{tokens.registry.host}/source:1", credentials=LOGIN, patience=QUICK) as image:
        going = outgoing(tars, image)
    tokens.server.queries.clear()
    with tokens.registry.connect("target:1", LOGIN) as connection:
        assert [layer.state for layer in push(going, connection, mount_from=["source"]).layers] == [PushState.MOUNTED]
    scopes = [sorted(query["scope"]) for query in tokens.server.queries]
    assert any(len(asked) == 2 and asked[0].startswith("repository:source:") for asked in scopes)


def test_expired_token(tokens: Tokens) -> None:
    """A token that expires between two requests is replaced by a new one."""
    tars = [layer_tar("expiring")]
    with tokens.registry.connect("open/app:1", LOGIN) as connection:
        push(outgoing(tars), connection)
    tokens.server.lifetime = -55  # docker-registry allows 60 s, so it is good for 5 more
    with open_remote(f"{tokens.registry.host}/open/app:1", credentials=LOGIN, patience=QUICK) as image:
        before = len(tokens.server.queries)
        time.sleep(6)
        assert plain(image, image.layers[0]) == tars[0]
    assert len(tokens.server.queries) > before


def test_wrong_password_for_tokens(tokens: Tokens) -> None:
    """What the token server says against a login reaches the user."""
    with pytest.raises(
        errors.AuthenticationFailed, match="token server refuses: UNAUTHORIZED: wrong password"
    ) as caught:
        open_remote(f"{tokens.registry.host}/app:1", credentials=Credentials(USER, "guess"), patience=QUICK)
    assert REMEDY.format(host=tokens.registry.host) in str(caught.value)
    assert "guess" not in str(caught.value)


def bearer(realm: str) -> str:
    """Write a challenge."""
    return f'Bearer realm="{realm}",service="registry",scope="repository:app:pull"'


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, b"<html>"),
        (200, b"[]"),
        (200, b"{}"),
        (200, b'{"token": 5}'),
        (200, b'{"token": "a\\nX-Evil: b"}'),
        (200, b'{"token": ""}'),
        (200, b"[" * 100_000),
        (200, b'{"token": "' + b"x" * (2 << 20) + b'"}'),
        (403, b"no"),
        (503, b"no"),
    ],
)
def test_bad_token_servers(status: int, body: bytes) -> None:
    """A token server that answers anything but a token is an error of one line."""
    with Server(lambda request: request.reply(status, body)) as realm:
        challenge = bearer(f"{realm.url}/token")
        with Server(lambda request: request.reply(401, WWW_Authenticate=challenge)) as server:
            with pytest.raises(errors.RegistryError, match="token server") as caught:
                open_remote(f"{server.host}/app:1", patience=QUICK)
            assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    "realm", ["http://example.org/token", "file:///etc/passwd", "https://u:p@127.0.0.1/", "token", "httpx://127.0.0.1/"]
)
def test_realms_that_are_not_asked(realm: str) -> None:
    """A login is never sent to a token server over plain http abroad, or by another scheme."""
    with Server(lambda request: request.reply(401, WWW_Authenticate=bearer(realm))) as server:
        with pytest.raises(errors.RegistryError, match="refused to go on"):
            open_remote(f"{server.host}/app:1", credentials=LOGIN, patience=QUICK)
        assert all("Authorization" not in request.headers for request in server.seen)


def test_token_server_that_redirects() -> None:
    """The password does not follow a token server's redirect to another place."""
    with Server(lambda request: request.reply(200, b'{"token": "stolen"}')) as other:
        with Server(lambda request: request.reply(302, Location=f"{other.url}/steal")) as realm:
            challenge = bearer(f"{realm.url}/token")
            with (
                Server(lambda request: request.reply(401, WWW_Authenticate=challenge)) as server,
                pytest.raises(errors.AuthenticationFailed),
            ):
                open_remote(f"{server.host}/app:1", credentials=LOGIN, patience=QUICK)
        assert other.seen
        assert all("Authorization" not in request.headers for request in other.seen)


def test_identity_token() -> None:
    """An identity token is exchanged for a token, as OAuth2 has it, and the password field is not used."""
    content = Content()
    forms: list[dict[str, list[str]]] = []

    def exchange(request: Request) -> None:
        assert request.command == "POST"
        forms.append(parse_qs(request.body().decode()))
        request.reply(200, b'{"access_token": "fresh"}')

    with Server(exchange) as realm:

        def answer(request: Request) -> None:
            if request.headers.get("Authorization") == "Bearer fresh" or request.at == "/v2/":
                content.answer(request)
            else:
                request.reply(401, WWW_Authenticate=bearer(f"{realm.url}/token"))

        with Server(answer) as server:
            connection = server.connect("app:1", TokenLogin())
            with connection:
                connection.call(Asked("GET", connection.url("manifests/1"), {200}))
    assert forms[0]["grant_type"] == ["refresh_token"]
    assert forms[0]["refresh_token"] == ["keep-me"]
    assert forms[0]["scope"] == ["repository:app:pull"]
    assert forms[0]["service"] == ["registry"]


class TokenLogin(Credentials):
    """A login with an identity token."""

    def login(self, host: str, path: str) -> Login:  # noqa: ARG002 - the same for all
        """Give it."""
        return Login("", "", "keep-me")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            'Bearer realm="https://a/t",service="s",scope="repository:a:pull"',
            ("bearer", "https://a/t", ("repository:a:pull",)),
        ),
        ('Bearer realm="https://a/t",scope="a b"', ("bearer", "https://a/t", ("a", "b"))),
        ('Basic realm="x"', ("basic", "", ())),
        ('Basic realm="x", Bearer realm="https://a/t"', ("bearer", "https://a/t", ())),
        ('Bearer realm="https://a/t", Basic realm="x"', ("bearer", "https://a/t", ())),
        ('bearer realm="https://a/t"', ("bearer", "https://a/t", ())),
        ('Digest realm="x"', None),
        ("Bearer", None),
        ("", None),
    ],
)
def test_challenges(text: str, expected: tuple[str, str, tuple[str, ...]] | None) -> None:
    """Challenges of the two schemes are understood, alone and together; others are none."""
    challenge = read_challenge(text)
    assert (challenge and (challenge.scheme, challenge.realm, challenge.scopes)) == expected


def test_nobody_is_asked_without_need(tmp_path: pathlib.Path) -> None:
    """A registry that is open never sees the login, and no file with one is even opened."""
    (tmp_path / "auth.json").write_text("not JSON")
    content = Content()
    for credentials in (LOGIN, Credentials(files=(os.fspath(tmp_path / "auth.json"),))):
        with Server(content.answer) as server:
            with open_remote(f"{server.host}/app:1", credentials=credentials, patience=QUICK) as image:
                assert plain(image, image.layers[0]) == content.layer
            assert all("Authorization" not in request.headers for request in server.seen)


def encoded(user: str, password: str) -> Json:
    """Write an entry as docker does."""
    return {"auth": base64.b64encode(f"{user}:{password}".encode()).decode()}


def write(folder: pathlib.Path, fields: object, name: str = "auth.json") -> str:
    """Write an auth file."""
    (folder / name).write_text(json.dumps(fields))
    return os.fspath(folder / name)


@pytest.mark.parametrize(
    ("key", "host"),
    [
        ("example.org", "example.org"),
        ("https://example.org", "example.org"),
        ("https://example.org/v1/", "example.org"),
        ("https://index.docker.io/v1/", "docker.io"),
        ("docker.io", "docker.io"),
        ("example.org/team", "example.org"),
        ("example.org/team/app", "example.org"),
    ],
)
def test_keys_of_entries(tmp_path: pathlib.Path, key: str, host: str) -> None:
    """An entry is found under each name that docker and podman give it, and only for its own registry."""
    files = Credentials(files=(write(tmp_path, {"auths": {key: encoded("anna", "pass:word")}}),))
    assert files.login(host, "team/app") == Login("anna", "pass:word")
    assert files.login("example.com", "team/app") is None
    assert files.login("evil-example.org", "team/app") is None


def test_most_specific_entry(tmp_path: pathlib.Path) -> None:
    """An entry for a repository goes before one for the registry, and a file before the next."""
    entries = {"example.org": encoded("all", "1"), "example.org/team": encoded("team", "2"), "example.org/team/app": {}}
    first = write(tmp_path, {"auths": entries})
    second = write(tmp_path, {"auths": {"example.org": encoded("later", "3"), "b.org": encoded("b", "4")}}, "second")
    files = Credentials(files=(os.fspath(tmp_path / "missing"), first, second))
    assert files.login("example.org", "team/app") == Login("team", "2")
    assert files.login("example.org", "teams/app") == Login("all", "1")
    assert files.login("b.org", "app") == Login("b", "4")


def test_other_forms_of_entries(tmp_path: pathlib.Path) -> None:
    """Names in plain text and identity tokens are taken; NULs that docker pads with are not."""
    entries = {
        "plain.org": {"username": "anna", "password": "secret"},
        "token.org": {**encoded("00000000-0000-0000-0000-000000000000", ""), "identitytoken": "keep-me"},
        "padded.org": {"auth": base64.b64encode(b"anna:secret\0\0").decode()},
    }
    files = Credentials(files=(write(tmp_path, {"auths": entries}),))
    assert files.login("plain.org", "app") == files.login("padded.org", "app") == Login("anna", "secret")
    token = files.login("token.org", "app")
    assert token
    assert token == Login(token.user, "", KEPT)


@pytest.mark.parametrize(
    "text",
    [
        "no JSON",
        "[]",
        '{"auths": []}',
        '{"auths": {"example.org": "x"}}',
        '{"auths": {"example.org": {"auth": "!"}}}',
        '{"auths": {"example.org": {"auth": 5}}}',
        '{"auths": {"example.org": {"registrytoken": "x"}}}',
        '{"credsStore": "../../bin/sh"}',
        '{"credsStore": "no-such-helper"}',
        '{"credHelpers": {"example.org": "no-such-helper"}}',
        "[" * 10_000,
    ],
)
def test_bad_auth_files(tmp_path: pathlib.Path, text: str) -> None:
    """A file that cannot be understood is an error that names it, not a login that silently fails."""
    (tmp_path / "auth.json").write_text(text)
    with pytest.raises(errors.AuthenticationFailed, match=r"auth\.json") as caught:
        Credentials(files=(os.fspath(tmp_path / "auth.json"),)).login("example.org", "app")
    assert str(caught.value).isprintable()


HELPER = """#!/bin/sh
read -r host
echo "$0 $1 $host" >>{log}
case $host in
known.org) echo '{{"ServerURL": "x", "Username": "anna", "Secret": "secret"}}' ;;
https://index.docker.io/v1/) echo '{{"Username": "<token>", "Secret": "keep-me"}}' ;;
broken.org) echo 'keychain is locked' >&2; exit 1 ;;
strange.org) echo '[]' ;;
*) echo 'credentials not found in native keychain'; exit 1 ;;
esac
"""


@pytest.fixture
def helper(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    """A credential helper called ``test``, on the path; what it is asked goes into a file."""
    program = tmp_path / "bin" / "docker-credential-test"
    program.parent.mkdir()
    program.write_text(HELPER.format(log=tmp_path / "asked"))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    return tmp_path / "asked"


@pytest.mark.parametrize("kind", ["store", "helpers"])
def test_credential_helpers(tmp_path: pathlib.Path, helper: pathlib.Path, kind: str) -> None:
    """Helpers are asked for one registry or for all, and their answers, tokens and failures understood."""
    hosts = ["known.org", "docker.io", "broken.org", "strange.org", "other.org"]
    fields = {"credsStore": "test"} if kind == "store" else {"credHelpers": dict.fromkeys(hosts, "test")}
    if kind == "helpers":
        fields["credHelpers"]["https://index.docker.io/v1/"] = fields["credHelpers"].pop("docker.io")  # type: ignore[index, attr-defined]
    files = Credentials(files=(write(tmp_path, {"auths": {"known.org": {}}, **fields}),))
    assert files.login("known.org", "app") == Login("anna", "secret")
    token = files.login("docker.io", "library/debian")
    assert token
    assert token == Login(token.user, "", KEPT)
    assert files.login("other.org", "app") is None
    for host, reason in (("broken.org", "keychain is locked"), ("strange.org", "does not answer as one")):
        with pytest.raises(errors.AuthenticationFailed, match=reason):
            files.login(host, "app")
    assert " get known.org" in helper.read_text()


def test_secrets_are_not_shown() -> None:
    """Passwords do not stand in what debuggers and logs print."""
    assert "opensesame" not in repr(Credentials("anna", "opensesame"))
    assert "opensesame" not in repr(Login("anna", "opensesame", "opensesame"))


RUN = f"/run/containers/{os.getuid()}/auth.json"
"""Where skopeo and podman log in to without a runtime directory (``defaultPerUIDPathFormat`` of containers/image)."""


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, (RUN,)),
        ({"REGISTRY_AUTH_FILE": "/a", "HOME": "/h"}, ("/a",)),
        ({"HOME": "/h", "XDG_RUNTIME_DIR": ""}, (RUN, "/h/.config/containers/auth.json", "/h/.docker/config.json")),
        (
            {"XDG_RUNTIME_DIR": "/r", "XDG_CONFIG_HOME": "/c", "DOCKER_CONFIG": "/d", "HOME": "/h"},
            ("/r/containers/auth.json", "/c/containers/auth.json", "/d/config.json"),
        ),
    ],
)
def test_usual_places(environ: dict[str, str], expected: tuple[str, ...]) -> None:
    """The places of auth files are those of podman and docker, in their order."""
    assert auth_files(environ) == expected


def test_environment_is_not_read(guarded: Registry, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither oras's variables, nor ``~/.netrc``, nor the user's Docker file give a login that was not asked for."""
    host = guarded.host
    write(tmp_path, {"auths": {host: encoded(USER, PASSWORD)}}, "config.json")
    (tmp_path / ".netrc").write_text(f"machine 127.0.0.1 login {USER} password {PASSWORD}\n")
    (tmp_path / ".netrc").chmod(0o600)
    for name in ("HOME", "DOCKER_CONFIG"):
        monkeypatch.setenv(name, os.fspath(tmp_path))
    monkeypatch.setenv("ORAS_USER", USER)
    monkeypatch.setenv("ORAS_PASS", PASSWORD)
    with pytest.raises(errors.AuthenticationFailed):
        open_remote(f"{host}/app:1", patience=QUICK)
