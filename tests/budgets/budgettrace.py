"""Traces of strace(1) read as counts: which calls an operation made, and which line of the library made them."""

import collections
import contextlib
import os
import pathlib
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence

import attrs
from budgetwork import OPERATIONS, SMALL, Size

import graphdrivers

HERE = pathlib.Path(__file__).parent
PROJECT = HERE.parent.parent

PLAIN = int(os.environ.get("GRAPHDRIVERS_TEST_ID", "64999"))
"""The user that ``scripts/as-user`` is."""

_KINDS = {
    "access": "access faccessat faccessat2",
    "chmod": "chmod fchmod fchmodat fchmodat2",
    "chown": "chown fchown lchown fchownat",
    "copy": "copy_file_range sendfile sendfile64",
    "getdents": "getdents getdents64",
    "getxattr": "getxattr lgetxattr fgetxattr",
    "link": "link linkat",
    "listxattr": "listxattr llistxattr flistxattr",
    "mkdir": "mkdir mkdirat",
    "mknod": "mknod mknodat",
    "open": "open openat openat2 creat",
    "read": "read pread64 readv preadv preadv2",
    "readlink": "readlink readlinkat",
    "removexattr": "removexattr lremovexattr fremovexattr",
    "rename": "rename renameat renameat2",
    "setxattr": "setxattr lsetxattr fsetxattr",
    "stat": "stat lstat fstat newfstatat fstatat64 statx stat64 lstat64 fstat64",
    "statfs": "statfs fstatfs statfs64 fstatfs64",
    "symlink": "symlink symlinkat",
    "sync": "fsync fdatasync syncfs",
    "truncate": "truncate ftruncate truncate64 ftruncate64",
    "unlink": "unlink rmdir unlinkat",
    "utime": "utime utimes futimesat utimensat",
    "write": "write pwrite64 writev pwritev pwritev2",
}
"""Calls that do the same thing: which one is made depends on the C library and the machine."""
KIND_OF = {call: kind for kind, calls in _KINDS.items() for call in calls.split()}

_LEFT_OUT = """
    brk clock_gettime clock_nanosleep clone clone3 epoll_create1 exit exit_group fork futex getegid geteuid getgid
    getpid getppid getrandom getrusage gettid gettimeofday getuid madvise membarrier mmap mprotect mremap munmap
    nanosleep poll ppoll prctl prlimit64 restart_syscall rseq rt_sigaction rt_sigprocmask rt_sigreturn
    sched_getaffinity sched_yield set_robust_list sigaltstack sysinfo time umask uname vfork wait4 waitid"""
LEFT_OUT = frozenset(_LEFT_OUT.split())
"""Memory, threads, clocks and who one is: made by the interpreter as it likes, or next to free."""

STRACE = ("strace", "-f", "-qq", "-y", "-s", "300", "-o")
"""With the path of each descriptor; the file for the trace and the program come next."""

_OURS = os.path.dirname(os.path.dirname(graphdrivers.__file__))
_PYTHON = sorted({os.path.realpath(folder) for folder in (*sys.path, *sysconfig.get_paths().values(), _OURS) if folder})
_C_LIBRARIES = r"""["</]ld\.so|\.so[.0-9]*[">]|/LC_MESSAGES/"""
_OF_PYTHON = re.compile(f'["<](?:{"|".join(map(re.escape, _PYTHON))})[/">]|{_C_LIBRARIES}')
"""Where modules and C libraries are looked for: how often depends on the release, and on what else is installed."""

_HERE = re.compile(r"AT_FDCWD<[^>]*>")
_LINE = re.compile(r"(\d+) +(\w+)\((.*)")
_MARK = re.compile(r'"/budget/([^"]*)"')
_UNNAMED = "outside of the library"

Counts = collections.Counter[str]


@attrs.frozen
class Counted:
    """What one run of an operation did."""

    calls: Counts = attrs.field(factory=collections.Counter)
    """How many of each kind."""
    lines: Mapping[str, Counts] = attrs.field(factory=lambda: collections.defaultdict(collections.Counter))
    """The same for each kind by line of the library; only in a trace of lines."""


Runs = dict[tuple[str, Size], Counted]


def counted(trace: Iterable[str]) -> Runs:
    """Count the calls in each span of a trace."""
    runs: Runs = {}
    now: Counted | None = None
    at: dict[str, str] = {}
    for text in trace:
        line = _LINE.match(text)
        if line is None:  # the second half of a call, or a signal
            continue
        thread, call, rest = line.groups()
        mark = _MARK.search(rest) if KIND_OF.get(call) == "access" else None
        if mark is not None:
            word, _, what = mark[1].partition("/")
            if word == "begin":
                name, _, size = what.rpartition("/")
                now = runs[name, Size.parse(size)] = Counted()
                at.clear()
            elif word == "end":
                now = None
            elif word == "at":
                at[thread] = what
            elif now is not None:
                _count(now, f"sqlite {what}", at.get(thread, _UNNAMED))
        elif now is not None and (kind := kind_of(call, rest)):
            _count(now, kind, at.get(thread, _UNNAMED))
    return runs


def _count(run: Counted, kind: str, line: str) -> None:
    run.calls[kind] += 1
    run.lines[kind][line] += 1


