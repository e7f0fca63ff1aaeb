"""What the tests that boot a second kernel share.

They run where this folder, or a file in it, is named (``tox -e second-kernel``), not with all the others: a guest is
the same whatever the Python.
"""

import os
import pathlib
import shutil
import subprocess
import sys

import pytest

HERE = pathlib.Path(__file__).parent


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the long form."""
    parser.addoption("--full", action="store_true", help="second kernel: whole suites, and the tests of linux/ too")


def pytest_ignore_collect(config: pytest.Config) -> bool | None:
    """Leave the folder out unless it is named."""
    named = (pathlib.Path(argument.partition("::")[0]).absolute() for argument in config.args)
    return None if any(path.is_relative_to(HERE) for path in named) else True


@pytest.fixture(scope="session", autouse=True)
def user_mode_linux() -> None:
    """Need the kernel to boot."""
    if shutil.which("linux.uml"):
        return
    if os.environ.get("GRAPHDRIVERS_OPTIONAL_TOOLS") == "1":
        pytest.skip("linux.uml is not installed and GRAPHDRIVERS_OPTIONAL_TOOLS is set")
    pytest.fail("linux.uml is not installed (GRAPHDRIVERS_OPTIONAL_TOOLS=1 skips what needs it)")


@pytest.fixture(scope="session", autouse=True)
def compiled(user_mode_linux: None) -> None:  # noqa: ARG001 - where it is missing, nothing is to be done
    """Let pytest compile the checks of the suite and keep that, once: guests can read it, and write nothing."""
    suite = ("-p", "graphdrivers.conformance.plugin", "--pyargs", "graphdrivers.conformance", "--graphdriver", "vfs")
    command = (sys.executable, "-P", "-m", "pytest", "-q", "-p", "no:cacheprovider", "--collect-only", *suite)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environment)
