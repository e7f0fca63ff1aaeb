"""The HTTP session below everything here, oras's token requests too.

It keeps what requests and oras would give away:

- Redirects are followed for reading only, to admitted addresses, and without
  ``Authorization`` from the first foreign host on (requests keeps it from http
  to https; oras leaves redirects to requests).
- No cookie is ever taken or sent, and nothing comes from the environment:
  neither proxies nor ``~/.netrc``, whose passwords requests would send.
- No request waits for ever, and no body but a streamed one is read beyond a
  limit (requests reads the whole body of a redirect, oras that of a token answer).
"""

import contextlib
import errno
import functools
import io
import os
import socket
import ssl
import weakref
from collections.abc import Mapping
from http.cookiejar import DefaultCookiePolicy
from typing import Any

import requests
import requests.adapters
import urllib3
import urllib3.connection
import urllib3.exceptions
from urllib3.util.ssl_ import create_urllib3_context

from graphdrivers.images.registry.trust import AddressRefused, Trust, same_origin, shown

HOPS_MAX = 10
ANSWER_MAX = 1 << 20
"""Bytes of an answer that is not streamed."""

_CHUNK = 64 << 10
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_READS = frozenset({"GET", "HEAD"})


class Sockets:
    """Those that a session opened, so that another thread can end what is waited for there; without any lock."""

    def __init__(self) -> None:
        """Know none yet."""
        self._opened: list[weakref.ref[socket.socket]] = []
        self.aborted = False
        """Whether `abort` was called."""

    def note(self, opened: socket.socket) -> None:
        """Take one more; it is shut down at once where `abort` was called."""
        self._opened.append(weakref.ref(opened))
        if self.aborted:  # asked only now: `abort` sets this first, and then goes through the list
            self._shut(opened)

    def abort(self) -> None:
        """Shut all down, now and later. Idempotent."""
        self.aborted = True
        for reference in tuple(self._opened):
            opened = reference()
            if opened is not None:
                self._shut(opened)

    @staticmethod
    def _shut(opened: socket.socket) -> None:
        with contextlib.suppress(OSError):  # closed already
            # Not the method of TLS sockets, which takes their state away from whoever reads.
            socket.socket.shutdown(opened, socket.SHUT_RDWR)


class Session(requests.Session):
    """A session whose every request keeps the rules above; any number of threads may use it."""

    def __init__(self, trust: Trust, timeout: float, proxies: Mapping[str, str], connections: int = 16) -> None:
        """Connect nothing yet.

        Args:
            trust: which addresses are admitted.
            timeout: seconds to wait for a connection, and for each piece of an answer.
            proxies: by scheme, as requests has them.
            connections: kept open to one host.
        """
        super().__init__()
        self.trust_env = False
        self.proxies = dict(proxies)
        self.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        self.headers.clear()
        self.headers.update({"User-Agent": "graphdrivers", "Accept-Encoding": "identity"})
        self._sockets = Sockets()
        for scheme in ("http://", "https://"):
            self.mount(scheme, _Adapter(self._sockets, connections))
        if (own := trust.certificates) is not None:
            self.mount(own.origin, _Adapter(self._sockets, connections, own.context))
        self._trust = trust
        self._timeout = timeout

    def send(self, request: requests.PreparedRequest, **kwargs: Any) -> requests.Response:
        """Send a request and follow redirects; with ``stream`` the body of the last answer is left to be read.

        Raises:
            AddressRefused: it would go where it may not.
            requests.RequestException: nobody answered.
        """
        streamed = kwargs.get("stream", False)
        kwargs |= {"stream": True, "allow_redirects": False, "timeout": kwargs.get("timeout") or self._timeout}
        for _ in range(HOPS_MAX):
            if self._sockets.aborted:
                raise requests.ConnectionError("the session was aborted")
            kwargs["verify"] = self._trust.verify(self._trust.admit(_url(request)))
            response = super().send(request, **kwargs)
            target = response.headers.get("Location", "")
            if response.status_code not in _REDIRECTS or not target or request.method not in _READS:
                if not streamed:
                    response.raw = io.BytesIO(read_limited(response, ANSWER_MAX))
                return response
            response.close()
            request = self._redirected(request, target)
        raise AddressRefused(f"{shown(_url(request))!r} is the end of {HOPS_MAX} redirects, and leads further")

    def get_redirect_target(self, resp: requests.Response) -> None:
        """Hide redirects from requests, which would read their bodies, however long."""

    @property
    def aborted(self) -> bool:
        """Whether `abort` was called."""
        return self._sockets.aborted

    def abort(self) -> None:
        """End every request and answer in whichever threads; none begins any more.

        Who waits for a connection to be made finds out when it is, or after the timeout. Idempotent; takes no lock.
        """
        self._sockets.abort()

    def _redirected(self, request: requests.PreparedRequest, location: str) -> requests.PreparedRequest:
        url = self._trust.onward(location, _url(request))
        following = request.copy()
        if not same_origin(_url(request), url):
            following.headers.pop("Authorization", None)
        following.prepare_url(url, None)
        return following


