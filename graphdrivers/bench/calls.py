"""System calls, counted by name for each row of a sample, by ``strace`` attached to this process.

What is counted is this process, all of its threads, and the programs that it
starts meanwhile. Daemons that ran before, such as ``zfs-fuse``, are not seen,
nor is what the kernel does by itself.
"""

import collections
import contextlib
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Self

import attrs

from graphdrivers.bench import cleaning

Names = collections.Counter[str]
"""How many calls of each name."""

_OPTIONS = ("-f", "-s", "0", "-e", "verbose=none")
"""Threads and children too; nothing of what calls are given is read but the paths."""

_PATIENCE = 10.0
"""Seconds that attaching and letting go may take."""

_PAUSE = 0.001
"""Seconds between two looks."""

_BY_CHANCE = frozenset({"brk", "futex", "madvise", "restart_syscall", "sched_yield"})
"""How threads wait for each other, and where memory comes from: differs from run to run, the more so when traced."""

_OVER = "over"
"""The last mark: with it the trace is whole."""

_LINE = re.compile(r"\d+ +(\w+)\(")
"""Where a call begins. Its second half (``<... resumed>``), signals and exits look otherwise. Source: strace(1)."""

_NOT_ALLOWED = "run as root, or allow it: kernel.yama.ptrace_scope, in a container the capability SYS_PTRACE"


@attrs.frozen
class Calls:
    """What the operations of one row did in one sample."""

    operations: int
    names: Mapping[str, int]

    def each(self) -> dict[str, float]:
        """Give the calls of one operation by name, the most first."""
        ordered = sorted(self.names.items(), key=lambda item: (-item[1], item[0]))
        return {name: count / self.operations for name, count in ordered}

    def total(self) -> float:
        """Give all calls of one operation."""
        return sum(self.names.values()) / self.operations


@attrs.define
class Trace:
    """The marks that a sample sets, and in the end what was called between them."""

    marks: str
    """Folder of their paths, which is not there."""
    rows: dict[str, Names] = attrs.Factory(dict)
    """By row, all of its spans together; filled when the trace has ended."""

    def mark(self, word: str, row: str) -> None:
        """Set a mark: ``begin`` or ``end`` of a row."""
        os.access(f"{self.marks}{word}/{row}", os.F_OK)


