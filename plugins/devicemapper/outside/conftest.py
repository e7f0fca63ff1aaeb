# ruff: noqa: INP001 -- a folder of tests is no package
"""What the tests share that boot guests: they run on this machine, whose kernel need not have a device mapper."""

import os
import shutil

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
