"""A small real image, made of this machine's own files: no network, no root, nothing to ship.

Three layers over Python's standard library, each with what layers are made of:
edits, additions, whiteouts, an opaque directory, links. The same machine gives
the same image, byte for byte.
"""

import hashlib
import json
import os
import sysconfig
from collections.abc import Callable, Iterator, Sequence
from typing import BinaryIO

import attrs
from isal import isal_zlib

from graphdrivers.archive.entries import DIRECTORY, HARDLINK, REGULAR, SYMLINK
from graphdrivers.archive.writer import TarWriter
from graphdrivers.images.descriptors import OCI_CONFIG, OCI_INDEX, OCI_MANIFEST, REF_NAME, Platform
from graphdrivers.model import Progress

REFERENCE = "sample:latest"
"""What the image is called in the layout."""

_OCI_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
_SKIPPED = frozenset({"__pycache__", "site-packages", "dist-packages"})
_LIBRARY = "usr/lib/python"
_DELETE, _EDIT, _LINK = 25, 10, 40
"""Of the lowest layer's files, one in so many is deleted, edited, edited and linked."""
_ADDED = 200
_GZIP_LEVEL = 2
_GZIP_BITS = 31
"""A window of 2**15 bytes, in gzip's frame, whose header then has no name and no time."""

_EPOCH = 1_700_000_000 * 10**9
_DAY = 86_400 * 10**9


@attrs.frozen
class _Source:
    """One file of the standard library."""

    name: str
    """Relative to the library."""
    path: str
    mode: int
    link: str | None

    @property
    def folder(self) -> str:
        return os.path.dirname(self.name)

    def content(self) -> bytes:
        with open(self.path, "rb") as stream:
            return stream.read()


class _Layer:
    """A layer while it is written: one tar, compressed and hashed on the way. Each layer is a day younger."""

    def __init__(self, sink: BinaryIO, number: int, progress: Progress | None) -> None:
        self._digest = hashlib.sha256()
        self._sink = sink
        self._gzip = isal_zlib.compressobj(_GZIP_LEVEL, wbits=_GZIP_BITS)
        self._tar = TarWriter(self._write)
        self._time = _EPOCH + number * _DAY
        self._progress = progress
        self._written = 0
        self._folders: set[str] = set()

    def folder(self, name: str) -> None:
        """Add a directory and those above it, unless the layer has them."""
        if name and name not in self._folders:
            self.folder(os.path.dirname(name))
            self._folders.add(name)
            self._member(f"{name}/", DIRECTORY, 0o755)

    def file(self, name: str, content: bytes, mode: int = 0o644) -> None:
        self.folder(os.path.dirname(name))
        self._member(name, REGULAR, mode, size=len(content))
        self._tar.payload(content)
        self._tar.pad(len(content))

    def link(self, name: str, target: str, kind: bytes = SYMLINK, mode: int = 0o777) -> None:
        self.folder(os.path.dirname(name))
        self._member(name, kind, mode, target=target)

    def whiteout(self, name: str) -> None:
        folder, base = os.path.split(name)
        self.file(f"{folder}/.wh.{base}", b"", 0)

    def opaque(self, name: str) -> None:
        self.file(f"{name}/.wh..wh..opq", b"", 0)

    def close(self) -> str:
        """End the tar; returns its DiffID."""
        self._tar.close()
        self._sink.write(self._gzip.flush())
        return f"sha256:{self._digest.hexdigest()}"

    def _member(self, name: str, kind: bytes, mode: int, *, size: int = 0, target: str = "") -> None:
        self._tar.header(os.fsencode(name), kind, (mode, 0, 0), size, self._time, linkname=os.fsencode(target))

    def _write(self, piece: bytes) -> None:
        self._digest.update(piece)
        self._sink.write(self._gzip.compress(piece))
        self._written += len(piece)
        if self._progress:
            self._progress(self._written)


def build_sample(directory: str, *, size_max: int = 60 << 20, progress: Progress | None = None) -> str:
    """Build the image as an OCI layout, for `graphdrivers.images.opening.open_image`.

    Args:
        directory: a new folder to make it in.
        size_max: bytes of files in the lowest layer; a file that would pass it is left out.
        progress: called with the uncompressed bytes written of the present layer; it starts again with each.

    Returns:
        ``directory``.

    Raises:
        FileExistsError: it exists already.
    """
    os.makedirs(os.path.join(directory, "blobs", "sha256"))
    sources = list(_standard_library(sysconfig.get_path("stdlib"), size_max))
    layers, diff_ids = [], []
    for number, fill in enumerate((_fill_base, _fill_edits, _fill_removals)):
        descriptor, diff_id = _add_layer(directory, number, fill, sources, progress)
        layers.append(descriptor)
        diff_ids.append(diff_id)
    _add_documents(directory, layers, diff_ids)
    return directory


