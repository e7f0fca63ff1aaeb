"""What programs do to a tree, as edits: a build step, a short container, a sandbox, a package manager."""

from collections.abc import Iterator

from graphdrivers.bench.contents import File, content
from graphdrivers.edits import Chmod, Create, Edit, Mkdir, Remove, Rename, Sync, Write

PACKAGES = 20
"""Packages that the ground of ``packages`` holds."""

PACKAGE_FILES = 25
"""Files of one package."""

_SIZE = 2048
"""Bytes of a small file."""


def new_files(folder: str, count: int, size: int = _SIZE) -> Iterator[Edit]:
    """Make a directory with ``count`` files, a hundred to a subdirectory."""
    yield Mkdir(folder)
    for number in range(count):
        if number % 100 == 0:
            yield Mkdir(f"{folder}/{number // 100}")
        yield Create(f"{folder}/{number // 100}/file-{number}", content(size, number))


def build_step(number: int) -> Iterator[Edit]:
    """Do what one line of a Dockerfile does: new files, a script made executable, leftovers of the line before gone."""
    folder = f"build-{number}"
    yield from new_files(folder, 20)
    yield Create(f"{folder}/run", b"#!/bin/sh\n" + content(_SIZE, number))
    yield Chmod(f"{folder}/run", 0o755)
    yield Create("build.log" if number == 0 else f"build-{number}.log", content(_SIZE))
    if number:
        yield Remove(f"build-{number - 1}/0")


def short_container(_number: int) -> Iterator[Edit]:
    """Do what a test in a container does: some results, a log, a temporary file that goes again."""
    yield from new_files("results", 10)
    yield Create("results/log", content(16 << 10))
    yield Create("results/temporary", content(_SIZE))
    yield Remove("results/temporary")


def sandbox_step(number: int) -> Iterator[Edit]:
    """Do what a program tries in its sandbox: a note replaced, a few files written."""
    folder = f"attempt-{number}"
    yield Mkdir(folder)
    for file in range(5):
        yield Create(f"{folder}/{file}", content(_SIZE, file))
    yield Write(f"{folder}/0", content(_SIZE, number))


def packages() -> Iterator[File]:
    """Describe what is installed."""
    for package in range(PACKAGES):
        for name in _names(package):
            yield File(name, 2 * _SIZE)
        yield File(f"var/lib/dpkg/info/package-{package}.list", _SIZE)
    yield File("var/lib/dpkg/status", 64 << 10)


def upgrade(package: int) -> Iterator[Edit]:
    """Replace a package's files as dpkg does: all of them written beside the old ones, made durable, renamed over them.

    Source: dpkg's ``src/main/archives.c`` (``tar_deferred_extract``): NAME.dpkg-new, fsync(2), rename(2).
    """
    names = [*_names(package), f"var/lib/dpkg/info/package-{package}.list"]
    for number, name in enumerate(names):
        yield Create(f"{name}.dpkg-new", content(2 * _SIZE, number + 1))
        yield Chmod(f"{name}.dpkg-new", 0o644)
    for name in names:
        yield Sync(f"{name}.dpkg-new")
        yield Rename(f"{name}.dpkg-new", name)
    yield from _status(package)


def purge(package: int) -> Iterator[Edit]:
    """Remove a package's files and its directory."""
    for name in _names(package):
        yield Remove(name)
    yield Remove(f"usr/share/package-{package}")
    yield Remove(f"var/lib/dpkg/info/package-{package}.list")
    yield from _status(package)


def _names(package: int) -> list[str]:
    return [f"usr/share/package-{package}/file-{number}" for number in range(PACKAGE_FILES)]


def _status(package: int) -> Iterator[Edit]:
    """Write the package database anew."""
    yield Create("var/lib/dpkg/status-new", content(64 << 10, package))
    yield Sync("var/lib/dpkg/status-new")
    yield Rename("var/lib/dpkg/status-new", "var/lib/dpkg/status")
