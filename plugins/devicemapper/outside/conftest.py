# ruff: noqa: INP001 -- a folder of tests is no package
"""What the tests share that boot guests: they run on this machine, whose kernel need not have a device mapper."""

import os
import shutil
import subprocess
import sys

import pytest

PATH = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"


@pytest.fixture(scope="session", autouse=True)
def programs() -> None:
    """Need the kernel to boot, and what looks at pools."""
    missing = [
        name for name in ("linux.uml", "thin_check", "mkfs.ext4", "mkfs.xfs") if not shutil.which(name, path=PATH)
    ]
    if not missing:
        return
    if os.environ.get("GRAPHDRIVERS_OPTIONAL_TOOLS") == "1":
        pytest.skip(f"{missing[0]} is not installed and GRAPHDRIVERS_OPTIONAL_TOOLS is set")
    pytest.fail(f"{', '.join(missing)}: not installed (GRAPHDRIVERS_OPTIONAL_TOOLS=1 skips what needs it)")


@pytest.fixture(scope="session", autouse=True)
def compiled(programs: None) -> None:  # noqa: ARG001 - where they are missing, nothing is to be done
    """Let pytest compile the checks of the suite and keep that, once: guests can read it, and write nothing."""
    suite = ("-p", "graphdrivers.conformance.plugin", "--pyargs", "graphdrivers.conformance", "--graphdriver", "vfs")
    command = (sys.executable, "-P", "-m", "pytest", "-q", "-p", "no:cacheprovider", "--collect-only", *suite)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environment)
