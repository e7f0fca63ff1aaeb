"""A connection to one repository of a registry: requests that log in, are tried again, and fail with typed errors.

Source: OCI distribution-spec, heading *Endpoints*.
"""

import time
from collections.abc import Callable, Collection, Iterator, Mapping
from http import HTTPStatus
from types import MappingProxyType
from typing import Self, TypeVar

import attrs
import requests

from graphdrivers import errors
from graphdrivers.images.reference import DEFAULT_HOST, Reference
from graphdrivers.images.registry import refusals
from graphdrivers.images.registry.authentication import Authenticator, TokenSession
from graphdrivers.images.registry.credentials import ANONYMOUS, Credentials
from graphdrivers.images.registry.patience import USUAL, Patience
from graphdrivers.images.registry.session import Session, read_limited
from graphdrivers.images.registry.trust import Trust, same_origin

_DOCKER_HUB = "registry-1.docker.io"
_ERROR_MAX = 64 << 10
_LOGINS = 3
_SLOW = 10
NONE: Mapping[str, str] = MappingProxyType({})

Result = TypeVar("Result")
Body = bytes | Iterator[bytes] | None


@attrs.frozen(eq=False)
class Answer:
    """An answer that was read whole."""

    status: int
    headers: Mapping[str, str]
    """Names in any case."""
    body: bytes
    """Cut after the limit that was given for it."""


def connect(
    reference: Reference,
    *,
    credentials: Credentials = ANONYMOUS,
    insecure: bool | None = None,
    patience: Patience = USUAL,
    ca_file: str | None = None,
    proxies: Mapping[str, str] = NONE,
) -> "Connection":
    """Get ready to talk to the registry of a repository; nobody is asked for a login before it wants one.

    Args:
        reference: names the repository. ``docker.io`` is the Docker Hub.
        credentials: where a login is found, should the registry want one.
        insecure: ``True`` as ``--tls-verify=false`` of podman and skopeo: any certificate will do, and plain http
            where nobody speaks https; ``None``: only on the loopback; ``False``: never.
        patience: how long to wait, and how often to try.
        ca_file: PEM file or folder of the certificates that count; ``None`` for the system's.
        proxies: by scheme, as requests has them.

    Raises:
        RegistryError: only with ``insecure`` (or on the loopback), where both ways are tried: nobody answers.
    """
    host = _DOCKER_HUB if reference.host == DEFAULT_HOST else reference.host
    trust = Trust(insecure, ca_file)
    connection = Connection(
        reference, f"https://{host}/v2/", trust=trust, credentials=credentials, patience=patience, proxies=proxies
    )
    if trust.lenient(connection.base):
        connection.settle_scheme()
    return connection


