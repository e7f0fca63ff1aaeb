"""Every driver under Linux 6.1, where overlay is mounted through ``mount(2)``: one string of options, a page long.

The short form leaves out what has little to do with mounts and takes long; ``--full`` leaves out nothing.
"""

import os
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from subprocess import CompletedProcess

import pytest
from guests import PYTEST, ROOT, run

from graphdrivers import loading

DRIVERS = [driver.name for driver in loading.list_drivers() if driver.distribution == "graphdrivers"]
PROOF = "tests/second_kernel/inside/older_mounts.py"
CONFORMANCE = ("-p", "graphdrivers.conformance.plugin", "--pyargs", "graphdrivers.conformance", "--graphdriver-require")
MOUNTS = (
    "tests/linux/test_linux_mounts.py",
    "tests/linux/test_linux_legacy_mount.py",
    "tests/linux/test_linux_probe.py",
)
ROOMS = ("tests/linux", "tests/kit", "tests/backends")
LATER = "--ignore-glob=tests/backends/test_aufs_*.py"
"""These set xattrs of overlay's own names in a mount, which Linux 6.7 brought; the suite covers aufs in the guest."""
SHORT = "not crash and not stress and not stateful"
"""What of the suite belongs to the short form; ``-k`` also looks at the names of files."""
FAMILIES = ("an_empty_layer", "views_are_unlimited", "a_deep_stack", "odd_names", "w1_a_whiteout", "random_edits")
"""One check of each kind that must be among those that passed."""

SHORTER = " or ".join(("mounted", "lifecycle", *FAMILIES))
"""The same for the drivers that mount nothing of their own here, or by the same overlay."""

Running = dict[str, Future[CompletedProcess[str]]]


def in_guest(arguments: Sequence[str]) -> CompletedProcess[str]:
    """Run pytest in a guest of its own, after the proof that it is the kernel that is meant."""
    options = ("--modules", "overlay,loop", "--disk", "4G")
    return run(*PYTEST, "-v", "--tb=short", PROOF, *arguments, options=options)


@pytest.fixture(scope="module")
def running(request: pytest.FixtureRequest) -> Iterator[Running]:
    """All guests, as many at once as there are processors: a guest has only one."""
    full = request.config.getoption("--full")
    jobs = {}
    for name in DRIVERS:
        chosen = () if full else ("-k", f"({SHORT if name == 'overlay' else SHORTER}) or older_mounts")
        jobs[name] = (*CONFORMANCE, "--graphdriver", name, "--graphdriver-root", "/tmp", *chosen)  # noqa: S108 - the guest's
    jobs["linux"] = (*ROOMS, LATER) if full else MOUNTS
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        yield {name: pool.submit(in_guest, arguments) for name, arguments in jobs.items()}


def passed(output: str, name: str) -> bool:
    """Tell whether a test whose name contains ``name`` passed."""
    return re.search(rf"::test_{name}\S* PASSED", output) is not None


def checked(done: CompletedProcess[str]) -> str:
    """Give the output of a run in which all went well."""
    assert done.returncode == 0, f"{done.stdout}{done.stderr}"
    assert passed(done.stdout, "it_is_the_older_kernel")
    return done.stdout


def test_the_built_in_drivers_are_there() -> None:
    """None of the drivers that this distribution offers is left out by accident."""
    assert {"overlay", "vfs"} <= set(DRIVERS)


@pytest.mark.parametrize("driver", DRIVERS)
def test_conformance(running: Running, driver: str) -> None:
    """The driver passes the conformance suite, and at least one check of each kind was among it."""
    output = checked(running[driver].result())

    assert [name for name in FAMILIES if not passed(output, name)] == []


def test_the_deepest_stack_is_mounted(running: Running) -> None:
    """The depth that overlay claims holds here too: 500 layers are named within a page."""
    assert passed(checked(running["overlay"].result()), "the_depth_limit")


def test_mounts(running: Running) -> None:
    """The tests of mounts pass on this kernel; in the long form all of ``linux`` and ``backends`` but `LATER`."""
    assert passed(checked(running["linux"].result()), "options_around_one_page")


def test_paths() -> None:
    """What is named above is there: pytest in a guest would only say so after a while."""
    assert [path for path in (PROOF, *MOUNTS, *ROOMS) if not (ROOT / path).exists()] == []
