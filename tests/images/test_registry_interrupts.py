"""Ctrl-C while a registry is silent: threads that wait for it are not waited for."""

import contextlib
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Self

import pytest
from layouts import layer_tar, sha256
from registries import Content, Request, Server, run
from test_registry_push import Target
from test_registry_real import outgoing

from graphdrivers import errors
from graphdrivers.images.registry.interrupts import ending
from graphdrivers.images.registry.patience import Patience
from graphdrivers.images.registry.pulling import read_image
from graphdrivers.images.registry.pushing import push

FOREVER = Patience(timeout=3600, attempts=100, pause=3600, longest=3600)
BOUND = 60
"""Seconds after which what should have ended at once counts as not ended."""

BEGUN = 1000
"""Bytes of its layer that a silent registry gives."""


@contextlib.contextmanager
def interrupted_soon(ready: threading.Event) -> Iterator[None]:
    """Send this process SIGINT during the block, once ``ready`` is set; the block must end by it."""
    over = threading.Event()

    def send() -> None:
        ready.wait(BOUND)
        # Again and again: one that comes just before the main thread begins to wait for a lock does not wake it up.
        while not over.is_set():
            os.kill(os.getpid(), signal.SIGINT)
            over.wait(BOUND / 4)

    sender = threading.Thread(target=send)
    sender.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            yield
    finally:
        over.set()
        ready.set()
        sender.join()


class Silent:
    """A registry that stops: in the middle of its layer, or when requests of a method came."""

    def __init__(self, method: str = "") -> None:
        """Stop at requests of ``method``; at the layer where there is none."""
        self.reached = threading.Event()
        self.over = threading.Event()
        self._content = Content()
        self._target = Target()
        self._method = method

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.over.set()  # before the server ends, which waits for its threads

    def answer(self, request: Request) -> None:
        """Answer until then."""
        if request.command == self._method:
            request.body()
            self._stop(request)
        elif request.at.endswith(sha256(self._content.layer)):
            request.send_response(200)
            request.end_headers()
            request.wfile.write(self._content.layer[:BEGUN])
            request.wfile.flush()
            self._stop(request)
        elif request.command == "GET":
            self._content.answer(request)
        else:
            self._target.answer(request)

    def _stop(self, request: Request) -> None:
        self.reached.set()
        self.over.wait(2 * BOUND)
        request.cut()


def test_stream_in_another_thread() -> None:
    """A thread that reads a layer gets an error when the main thread is interrupted."""
    silent = Silent()
    caught: list[BaseException] = []

    def read() -> None:
        try:
            stream.read(1)
        except errors.GraphDriverError as error:
            caught.append(error)

    with Server(silent.answer) as server, silent, server.connect("app:1", patience=FOREVER) as connection:
        image = read_image(connection, None)
        stream = image.open_layer(image.layers[0])
        left = BEGUN
        while left:
            left -= len(stream.read(left))
        reader = threading.Thread(target=read, daemon=True)
        started = threading.Event()
        with interrupted_soon(started), ending(connection.abort):
            reader.start()
            started.set()
            while reader.is_alive():
                time.sleep(0.01)
        reader.join(BOUND)
        ended = not reader.is_alive()
    assert ended
    assert [type(error) for error in caught] == [errors.RegistryError]
    with pytest.raises(errors.RegistryError, match="not waited for"):
        image.open_layer(image.layers[0])


@pytest.mark.parametrize("at", ["PATCH", "PUT"])
def test_push_that_waits_for_an_answer(at: str) -> None:
    """A push whose registry says nothing any more ends with Ctrl-C, whatever its threads wait for."""
    silent = Silent(at)
    with Server(silent.answer) as server, silent, server.connect("app:1", patience=FOREVER) as connection:
        stop = threading.Timer(BOUND, silent.over.set)
        stop.start()
        with interrupted_soon(silent.reached), ending(connection.interrupt):
            push(outgoing([layer_tar("file")]), connection)
        late = silent.over.is_set()
        stop.cancel()
    assert not late


def test_pause_that_a_registry_asked_for() -> None:
    """A thread that waits to ask again is woken up."""
    asked = threading.Event()

    def answer(request: Request) -> None:
        if request.command == "POST":
            request.reply(503, Retry_After="3600")
            asked.set()
        else:
            request.reply(200)

    with (
        Server(answer) as server,
        server.connect("app:1", patience=FOREVER) as connection,
        interrupted_soon(asked),
        ending(connection.interrupt),
    ):
        push(outgoing([layer_tar("file")]), connection)  # would come back in an hour


def test_handlers_are_put_back() -> None:
    """Signals mean afterwards what they meant before; ones that are ignored, or have no handler, are left alone."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    calls: list[str] = []
    signal.signal(signal.SIGHUP, lambda *_: calls.append("own"))
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        with ending(lambda: calls.append("abort")):
            assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
            signal.raise_signal(signal.SIGHUP)  # its handler lets the program go on
        assert calls == ["own"]
        signal.raise_signal(signal.SIGHUP)
        assert calls == ["own", "own"]
    finally:
        signal.signal(signal.SIGHUP, before[signal.SIGHUP])
        signal.signal(signal.SIGTERM, before[signal.SIGTERM])
    assert {number: signal.getsignal(number) for number in before} == before


def test_in_another_thread_there_is_nothing_to_do() -> None:
    """Signals are the main thread's: elsewhere the block just runs."""
    done: list[bool] = []

    def work() -> None:
        with ending(lambda: None):
            done.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done == [True]


def waits_for_a_socket(pid: int) -> bool:
    """Say whether a thread of a process waits for a socket."""
    for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # other threads end
            if "poll" in (task / "wchan").read_text():
                return True
    return False


def test_pull_of_the_program(tmp_path: pathlib.Path) -> None:
    """Ctrl-C ends ``graphdriver pull`` while a layer does not come; the store is whole."""
    silent = Silent()
    command = [sys.executable, "-m", "graphdrivers", "--root", os.fspath(tmp_path / "store"), "--driver", "vfs"]
    with (
        Server(silent.answer) as server,
        subprocess.Popen(
            [*command, "pull", f"{server.host}/app:1"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as process,
    ):
        try:
            while not (silent.reached.is_set() and waits_for_a_socket(process.pid)):
                time.sleep(0.01)
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=BOUND)
        finally:
            process.kill()
            silent.over.set()
    assert (process.returncode, out) == (130, b"")
    assert b"Traceback" not in err
    assert '"ok": true' in run(*command, "--json", "check")
