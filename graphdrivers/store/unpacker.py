"""The program that unpacks layers for an import beside it: one at a time, as `workers` sends them.

It is started with two descriptors. Through one, a socket, jobs come and results
go; through the other, a pipe, comes the tar of the present job in pieces, an
empty one behind the last. It changes nothing but the layer's own folder and its
header record. It is killed with the process that started it; when that one
hangs up, what is half made is removed and the program ends.
"""

import contextlib
import importlib
import pickle
import signal
import sys
import time
from collections.abc import Generator, Mapping
from multiprocessing.connection import Connection
from typing import Any, BinaryIO, cast

import attrs

from graphdrivers import errors
from graphdrivers.archive import compression
from graphdrivers.archive.stream import ChunkStream
from graphdrivers.driver import AppliesAhead, Driver
from graphdrivers.linux import processes
from graphdrivers.model import Support
from graphdrivers.store import filling
from graphdrivers.store.filling import Filled, Job

_REPORT_EVERY = 0.05
"""Seconds between two reports of how far it is."""


@attrs.frozen
class Setup:
    """How the driver is opened; it has proved in the process that asks that it works."""

    module: str
    name: str
    home: str
    options: Mapping[str, str]
    support: Support

    @classmethod
    def of(cls, driver: Driver) -> "Setup":
        """Describe a driver that is open."""
        kind = type(driver)
        return cls(kind.__module__, kind.__qualname__, driver.home, driver.options, driver.support)

    def open(self) -> AppliesAhead:
        """Open it.

        Raises:
            ImportError, AttributeError: it cannot be found here.
        """
        kind = getattr(importlib.import_module(self.module), self.name)
        return cast("AppliesAhead", kind(self.home, self.options, self.support))


@attrs.frozen
class Waits:
    """The job goes on when this is answered: the parent is sealed then."""


@attrs.frozen
class Failed:
    """The job could not be done; nothing is left of the layer."""

    error: errors.GraphDriverError | OSError | MemoryError


Told = int | Waits | Filled | Failed
"""What is told of a job: bytes of the tar that are consumed, and so on, last what came of it."""


def tell(connection: Connection, value: object) -> None:
    """Send a value.

    Not `Connection.send`: it gives away a view of a buffer, and an error that lives on in a cycle with
    that view makes the garbage collector of Python 3.13 print a `BufferError`.

    Raises:
        BrokenPipeError, ConnectionResetError: nobody is there any more.
    """
    connection.send_bytes(pickle.dumps(value))


def hear(connection: Connection) -> Any:
    """Receive what `tell` sent.

    Raises:
        EOFError, ConnectionResetError: nobody is there any more.
    """
    return pickle.loads(connection.recv_bytes())  # noqa: S301 - from a process of our own


class Work:
    """The jobs of one process."""

    def __init__(self, control: Connection, stream: Connection) -> None:
        """Take jobs from ``control``, and their tars from ``stream``."""
        self._control = control
        self._stream = stream
        self._reported = 0.0

    def serve(self) -> None:
        """Open the driver, say so, and do jobs until nobody sends any more."""
        setup: Setup = hear(self._control)
        try:
            driver = setup.open()
        except (ImportError, AttributeError, errors.GraphDriverError, OSError):
            return  # it is found by the program that asks only (its main module); that one does the work then
        tell(self._control, None)
        while True:
            job: Job = hear(self._control)
            tell(self._control, self._done(driver, job))

    def _done(self, driver: AppliesAhead, job: Job) -> Filled | Failed:
        try:
            with compression.open_plain(cast("BinaryIO", ChunkStream(self._pieces(), bool)), job.limits) as plain:
                return filling.fill(driver, job, plain, self._wait, self._report)
        except (errors.GraphDriverError, OSError, MemoryError) as error:
            return Failed(error)

    def _pieces(self) -> Generator[bytes]:
        while True:
            try:
                piece = self._stream.recv_bytes()
            except EOFError:
                raise BrokenPipeError("the import has ended") from None
            if not piece:
                return
            yield piece

    def _wait(self) -> None:
        tell(self._control, Waits())
        try:
            hear(self._control)
        except EOFError:
            raise BrokenPipeError("the layer below was not made") from None

    def _report(self, consumed: int) -> None:
        now = time.monotonic()
        if now - self._reported >= _REPORT_EVERY:
            self._reported = now
            tell(self._control, consumed)


def main() -> None:
    """Run with the numbers of the socket, of the pipe, and of the process that started this one."""
    control, stream, parent = map(int, sys.argv[-3:])
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for all in the terminal: who started us tells us to end
    processes.die_with(parent)
    hangs_up = contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError)
    with hangs_up, Connection(control) as told, Connection(stream, writable=False) as read:
        Work(told, read).serve()
