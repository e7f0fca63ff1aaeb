"""Tars made block by block, also wrong ones, and a reader that gives back everything it saw."""

import os
import shutil
import zlib
from collections.abc import Iterable
from typing import Self

import attrs
import pytest

from graphdrivers.archive.blocks import Noted
from graphdrivers.archive.entries import Entry
from graphdrivers.archive.reader import TarReader
from graphdrivers.model import Limits

END = bytes(1024)


def tool(name: str) -> str:
    """Return a program that CI has promised; skip only where its absence was announced."""
    if shutil.which(name) is None:
        if os.environ.get("GRAPHDRIVERS_OPTIONAL_TOOLS") == "1":
            pytest.skip(f"{name} is not installed")
        pytest.fail(f"{name} is not installed")
    return name


def signed_sum(block: bytes) -> int:
    """Add up a header's bytes as the signed characters of historic tars."""
    return sum(byte - 256 if byte > 127 else byte for byte in block)


def header(
    name: bytes = b"f",
    *,
    kind: bytes = b"0",
    size: bytes | int = 0,
    mode: bytes = b"0000644\0",
    uid: bytes = b"0000000\0",
    gid: bytes = b"0000000\0",
    mtime: bytes = b"00000000000\0",
    link: bytes = b"",
    magic: bytes = b"ustar\00000",
    devices: bytes = bytes(16),
    tail: bytes = b"",
    checksum: bytes | None = None,
    signed: bool = False,
) -> bytes:
    """Make one header block; ``tail`` begins where ustar has its prefix."""
    size_field = b"%011o\0" % size if isinstance(size, int) else size
    front = name.ljust(100, b"\0") + mode + uid + gid + size_field + mtime
    back = (kind + link.ljust(100, b"\0") + magic + bytes(64) + devices + tail).ljust(356, b"\0")
    block = front + b" " * 8 + back
    total = signed_sum(block) if signed else sum(block)
    return front + (b"%06o\0 " % total if checksum is None else checksum) + back


def padded(payload: bytes) -> bytes:
    """Fill a payload up to whole blocks."""
    return payload + bytes(-len(payload) % 512)


def member(name: bytes = b"f", payload: bytes = b"", **fields: object) -> bytes:
    """Make a member with its payload."""
    return header(name, **{"size": len(payload), **fields}) + padded(payload)  # type: ignore[arg-type]


def record(keyword: bytes, value: bytes) -> bytes:
    """Make one PAX record."""
    length = len(keyword) + len(value) + 3
    while length != len(text := b"%d %b=%b\n" % (length, keyword, value)):
        length = len(text)
    return text


def pax(*records: tuple[bytes, bytes], kind: bytes = b"x") -> bytes:
    """Make an extended header."""
    return member(b"pax", b"".join(record(*pair) for pair in records), kind=kind)


@attrs.define
class Recording:
    """A recorder that keeps everything in memory."""

    pieces: list[tuple[bytes | None, int, bytes | int]] = attrs.field(factory=list)
    noted: list[Noted] = attrs.field(factory=list)
    view: memoryview = attrs.field(factory=lambda: memoryview(b""))

    def literal(self, piece: bytes | memoryview) -> None:
        """Keep literal bytes."""
        self.take_noted()
        self.pieces.append((None, 0, bytes(piece)))

    def content(self, path: bytes, offset: int, piece: memoryview) -> None:
        """Keep the place of content."""
        self.take_noted()
        self.pieces.append((path, offset, len(piece)))

    def turn(self, view: memoryview) -> None:
        """Take in the files given whole."""
        self.take_noted()
        self.view = view

    def take_noted(self) -> None:
        """Do `literal` and `content` for each; an empty literal leaves no trace."""
        noted, self.noted = self.noted, []
        for start, end, path, length, crc in noted:
            assert crc == zlib.crc32(self.view[end : end + length])
            if start < end:
                self.pieces.append((None, 0, bytes(self.view[start:end])))
            self.pieces.append((path, 0, length))

    def tar(self, files: dict[bytes, bytes]) -> bytes:
        """Put the tar together again."""
        return b"".join(
            what if isinstance(what, bytes) else files[path or b""][offset : offset + what]
            for path, offset, what in self.pieces
        )


class Trickle:
    """A source that gives little at a time, in uneven amounts."""

    def __init__(self, tar: bytes, sizes: Iterable[int] = (1, 511, 513, 7000)) -> None:
        """Give ``tar`` in pieces of ``sizes``, over and over."""
        self._tar = tar
        self._sizes = tuple(sizes)
        self._position = self._turn = 0

    def read(self, size: int, /) -> bytes:
        """Give the next piece."""
        step = min(size, self._sizes[self._turn % len(self._sizes)])
        self._turn += 1
        piece = self._tar[self._position : self._position + step]
        self._position += len(piece)
        return piece


@attrs.define
class Seen:
    """What reading a tar gave."""

    entries: list[Entry]
    files: dict[bytes, bytes]
    recording: Recording
    tapped: bytes

    @classmethod
    def of(cls, tar: bytes, limits: Limits = Limits(), *, chunk: int = 1 << 20, source: object = None) -> Self:
        """Read a whole tar, every payload too; each payload is recorded under the member's number."""
        recording, tapped = Recording(), bytearray()
        source = Trickle(tar, (chunk,)) if source is None else source
        reader = TarReader(source, limits, recorder=recording, tap=tapped.extend, chunk=chunk)  # type: ignore[arg-type]
        entries: list[Entry] = []
        files: dict[bytes, bytes] = {}
        while (entry := reader.next()) is not None:
            entries.append(entry)
            if entry.kind == b"0":
                path = b"%d" % len(entries)
                files[path] = read_payload(reader, entry, path)
        reader.drain()
        return cls(entries, files, recording, bytes(tapped))

    def content(self, name: bytes) -> bytes:
        """Return the content of the last regular file of a name."""
        numbers = [i for i, entry in enumerate(self.entries, 1) if entry.name == name and entry.kind == b"0"]
        return self.files[b"%d" % numbers[-1]]


def read_payload(reader: TarReader, entry: Entry, path: bytes | None) -> bytes:
    """Read the present member's payload, holes as zeros."""
    whole = reader.stored(path)
    if whole is not None:
        return bytes(whole)
    content = bytearray(entry.size)
    for offset, piece in reader.pieces(path):
        content[offset : offset + len(piece)] = piece
    return bytes(content)
