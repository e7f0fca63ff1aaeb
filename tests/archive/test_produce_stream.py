"""The stream of a produced tar: read in every way, closed at any moment, and never complete when something changed."""

import errno
import hashlib
import io
import os
import pickle
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest
from difftrees import differences, fill, layer

from graphdrivers import errors
from graphdrivers.archive import produce as produce_module
from graphdrivers.archive.entries import Difference
from graphdrivers.archive.produce import produce
from graphdrivers.errors import FileChanged
from graphdrivers.model import ChangeKind


@pytest.fixture
def upper(tmp_path: Path) -> Path:
    """A new tree."""
    (tmp_path / "upper").mkdir()
    return tmp_path / "upper"


@attrs.define
class Mutating:
    """A node that changes its file once it was looked at, or lies about it."""

    inner: object
    when_opened: object

    def __getattr__(self, name: str) -> object:
        return getattr(self.inner, name)

    def open(self) -> int:
        """Change it, then open it."""
        self.when_opened()  # type: ignore[operator]
        return self.inner.open()  # type: ignore[attr-defined, no-any-return]


def mutated(upper: Path, change: object) -> Iterator[Difference]:
    """Wrap every node."""
    for difference in differences(upper):
        yield attrs.evolve(difference, upper=Mutating(difference.upper, change))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("size", "now"),
    [(0, 1), (10, 0), (10, 9), (10, 11), (10, 100_000), (100_000, 0), (100_000, 99_999), (100_000, 100_001)],
)
def test_length_changed_under_our_hands(upper: Path, size: int, now: int) -> None:
    """A file that is longer or shorter than it was is an error, and stays one."""
    path = upper / "file"
    path.write_bytes(b"x" * size)
    with produce(mutated(upper, lambda: os.truncate(path, now))) as stream:
        for _ in range(3):
            with pytest.raises(FileChanged, match="changed while it was read") as caught:
                stream.read(1 << 30)
        assert caught.value.member == "file"


def test_large_file_written_to_while_it_is_read(upper: Path) -> None:
    """Same length, other content: several reads would mix two states."""
    path = upper / "file"
    path.write_bytes(os.urandom(3_000_000))
    with produce(differences(upper)) as stream:
        assert stream.read(4096)
        with path.open("r+b") as file:
            file.write(b"new")
        os.utime(path, ns=(1, 1))
        with pytest.raises(FileChanged, match="written to"):
            stream.read()


def test_large_file_cut_while_it_is_read(upper: Path) -> None:
    """The end comes too early."""
    path = upper / "file"
    path.write_bytes(os.urandom(3_000_000))
    with produce(differences(upper)) as stream:
        assert stream.read(4096)
        os.truncate(path, 1_000_000)
        with pytest.raises(FileChanged, match="ends at byte 1000000"):
            stream.read()


def test_vanished_file(upper: Path) -> None:
    """What is gone when its turn comes is an operating-system error."""
    (upper / "file").write_bytes(b"x")
    with produce(mutated(upper, (upper / "file").unlink)) as stream, pytest.raises(FileNotFoundError):
        stream.read()


def test_short_reads_are_continued(upper: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some file systems give less than was asked for when a signal comes."""
    fill(upper, "a", "dir/some-file")
    whole = layer(upper)
    read = os.read
    monkeypatch.setattr(os, "read", lambda fd, size: read(fd, min(size, 2)))

    assert layer(upper) == whole


def test_stream_is_readable_in_every_way(upper: Path, tmp_path: Path) -> None:
    """`read`, `readinto`, `readall`, `copyfileobj` and `file_digest` give the same bytes."""
    for number in range(300):
        (upper / f"{number}").write_bytes(os.urandom(5000))
    whole = layer(upper)

    with produce(differences(upper)) as stream, (tmp_path / "copy").open("w+b") as copy:
        shutil.copyfileobj(stream, copy)
        copy.seek(0)
        assert copy.read() == whole
    with produce(differences(upper)) as stream:
        assert hashlib.file_digest(stream, "sha256").digest() == hashlib.sha256(whole).digest()  # type: ignore[arg-type]
    with produce(differences(upper)) as stream:
        assert b"".join(iter(lambda: stream.read(777), b"")) == whole
        assert stream.read(1) == stream.read() == b""
        assert stream.readable()
    with produce(differences(upper)) as stream:
        assert stream.read(0) == b""
        assert stream.read(10) + stream.read(-1) == whole
    with io.BufferedReader(produce(differences(upper))) as buffered:  # type: ignore[type-var]
        assert buffered.read(1_000_001) == whole[:1_000_001]


@pytest.mark.parametrize("reads", [0, 1])
def test_closing_early_closes_everything(upper: Path, reads: int) -> None:
    """The differences are closed once, and no descriptor stays open, even in the middle of a large file."""
    (upper / "file").write_bytes(os.urandom(3_000_000))
    closed = []

    class Source:
        def __init__(self) -> None:
            self.inner = differences(upper)

        def __iter__(self) -> Iterator[Difference]:
            return self.inner

        def close(self) -> None:
            closed.append(1)
            self.inner.close()  # type: ignore[attr-defined]

    before = os.listdir("/proc/self/fd")
    stream = produce(Source())
    for _ in range(reads):
        assert stream.read(100)
    stream.close()
    stream.close()

    assert closed == [1]
    assert os.listdir("/proc/self/fd") == before
    with pytest.raises(ValueError, match="closed"):
        stream.read(1)


def test_end_closes_the_differences_at_once() -> None:
    """A mount that they hold is gone as soon as all was read."""
    closed = []

    def source() -> Iterator[Difference]:
        try:
            yield from ()
        finally:
            closed.append(1)

    stream = produce(source())
    assert len(stream.read(1 << 20)) == 1024
    assert stream.read(1) == b""
    assert closed == [1]


def test_error_of_the_differences_is_passed_on() -> None:
    """And repeated: the stream never looks complete."""

    def source() -> Iterator[Difference]:
        yield Difference(b"x", ChangeKind.DELETED, None, None)
        raise OSError(errno.EIO, "lower failed")

    stream = produce(source())
    for _ in range(2):
        with pytest.raises(OSError, match="lower failed"):
            stream.read(1)


def test_chunks_do_not_depend_on_sockets(monkeypatch: pytest.MonkeyPatch) -> None:
    """A chunk with nothing in it is not the end."""
    monkeypatch.setattr(produce_module, "_FULL", 0)

    class Socket:
        stat = os.stat_result((stat.S_IFSOCK, 1, 1, 1, 0, 0, 0, 0, 0, 0))

    difference = Difference(b"s", ChangeKind.ADDED, Socket(), None)  # type: ignore[arg-type]
    assert produce([difference] * 3).read() == bytes(1024)


def test_file_changed_pickles_and_has_an_exit_code() -> None:
    """Like every error of the library."""
    error = FileChanged("it was written to", "etc/motd")
    assert str(pickle.loads(pickle.dumps(error))) == str(error)  # noqa: S301 -- made in the same line
    assert error.exit_code not in {e.exit_code for e in errors.ArchiveError.__subclasses__() if e is not FileChanged}