class _Adapter(requests.adapters.HTTPAdapter):
    """Makes connections of the kinds below."""

    def __init__(self, sockets: Sockets, connections: int, context: ssl.SSLContext | None = None) -> None:
        """Note in ``sockets`` what is opened, with TLS from ``context``; certificates that count are added to it."""
        self._sockets = sockets
        self._context: dict[str, Any] = {} if context is None else {"ssl_context": context}
        super().__init__(pool_connections=4, pool_maxsize=connections)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        """Make the pools."""
        super().init_poolmanager(*args, **(kwargs | self._context))
        self._use_ours(self.poolmanager)

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        """Make the pools of a proxy."""
        manager = super().proxy_manager_for(proxy, **(kwargs | self._context))
        self._use_ours(manager)
        return manager

    def close(self) -> None:
        """Close idle connections now, not when their pools are collected; streams go on and close theirs."""
        managers = (self.poolmanager, *self.proxy_manager.values())
        pools = [manager.pools[key] for manager in managers for key in manager.pools.keys()]  # noqa: SIM118 - no iterator
        super().close()
        for pool in pools:
            pool.close()

    def _use_ours(self, manager: Any) -> None:
        if manager.pool_classes_by_scheme["http"] is urllib3.HTTPConnectionPool:  # else it is ours, or of SOCKS
            plain, secure = (functools.partial(kind, self._sockets) for kind in (_Pool, _QuietPool))
            manager.pool_classes_by_scheme = {"http": plain, "https": secure}


class _Noted:
    """A connection whose sockets are noted."""

    sockets: Sockets
    sock: Any

    def connect(self) -> None:
        """Connect, and note the socket."""
        super().connect()  # type: ignore[misc] # a mixin
        self.sockets.note(self.sock)

    def send(self, data: Any) -> None:
        """Send data; where the server has closed, say so by the error after which urllib3 reads what it said before.

        For TLS that is the alert, or a refusal of what is being sent.
        """
        try:
            super().send(data)  # type: ignore[misc] # a mixin
        except ssl.SSLEOFError as error:
            raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE)) from error


class _Pool(urllib3.HTTPConnectionPool):
    """Connections without TLS, noted in ``sockets``."""

    def __init__(self, sockets: Sockets, *args: Any, **kwargs: Any) -> None:
        """Connect nothing yet."""
        super().__init__(*args, **kwargs)
        self.ConnectionCls = type("_Plain", (_Noted, urllib3.connection.HTTPConnection), {"sockets": sockets})


class _QuietPool(urllib3.HTTPSConnectionPool):
    """Connections with TLS, noted in ``sockets``; says nothing about certificates that do not count.

    `Trust` has decided that. Switching the warning off, as oras does, would do so for the whole process.
    """

    def __init__(self, sockets: Sockets, *args: Any, **kwargs: Any) -> None:
        """Connect nothing yet."""
        super().__init__(*args, **kwargs)
        self.ConnectionCls = type("_Secure", (_Noted, urllib3.connection.HTTPSConnection), {"sockets": sockets})

    def _validate_conn(self, conn: Any) -> None:
        if not conn.is_closed:
            return
        if conn.cert_reqs == "CERT_NONE" and conn.ssl_context is None:
            # Without a context of its own it would read all certificates of the system first, for nothing.
            conn.ssl_context = create_urllib3_context(cert_reqs=ssl.CERT_NONE)
        conn.connect()


def read_limited(response: requests.Response, limit: int) -> bytes:
    """Read a body to its end and close it; what is beyond ``limit`` bytes is cut off.

    Raises:
        requests.ConnectionError: the connection broke.
    """
    parts, left = [], limit
    with response:
        try:
            while left and (part := response.raw.read(min(left, _CHUNK), decode_content=False)):
                parts.append(part)
                left -= len(part)
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise requests.ConnectionError(error) from error
    return b"".join(parts)


def _url(request: requests.PreparedRequest) -> str:
    return str(request.url or "")
