"""What is measured with: trees, layers and images, the same for the same numbers, made from a fixed seed."""

import gzip
import hashlib
import json
import os
import random
import shutil
import subprocess
from collections.abc import Sequence

import attrs

from graphdrivers.archive import compression
from graphdrivers.images.descriptors import OCI_CONFIG, OCI_INDEX, OCI_MANIFEST, REF_NAME, Platform
from graphdrivers.images.opening import open_image
from graphdrivers.model import Limits

REFERENCE = "image"
"""The tag of every image made here."""

REAL = "debian"
"""What the real image is called, in its layout too."""

CHUNK = 1 << 20
_PER_FOLDER = 20
_EPOCH = 1_700_000_000
_SPREAD = 1.6
"""Of file sizes, lognormal: many small files and few that hold most, as in a distribution's packages."""


@attrs.frozen(kw_only=True)
class Spec:
    """What a layer holds."""

    name: str
    files: int
    size: int
    """Bytes of all files together."""
    even: bool = False
    """All files are about the same size."""
    links: int = 12
    """One in so many entries is a symbolic link; 0 for none."""
    per_folder: int = _PER_FOLDER
    deletes: tuple[str, ...] = ()
    """Names of whiteouts."""


@attrs.frozen
class Layer:
    """A layer as a tar on disk."""

    spec: Spec
    tar: str
    """Path of the uncompressed tar."""
    size: int
    entries: int


BASE = Spec(name="base", files=7_900, size=158 << 20)
BIG = Spec(name="big", files=7_100, size=310 << 20)
DELTA = Spec(
    name="delta",
    files=500,
    size=1 << 20,
    even=True,
    links=0,
    deletes=tuple(f"base/d000/s00/{name}" for name in ("file2", "file3", "file4")),
)
SMALL = Spec(name="small", files=30_000, size=90 << 20, even=True, links=0, per_folder=10)

IMAGE = (
    Spec(name="base", files=7_900, size=158 << 20),
    Spec(name="packages", files=6_000, size=40 << 20),
    Spec(name="application", files=12_000, size=32 << 20, even=True, links=0),
    Spec(name="settings", files=500, size=1 << 20, even=True, links=0, deletes=DELTA.deletes),
)
"""A 4-layer image of about 29,000 entries and 60 MB of gzip."""

IMAGE_OF_THREE = (
    Spec(name="base", files=2_000, size=120 << 20),
    Spec(name="packages", files=9_000, size=135 << 20),
    Spec(name="application", files=15_000, size=150 << 20, even=True),
)
"""Three layers of about equal weight."""


