"""What tests of the command line share."""

import io
import os
import pathlib
import sys
import tarfile
from collections.abc import Iterator

import pytest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "images"))

from clirun import CommandLine
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


def make_tar(files: dict[str, bytes]) -> bytes:
    """Make a tar of regular files, ours."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.uid, member.gid = len(content), os.geteuid(), os.getegid()
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()
