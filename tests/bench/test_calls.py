"""System calls are counted exactly, by a real strace, and nothing stays traced."""

import os
import pathlib
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest
from benchbeds import Opening
from test_runner import measure

from graphdrivers.bench import calls, runner, workloads
from graphdrivers.bench.calls import Calls, Counter
from graphdrivers.bench.disturbance import Watch
from graphdrivers.bench.results import Cell, Results

MARKS = "/marks/"


@pytest.fixture
def counter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Counter]:
    """What counts here; without strace the test is left out, but fails in CI."""
    folder = tmp_path_factory.mktemp("traces")
    found = Counter.found(str(folder))
    if "not installed" in found.reason and not os.environ.get("CI"):
        pytest.skip(found.reason)
    assert found.reason == ""
    yield found
    assert tracer() == 0
    assert os.listdir(folder) == []


def tracer(process: int | str = "self") -> int:
    """Give who traces a process; 0 for nobody."""
    for line in pathlib.Path(f"/proc/{process}/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("TracerPid:"):
            return int(line.split()[1])
    raise AssertionError("no TracerPid")


def test_calls_between_marks_are_counted() -> None:
    """Spans lie in each other and add up; second halves, signals and what chance decides on count for nothing."""
    trace = [
        "7 close(3) = 0",
        '7 access("/marks/begin/whole", F_OK) = -1 ENOENT (No such file or directory)',
        "7 openat(AT_FDCWD, 0x7ffd, O_RDONLY <unfinished ...>",
        '7 access("/marks/begin/part", F_OK <unfinished ...>',
        "8 futex(0x55, FUTEX_WAIT_PRIVATE, 2, NULL) = 0",
        "8 read(3, 0x55, 4096) = 0",
        "7 <... openat resumed>) = 3",
        "7 <... access resumed>) = -1 ENOENT (No such file or directory)",
        "8 --- SIGCHLD {si_signo=SIGCHLD} ---",
        '7 access("/marks/end/part", F_OK) = -1 ENOENT (No such file or directory)',
        '7 access("/marks/begin/part", F_OK) = -1 ENOENT (No such file or directory)',
        '7 access("/etc", F_OK) = 0',
        '7 access("/marks/end/part", F_OK) = -1 ENOENT (No such file or directory)',
        '7 access("/marks/end/whole", F_OK) = -1 ENOENT (No such file or directory)',
        '7 access("/marks/begin/failed", F_OK) = -1 ENOENT (No such file or directory)',
        "8 +++ exited with 0 +++",
        '7 access("/marks/over/", F_OK) = -1 ENOENT (No such file or directory)',
    ]

    assert calls.counted(trace, MARKS) == {
        "part": {"read": 1, "access": 1},
        "whole": {"openat": 1, "read": 1, "access": 1},
    }


def test_a_trace_without_its_end_counts_for_nothing() -> None:
    """The tracer died: what it saw by then is no count."""
    with pytest.raises(OSError, match="ended before"):
        calls.counted(['7 access("/marks/begin/x", F_OK) = 0', '7 access("/marks/end/x", F_OK) = 0'], MARKS)


def test_counts_are_those_of_the_kernel(counter: Counter) -> None:
    """Exactly as many as were made, of other threads and of programs that are started too, and of one span only."""

    def ask(times: int) -> None:
        for _ in range(times):
            os.getppid()

    with counter.counting() as trace:
        ask(3)
        trace.mark("begin", "row")
        ask(5)
        thread = threading.Thread(target=ask, args=(7,))
        thread.start()
        thread.join()
        subprocess.run(["true"], check=True)
        trace.mark("end", "row")
        ask(3)

    assert trace.rows["row"]["getppid"] == 5 + 7
    assert trace.rows["row"]["execve"] >= 1
    assert trace.rows["row"]["access"] <= trace.rows["row"]["openat"]  # the loader's; the marks are none


def test_calls_are_those_of_one_operation() -> None:
    """The mean, the most frequent first."""
    counted = Calls(4, {"close": 4, "openat": 10})

    assert counted.total() == 3.5
    assert list(counted.each().items()) == [("openat", 2.5), ("close", 1.0)]


def test_an_interrupt_ends_the_tracing(counter: Counter) -> None:
    """Also in the middle of it: nobody traces this process, and no strace is left."""
    seen: list[int] = []

    def interrupted() -> None:
        with counter.counting():
            seen.append(tracer())
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert seen[0] > 0
    assert not os.path.exists(f"/proc/{seen[0]}")


def test_a_tracer_that_dies_is_an_error_and_no_more(counter: Counter) -> None:
    """The block goes on to its end, untraced, and its counts are refused."""
    ends: list[int] = []

    def bereft() -> None:
        with counter.counting() as trace:
            trace.mark("begin", "row")
            os.kill(tracer(), signal.SIGKILL)
            while tracer():
                time.sleep(0.001)
            trace.mark("end", "row")
            ends.append(tracer())

    with pytest.raises(OSError, match="ended before"):
        bereft()
    assert ends == [0]


def test_who_is_traced_already_cannot_be_counted(counter: Counter, tmp_path: pathlib.Path) -> None:
    """The kernel refuses; the reason says what strace said, and what to do."""
    with counter.counting():
        refused = Counter.found(str(tmp_path))

    assert refused.name == ""
    assert "Operation not permitted" in refused.reason
    assert "kernel.yama.ptrace_scope" in refused.reason
    assert os.listdir(tmp_path) == []


def test_without_strace_there_is_a_reason(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And what to do."""
    monkeypatch.setenv("PATH", str(tmp_path))

    assert Counter.found(str(tmp_path)).reason == "strace is not installed: install it"


_KILLED = """
import subprocess, sys
from graphdrivers.bench.calls import Counter
with Counter.found(sys.argv[1]).counting():
    print(subprocess.Popen(["sleep", "600"], stdout=subprocess.DEVNULL).pid, flush=True)
    sys.stdin.read()
"""


def test_a_bench_that_is_killed_leaves_nothing_traced(counter: Counter, tmp_path: pathlib.Path) -> None:
    """A program that it started lives on, and runs freely."""
    if "--pdeathsig" not in counter.command and not os.environ.get("CI"):
        pytest.skip("setpriv of util-linux is not installed: the trace ends with what is traced")
    with subprocess.Popen(
        [sys.executable, "-c", _KILLED, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        child = int(process.stdout.readline())
        try:
            while not tracer(child):
                time.sleep(0.001)
            process.kill()
            process.wait()
            while tracer(child):
                time.sleep(0.001)
            state = pathlib.Path(f"/proc/{child}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
        finally:
            os.kill(child, signal.SIGKILL)
    assert state not in {"t", "T"}


def test_operations_of_real_drivers_are_counted_the_same_twice(opening: Opening, counter: Counter) -> None:
    """Every row with a time, on every driver; one at a time to the call, whatever the budget and what was timed."""
    beds = opening()
    chosen = (workloads.UNPACK, workloads.CI, workloads.DATABASE)
    first, again = (measure(beds, *chosen, budget=budget, repeats=1, counter=counter) for budget in (0.0, 60.0))

    for one, two in zip(first.cells, again.cells, strict=True):
        assert (one.uncounted, two.uncounted) == ("", "")
        assert (one.calls is None, two.calls is None) == (one.row.unit == "B",) * 2
        if one.row.name in {"create", "mount", "work", "write", "read"}:
            assert one.calls == two.calls
    assert [len(cell.samples) for cell in first.cells] == [1] * len(first.cells)
    assert calls_of(first.cells, "write", "vfs").operations == 4
    assert calls_of(first.cells, "write", "vfs").names["fsync"] == 4
    assert calls_of(first.cells, "whole", "vfs").operations == 4


def test_progress_goes_up_while_calls_are_counted(opening: Opening, counter: Counter) -> None:
    """It says that they are counted, never goes back, and never beyond all of it."""
    told: list[tuple[str, float]] = []
    course = runner.Course(opening(), Results(), Watch(), lambda name, _driver, done: told.append((name, done)))
    runner.run(runner.Plan(workloads=[workloads.CI], repeats=1, budget=0.0, counter=counter), course)

    parts = [done for _name, done in told]
    assert sorted(parts) == parts
    assert parts[-1] <= 1.0
    assert told[-1][0] == "calls of ci"


def calls_of(cells: list[Cell], row: str, driver: str) -> Calls:
    """Find what was counted."""
    found = next(cell.calls for cell in cells if (cell.row.name, cell.driver) == (row, driver))
    assert found is not None
    return found


def test_where_nothing_can_be_counted_times_are_as_ever(opening: Opening) -> None:
    """Each cell has the reason."""
    (cell,) = [
        cell
        for cell in measure(opening("vfs"), workloads.CLEANUP, budget=0.0, counter=Counter("", reason="no")).cells
        if cell.row.name == "container"
    ]
    assert (len(cell.samples), cell.calls, cell.uncounted) == (1, None, "no")