def _standard_library(root: str, left: int) -> Iterator[_Source]:
    """Give its files and symbolic links, sorted, up to the size limit."""
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(set(folders) - _SKIPPED)
        for file in sorted(files):
            path = os.path.join(folder, file)
            size = os.lstat(path).st_size
            if size <= left:
                left -= size
                link = os.readlink(path) if os.path.islink(path) else None
                mode = os.lstat(path).st_mode & 0o777
                yield _Source(os.path.relpath(path, root), path, mode, link)


def _fill_base(layer: _Layer, sources: Sequence[_Source]) -> None:
    """Put the library in, as it is."""
    layer.file("etc/hostname", b"sample\n")
    layer.link("lib", "usr/lib")
    for source in sources:
        name = f"{_LIBRARY}/{source.name}"
        if source.link is not None:
            layer.link(name, source.link)
        else:
            layer.file(name, source.content(), source.mode)


def _fill_edits(layer: _Layer, sources: Sequence[_Source]) -> None:
    """Edit and delete some of it, link what was edited, add new files."""
    for position, source in enumerate(source for source in sources if source.link is None):
        name = f"{_LIBRARY}/{source.name}"
        if position % _DELETE == 1:
            layer.whiteout(name)
        elif position % _EDIT == 0:
            layer.file(name, source.content() + b"\n# edited\n", source.mode)
            if position % _LINK == 0:
                layer.link(f"{name}.again", name, HARDLINK, source.mode)
    for number in range(_ADDED):
        layer.file(f"srv/added/{number:03}", hashlib.sha256(b"%d" % number).digest() * number)


def _fill_removals(layer: _Layer, sources: Sequence[_Source]) -> None:
    """Delete a directory, empty another by an opaque marker, delete what the second layer added."""
    folders = sorted({source.name.partition("/")[0] for source in sources if source.folder})
    layer.whiteout(f"{_LIBRARY}/{folders[0]}")
    layer.opaque(f"{_LIBRARY}/{folders[1]}")
    layer.file(f"{_LIBRARY}/{folders[1]}/__init__.py", b"# all that is left\n")
    layer.whiteout("srv/added/000")
    layer.file("srv/added/001", b"replaced\n")
    layer.file("usr/bin/setuid", b"#!/bin/true\n", 0o4755)
    layer.link("etc/motd", "/srv/added/001")


def _add_layer(
    directory: str,
    number: int,
    fill: Callable[[_Layer, Sequence[_Source]], None],
    sources: Sequence[_Source],
    progress: Progress | None,
) -> tuple[dict[str, object], str]:
    """Write one layer's blob; returns its descriptor and DiffID."""
    unnamed = os.path.join(directory, "layer")
    with open(unnamed, "wb") as sink:
        layer = _Layer(sink, number, progress)
        fill(layer, sources)
        diff_id = layer.close()
    with open(unnamed, "rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    os.rename(unnamed, os.path.join(directory, "blobs", "sha256", digest))
    return _descriptor(_OCI_LAYER, digest, os.path.getsize(_blob(directory, digest))), diff_id


def _add_documents(directory: str, layers: list[dict[str, object]], diff_ids: list[str]) -> None:
    """Write what ties the layers together."""
    platform = Platform.here()
    config: dict[str, object] = {
        "architecture": platform.architecture,
        "os": platform.os,
        "config": {"Cmd": ["/bin/sh"]},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    }
    manifest: dict[str, object] = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": _add_document(directory, OCI_CONFIG, config),
        "layers": layers,
    }
    entry = _add_document(directory, OCI_MANIFEST, manifest) | {"annotations": {REF_NAME: REFERENCE}}
    _write(os.path.join(directory, "index.json"), {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [entry]})
    _write(os.path.join(directory, "oci-layout"), {"imageLayoutVersion": "1.0.0"})


def _add_document(directory: str, media_type: str, fields: dict[str, object]) -> dict[str, object]:
    text = json.dumps(fields).encode()
    digest = hashlib.sha256(text).hexdigest()
    _write(_blob(directory, digest), fields)
    return _descriptor(media_type, digest, len(text))


def _descriptor(media_type: str, digest: str, size: int) -> dict[str, object]:
    return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": size}


def _blob(directory: str, digest: str) -> str:
    return os.path.join(directory, "blobs", "sha256", digest)


def _write(path: str, fields: dict[str, object]) -> None:
    with open(path, "wb") as stream:
        stream.write(json.dumps(fields).encode())