class Text:
    """Bytes that compress as programs and text do: to about a quarter."""

    def __init__(self, seed: int) -> None:
        """Make the pool that all contents are cut from."""
        self.dice = random.Random(seed)  # noqa: S311 - content for a benchmark
        words = [self.dice.randbytes(self.dice.randint(2, 20)) for _ in range(700)]
        self._pool = b"".join(self.dice.choices(words, k=(8 << 20) // 11))

    def cut(self, size: int) -> bytes:
        """Give ``size`` bytes from anywhere in the pool, again and again where it is too short."""
        pieces = []
        while size > 0:
            start = self.dice.randrange(len(self._pool) - CHUNK)
            pieces.append(self._pool[start : start + min(size, CHUNK)])
            size -= len(pieces[-1])
        return b"".join(pieces)


def make_layer(folder: str, spec: Spec, *, scale: int = 1) -> Layer:
    """Make a layer's tar, with GNU tar; its tree is removed again.

    Args:
        folder: where to.
        spec: what it holds.
        scale: a quick try has so many times less.
    """
    tree = os.path.join(folder, f"{spec.name}-tree")
    entries = fill(tree, spec, scale=scale)
    tar = os.path.join(folder, f"{spec.name}.tar")
    subprocess.run(["tar", "-C", tree, "--sort=name", "--numeric-owner", "-cf", tar, "."], check=True)
    shutil.rmtree(tree)
    return Layer(spec, tar, os.path.getsize(tar), entries)


def fill(tree: str, spec: Spec, *, scale: int = 1) -> int:
    """Write a layer's tree, with times of whole seconds as in an image; give the number of entries."""
    text = Text(len(spec.name) * 1000 + spec.files)
    count = max(spec.files // scale, 20)
    weights = [text.dice.uniform(0.7, 1.3) if spec.even else text.dice.lognormvariate(0, _SPREAD) for _ in range(count)]
    share = spec.size / scale / sum(weights)
    entries, folder = count + len(spec.deletes), ""
    for number, weight in enumerate(weights):
        within, name = divmod(number, spec.per_folder)
        if name == 0:
            folder = os.path.join(tree, spec.name, f"d{within // 100:03}", f"s{within % 100:02}")
            os.makedirs(folder)
            entries += 1
        path = os.path.join(folder, f"file{name}")
        if spec.links and number % spec.links == spec.links - 1:
            os.symlink(f"file{name - 1}", path)
        else:
            with open(path, "wb") as file:
                file.write(text.cut(int(weight * share)))
            os.chmod(path, 0o755 if number % 5 == 0 else 0o644)
        os.utime(path, (_EPOCH + number, _EPOCH + number), follow_symlinks=False)
    for deleted in spec.deletes:
        where, gone = os.path.split(os.path.join(tree, deleted))
        os.makedirs(where, exist_ok=True)
        with open(os.path.join(where, f".wh.{gone}"), "xb"):
            pass
    return entries


def make_layout(folder: str, tars: Sequence[str], *, zipped: bool) -> str:
    """Make an OCI layout of one image of these layers; gives its path.

    Args:
        folder: does not exist yet.
        tars: uncompressed layers, the base first.
        zipped: compress them with zlib at its usual level, else take them as they are (hard links).
    """
    os.makedirs(os.path.join(folder, "blobs", "sha256"))
    layers = [_add_layer(folder, tar, zipped=zipped) for tar in tars]
    here = Platform.here()
    rootfs = {"type": "layers", "diff_ids": [_digest(tar) for tar in tars]}
    config = {"architecture": here.architecture, "os": here.os, "config": {"Cmd": ["/bin/sh"]}, "rootfs": rootfs}
    manifest = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": _add_document(folder, OCI_CONFIG, config),
        "layers": layers,
    }
    entry = _add_document(folder, OCI_MANIFEST, manifest) | {"annotations": {REF_NAME: REFERENCE}}
    index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [entry]}
    for name, document in (("index.json", index), ("oci-layout", {"imageLayoutVersion": "1.0.0"})):
        with open(os.path.join(folder, name), "w", encoding="utf-8") as file:
            json.dump(document, file)
    return folder


def real_image(folder: str, layout: str) -> tuple[str, list[Layer]]:
    """Copy an image of ``scripts/debian-image``; gives the copy's path and its layers as plain tars.

    On the file system that is measured, and by a path that buildah can make a name of.

    Args:
        folder: does not exist yet.
        layout: the image.
    """
    os.mkdir(folder)
    copy = shutil.copytree(layout, os.path.join(folder, "layout"))
    layers = []
    with open_image(copy) as image:
        for number, layer in enumerate(image.layers):
            tar = os.path.join(folder, f"{number}.tar")
            with (
                image.open_layer(layer) as blob,
                compression.open_plain(blob, Limits()) as plain,
                open(tar, "wb") as sink,
            ):
                shutil.copyfileobj(plain, sink, CHUNK)
            names = subprocess.run(["tar", "-tf", tar], check=True, capture_output=True).stdout
            size, entries = os.path.getsize(tar), names.count(b"\n")
            layers.append(Layer(Spec(name=REAL, files=entries, size=size), tar, size, entries))
    return copy, layers


def blobs_of(layout: str) -> list[str]:
    """Give the paths of the layers of a layout's one image, the base first."""
    with open(os.path.join(layout, "index.json"), encoding="utf-8") as file:
        manifest = json.load(file)["manifests"][0]["digest"]
    with open(_blob(layout, manifest), encoding="utf-8") as file:
        return [_blob(layout, layer["digest"]) for layer in json.load(file)["layers"]]


def _add_layer(folder: str, tar: str, *, zipped: bool) -> dict[str, object]:
    path, kind = tar, "application/vnd.oci.image.layer.v1.tar"
    if zipped:
        path, kind = os.path.join(folder, "layer.gz"), f"{kind}+gzip"
        with open(tar, "rb") as source, gzip.GzipFile(path, "wb", compresslevel=6, mtime=0) as sink:
            shutil.copyfileobj(source, sink, CHUNK)
    digest, size = _digest(path), os.path.getsize(path)
    (os.rename if zipped else os.link)(path, _blob(folder, digest))
    return {"mediaType": kind, "digest": digest, "size": size}


def _add_document(folder: str, kind: str, document: object) -> dict[str, object]:
    text = json.dumps(document).encode()
    digest = f"sha256:{hashlib.sha256(text).hexdigest()}"
    with open(_blob(folder, digest), "wb") as file:
        file.write(text)
    return {"mediaType": kind, "digest": digest, "size": len(text)}


def _digest(path: str) -> str:
    with open(path, "rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"


def _blob(folder: str, digest: str) -> str:
    return os.path.join(folder, "blobs", *digest.split(":"))
