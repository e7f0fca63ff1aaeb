"""Stand-ins for older kernels, and overlays to mount, for the tests of this room."""

import ctypes
import os
import pathlib
from collections.abc import Callable

from graphdrivers.linux import mountinfo
from graphdrivers.model import Mount


def fail_with(number: int) -> Callable[..., int]:
    """Make a stand-in for a system call that always fails."""

    def call(*_arguments: object) -> int:
        ctypes.set_errno(number)
        return -1

    return call


def overlay(base: pathlib.Path, lowers: int, names: str = "layer-{}", *, upper: bool = True) -> Mount:
    """Make directories with one file each and plan an overlay of them."""
    options: list[tuple[str, str | None]] = []
    for number in range(lowers):
        directory = os.path.join(base, names.format(number))
        os.makedirs(directory)
        with open(os.path.join(directory, f"file-{number}"), "w", encoding="ascii") as file:
            file.write(str(number))
        options.append(("lowerdir+", directory))
    for key in ("upperdir", "workdir") if upper else ():
        directory = os.path.join(base, names.format(key))
        os.makedirs(directory)
        options.append((key, directory))
    return Mount("overlay", "test", tuple(options))


def mounts_from(folder: pathlib.Path) -> list[mountinfo.MountPoint]:
    """Give the mounts of the table that are of something in a folder, or in it; others mount and unmount meanwhile."""
    # Its last two names: the root of a mount is a path in the file system, without where that itself is mounted.
    name = f"{folder.parent.name}/{folder.name}"

    def told(mount: mountinfo.MountPoint) -> list[str]:
        return [mount.root, mount.target, mount.source, *(value or "" for _, value in mount.super_options)]

    return [mount for mount in mountinfo.read() if any(name in text for text in told(mount))]


def chain(directory: int, name: bytes, depth: int) -> None:
    """Make ``name`` and below it ``depth`` directories, one in the other, with a file at the end."""
    os.mkdir(name, dir_fd=directory)
    here = os.open(name, os.O_RDONLY, dir_fd=directory)
    for _ in range(depth):
        os.mkdir("d", dir_fd=here)
        deeper = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = deeper
    end = os.open("file", os.O_WRONLY | os.O_CREAT, dir_fd=here)
    os.write(end, b"deep")
    os.close(end)
    os.close(here)
