"""Processes that unpack layers beside this one: Python runs one thread at a time, and unpacking is all system calls.

See `unpacker` for the program and what is said between the two.
"""

import contextlib
import fcntl
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from multiprocessing.connection import Connection
from typing import BinaryIO

import attrs

from graphdrivers import errors
from graphdrivers.driver import Driver
from graphdrivers.model import Progress
from graphdrivers.store.filling import Filled, Job
from graphdrivers.store.unpacker import Failed, Setup, Told, Waits, hear, tell

_PIECE = 1 << 20
_HUNG_UP = (EOFError, BrokenPipeError, ConnectionResetError)
_PROGRAM = """
import json, sys
sys.path[:] = json.loads(sys.argv[1])
from graphdrivers.store import unpacker
unpacker.main()
"""


@contextlib.contextmanager
def started(driver: Driver, number: int) -> Iterator[list["Worker"]]:
    """Start up to ``number`` processes. They end with the block, and remove first what they have half made then."""
    with contextlib.ExitStack() as stack:
        found: list[Worker] = []
        for _ in range(number):
            try:
                found.append(stack.enter_context(_started(driver)))
            except OSError:  # no more processes or no memory for them: the import is only slower
                break
        yield found


@attrs.frozen(eq=False)
class Worker:
    """One process that unpacks; used by one thread at a time."""

    _process: "subprocess.Popen[bytes]"
    _control: Connection
    _stream: Connection
    _sender: ThreadPoolExecutor

    def is_ready(self) -> bool:
        """Wait until it has opened the driver; false where it could not. To be asked once, before the first job."""
        try:
            hear(self._control)
        except _HUNG_UP:
            return False
        return True

    def fill(
        self,
        job: Job,
        open_tar: Callable[[], BinaryIO],
        *,
        ready: Callable[[], object],
        progress: Progress,
        wanted: Callable[[], bool],
    ) -> Filled:
        """Have a layer made of a tar, compressed or not. After an error the process is of no more use.

        Args:
            job: which.
            open_tar: opens the tar; called and read in another thread.
            ready: returns when the parent is sealed; what it raises ends the job.
            progress: called with the bytes of the uncompressed tar that are consumed.
            wanted: asked for each piece; the job ends when it says no.

        Raises:
            DigestMismatch, ArchiveError, OSError: what reading or unpacking the tar came to.
            UnpackerDied: somebody killed the process.
        """
        sent = self._sender.submit(self._send, open_tar, wanted)
        try:
            tell(self._control, job)
            result = self._result(ready, progress)
        except _HUNG_UP as error:
            raise errors.UnpackerDied(job.layer, self._process.wait()) from error
        if isinstance(result, Failed):
            self._control.close()  # then it ends, and who sends notices
            _raise_cause(sent)
            raise result.error
        sent.result()
        progress(result.tar_size)
        return result

    def close(self) -> None:
        """Let the process end, and wait for it. Idempotent."""
        self._control.close()
        try:
            self._process.wait()
        except BaseException:  # Ctrl-C once more
            self._process.kill()
            self._process.wait()
            raise
        finally:
            self._sender.shutdown()
            self._stream.close()

    def _result(self, ready: Callable[[], object], progress: Progress) -> Filled | Failed:
        while True:
            told: Told = hear(self._control)
            if isinstance(told, Filled | Failed):
                return told
            if isinstance(told, Waits):
                ready()
                tell(self._control, None)
            else:
                progress(told)

    def _send(self, open_tar: Callable[[], BinaryIO], wanted: Callable[[], bool]) -> None:
        try:
            with open_tar() as tar:
                while piece := tar.read(_PIECE):
                    _end_unless(wanted)
                    self._stream.send_bytes(piece)
            self._stream.send_bytes(b"")
        except BaseException:
            self._stream.close()  # what came is not all, and must not be taken for it
            raise


def _end_unless(wanted: Callable[[], bool]) -> None:
    if not wanted():
        raise BrokenPipeError("the import has ended")


def _raise_cause(sent: "Future[None]") -> None:
    """Raise what kept the tar from being read, where it was not the process that went away."""
    error = sent.exception()
    if error is not None and not isinstance(error, BrokenPipeError):
        raise error


@contextlib.contextmanager
def _started(driver: Driver) -> Iterator[Worker]:
    """Start one process, which opens the driver while this one goes on."""
    with contextlib.ExitStack() as stack:
        ours, theirs = socket.socketpair()
        stack.enter_context(theirs)
        control = stack.enter_context(Connection(ours.detach()))
        read, write = os.pipe()
        stack.callback(os.close, read)
        stream = Connection(write, readable=False)
        stack.callback(stream.close)
        with contextlib.suppress(OSError):  # over what one user may have in pipes
            fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, _PIECE)
        numbers = (theirs.fileno(), read)
        process = subprocess.Popen(
            [*_python(), "-c", _PROGRAM, json.dumps(sys.path), *map(str, numbers), str(os.getpid())],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            pass_fds=numbers,
        )
        stack.pop_all()
    theirs.close()
    os.close(read)
    worker = Worker(process, control, stream, ThreadPoolExecutor(1, "graphdrivers-send"))
    try:
        with contextlib.suppress(*_HUNG_UP):
            tell(control, Setup.of(driver))
        yield worker
    finally:
        worker.close()


def _python() -> list[str]:
    """Give how this Python was started, as far as it says where modules come from."""
    flags = sys.flags
    return [
        sys.executable,
        "-P",  # the working directory may be anybody's
        *(["-I"] if flags.isolated else []),
        *(["-E"] if flags.ignore_environment else []),
        *(["-s"] if flags.no_user_site else []),
    ]
