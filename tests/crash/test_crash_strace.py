"""The same with strace(1) at the kernel's door, where SQLite's own calls are seen too."""

import collections
import os
import pathlib
import random
import re
import shutil
import signal
import subprocess
import sys

import pytest
from operations import check, damage, prepared, start

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")

CALLS = int(os.environ.get("GRAPHDRIVERS_STORE_STRACE", "3"))
"""System calls of each operation before which it is killed, and as many that fail; 0 for all of them."""

WATCHED = (
    "write,pwrite64,writev,rename,renameat,renameat2,mkdir,mkdirat,unlink,unlinkat,rmdir,link,linkat,symlinkat,fchmod,"
    "chmod,fchmodat,fchown,fchownat,lchown,chown,utimensat,setxattr,lsetxattr,fsetxattr,fsync,fdatasync,syncfs,"
    "ftruncate,fallocate,move_mount,fsconfig,umount2"
)

OPERATIONS = {
    "import": "store.import_image(memory + '/more0', name='more')",
    "create": "store.create('image', name='second')",
    "fork": "store.container('box').fork('second')",
    "rollback": "store.container('box').rollback('one')",
    "repair": "repair()",
    "rmi": "store.container('box').remove(), store.remove_image('image')",
    "reopen": "None",
}

SCRIPT = """
import os, sys
from graphdrivers import errors, open_store
from graphdrivers.images import opening
memory, operation = sys.argv[1:]

def repair():
    with opening.open_image(memory + "/image") as source:
        if store.repair(list(store.check(deep=True)), [source]).lost:
            os._exit(3)

os.access("/begin", 0)
try:
    with open_store(memory + "/store", durability="layer") as store:
        eval(operation)
except (errors.GraphDriverError, OSError) as error:
    os._exit(3)
os._exit(0)
"""


@pytest.fixture(autouse=True)
def strace() -> None:
    """Let nothing go on without the program; it is skipped where that was asked for."""
    if shutil.which("strace") is None:
        if os.environ.get("GRAPHDRIVERS_OPTIONAL_TOOLS") == "1":
            pytest.skip("strace is not installed")
        pytest.fail("strace is not installed (GRAPHDRIVERS_OPTIONAL_TOOLS=1 skips what needs it)")


def run(memory: pathlib.Path, operation: str, *options: str) -> int:
    """Run an operation below strace; give how it ended."""
    program = [sys.executable, "-B", "-c", SCRIPT, str(memory), OPERATIONS[operation]]
    done = subprocess.run(["strace", "-f", "-qq", *options, *program], check=False, capture_output=True)
    assert done.returncode in {0, 3, -signal.SIGKILL, 128 + signal.SIGKILL}, done.stderr.decode()
    return done.returncode


def calls_of(memory: pathlib.Path, operation: str) -> list[tuple[str, int]]:
    """Give the calls that an operation makes: name, and which one of this name in its thread."""
    log = memory / "log"
    assert run(memory, operation, "-o", str(log), "-e", f"trace={WATCHED},access,faccessat,faccessat2") == 0
    counts: collections.Counter[tuple[str, str]] = collections.Counter()
    found: dict[tuple[str, int], None] = {}
    begun = False
    for line in log.read_text().splitlines():
        begun = begun or '"/begin"' in line
        if (match := re.match(r"(\d+) +(\w+)\(", line)) and "access" not in match[2]:
            counts[match[1], match[2]] += 1
            if begun:
                found[match[2], counts[match[1], match[2]]] = None
    return list(found)


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("how", ["signal=SIGKILL", "error=ENOSPC", "error=EIO"])
def test_each_system_call(memory: pathlib.Path, operation: str, how: str) -> None:
    """Killed before a system call, or that call fails: the store is as before or as after, and opens by itself."""
    dice = random.Random(operation + how)

    def ready() -> None:
        prepared(memory, "vfs")
        if operation == "repair":
            with start(memory) as store:
                damage(store)
        if operation == "reopen":  # what is there to recover from
            run(memory, "rmi", "-o", "/dev/null", "-e", "trace=unlinkat", "-e", "inject=unlinkat:signal=SIGKILL:when=3")

    ready()
    calls = calls_of(memory, operation)
    assert len(calls) > 8
    chosen = calls if not CALLS else dice.sample(calls, min(CALLS if "KILL" in how else CALLS // 2, len(calls)))
    for number, (call, ordinal) in enumerate(chosen):
        os.rename(memory / "store", memory / f"old{number}")
        ready()
        inject = f"inject={call}:{how}:when={ordinal}"
        status = run(memory, operation, "-o", "/dev/null", "-e", f"trace={call}", "-e", inject)
        try:
            check(memory, *(("rmi", False) if operation == "reopen" else (operation, status == 0)))
        except AssertionError as error:
            raise AssertionError(f"after {inject}, which ended with {status}") from error
        os.makedirs(memory / "store", exist_ok=True)