def kind_of(call: str, rest: str) -> str:
    """Name what is counted, empty for what is not.

    How SQLite reads, writes and locks its files is its own affair and differs
    between releases: its statements and transactions count, and how often it
    waits for the disk. How much there is to read in ``/proc`` depends on the
    machine; that it is opened counts.
    """
    kind = KIND_OF.get(call, call)
    if "[eventpoll]>" in rest:  # a module of Python tries whether it can have one
        return ""
    terminal = call == "ioctl" and ("TCGETS" in rest or "TIOCGWINSZ" in rest)
    if call in LEFT_OUT or terminal or _OF_PYTHON.search(_HERE.sub("", rest)):
        return ""
    if "/ledger.sqlite" in rest:
        return kind if kind == "sync" else ""
    if kind == "open" and "/mountinfo" in rest:
        return "open of mountinfo"
    if kind in {"read", "lseek"} and "</proc/" in rest:
        return ""
    return kind


def users() -> tuple[str, ...]:
    """Give the users that calls are counted for: ``root``, ``plain``, and ``userns`` (root of a user namespace).

    Real root can be all of them; anybody else is who they are.
    """
    if os.geteuid() != 0:
        return ("plain",)
    whole = pathlib.Path("/proc/self/uid_map").read_text(encoding="ascii").split() == ["0", "0", str(2**32 - 1)]
    return ("root", "plain", "userns") if whole else ("userns",)


def becoming(user: str) -> list[str]:
    """Give the beginning of a command line that is run as a user; what root mounts ends with the command."""
    if user == "root" or users() == ("userns",):
        return ["unshare", "--mount", "--propagation", "private"]
    if users() == ("plain",):
        return []
    return [str(PROJECT / "scripts" / "as-user"), *(["--namespace"] if user == "userns" else [])]


@contextlib.contextmanager
def folder_of(user: str) -> Iterator[pathlib.Path]:
    """Make a folder of a user, in memory where that can be had: what a file system cannot do costs calls too."""
    memory = "/dev/shm"  # noqa: S108 - a new folder of mode 0700 is made in it
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None, prefix="budgets.") as folder:
        if user not in {"root", *users()[:1]}:
            os.chown(folder, PLAIN, PLAIN)
        yield pathlib.Path(folder)


def traced(
    driver: str, operations: Sequence[str] = (), *, user: str = "", lines: bool = False, library: str = ""
) -> Runs:
    """Run operations (all for none) on a driver and count.

    Args:
        driver: one of `budgetrun.DRIVERS`.
        operations: names of `OPERATIONS`.
        user: one of `users`; by default who we are.
        lines: tell the calls by line of the library too, which takes longer.
        library: a folder with another copy of the library.
    """
    who = user or users()[0]
    options = ["--lines"] if lines else []
    with folder_of(who) as folder:
        program = [str(HERE / "budgetrun.py"), *options, driver, str(folder), *operations]
        return run(who, folder, program, library)


def run(user: str, folder: pathlib.Path, program: Sequence[str], library: str = "") -> Runs:
    """Run a program of Python, in a folder of the user, with nothing of this process's environment, and count."""
    log = folder / "trace"
    started(user, folder, [*STRACE, str(log), sys.executable, "-B", *program], library)
    with open(log, encoding="utf-8", errors="surrogateescape") as trace:
        return counted(trace)


def started(user: str, folder: pathlib.Path, command: Sequence[str], library: str = "") -> None:
    """Run a command as a user that must succeed."""
    home, here = str(folder), os.path.dirname(sys.executable)
    path = os.pathsep.join([here, os.environ["PATH"]])
    environment = {"PATH": path, "LC_ALL": "C.UTF-8", "HOME": home, "TMPDIR": home, "COLUMNS": "80"}
    environment["GRAPHDRIVERS_TEST_ID"] = str(PLAIN)
    environment |= {"PYTHONPATH": library} if library else {}
    command = [*becoming(user), *command]
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=environment, cwd=PROJECT)
    assert done.returncode == 0, done.stderr


def needs_strace() -> str:
    """Say why nothing can be traced here; empty where it can."""
    return "" if shutil.which("strace") else "strace is not installed; scripts/system-packages installs it"


def figures(runs: Runs, name: str) -> dict[str, dict[str, float]]:
    """Say how often each kind of call is made by one operation, and for each thing that there is more of."""
    small = runs[name, SMALL]
    units = {"one": {kind: float(count) for kind, count in small.calls.items()}}
    for unit, size in OPERATIONS[name].sizes.items():
        units[unit] = _more(runs[name, size].calls, small.calls, _times(size))
    return units


def places(runs: Runs, name: str, unit: str, kind: str) -> list[str]:
    """Tell the lines of the library that make a kind of call, with how many each, most first."""
    small = runs[name, SMALL].lines[kind]
    found: Mapping[str, float] = small
    if unit != "one":
        size = OPERATIONS[name].sizes[unit]
        found = _more(runs[name, size].lines[kind], small, _times(size))
    return [f"{count:g} at {line}" for line, count in sorted(found.items(), key=lambda item: -item[1])]


def _times(size: Size) -> int:
    return (size.files - SMALL.files) + (size.folders - SMALL.folders) + (size.layers - SMALL.layers)


def _more(larger: Counts, smaller: Counts, times: int) -> dict[str, float]:
    """Subtract two runs; what falls to each, where it is not nothing."""
    kinds = sorted(set(larger) | set(smaller))
    return {kind: round((larger[kind] - smaller[kind]) / times, 3) for kind in kinds if larger[kind] != smaller[kind]}
