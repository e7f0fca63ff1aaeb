"""Certificates of single registries, as podman, skopeo and docker have them in certs.d."""

import os
import pathlib
import shutil
import ssl
import subprocess
import sys
from collections.abc import Iterator

import attrs
import pytest
from layouts import layer_tar, sha256
from registries import QUICK, Content, Registry, Request, Server, run, running_registry
from test_registry_interrupts import FOREVER
from test_registry_real import outgoing

from graphdrivers import errors
from graphdrivers.images.reference import Reference
from graphdrivers.images.registry.certificates import certificate_folder, certificate_places
from graphdrivers.images.registry.connection import connect
from graphdrivers.images.registry.pulling import open_remote
from graphdrivers.images.registry.pushing import push

STRICT = {"insecure": False, "patience": attrs.evolve(QUICK, attempts=1)}


@attrs.frozen
class Authority:
    """Signs certificates."""

    folder: pathlib.Path

    @property
    def certificate(self) -> pathlib.Path:
        """Its own."""
        return self.folder / "ca.pem"

    def sign(self, name: str) -> tuple[pathlib.Path, pathlib.Path]:
        """Make a certificate for 127.0.0.1 and its key."""
        certificate, key = self.folder / f"{name}.pem", self.folder / f"{name}-key.pem"
        signer = ["-CA", self.certificate, "-CAkey", self.folder / "ca-key.pem"]
        _request(certificate, key, name, "subjectAltName=IP:127.0.0.1", *signer)
        return certificate, key


def _request(certificate: pathlib.Path, key: pathlib.Path, name: str, addition: str, *more: str | pathlib.Path) -> None:
    kind = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    names = ["-subj", f"/CN={name}", "-addext", addition]
    run("openssl", "req", "-x509", *kind, *names, *more, "-keyout", key, "-out", certificate)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """One that this system does not know."""
    made = Authority(tmp_path_factory.mktemp("authority"))
    _request(made.certificate, made.folder / "ca-key.pem", "authority", "keyUsage=keyCertSign")
    return made