@attrs.frozen
class Counter:
    """What counts, found out by trying."""

    name: str
    """With its version; empty where nothing can be counted."""
    command: tuple[str, ...] = ()
    folder: str = ""
    """For traces."""
    reason: str = ""
    """Why nothing can be counted, and what to do about it."""

    @classmethod
    def found(cls, folder: str) -> Self:
        """Find out who counts here, with room for traces in ``folder``."""
        program = shutil.which("strace")
        if program is None:
            return cls("", reason="strace is not installed: install it")
        told = subprocess.run([program, "-V"], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        version = re.match(r"strace -- version (\S+)", told.stdout)
        counter = cls(f"strace {version[1]}" if version else "strace", (*_tied(), program, *_OPTIONS), folder)
        try:
            with counter.counting():
                pass
        except OSError as error:
            return cls("", reason=str(error))
        return counter

    @contextlib.contextmanager
    def counting(self) -> Iterator[Trace]:
        """Count while the block runs, which goes many times slower; nothing is traced any more afterwards.

        Raises:
            OSError: it may not be traced, or the tracing ended before the block did; the text says why.
        """
        trace = Trace(f"/graphdriver-bench-{os.getpid()}/")
        log, said = (os.path.join(self.folder, name) for name in ("trace", "trace-errors"))
        try:
            with _attached([*self.command, "-o", log, "-p", str(os.getpid())], said):
                yield trace
                trace.mark(_OVER, "")
            with open(log, encoding="utf-8", errors="surrogateescape") as lines:
                trace.rows.update(counted(lines, trace.marks))
        finally:
            for path in (log, said):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(path)


def counted(lines: Iterable[str], marks: str) -> dict[str, Names]:
    """Count the calls between marks, which are calls that name a path below ``marks``; spans may lie in each other.

    A call counts where it begins. A span that does not end counts for nothing, nor do calls that chance decides on.

    Raises:
        OSError: the last mark is missing.
    """
    rows: dict[str, Names] = {}
    spans: dict[str, Names] = {}
    mark = re.compile(f'"{re.escape(marks)}([^/"]*)/([^"]*)"')
    for line in lines:
        call = _LINE.match(line)
        if call is None:
            continue
        found = mark.search(line) if marks in line else None
        if found is None:
            for names in spans.values() if call[1] not in _BY_CHANCE else ():
                names[call[1]] += 1
        elif found[1] == "begin":
            spans[found[2]] = collections.Counter()
        elif found[1] == _OVER:
            return rows
        else:
            rows.setdefault(found[2], collections.Counter()).update(spans.pop(found[2], ()))
    raise OSError("strace ended before the sample did")


def _tied() -> tuple[str, ...]:
    """Give what is put before a command that must end when this process is killed, where that can be had.

    By itself strace goes on as long as a program that we started, such as one that serves a mount.
    """
    tied = ("setpriv", "--pdeathsig", "TERM")
    try:
        tried = subprocess.run([*tied, "true"], stdin=subprocess.DEVNULL, capture_output=True, check=False)
    except FileNotFoundError:
        return ()
    return tied if tried.returncode == 0 else ()


@contextlib.contextmanager
def _attached(command: list[str], said: str) -> Iterator[None]:
    """Trace this process while the block runs; ``said`` is the file that the tracer's messages go to.

    A pipe would not do: who reads it is traced, and waits for the tracer, which waits for room in the pipe.
    """
    tracer = 0
    try:
        # No interrupt comes between its start and our knowing of it; it must not hold signals back itself.
        with cleaning.uninterrupted():
            tracer = _started(command, said)
        _wait_for(tracer, said)
        yield
    finally:
        with cleaning.uninterrupted():
            if tracer and not _is_over(tracer):
                _end(tracer)


def _started(command: list[str], said: str) -> int:
    """Start a program in a session of its own: Ctrl-C is for us, who then end it."""
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    messages = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        files = [(os.POSIX_SPAWN_DUP2, null, 0), (os.POSIX_SPAWN_DUP2, null, 1), (os.POSIX_SPAWN_DUP2, messages, 2)]
        return os.posix_spawnp(command[0], command, {}, file_actions=files, setsid=True, setsigmask=())
    finally:
        os.close(messages)
        os.close(null)


def _is_over(process: int) -> bool:
    """Say whether a child has ended; then it is gone."""
    try:
        return os.waitpid(process, os.WNOHANG)[0] != 0
    except ChildProcessError:
        return True


def _end(process: int) -> None:
    """End a child; one that does not let go of us in time is killed, and the kernel does it."""
    os.kill(process, signal.SIGTERM)
    deadline = time.monotonic() + _PATIENCE
    while not _is_over(process):
        if time.monotonic() > deadline:
            os.kill(process, signal.SIGKILL)
            os.waitpid(process, 0)
            return
        time.sleep(_PAUSE)


def _wait_for(tracer: int, said: str) -> None:
    """Wait until all threads are traced: strace says so after it has stopped each of them.

    Raises:
        OSError: it may not, or takes too long.
    """
    deadline = time.monotonic() + _PATIENCE
    while True:
        over = _is_over(tracer)
        with open(said, encoding="utf-8", errors="replace") as file:
            told = file.read()
        if over:
            raise OSError(f"{' '.join(told.split('.')[0].split()) or 'strace ended at once'}; {_NOT_ALLOWED}")
        if " attached" in told:
            return
        if time.monotonic() > deadline:
            raise OSError(f"strace did not attach within {_PATIENCE:.0f} s")
        time.sleep(_PAUSE)
