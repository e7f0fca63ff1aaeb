# ruff: noqa: INP001, S101 -- pytest asserts, and a folder of tests is no package
"""The whole conformance suite and the driver's own tests, each part in a guest whose kernel has a device mapper."""

import os
import pathlib
import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from graphdrivers.conformance import suite

HERE = pathlib.Path(__file__).resolve().parent
PLUGIN = HERE.parent
ROOT = PLUGIN.parents[1]
UNSAVED = "ignore:The database setting is not configured"
"""What hypothesis says where it cannot write to the folder that it is run in."""
PYTEST = (sys.executable, "-P", "-m", "pytest", "-p", "no:cacheprovider", "-W", UNSAVED, "-v", "--tb=short")
DRIVER = ("--graphdriver", "devicemapper", "--graphdriver-require", "--graphdriver-examples", "3")
"""With fewer random lives than elsewhere: they are a sixth of the time, and a guest is slow."""
FILES = sorted({check.partition("::")[0] for check in suite.listed()})
XFS = ("test_quotas.py", "test_snapshots.py")
PARTS: dict[str, tuple[str, ...]] = {
    "suite, one half": ("-p", "graphdrivers.conformance.plugin", *DRIVER, *FILES[::2]),
    "suite, other half": ("-p", "graphdrivers.conformance.plugin", *DRIVER, *FILES[1::2]),
    "own tests": (*DRIVER, *(str(path) for path in sorted((PLUGIN / "tests").glob("test_*.py")))),
    "xfs": ("-p", "graphdrivers.conformance.plugin", *DRIVER, "--graphdriver-opt", "fs=xfs", *XFS),
}
Running = dict[str, Future[subprocess.CompletedProcess[str]]]


def run(*command: str, script: tuple[str, ...] = ("with-device-mapper",)) -> subprocess.CompletedProcess[str]:
    """Run a command in a guest, to its end."""
    program = [str(PLUGIN / "tests" / script[0]), "--memory", "1G", "--timeout", "1800", *script[1:], "--"]
    return subprocess.run([*program, *command], check=False, capture_output=True, text=True, cwd=PLUGIN)


@pytest.fixture(scope="module")
def running() -> Iterator[Running]:
    """All guests, as many at once as there are processors: a guest has only one."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        yield {part: pool.submit(run, *PYTEST, *arguments) for part, arguments in PARTS.items()}


@pytest.mark.parametrize("part", PARTS)
def test_it_passes(running: Running, part: str) -> None:
    """Every check of this part passes, or needs what the driver does not claim."""
    done = running[part].result()

    assert done.returncode == 0, f"{done.stdout}{done.stderr}"
    assert " PASSED" in done.stdout
    if part == "own tests":
        assert " SKIPPED" not in done.stdout
    else:
        assert re.search(r"graphdriver devicemapper: [1-9]\d* checks ran, 0 failed", done.stdout), done.stdout


ASK = """
import sys
from graphdrivers import errors, loading
try:
    print(loading.load_driver("devicemapper", "/tmp/home").support.engine)
except errors.DriverUnavailable as error:
    print(type(error).__name__, "|", error.reason, "|", error.advice)
"""


@pytest.mark.parametrize(
    ("options", "before", "words"),
    [
        (("--modules", "overlay"), "", "NotSupported | the kernel has no device mapper | modprobe dm_thin_pool"),
        (("--modules", "dm-mod,loop"), "", "NotSupported | the kernel's device mapper has no thin pools"),
        (("--modules", "dm-thin-pool"), "", "PrerequisiteMissing | there are no loop devices"),
        (
            (),
            "mount --bind /dev/null /usr/sbin/mkfs.ext4;",
            "PrerequisiteMissing | mkfs.ext4 is not installed | install",
        ),
        (
            (),
            "setpriv --bounding-set=-sys_admin --inh-caps=-sys_admin",
            "PrerequisiteMissing | the device mapper serves",
        ),
        ((), "rm /dev/mapper/control;", "PrerequisiteMissing | /dev/mapper/control is missing here | mknod"),
        (("--disk", "128M"), "", "IncompatibleFilesystem | .* MiB are free in '/tmp', too little"),
    ],
)
def test_what_is_missing_is_said(options: tuple[str, ...], before: str, words: str) -> None:
    """Where the driver cannot work, its probe says why, and what to do."""
    done = run("sh", "-c", f'{before} exec "$@"' if not before.startswith("setpriv") else f'{before} "$@"', "sh",
               sys.executable, "-c", ASK, script=("with-device-mapper", *options))  # fmt: skip

    assert re.match(words.replace("|", r"\|"), done.stdout), f"{done.stdout}{done.stderr}"


def test_a_user_namespace_is_told_apart() -> None:
    """Root of a user namespace may not use the device mapper, wherever that runs."""
    done = subprocess.run(
        ["unshare", "--user", "--map-root-user", sys.executable, "-c", ASK], check=True, capture_output=True, text=True
    )

    assert done.stdout.startswith("PrerequisiteMissing | the device mapper serves root outside of user namespaces")
