"""A connection to one repository of a registry: requests that log in, are tried again, and fail with typed errors.

Source: OCI distribution-spec, heading *Endpoints*.
"""

import _thread
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
from graphdrivers.images.registry.certificates import read_certificates
from graphdrivers.images.registry.credentials import ANONYMOUS, Credentials
from graphdrivers.images.registry.patience import USUAL, Patience
from graphdrivers.images.registry.session import Session, read_limited
from graphdrivers.images.registry.trust import Trust, same_origin

_DOCKER_HUB = "registry-1.docker.io"
_ERROR_MAX = 64 << 10
_LOGINS = 3
_SLOW = 10
_NAP = 0.2
NONE: Mapping[str, str] = MappingProxyType({})

Result = TypeVar("Result")
Body = bytes | Iterator[bytes] | None


@attrs.frozen(eq=False)
class Request:
    """What is asked of a registry."""

    method: str
    """GET, HEAD, POST, PUT, PATCH or DELETE."""
    url: str
    """From `Connection.url` or `Connection.follow`."""
    expect: Collection[int]
    """Statuses that are answers; all others are errors."""
    headers: Mapping[str, str] = NONE
    """Beyond the usual ones."""
    body: Body = None
    """An iterator can be sent only once."""
    slow: bool = False
    """Wait ten times as long for the answer: the registry may have to move gigabytes before it gives one."""
    last: bool = False
    """Nothing depends on it: it is sent after `Connection.stop` too, waited for briefly, and nobody logs in for it."""


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
    cert_dir: str | None = None,
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
        cert_dir: folder with this registry's own: ``*.crt`` count too, ``NAME.cert`` with ``NAME.key`` are shown to it.
            `certificates.certificate_folder` finds the one that podman, skopeo and docker take.
        proxies: by scheme, as requests has them.

    Raises:
        RegistryError: a file in ``cert_dir`` is bad; or with ``insecure`` (or on the loopback), where both ways are
            tried: nobody answers.
    """
    origin = f"https://{_DOCKER_HUB if reference.host == DEFAULT_HOST else reference.host}/"
    trust = Trust(insecure, ca_file)
    if cert_dir is not None:
        verified = not trust.lenient(origin)
        own = read_certificates(cert_dir, origin, verified=verified, source=reference.repository)
        trust = attrs.evolve(trust, certificates=own)
    connection = Connection(
        reference, f"{origin}v2/", trust=trust, credentials=credentials, patience=patience, proxies=proxies
    )
    if trust.lenient(connection.base):
        connection.settle_scheme()
    return connection


class LoginRenewed(requests.RequestException):
    """A token ran out, and there is a new one now; but what was sent cannot be sent again from here."""

    def __init__(self, refusal: errors.RegistryError) -> None:
        """Keep what the registry said."""
        super().__init__(str(refusal))
        self.refusal = refusal


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
        self.stopped = False
        """Whether `stop` was called."""
        self.cause: BaseException | None = None
        """The failure that it was called for; others may be for its sake."""
        self._closed = False
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
                if refusals.wants_certificate(error):  # so TLS is what it speaks
                    break
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

    def call(self, request: Request, limit: int = _ERROR_MAX) -> Answer:
        """Send a request and read its answer, up to one byte more than ``limit``; try again what may pass.

        Only for requests that may safely be sent twice.

        Raises:
            AuthenticationFailed: without a (better) login, the registry does not do it.
            RegistryError: it refuses, or cannot be reached.
        """

        def once() -> Answer:
            response = self.send(request)
            return Answer(response.status_code, response.headers, read_limited(response, limit + 1))

        return self.repeat(once)

    def send(self, request: Request) -> requests.Response:
        """Send a request once, logging in where the registry wants it; the caller reads and closes the answer.

        Raises:
            requests.RequestException: nobody answered, `stop` was called, or the body cannot be sent again with the
                login that is wanted; `failure` makes an error of ours of it.
            AuthenticationFailed, RegistryError: as for `call`.
        """
        ours = same_origin(request.url, self.base)
        for left in reversed(range(_LOGINS)):
            if not request.last:
                self.check()
            used = self._login.header if ours else None
            login = {"Authorization": used} if used else {}
            response = self._session.request(
                request.method,
                request.url,
                headers={**request.headers, **login},
                data=request.body,
                stream=True,
                timeout=self._timeouts(request),
            )
            if response.status_code in request.expect:
                return response
            # A challenge counts only from the registry itself: an object store behind a redirect gets no login.
            asked = response.status_code == HTTPStatus.UNAUTHORIZED and same_origin(response.url, self.base)
            refusal = self._refusal(response)
            if request.last or not (left and ours and asked and self._login.answer(response, used)):
                break
            if not (request.body is None or isinstance(request.body, bytes)):
                raise LoginRenewed(refusal)
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
            self.pause(pause)

    def pause(self, seconds: float) -> None:
        """Wait, at most until `stop` or `abort`."""
        _sleep(seconds, lambda: self.stopped or self._session.aborted)

    def failure(self, error: requests.RequestException | errors.RegistryError) -> tuple[errors.RegistryError, bool]:
        """Make an error of ours of what `send` raised, and tell whether the next time may be better."""
        over = self.stopped or self._session.aborted
        if isinstance(error, LoginRenewed):
            return error.refusal, not over
        if isinstance(error, errors.RegistryError):
            return error, not over and refusals.may_pass(error.status)
        if over:
            return errors.RegistryError(self.source, "it was not waited for any longer"), False
        final = isinstance(error, requests.exceptions.InvalidURL) or refusals.certificate_refused(error)
        return refusals.unreachable(self.source, error, self.patience.timeout), not final

    def _timeouts(self, request: Request) -> tuple[float, float]:
        """Say how long to wait for a connection, and for the answer."""
        timeout = self.patience.timeout
        if request.last:
            return (min(timeout, self.patience.cancelling),) * 2
        return timeout, timeout * (_SLOW if request.slow else 1)

    def _refusal(self, response: requests.Response) -> errors.RegistryError:
        body = read_limited(response, _ERROR_MAX)
        asked = refusals.retry_after(response)
        return refusals.refused(self.source, self.reference.host, response.status_code, body, asked=asked)

    def check(self) -> None:
        """Raise ``requests.ConnectionError`` after `stop`."""
        if self.stopped:
            raise requests.ConnectionError("it was not waited for any longer")

    def stop(self, cause: BaseException | None = None) -> None:
        """Begin nothing any more but `Request.last` ones, and `abort` soon (`Patience.cancelling`).

        Until then what goes on may come to an end: bodies that are sent should
        end themselves. Idempotent; takes no lock, so a signal handler may call it.
        """
        if self.stopped:
            return
        self.cause, self.stopped = cause, True
        try:
            # Not by `threading`, which takes a lock that the thread may hold in which a signal's handler runs.
            _thread.start_new_thread(self._abort_soon, ())
        except RuntimeError:  # no thread is to be had
            self.abort()

    def interrupt(self) -> None:
        """Do what a signal asks for: `stop`, and the next time `abort`."""
        if self.stopped:
            self.abort()
        self.stop()

    def _abort_soon(self) -> None:
        _sleep(self.patience.cancelling, lambda: self._closed or self._session.aborted)
        self.abort()

    def abort(self) -> None:
        """End every request, answer, pause and stream, in whichever threads, with an error; none begins any more.

        Idempotent; takes no lock, so a signal handler may call it.
        """
        self._session.abort()
        self._tokens.abort()

    def close(self) -> None:
        """Let go of idle connections. Idempotent; streams that are being read go on."""
        self._closed = True
        self._session.close()
        self._tokens.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _sleep(seconds: float, over: Callable[[], bool]) -> None:
    """Sleep until something is over, or for so long.

    In naps: what wakes up another thread takes a lock, which a signal handler must not wait for.
    """
    end = time.monotonic() + seconds
    while not over() and (left := end - time.monotonic()) > 0:
        time.sleep(min(left, _NAP))