@pytest.fixture(scope="module")
def registry(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """A registry that wants client certificates of the authority that signed its own."""
    certificate, key = authority.sign("registry")
    tls = {
        "certificate": os.fspath(certificate),
        "key": os.fspath(key),
        "clientcas": [os.fspath(authority.certificate)],
    }
    with running_registry(tmp_path_factory.mktemp("registry"), tls=tls) as running:
        yield running


@pytest.fixture
def folder(authority: Authority, tmp_path: pathlib.Path) -> pathlib.Path:
    """A folder as it should be."""
    place = tmp_path / "certs"
    place.mkdir()
    shutil.copy(authority.certificate, place / "ca.crt")
    for path, name in zip(authority.sign("client"), ("client.cert", "client.key"), strict=True):
        shutil.copy(path, place / name)
    return place


def test_own_authority_and_client_certificate(registry: Registry, folder: pathlib.Path) -> None:
    """An image is pushed, pulled, and read by skopeo, all with the same folder."""
    tar = layer_tar("file", os.urandom(1 << 20))
    with registry.connect("app:1", cert_dir=os.fspath(folder), **STRICT) as connection:
        digest = push(outgoing([tar]), connection).manifest_digest
    with open_remote(f"{registry.host}/app:1", cert_dir=os.fspath(folder), **STRICT) as image:  # type: ignore[arg-type]
        assert image.manifest_digest == digest
    name = f"docker://{registry.host}/app:1"
    assert run("skopeo", "inspect", "--cert-dir", folder, "--format", "{{.Digest}}", name).strip() == digest


def test_client_certificate_where_any_of_the_server_will_do(registry: Registry, folder: pathlib.Path) -> None:
    """Ours is shown also where the registry's is not looked at."""
    (folder / "ca.crt").unlink()
    for insecure in (None, True):
        with registry.connect("loopback:1", cert_dir=os.fspath(folder), insecure=insecure) as connection:
            push(outgoing([]), connection)
    with pytest.raises(errors.RegistryError, match="its certificate is not trusted"):
        open_remote(f"{registry.host}/loopback:1", cert_dir=os.fspath(folder), **STRICT)  # type: ignore[arg-type]


@pytest.mark.parametrize("insecure", [None, False])
@pytest.mark.parametrize("another", [False, True])
def test_without_a_client_certificate(
    registry: Registry, folder: pathlib.Path, *, insecure: bool | None, another: bool
) -> None:
    """A registry that wants a certificate and gets none, or a strange one, is an error that says so, at once."""
    key, certificate = folder / "client.key", folder / "client.cert"
    if another:
        _request(certificate, key, "stranger", "keyUsage=digitalSignature")
    else:
        certificate.unlink()
        key.unlink()
    for _ in range(20):  # whether it closes the connection before we have asked is a matter of luck
        with pytest.raises(errors.RegistryError, match="it wants a client certificate that it knows"):
            open_remote(f"{registry.host}/app:1", cert_dir=os.fspath(folder), insecure=insecure, patience=FOREVER)


def test_the_program_finds_the_folder(registry: Registry, folder: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """The folder below ``~/.config`` that is called after the registry is taken, and ``--cert-dir`` in its place."""
    home = tmp_path / "home"
    shutil.copytree(folder, home / ".config/containers/certs.d" / registry.host)
    with registry.connect("found:1", cert_dir=os.fspath(folder)) as connection:
        push(outgoing([layer_tar("file")]), connection)
    graphdriver = [sys.executable, "-m", "graphdrivers", "--root", os.fspath(tmp_path / "store"), "--driver", "vfs"]

    def pull(*options: str | pathlib.Path, at: pathlib.Path) -> subprocess.CompletedProcess[str]:
        command = [*graphdriver, "pull", "--tls-verify", *options, f"{registry.host}/found:1"]
        environ = {"PATH": os.environ["PATH"], "HOME": os.fspath(at)}
        return subprocess.run(command, check=False, capture_output=True, text=True, env=environ)

    assert "its certificate is not trusted" in pull(at=tmp_path).stderr
    for done in (pull(at=home), pull("--cert-dir", folder, at=tmp_path)):
        assert (done.returncode, done.stdout[:7]) == (0, "sha256:"), done.stderr
    missing = pull("--cert-dir", tmp_path / "none", at=home)
    assert missing.returncode == errors.RegistryError.exit_code
    assert f"'{tmp_path}/none' cannot be read: No such file" in missing.stderr.splitlines()[1]


def test_only_that_registry(authority: Authority, folder: pathlib.Path) -> None:
    """Where a registry sends us on to another port, neither its authorities count nor is our certificate shown."""
    content = Content()
    shown: list[object] = []

    def note(request: Request) -> None:
        shown.append(request.connection.getpeercert())  # type: ignore[attr-defined]

    def stored(request: Request) -> None:
        note(request)
        request.reply(200, content.layer)

    def answer(request: Request) -> None:
        note(request)
        if request.at.endswith(sha256(content.layer)):
            request.reply(307, Location=f"{store.url}/x")
        else:
            content.answer(request)

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.sign("server"))
    context.verify_mode = ssl.CERT_OPTIONAL
    context.load_verify_locations(authority.certificate)
    with Server(stored, context) as store, Server(answer, context) as server:
        with open_remote(f"{server.host}/app:1", cert_dir=os.fspath(folder), patience=QUICK) as image:
            assert image.open_layer(image.layers[0]).read(1)
        assert len(store.seen) == 1
        *ours, theirs = shown
        assert all(ours)
        assert not theirs
        with (
            open_remote(f"{server.host}/app:1", cert_dir=os.fspath(folder), **STRICT) as image,  # type: ignore[arg-type]
            pytest.raises(errors.RegistryError, match="its certificate is not trusted"),
        ):
            image.open_layer(image.layers[0])


def _encrypt(folder: pathlib.Path) -> None:
    secret = ["-aes256", "-passout", "pass:secret"]
    run("openssl", "ec", "-in", folder / "client.key", *secret, "-out", folder / "client.key")


@pytest.mark.parametrize(
    ("spoil", "file", "reason"),
    [
        (lambda f: (f / "ca.crt").write_text("nothing"), "ca.crt", "has no certificate in PEM form"),
        (lambda f: (f / "ca.crt").write_bytes(b""), "ca.crt", "has no certificate in PEM form"),
        (
            lambda f: (f / "ca.crt").write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
            "ca.crt",
            "has no certificate in PEM form",
        ),
        (lambda f: (f / "b.crt").symlink_to("none"), "b.crt", "cannot be read: No such file"),
        (lambda f: (f / "b.crt").mkdir(), "b.crt", "cannot be read: Is a directory"),
        (lambda f: (f / "client.key").unlink(), "client.cert", "has no key 'client.key' beside it"),
        (lambda f: (f / "client.cert").unlink(), "client.key", "has no certificate 'client.cert' beside it"),
        (lambda f: (f / "client.key").write_text("nothing"), "client.cert", "and its key 'client.key' cannot be used"),
        (lambda f: (f / "client.cert").write_text(""), "client.cert", "and its key 'client.key' cannot be used"),
        (_encrypt, "client.cert", "the key without a password"),
        (
            lambda f: _request(f / "client.cert", f / "none", "other", "keyUsage=digitalSignature"),
            "client.cert",
            "is not that of its key 'client.key'",
        ),
    ],
)
def test_bad_files(folder: pathlib.Path, spoil: object, file: str, reason: str) -> None:
    """A file that cannot be used is named in one line, before anybody is asked."""
    spoil(folder)  # type: ignore[operator]
    with pytest.raises(errors.RegistryError) as caught:
        connect(Reference.parse("registry.example/app:1"), cert_dir=os.fspath(folder))
    assert os.fspath(folder / file) in caught.value.reason
    assert reason in caught.value.reason
    assert "\n" not in str(caught.value)


def test_other_files_do_not_matter(folder: pathlib.Path) -> None:
    """What has none of the three endings is not read."""
    (folder / "README").write_text("nothing")
    (folder / "ca.pem").write_text("nothing")
    connect(Reference.parse("registry.example/app:1"), cert_dir=os.fspath(folder)).close()


def test_places(tmp_path: pathlib.Path) -> None:
    """The user's folder goes before the system's ones; the first that is there counts alone."""
    assert certificate_places({"HOME": "/home/anna"}) == (
        "/home/anna/.config/containers/certs.d",
        "/etc/containers/certs.d",
        "/etc/docker/certs.d",
    )
    assert certificate_places({}) == ("/etc/containers/certs.d", "/etc/docker/certs.d")
    places = [os.fspath(tmp_path / name) for name in ("first", "second", "third")]
    assert certificate_folder("example.org:5000", places) is None
    for place in (places[2], places[1]):
        os.makedirs(f"{place}/example.org:5000")
        assert certificate_folder("example.org:5000", places) == f"{place}/example.org:5000"
    assert certificate_folder("example.org", places) is None