class Connection:
    """One repository; a context manager, for any number of threads at once."""

    def __init__(
        self,
        reference: Reference,
        base: str,
        *,
        trust: Trust,
        credentials: Credentials,
        patience: Patience,
        proxies: Mapping[str, str],
    ) -> None:
        """Connect nothing yet; see `connect`."""
        self.reference = reference
        self.source = reference.repository
        """Names the repository in errors."""
        self.patience = patience
        self.base = base
        self._trust = trust
        self._session = Session(trust, patience.timeout, proxies)
        tokens = TokenSession(trust, patience.timeout, proxies)
        tokens.host, tokens.source = reference.host, self.source
        self._tokens = tokens
        self._login = Authenticator(tokens, trust, credentials, reference.path)

    def settle_scheme(self) -> None:
        """Find out whether https is spoken there, and go on with plain http if not."""
        plain = self.base.replace("https:", "http:", 1)
        for base in (self.base, plain):
            try:
                self._session.request("GET", base)
            except requests.RequestException as error:
                failure = error
            else:
                self.base = base
                return
        raise refusals.unreachable(self.source, failure, self.patience.timeout) from failure

    def url(self, place: str) -> str:
        """Give the address of something in this repository (``blobs/sha256:...``)."""
        return f"{self.base}{self.reference.path}/{place}"

    def follow(self, location: str, sent_by: str) -> str:
        """Give the address that a ``Location`` means, if it may be asked.

        Raises:
            RegistryError: it may not.
        """
        try:
            return self._trust.onward(location, sent_by)
        except requests.RequestException as error:
            raise refusals.unreachable(self.source, error, self.patience.timeout) from error

    def call(
        self,
        method: str,
        url: str,
        *,
        expect: Collection[int],
        headers: Mapping[str, str] = NONE,
        body: Body = None,
        limit: int = _ERROR_MAX,
    ) -> Answer:
        """Send a request and read its answer, up to one byte more than ``limit``; try again what may pass.

        Only for requests that may safely be sent twice.

        Args:
            method: GET, HEAD, POST, PUT or DELETE.
            url: from `url` or `follow`.
            expect: statuses that are returned; all others are errors.
            headers: beyond the usual ones.
            body: what to send.
            limit: bytes of the body that are wanted.

        Raises:
            AuthenticationFailed: without a (better) login, the registry does not do it.
            RegistryError: it refuses, or cannot be reached.
        """

        def once() -> Answer:
            response = self.send(method, url, expect=expect, headers=headers, body=body)
            return Answer(response.status_code, response.headers, read_limited(response, limit + 1))

        return self.repeat(once)

    def send(
        self,
        method: str,
        url: str,
        *,
        expect: Collection[int],
        headers: Mapping[str, str] = NONE,
        body: Body = None,
        slow: bool = False,
    ) -> requests.Response:
        """Send a request once, logging in where the registry wants it; the caller reads and closes the answer.

        A body that is an iterator can be sent only once: being asked for a login then is an error.

        Args:
            method: see `call`.
            url: see there, like all but the last.
            expect: see there.
            headers: see there.
            body: see there.
            slow: wait ten times as long: the registry may have to move gigabytes before it answers.

        Raises:
            requests.RequestException: nobody answered; `failure` makes an error of ours of it.
            AuthenticationFailed, RegistryError: as for `call`.
        """
        ours = same_origin(url, self.base)
        timeout = self.patience.timeout * (_SLOW if slow else 1)
        for left in reversed(range(_LOGINS)):
            used = self._login.header if ours else None
            login = {"Authorization": used} if used else {}
            response = self._session.request(
                method, url, headers={**headers, **login}, data=body, stream=True, timeout=timeout
            )
            if response.status_code in expect:
                return response
            # A challenge counts only from the registry itself: an object store behind a redirect gets no login.
            asked = response.status_code == HTTPStatus.UNAUTHORIZED and same_origin(response.url, self.base)
            refusal = self._refusal(response)
            repeatable = body is None or isinstance(body, bytes)
            if not (left and ours and asked and repeatable and self._login.answer(response, used)):
                break
        raise refusal

    def repeat(self, once: Callable[[], Result]) -> Result:
        """Call ``once`` until it succeeds, as long as `patience` has it and the next time may be better.

        Raises:
            RegistryError: the last failure.
        """
        failed = 0
        while True:
            try:
                return once()
            except (requests.RequestException, errors.RegistryError) as error:
                failed += 1
                failure, again = self.failure(error)
                pause = self.patience.before_next(failed, failure.retry_after) if again else None
                if pause is None:
                    raise failure from error
            time.sleep(pause)

    def failure(self, error: requests.RequestException | errors.RegistryError) -> tuple[errors.RegistryError, bool]:
        """Make an error of ours of what `send` raised, and tell whether the next time may be better."""
        if isinstance(error, errors.RegistryError):
            return error, refusals.may_pass(error.status)
        final = isinstance(error, requests.exceptions.InvalidURL) or refusals.certificate_refused(error)
        return refusals.unreachable(self.source, error, self.patience.timeout), not final

    def _refusal(self, response: requests.Response) -> errors.RegistryError:
        body = read_limited(response, _ERROR_MAX)
        asked = refusals.retry_after(response)
        return refusals.refused(self.source, self.reference.host, response.status_code, body, asked=asked)

    def close(self) -> None:
        """Let go of idle connections. Idempotent; streams that are being read go on."""
        self._session.close()
        self._tokens.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
