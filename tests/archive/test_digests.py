"""Digests: computed in a thread, and verified before an end is believed."""

import hashlib
import io

import pytest

from graphdrivers import errors
from graphdrivers.archive.digests import Digester, VerifiedReader

CONTENT = b"content" * 1000


def reader(content: bytes = CONTENT, *, digest: str = "", size: int | None = len(CONTENT)) -> VerifiedReader:
    """Verify ``content`` against the digest of `CONTENT`."""
    digest = digest or "sha256:" + hashlib.sha256(CONTENT).hexdigest()
    return VerifiedReader(io.BytesIO(content), digest, size, "the blob")


def test_digester() -> None:
    """The digest and size of all chunks, in order."""
    digester = Digester()
    for start in range(0, len(CONTENT), 1000):
        digester.put(CONTENT[start : start + 1000])

    assert digester.close() == "sha256:" + hashlib.sha256(CONTENT).hexdigest()
    assert digester.size == len(CONTENT)
    digester.abort()


def test_good_bytes_pass() -> None:
    """Nothing changes on the way, however it is read."""
    assert reader().read() == CONTENT
    assert reader(size=None).read() == CONTENT
    assert reader(digest="sha512:" + hashlib.sha512(CONTENT).hexdigest()).read() == CONTENT
    assert io.BufferedReader(reader(), 100).read() == CONTENT
    stream = reader()
    assert stream.read(0) == b""
    buffer = bytearray(7)
    assert stream.readinto(buffer) == 7
    assert buffer == b"content"


@pytest.mark.parametrize(
    ("content", "expected", "actual"),
    [
        (CONTENT[:-1], "7000 bytes", "6999 bytes"),
        (CONTENT + b"x", "7000 bytes", "more"),
        (b"", "7000 bytes", "0 bytes"),
        (b"x" + CONTENT[1:], "sha256:", "sha256:"),
    ],
)
def test_other_bytes_are_refused(content: bytes, expected: str, actual: str) -> None:
    """A wrong size and a wrong digest are told apart, and name what was read."""
    with pytest.raises(errors.DigestMismatch, match="the blob") as caught:
        reader(content).read()

    assert caught.value.expected.startswith(expected)
    assert caught.value.actual.startswith(actual)
    with pytest.raises(errors.DigestMismatch):
        reader(content, size=None).read()


def test_too_long_is_noticed_at_once() -> None:
    """A stream that goes on and on is stopped at the promised size, not at its end."""
    stream = VerifiedReader(io.BytesIO(CONTENT * 100), "sha256:" + "0" * 64, 1000, "the blob")
    assert stream.read(1000) == CONTENT[:1000]
    with pytest.raises(errors.DigestMismatch):
        stream.read(1)


def test_close_closes_the_source() -> None:
    """The verified stream owns what is below it."""
    source = io.BytesIO(CONTENT)
    VerifiedReader(source, "sha256:" + "0" * 64, None, "the blob").close()

    assert source.closed
