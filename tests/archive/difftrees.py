"""Small real trees, and the layer tars of what differs between them."""

import io
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path

from graphdrivers.archive.compare import compare
from graphdrivers.archive.entries import Difference
from graphdrivers.archive.plain import EmptyTree, PlainTree
from graphdrivers.archive.produce import produce

NS = 1_000_000_000
TIME = 1_700_000_000 * NS + 123_456_789


def differences(upper: Path, lower: Path | None = None) -> Iterator[Difference]:
    """Compare two real trees."""
    fds = [os.open(tree, os.O_RDONLY) for tree in (lower, upper) if tree is not None]
    try:
        with PlainTree(fds[-1]) as new:
            old = EmptyTree() if lower is None else PlainTree(fds[0])
            yield from compare(old, new)
    finally:
        for fd in fds:
            os.close(fd)


def layer(upper: Path, lower: Path | None = None, **more: object) -> bytes:
    """Produce the whole tar."""
    with produce(differences(upper, lower), **more) as stream:  # type: ignore[arg-type]
        return stream.read()


def members(tar: bytes) -> list[tarfile.TarInfo]:
    """Read the tar with the standard library."""
    with tarfile.open(fileobj=io.BytesIO(tar), errors="surrogateescape") as reader:
        return reader.getmembers()


def names(tar: bytes) -> list[str]:
    """List member names as written; a hard link as ``name=target``, a directory with its slash."""
    listed = []
    for member in members(tar):
        link = f"={member.linkname}" if member.islnk() else ""
        listed.append(member.name + ("/" if member.isdir() else "") + link)
    return listed


def same_time(*trees: Path) -> None:
    """Give all directories one time, so that only what a test changes differs."""
    for tree in trees:
        for base, _, _ in os.walk(tree):
            os.utime(base, ns=(TIME, TIME))


def fill(tree: Path, *paths: str) -> None:
    """Make files, and directories where a path ends in a slash."""
    for path in paths:
        place = tree / path
        (place if path.endswith("/") else place.parent).mkdir(parents=True, exist_ok=True)
        if not path.endswith("/"):
            place.write_bytes(path.encode())
            os.utime(place, ns=(TIME, TIME))
