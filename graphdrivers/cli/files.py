"""Binary files that commands read and write: ``-`` is stdin or stdout, and a file is whole or not there."""

import contextlib
import errno
import io
import os
import select
import signal
import stat
import sys
import tempfile
import threading
from collections.abc import Iterator
from typing import BinaryIO

import click

_PIECE = 1 << 16


class Source(io.RawIOBase):
    """A file opened for reading whose reads end when a signal arrives, in whatever thread they wait.

    Else a pipe whose writer hangs would keep the thread that reads ahead, and
    with it the whole program, from ending when it is told to.
    """

    def __init__(self, descriptor: int) -> None:
        """Read ``descriptor``, which stays the caller's."""
        super().__init__()
        self._descriptor = descriptor
        self._woken, self.waker = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLIN)
        self._poll.register(self._woken, select.POLLIN)

    def fileno(self) -> int:
        """Give the descriptor that is read."""
        return self._descriptor

    def readable(self) -> bool:
        """Say yes."""
        return True

    def read(self, size: int = -1, /) -> bytes:
        """Read what is there, up to ``size`` bytes, waiting for the first; all there is where it is negative.

        Raises:
            OSError: ``ECANCELED`` once something was written to `waker`.
        """
        if size < 0:
            return self.readall()
        ready = dict(self._poll.poll())
        if self._woken in ready:
            raise OSError(errno.ECANCELED, os.strerror(errno.ECANCELED))
        return os.read(self._descriptor, size)

    def wake(self) -> None:
        """End reads, now and later, as a signal does."""
        os.write(self.waker, b"!")

    def close(self) -> None:
        """Let go of what this object made. Idempotent."""
        if not self.closed:
            os.close(self._woken)
            os.close(self.waker)
        super().close()


@contextlib.contextmanager
def reading(path: str) -> Iterator[Source]:
    """Open a file to read, or stdin for ``-``.

    Raises:
        click.UsageError: stdin is closed, or a terminal: nobody types a tar.
    """
    with contextlib.ExitStack() as stack:
        if path == "-":
            descriptor = _stdin()
        else:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            stack.callback(os.close, descriptor)
        source = stack.enter_context(Source(descriptor))
        with contextlib.suppress(ValueError):  # not in the main thread: whoever runs us handles signals
            stack.callback(signal.set_wakeup_fd, signal.set_wakeup_fd(source.waker))
        yield source


@contextlib.contextmanager
def stdin_path() -> Iterator[str]:
    """Give a path that what comes on stdin can be opened by, for the time of a block.

    A pipe is read through another one, whose end comes when a signal arrives:
    a writer that hangs keeps nobody from ending.

    Raises:
        click.UsageError: stdin is closed, or a terminal: nobody types a tar.
    """
    descriptor = _stdin()
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        yield f"/proc/self/fd/{descriptor}"
        return
    with reading("-") as source, contextlib.ExitStack() as stack:
        receiver, sender = os.pipe2(os.O_CLOEXEC)
        pump = threading.Thread(target=_pump, args=(source, sender), name="graphdrivers-stdin")
        pump.start()
        stack.callback(pump.join)
        stack.callback(os.close, receiver)
        stack.callback(source.wake)
        yield f"/proc/self/fd/{receiver}"


def _pump(source: Source, sender: int) -> None:
    """Copy until the end, a signal, or nobody reads any more."""
    with open(sender, "wb", buffering=0) as sink, contextlib.suppress(OSError):
        while piece := source.read(_PIECE):
            view = memoryview(piece)
            while view:
                view = view[sink.write(view) :]


def _stdin() -> int:
    if sys.stdin is None or sys.stdin.isatty():
        what = "a closed stdin" if sys.stdin is None else "the terminal"
        raise click.UsageError(f"refusing to read a tar from {what}: redirect stdin, or name a file")
    return sys.stdin.fileno()


@contextlib.contextmanager
def writing(path: str) -> Iterator[BinaryIO]:
    """Open what a command produces: stdout for ``-``, else a file that appears when the block ends well.

    A regular file is written beside its place and renamed into it (atomic,
    durable); a block that fails leaves what was there before. Other kinds
    (``/dev/null``, a FIFO) are written directly.

    Raises:
        click.UsageError: stdout is a terminal.
    """
    if path == "-":
        if sys.stdout.isatty():
            raise click.UsageError("refusing to write binary data to the terminal: redirect stdout, or use -o FILE")
        stream = sys.stdout.buffer
        yield stream
        stream.flush()
        return
    place = os.path.realpath(path)  # a symbolic link stays, its target is replaced
    if _is_special(place):
        with open(place, "wb") as file:
            yield file
        return
    with _replacing(place) as file:
        yield file


def _is_special(path: str) -> bool:
    try:
        return not stat.S_ISREG(os.stat(path).st_mode)
    except FileNotFoundError:
        return False


@contextlib.contextmanager
def _replacing(place: str) -> Iterator[BinaryIO]:
    folder = os.path.dirname(place)
    try:
        descriptor, temporary = tempfile.mkstemp(prefix=".graphdriver-", suffix=".part", dir=folder)
    except FileNotFoundError:
        raise FileNotFoundError(2, "No such file or directory", folder) from None
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fchmod(file.fileno(), 0o666 & ~_umask())
            os.fsync(file.fileno())
        os.replace(temporary, place)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
