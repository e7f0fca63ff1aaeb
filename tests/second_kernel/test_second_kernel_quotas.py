"""Limits on the size of layers, on a kernel that surely has project quotas; the one of this machine may be without."""

from concurrent.futures import Future, ThreadPoolExecutor
from subprocess import CompletedProcess

import pytest
from guests import PYTEST, ROOT, run

SCRIPT = "scripts/quota-filesystem"
ROOMS = ("tests/linux/test_linux_quota.py", "tests/linux/test_linux_capabilities.py", "tests/kit/test_quotas.py")
CONFORMANCE = ("-p", "graphdrivers.conformance.plugin", "--pyargs", "graphdrivers.conformance", "--graphdriver-require")
CLAIMED = [("xfs", "overlay"), ("xfs", "vfs"), ("xfs", "aufs"), ("ext4", "overlay"), ("ext4", "aufs"), ("ext4", "vfs")]
"""On which file system which driver keeps limits; vfs on ext4 does where it may not pass them itself."""
BOUND = ("setpriv", "--bounding-set", "-sys_resource", "--inh-caps", "-sys_resource")
OPTIONS = ("--modules", "overlay,loop,quota_v2", "--disk", "4G")
CHECKS = 8
"""Checks of the suite that are about a claimed limit."""

Running = dict[tuple[str, str], Future[CompletedProcess[str]]]


@pytest.fixture(scope="module")
def running() -> Running:
    """All guests, two at once."""

    def conform(fs_type: str, driver: str) -> CompletedProcess[str]:
        bound = BOUND if (fs_type, driver) == ("ext4", "vfs") else ()
        suite = (*PYTEST, "-v", "--tb=short", *CONFORMANCE, "--graphdriver", driver, "--graphdriver-root", "@")
        return run(SCRIPT, fs_type, *bound, *suite, "-k", "test_quotas or a_size", options=OPTIONS)

    with ThreadPoolExecutor(2) as pool:
        jobs = {one: pool.submit(conform, *one) for one in CLAIMED}
        jobs["tests", ""] = pool.submit(run, *PYTEST, "-v", "-rs", "--tb=short", *ROOMS, options=OPTIONS)
    return jobs


def test_the_rooms(running: Running) -> None:
    """The tests of quotas pass, and none was left out for want of a kernel that has them."""
    done = running["tests", ""].result()

    assert done.returncode == 0, f"{done.stdout}{done.stderr}"
    assert "needs loop devices" not in done.stdout
    assert "test_a_limit_holds[xfs] PASSED" in done.stdout
    assert "test_a_limit_holds[ext4] PASSED" in done.stdout


@pytest.mark.parametrize(("fs_type", "driver"), CLAIMED)
def test_conformance(running: Running, fs_type: str, driver: str) -> None:
    """The driver claims limits on this file system, and every check of them passes."""
    done = running[fs_type, driver].result()
    passed = [line for line in done.stdout.splitlines() if " PASSED" in line]

    assert done.returncode == 0, f"{done.stdout}{done.stderr}"
    assert len(passed) == CHECKS, done.stdout


def test_paths() -> None:
    """What is named above is there: a guest would only say so after a while."""
    assert [path for path in (SCRIPT, *ROOMS) if not (ROOT / path).exists()] == []
