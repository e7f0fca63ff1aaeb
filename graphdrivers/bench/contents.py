"""Files to measure with: their names and sizes, and bytes that no file system can make smaller."""

import io
import os
import random
import tarfile
from collections.abc import Iterable
from typing import BinaryIO

import attrs

_BLOCK = random.Random(0).randbytes(1 << 20)  # noqa: S311 - the same bytes every time are what is wanted
"""Longer than what a file system's compressor looks back."""


@attrs.frozen
class File:
    """A regular file that `write_tar` makes: the same name and size have the same content."""

    path: str
    size: int


def content(size: int, start: int = 0) -> bytes:
    """Give ``size`` bytes, other ones for each ``start`` below a million."""
    shifted = _BLOCK[start % len(_BLOCK) :] + _BLOCK[: start % len(_BLOCK)]
    return (shifted * (size // len(shifted) + 1))[:size]


def write_tar(files: Iterable[File], sink: BinaryIO) -> None:
    """Write a layer's tar of files that belong to the caller."""
    with tarfile.open(fileobj=sink, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for number, file in enumerate(files):
            member = tarfile.TarInfo(file.path)
            member.size, member.mode = file.size, 0o644
            member.uid, member.gid = os.geteuid(), os.getegid()
            tar.addfile(member, _Endless(number))


class _Endless(io.RawIOBase):
    """The block over and over; tarfile reads as much as the member is long."""

    def __init__(self, start: int) -> None:
        self._at = start % len(_BLOCK)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # what io calls it with
        piece = _BLOCK[self._at : self._at + len(buffer)]
        self._at = (self._at + len(piece)) % len(_BLOCK)
        buffer[: len(piece)] = piece
        return len(piece)
