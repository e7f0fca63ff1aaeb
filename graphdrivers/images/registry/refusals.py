"""What a registry answered instead of what was asked for, as one of our errors.

Source: OCI distribution-spec, heading *Error Codes*.
"""

import json
import re
import ssl

import requests

from graphdrivers import errors
from graphdrivers.images.registry.trust import AddressRefused

_TEXT_MAX = 300
_STATUS = {
    401: "the login was refused",
    403: "access is denied",
    404: "there is no such thing",
    413: "it is too large for it",
    429: "too many requests, its rate limit is reached",
    500: "it failed",
    502: "the registry behind it does not answer",
    503: "it is out of service",
    504: "the registry behind it does not answer in time",
}
_BETTER_CERTIFICATE = re.compile(r"ALERT_.*(CERTIFICATE|UNKNOWN_CA)")
"""What OpenSSL calls the alerts of a server that is not content with the client's certificate, or with none."""

_TRY_AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504})


def may_pass(status: int) -> bool:
    """Tell whether the same request may succeed later."""
    return status in _TRY_AGAIN


def retry_after(response: requests.Response) -> int:
    """Return the seconds that a registry asks to wait; 0 where it does not say (a date counts as that)."""
    text = response.headers.get("Retry-After", "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0


def told(body: bytes) -> str:
    """Return what an error's body says, short and printable; empty if it says nothing to people."""
    try:
        listed = json.loads(body.decode("utf-8"))["errors"]
        texts = [f"{item.get('code', '')}: {item.get('message', '')}".strip(": ") for item in listed]
        text = ", ".join(dict.fromkeys(text for text in texts if text))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return ""  # a page of HTML from something before the registry
    text = "".join(char if char.isprintable() else " " for char in text)
    return text if len(text) <= _TEXT_MAX else text[:_TEXT_MAX] + "..."


def refused(source: str, host: str, status: int, body: bytes, *, asked: int = 0) -> errors.RegistryError:
    """Make the error for a status that was not expected.

    Args:
        source: the repository, for the message.
        host: where one logs in.
        status: the HTTP status.
        body: the beginning of the answer.
        asked: seconds it asks to wait.
    """
    reason = f"the registry says: {_STATUS.get(status, 'no')} (HTTP {status})"
    if text := told(body):
        reason += f": {text}"
    if status in {401, 403}:
        return errors.AuthenticationFailed(source, reason, status, host=host)
    if asked:
        reason += f"; it asks to wait {asked} s"
    return errors.RegistryError(source, reason, status, asked)


def unreachable(source: str, error: Exception, timeout: float) -> errors.RegistryError:
    """Make the error for a request that got no answer."""
    if isinstance(error, AddressRefused):
        return errors.RegistryError(source, f"refused to go on: {error}")
    cause = _cause(error)
    if isinstance(cause, ssl.SSLCertVerificationError):
        reason = f"its certificate is not trusted: {cause.verify_message or cause.reason}"
    elif wants_certificate(error):
        reason = (
            f"it wants a client certificate that it knows (NAME.cert and NAME.key in certs.d): {_ssl_reason(cause)}"
        )
    elif isinstance(cause, ssl.SSLError):
        reason = f"TLS failed: {cause.reason or cause}"
    elif isinstance(error, requests.Timeout) or isinstance(cause, TimeoutError):
        reason = f"no answer in {timeout:g} s"
    elif isinstance(cause, OSError) and cause.strerror:
        reason = f"cannot be reached: {cause.strerror}"
    else:
        reason = "the connection broke"
    return errors.RegistryError(source, reason)


def certificate_refused(error: Exception) -> bool:
    """Tell whether a request failed for the server's certificate or ours, which will not change."""
    return isinstance(_cause(error), ssl.SSLCertVerificationError) or wants_certificate(error)


def wants_certificate(error: Exception) -> bool:
    """Tell whether the server ended the connection for the client's certificate, or for want of one."""
    return _BETTER_CERTIFICATE.search(_ssl_reason(_cause(error))) is not None


def _ssl_reason(error: BaseException) -> str:
    return (error.reason or "") if isinstance(error, ssl.SSLError) else ""


def _cause(error: BaseException) -> BaseException:
    """Find what the system said below the wrappings of requests and urllib3."""
    following: BaseException | None = error
    while following is not None:
        if isinstance(following, ssl.SSLError) or (isinstance(following, OSError) and following.strerror):
            return following
        wrapped = (following.__cause__, getattr(following, "reason", None), *following.args)
        following = next((inner for inner in wrapped if isinstance(inner, BaseException)), None)
    return error
