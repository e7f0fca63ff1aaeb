"""Commands on a store that are ended in the middle: what they began is taken back."""

import contextlib
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest
from clirun import CommandLine
from storeimages import BASE, layer, layout

from graphdrivers import open_store
from graphdrivers.cli import failures
from graphdrivers.store import recover

BIG = 64 << 20


def ended(cli: CommandLine, source: pathlib.Path, number: signal.Signals) -> tuple[int, bytes, bytes]:
    """Begin to import an image, send a signal in the middle; give how it ended, and what it printed."""
    with subprocess.Popen(
        [sys.executable, "-m", "graphdrivers", *cli.globals, "import", str(source)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd="/",
    ) as process:
        try:
            wait_for(process, cli.root)
            process.send_signal(number)
            out, err = process.communicate()
        finally:
            process.kill()
    return process.returncode, out, err


def wait_for(process: subprocess.Popen[bytes], found: pathlib.Path) -> None:
    """Wait until a layer beside the first one is being filled."""
    while process.poll() is None:
        with contextlib.suppress(FileNotFoundError):
            if sum(path.stat().st_size for path in found.rglob("big")) > 1 << 20:
                return
        time.sleep(0.005)


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, failures.INTERRUPTED), (signal.SIGTERM, failures.TERMINATED)]
)
def test_import_that_is_ended(cli: CommandLine, tmp_path: pathlib.Path, number: signal.Signals, code: int) -> None:
    """Ctrl-C (or SIGTERM) while a large layer is unpacked: no image, no half layer, no problem; the next goes on."""
    source = layout(tmp_path / "debian", layer(BASE), layer({"big": os.urandom(1 << 20) * (BIG >> 20)}))
    for _ in range(10):
        returned, out, err = ended(cli, source, number)
        if returned:
            break
        cli("rmi", out.decode().strip())  # it was done before the signal, on a busy machine: once more

    assert returned == code
    assert out == b""
    assert b"Traceback" not in err
    with open_store(cli.root) as store:
        assert store.problems == ()
        assert store.images() == []
        assert recover.compare(store.site, repair=False) == []
        assert len(list(store.driver.layers())) <= 1  # the first one was whole
    again = cli("import", str(source))
    assert again.err.count("Pull complete") + again.err.count("Already exists") == 2
    assert cli("check", "--deep", "--json").json["ok"] is True


def test_writer_that_hangs(cli: CommandLine) -> None:
    """Ctrl-C while an import waits for a pipe."""
    with subprocess.Popen(
        [sys.executable, "-m", "graphdrivers", *cli.globals, "import", "-"],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        cwd="/",
    ) as process:
        try:
            assert process.stdin is not None
            process.stdin.write(layer(BASE)[:700])
            process.stdin.flush()
            while not _is_reading_pipe(process.pid):
                time.sleep(0.01)
            process.send_signal(signal.SIGINT)
            process.wait(60)
        finally:
            process.kill()
        assert process.stderr is not None
        told = process.stderr.read()

    assert (process.returncode, told) == (failures.INTERRUPTED, b"")


def _is_reading_pipe(pid: int) -> bool:
    """Say whether any thread of a process waits for its stdin."""
    for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # other threads end
            waits_in = (task / "wchan").read_text()
            if "pipe" in waits_in or "poll" in waits_in:
                return True
    return False
