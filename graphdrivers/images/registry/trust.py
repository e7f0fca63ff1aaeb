"""Which addresses a registry may send us to, and whether their certificates count."""

import contextlib
import ipaddress
import os
import re
import ssl
from urllib.parse import SplitResult, urljoin, urlsplit

import attrs
import requests
import urllib3

from graphdrivers.images.registry.certificates import Certificates

_AMBIGUOUS = re.compile(r"[\\\s]")
_PORTS = {"http": 80, "https": 443}


class AddressRefused(requests.exceptions.InvalidURL):
    """An address that we were sent to and do not go to; its text says why."""


@attrs.frozen
class Trust:
    """How much is required of an address."""

    insecure: bool | None = None
    """True: any certificate will do, and plain http where https is not answered, as with ``--tls-verify=false`` of
    podman and skopeo. ``None``: so for the loopback only, where nobody else listens in (Docker's rule). False: never.
    """
    ca_file: str | None = None
    """PEM file or folder of the certificates that count; ``None`` for the system's."""
    certificates: Certificates | None = None
    """What the registry itself has beyond them."""

    def lenient(self, url: str) -> bool:
        """Tell whether plain http and unverified certificates are fine there."""
        return is_loopback(urlsplit(url).hostname or "") if self.insecure is None else self.insecure

    def verify(self, url: str) -> bool | str:
        """Give requests' ``verify`` for an address."""
        return False if self.lenient(url) else (self.ca_file or system_certificates() or True)

    def onward(self, location: str, sent_by: str) -> str:
        """Return the address that a ``Location`` means, if it may be asked.

        Raises:
            AddressRefused: it may not.
        """
        try:
            url = urljoin(sent_by, location)
        except ValueError as error:
            raise AddressRefused("an address that cannot be understood") from error
        return self.admit(url, before=sent_by)

    def admit(self, url: str, *, before: str | None = None) -> str:
        """Return an address that may be asked.

        Args:
            url: the address.
            before: who sent us there, if anybody: from https we never go on to http.

        Raises:
            AddressRefused: it may not.
        """
        parts = _split(url)
        if parts.scheme not in _PORTS or not parts.hostname:
            raise AddressRefused(f"{shown(url)!r} is no http address")
        if parts.username is not None or parts.password is not None:
            raise AddressRefused(f"{shown(url)!r} carries a password, which is never sent on")
        if parts.scheme == "http" and not self.lenient(url):
            raise AddressRefused(f"{shown(url)!r} is not encrypted")
        if parts.scheme == "http" and before is not None and urlsplit(before).scheme == "https":
            raise AddressRefused(f"{shown(before)!r} leads to {shown(url)!r}, which is not encrypted")
        return url


def system_certificates() -> str:
    """Return the file or folder of this system's trusted certificates, an administrator's own among them.

    Empty where it has none; those that come with requests count then. The
    environment, which requests and ssl would ask, is not.
    """
    places = ssl.get_default_verify_paths()
    if os.path.isfile(places.openssl_cafile):
        return places.openssl_cafile
    with contextlib.suppress(OSError):
        if os.listdir(places.openssl_capath):
            return places.openssl_capath
    return ""


def is_loopback(host: str) -> bool:
    """Tell whether a host is this machine, by its name alone: nothing is looked up."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def same_origin(one: str, other: str) -> bool:
    """Tell whether two admitted addresses have scheme, host and port in common: only then credentials go along."""
    return _origin(one) == _origin(other)


def shown(url: str) -> str:
    """Write an address for a message: without password, query (signatures of object stores) and fragment."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _split(url: str) -> SplitResult:
    """Take an address apart; what connects (urllib3) must understand it as we do."""
    try:
        parts = urlsplit(url)
        theirs = urllib3.util.parse_url(url)
        same = (theirs.scheme, (theirs.host or "").strip("[]"), theirs.port) == (
            parts.scheme,
            parts.hostname or "",
            parts.port,
        )
    except (ValueError, urllib3.exceptions.LocationParseError) as error:
        raise AddressRefused("an address that cannot be understood") from error
    if not same or not url.isascii() or not url.isprintable() or _AMBIGUOUS.search(url):
        raise AddressRefused("an address that can be understood in two ways")
    return parts


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = _split(url)
    return parts.scheme, parts.hostname, parts.port or _PORTS.get(parts.scheme)
