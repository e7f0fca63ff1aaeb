"""A package index that is a folder: the wheel of this checkout, and of what it and its plugins' authors need."""

import os
import pathlib
import shutil
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent.parent
BUILT = ("graphdrivers", "LICENSE", "README.md", "pyproject.toml", "setup.cfg")
"""What the wheel is made of."""

NEEDED = ("copier", "setuptools>=77", "tox")
"""What a plugin's author uses beside this library."""


@pytest.fixture(scope="session")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A copy of what the wheels are built from: building leaves folders behind, and the checkout may be read-only."""
    copy = tmp_path_factory.mktemp("checkout") / "graphdrivers"
    copy.mkdir()
    left_out = shutil.ignore_patterns("__pycache__", "*.egg-info", "build", "dist", ".*_cache", ".tox")
    for name in BUILT:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, copy / name, ignore=left_out)
        else:
            shutil.copy(source, copy / name)
    for name in ("example", "template"):
        shutil.copytree(ROOT / "plugins" / name, copy / "plugins" / name, ignore=left_out)
    return copy


@pytest.fixture(scope="session")
def wheelhouse(checkout: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """The folder: pip finds everything in it, and nothing anywhere else."""
    house = tmp_path_factory.mktemp("wheelhouse")
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--wheel-dir",
        house,
        f"{checkout}[conformance]",
        *NEEDED,
    ]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return house


@pytest.fixture
def author(wheelhouse: pathlib.Path, checkout: pathlib.Path, tmp_path: pathlib.Path) -> dict[str, str]:
    """The environment of somebody who has Python, git, and in ``tmp_path`` the checkout, and nothing else of ours."""
    programs, temporary = tmp_path / ".programs", tmp_path / ".tmp"
    programs.mkdir()
    temporary.mkdir()
    # No link: a Python that is started through one would take that place for its own.
    (programs / "python3").write_text(f'#!/bin/sh\nexec "{os.path.realpath(sys.executable)}" "$@"\n')
    (programs / "python3").chmod(0o755)
    (tmp_path / "graphdrivers").symlink_to(checkout)
    return {
        "PATH": f"{programs}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": str(tmp_path),
        "TMPDIR": str(temporary),
        "TZ": "UTC",
        "LC_ALL": "C.UTF-8",
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PIP_FIND_LINKS": str(wheelhouse),
        "PIP_NO_INDEX": "1",
    }
