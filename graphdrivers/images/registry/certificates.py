"""Certificates of one registry: those that count there beside the system's, and ours that it wants to see.

Source: containers-certs.d(5); Docker's *Verify repository client with certificates*.
"""

import os
import ssl
from collections.abc import Mapping, Sequence

import attrs
from urllib3.util.ssl_ import create_urllib3_context

from graphdrivers import errors

_HOME = ".config/containers/certs.d"
_SYSTEM = ("/etc/containers/certs.d", "/etc/docker/certs.d")


@attrs.frozen(eq=False)
class Certificates:
    """What holds for one registry, and for no other host or port."""

    origin: str
    """``https://HOST[:PORT]/``: all addresses that begin so."""
    context: ssl.SSLContext
    """Without the certificates that count everywhere: `Trust.verify` has those."""


def certificate_places(environ: Mapping[str, str]) -> tuple[str, ...]:
    """List the usual places of certificates for an environment, most important first; they need not exist.

    Each has folders that are called ``HOST[:PORT]``.
    """
    home = environ.get("HOME")
    return ((os.path.join(home, _HOME),) if home else ()) + _SYSTEM


def certificate_folder(host: str, places: Sequence[str]) -> str | None:
    """Find the folder of a registry: the first there is counts alone.

    One that this user may not look into is passed over, as podman and skopeo do.

    Args:
        host: ``HOST[:PORT]`` as in the reference.
        places: see `certificate_places`.
    """
    folders = (os.path.join(place, host) for place in places)
    return next((folder for folder in folders if os.access(folder, os.R_OK | os.X_OK)), None)


def read_certificates(folder: str, origin: str, *, verified: bool, source: str) -> Certificates:
    """Read a folder: ``*.crt`` are certificates that count, ``NAME.cert`` with ``NAME.key`` are ours.

    Of several pairs the first by name is shown.

    Args:
        folder: where they are.
        origin: see `Certificates`.
        verified: whether the registry's certificate has to be a good one.
        source: the repository, for messages.

    Raises:
        RegistryError: a file cannot be read, is no PEM, or lacks the other one of its pair; it is named.
    """
    context = create_urllib3_context(cert_reqs=ssl.CERT_REQUIRED if verified else ssl.CERT_NONE)
    reader = _Reader(folder, source, context)
    reader.read()
    return Certificates(origin, context)


@attrs.frozen(eq=False)
class _Reader:
    """Reads one folder into a context."""

    folder: str
    source: str
    context: ssl.SSLContext

    def read(self) -> None:
        """Read all of it."""
        try:
            names = sorted(os.listdir(self.folder))
        except OSError as error:
            raise self._unreadable(self.folder, error) from error
        for name in names:
            if name.endswith(".crt"):
                self._authority(os.path.join(self.folder, name))
        stems = [name.removesuffix(".cert") for name in names if name.endswith(".cert")]
        for stem in stems:
            if f"{stem}.key" not in names:
                hint = "certificates of authorities are called NAME.crt"
                raise self._refused(f"{stem}.cert", f"has no key {stem + '.key'!r} beside it; {hint}")
        for name in names:
            if name.endswith(".key") and name.removesuffix(".key") not in stems:
                raise self._refused(name, f"has no certificate {name.removesuffix('.key') + '.cert'!r} beside it")
        if stems:
            self._pair(f"{stems[0]}.cert", f"{stems[0]}.key")

    def _authority(self, path: str) -> None:
        self._look(path)
        try:
            self.context.load_verify_locations(cafile=path)
        except ssl.SSLError as error:
            raise self._refused(os.path.basename(path), "has no certificate in PEM form") from error

    def _pair(self, certificate: str, key: str) -> None:
        certificate_path, key_path = (os.path.join(self.folder, name) for name in (certificate, key))
        self._look(certificate_path)
        self._look(key_path)
        try:
            # A password is never asked for on the terminal, as OpenSSL would.
            self.context.load_cert_chain(certificate_path, key_path, password=lambda: "")
        except ssl.SSLError as error:
            if error.reason == "KEY_VALUES_MISMATCH":
                raise self._refused(certificate, f"is not that of its key {key!r}") from error
            reason = f"and its key {key!r} cannot be used; both must be in PEM form, the key without a password"
            raise self._refused(certificate, reason) from error

    def _look(self, path: str) -> None:
        """See whether a file can be read: what ssl raises does not name it."""
        try:
            with open(path, "rb") as stream:
                stream.read(1)
        except OSError as error:
            raise self._unreadable(path, error) from error

    def _unreadable(self, path: str, error: OSError) -> errors.RegistryError:
        return errors.RegistryError(self.source, f"the certificates in {path!r} cannot be read: {error.strerror}")

    def _refused(self, name: str, reason: str) -> errors.RegistryError:
        return errors.RegistryError(self.source, f"the certificate file {os.path.join(self.folder, name)!r} {reason}")
