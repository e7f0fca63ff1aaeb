"""What tests of the command line share."""

import os
import pathlib
from collections.abc import Iterator

import pytest
from clirun import CommandLine, make_tar
from storeimages import debian

from graphdrivers.linux import mountinfo, mounts

DRIVERS = [
    "vfs",
    "aufs",
    pytest.param("overlay", marks=pytest.mark.skipif(os.geteuid() != 0, reason="mounting an overlay needs root")),
]


@pytest.fixture
def cli(tmp_path: pathlib.Path) -> Iterator[CommandLine]:
    """The command line with the vfs driver and a fresh root."""
    yield CommandLine(tmp_path / "root")
    unmount_below(tmp_path)


@pytest.fixture(params=DRIVERS)
def any_cli(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> Iterator[CommandLine]:
    """The command line with each driver in turn."""
    yield CommandLine(tmp_path / "root", request.param)
    unmount_below(tmp_path)


@pytest.fixture
def store(cli: CommandLine, tmp_path: pathlib.Path) -> CommandLine:
    """The command line on a store (vfs) with the image ``debian:12``."""
    cli("import", str(debian(tmp_path)))
    return cli


@pytest.fixture
def any_store(any_cli: CommandLine, tmp_path: pathlib.Path) -> CommandLine:
    """The same with each driver in turn."""
    any_cli("import", str(debian(tmp_path)))
    return any_cli


def unmount_below(folder: pathlib.Path) -> None:
    """Undo what a test left mounted, so that its folder can be removed."""
    for mount in reversed(mountinfo.mounted_below(str(folder))):
        mounts.detach(mount.target, lazy=True)


@pytest.fixture
def tar() -> bytes:
    """A layer: ``etc/motd`` and ``etc/issue``."""
    return make_tar({"etc/motd": b"hello\n", "etc/issue": b"draft\n"})
