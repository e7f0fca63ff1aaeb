"""``docker save`` archives: ``manifest.json`` with a configuration and layer tars, in a tar or a folder.

Written by Docker 1.10 to 24 (a folder per layer with ``layer.tar``), by podman
and skopeo (a tar per layer), and beside an OCI layout by Docker from 25 on.
Source: moby ``image/spec/v1.2.md``, heading *Combined Image JSON + Filesystem Changeset Format*.
"""

import posixpath
import re
from typing import BinaryIO

import attrs

from graphdrivers import errors
from graphdrivers.images.blobs import read_control_file, sha256_of
from graphdrivers.images.descriptors import DOCKER_LAYER, Platform
from graphdrivers.images.documents import Document, parse
from graphdrivers.images.files import Files, clean
from graphdrivers.images.image import Image, ImageLayer
from graphdrivers.images.manifests import ImageConfig
from graphdrivers.images.selection import Offer, choose, choose_platform
from graphdrivers.model import Digest

MANIFEST = "manifest.json"
REPOSITORIES = "repositories"

_NAMED_BY_ID = re.compile(r"(?:.*/)?([0-9a-f]{64})(?:\.json)?")


@attrs.frozen
class _Item:
    """One image in ``manifest.json``: names of files."""

    config: str
    layers: tuple[str, ...]

    @property
    def digest(self) -> str:
        """The image's ID where the configuration is named by it, else just that name."""
        match = _NAMED_BY_ID.fullmatch(self.config)
        return f"sha256:{match[1]}" if match else self.config


def is_docker_archive(files: Files) -> bool:
    """Tell whether ``docker load`` would take it."""
    return files.has(MANIFEST)


def is_too_old(files: Files) -> bool:
    """Tell whether Docker before 1.10 saved it: its layers have no digests at all."""
    return files.has(REPOSITORIES) and not files.has(MANIFEST)


def read_archive(files: Files, platform: Platform | None, reference: str | None) -> Image:
    """Choose one image of an archive and check all of it but its layers' content.

    Raises:
        InvalidReference: it holds several images, or none of this name or platform.
        InvalidManifest: a document breaks its specification.
        BlobNotFound: a configuration or layer is missing.
        DigestMismatch: the configuration is not the one it is named by.
    """
    offer = choose(files.source, _offers(files), reference)
    item = next(iter(offer.items.values()))
    text = read_control_file(files, item.config)
    config_digest = sha256_of(text)
    if item.digest not in {config_digest, item.config}:
        raise errors.DigestMismatch(f"configuration {item.config!r}", item.digest, config_digest)
    config = ImageConfig.parse(text, files.source, f"configuration {item.config!r}", len(item.layers))
    if platform:
        choose_platform(files.source, [config.platform], platform)
    layers = [
        ImageLayer(None, _size(files, name), DOCKER_LAYER, diff_id)
        for name, diff_id in zip(item.layers, config.diff_ids, strict=True)
    ]
    names = dict(zip(layers, item.layers, strict=True))
    return Image(
        source=files.source,
        names=offer.names,
        manifest=None,
        manifest_digest=None,
        config_digest=Digest(config_digest),
        config=config,
        layers=tuple(layers),
        open_layer=lambda layer: _open(files, names[layer])[0],
        close=files.close,
    )


def _offers(files: Files) -> list[Offer[_Item]]:
    """List the images; one under several entries is one image with all their names."""
    if files.repeats(MANIFEST):
        raise errors.InvalidManifest(files.source, f"{MANIFEST} comes twice, and readers differ in which one counts")
    entries = parse(read_control_file(files, MANIFEST), files.source, MANIFEST)
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise errors.InvalidManifest(files.source, f"{MANIFEST} is not an array of objects")
    names: dict[_Item, dict[str, None]] = {}
    for at, fields in enumerate(entries):
        entry = Document(files.source, f"{MANIFEST}[{at}]", fields)
        item = _Item(_name(entry, entry.text("Config")), tuple(_name(entry, layer) for layer in entry.texts("Layers")))
        names.setdefault(item, {}).update(dict.fromkeys(entry.texts("RepoTags")))
    return [Offer(tuple(called), {item.digest: item}) for item, called in names.items()]


def _name(entry: Document, text: str) -> str:
    """Check a file name found in the manifest."""
    name = clean(text)
    if name is None:
        entry.refuse(f"names the file {text!r}, which is not inside")
    return name


def _open(files: Files, name: str) -> tuple[BinaryIO, int]:
    """Open a layer; a link is followed once, inside.

    Docker up to 24 keeps a layer that two images share in one folder, and
    writes ``ID/layer.tar -> ../OTHER/layer.tar`` in the other.
    """
    target = files.link(name)
    if target is None:
        return files.open(name)
    inside = clean(posixpath.normpath(posixpath.join(posixpath.dirname(name), target)))
    if inside is None:
        raise errors.InvalidManifest(files.source, f"{name!r} is a link to {target!r}, which is not inside")
    return files.open(inside)


def _size(files: Files, name: str) -> int:
    stream, size = _open(files, name)
    stream.close()
    return size
