"""Logging in when a registry asks for it: Basic, or a bearer token from the server that it names.

oras's token backend makes the token requests, on a `Session` that keeps them
within limits. What it lacks is done here: several scopes are several
parameters, as the token specification wants; two schemes in one challenge are
told apart; identity tokens (OAuth2) are exchanged; what the token server said
reaches the user; and threads share one token.

Source: distribution's *Token Authentication Specification* and *OAuth2 Token
Authentication*; RFC 9110, heading *WWW-Authenticate*.
"""

import json
import re
import threading
from http import HTTPStatus
from typing import Any, NoReturn

import attrs
import oras.auth  # type: ignore[import-untyped]
import oras.auth.utils  # type: ignore[import-untyped]
import requests

from graphdrivers import errors
from graphdrivers.images.registry import refusals
from graphdrivers.images.registry.credentials import Credentials, Login
from graphdrivers.images.registry.session import Session
from graphdrivers.images.registry.trust import Trust

_SCHEMES = re.compile(r"(?:^|,)\s*(Basic|Bearer)(?=\s|$)", re.IGNORECASE)
_CLIENT = "graphdrivers"


@attrs.frozen
class _Challenge:
    """What a registry wants to see."""

    scheme: str
    realm: str = ""
    service: str = ""
    scopes: tuple[str, ...] = ()


class TokenSession(Session):
    """A session for requests to token servers: what is no token's answer is an error, with what the server says."""

    host: str
    """The registry that asked, for messages."""
    source: str

    def send(self, request: requests.PreparedRequest, **kwargs: Any) -> requests.Response:
        """Send a request and look at the answer; raises as `Session.send`, and ``AuthenticationFailed``."""
        response = super().send(request, **(kwargs | {"stream": False}))
        if response.status_code != HTTPStatus.OK:
            text = refusals.told(response.content) or f"HTTP {response.status_code}"
            self.refuse(f"the token server refuses: {text}", response.status_code)
        try:
            answer = json.loads(response.content)
        except (ValueError, RecursionError):
            answer = None
        if not isinstance(answer, dict):
            self.refuse("the token server does not answer as one", response.status_code)
        return response

    def refuse(self, reason: str, status: int) -> NoReturn:
        """Raise ``AuthenticationFailed``, or ``RegistryError`` for what no login changes."""
        if status == HTTPStatus.TOO_MANY_REQUESTS or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            raise errors.RegistryError(self.source, reason, status)
        raise errors.AuthenticationFailed(self.source, reason, status, host=self.host)


class Authenticator:
    """Keeps the ``Authorization`` of one connection; any number of threads may use it."""

    def __init__(self, session: TokenSession, trust: Trust, credentials: Credentials, path: str) -> None:
        """Look for no login yet: who is not asked does not open files, and runs no helpers.

        Args:
            session: for requests to token servers.
            trust: which of them are admitted.
            credentials: where a login is found.
            path: the repository's.
        """
        self._session = session
        self._trust = trust
        self._credentials = credentials
        self._path = path
        self._lock = threading.Lock()
        self._header: str | None = None

    @property
    def header(self) -> str | None:
        """What to send as ``Authorization``; ``None`` as long as nobody asked."""
        return self._header

    def answer(self, response: requests.Response, used: str | None) -> bool:
        """Get ready for a challenge; tell whether asking again makes sense.

        Args:
            response: one with the status 401.
            used: the header that was sent with the request.

        Raises:
            AuthenticationFailed: the token server gives none, or a login cannot be read.
            AddressRefused: the token server is at no admitted address.
            requests.RequestException: it did not answer.
        """
        challenge = read_challenge(response.headers.get("WWW-Authenticate", ""))
        with self._lock:
            if self._header != used:
                return True  # another thread was faster
            if challenge is None:
                return False
            login = self._credentials.login(self._session.host, self._path)
            if challenge.scheme == "bearer":
                realm = self._trust.admit(challenge.realm, before=response.url)
                self._header = f"Bearer {self._token(attrs.evolve(challenge, realm=realm), login)}"
                return True
            if login is None or not login.user:
                return False
            header = f"Basic {oras.auth.utils.get_basic_auth(login.user, login.password)}"
            changed = header != self._header
            self._header = header
            return changed

    def _token(self, challenge: _Challenge, login: Login | None) -> str:
        if login and login.identity_token:
            token = self._exchange(challenge, login.identity_token)
        else:
            token = self._fetch(challenge, login)
        if not isinstance(token, str) or not token or not token.isascii() or not token.isprintable():
            self._session.refuse("the token server gives no token", HTTPStatus.OK)
        return token

    def _fetch(self, challenge: _Challenge, login: Login | None) -> object:
        """Let oras ask for a token, with the password if there is one."""
        backend = oras.auth.get_auth_backend("token", session=self._session)
        if login:
            backend.set_basic_auth(login.user, login.password)
        wanted = {"realm": challenge.realm, "service": challenge.service, "scope": list(challenge.scopes)}
        return backend.request_token(oras.auth.utils.authHeader(wanted))

    def _exchange(self, challenge: _Challenge, identity_token: str) -> object:
        """Ask for a token with an identity token, which oras does not know."""
        form = {
            "grant_type": "refresh_token",
            "service": challenge.service,
            "client_id": _CLIENT,
            "scope": " ".join(challenge.scopes),
            "refresh_token": identity_token,
        }
        return self._session.post(challenge.realm, data=form).json().get("access_token")


def read_challenge(text: str) -> _Challenge | None:
    """Read ``WWW-Authenticate``: Bearer where it is offered, else Basic; ``None`` for anything else."""
    found = list(_SCHEMES.finditer(text))
    ends = [*(match.start() for match in found), len(text)][1:]
    parts = {match[1].lower(): text[match.end() : end] for match, end in zip(found, ends, strict=True)}
    if "bearer" in parts:
        header = oras.auth.utils.parse_auth_header(parts["bearer"])
        if header.realm:
            return _Challenge("bearer", header.realm, header.service or "", tuple((header.scope or "").split()))
    return _Challenge("basic") if "basic" in parts else None
