"""Whole images: import and commit, ours against skopeo, buildah and umoci.

Usage: ``python benchmarks/images.py [--directory DIR] [--rounds N] [--quick]``; as root.
"""

import contextlib
import hashlib
import itertools
import os
import shutil
from collections.abc import Iterator, Sequence
from typing import BinaryIO

import isal.isal_zlib

import materials
import ours
import tools
from graphdrivers.api.store import Store
from graphdrivers.images.image import Image
from graphdrivers.images.opening import open_image
from graphdrivers.store import importing, incoming
from measuring import Bench, Contender, Result, alone, clocked, run

IMPORT = "import"
FLOOR = "isal and sha256 alone"
TAR = "tar -x, plain layers"
ONE_BY_ONE = "its layers one by one"
CHANGED = 1_000
DURABILITIES = ("none", "layer")

_NO_COMMIT = "it makes no image of a container"


def store_of(durability: str) -> str:
    """Name the contender that is our store."""
    return f"store, durability {durability}"


def measure(bench: Bench) -> Iterator[Result]:
    """Import images, and commit a container of one."""
    scale = 20 if bench.quick else 1
    for work, specs in ((IMPORT, materials.IMAGE), ("import three", materials.IMAGE_OF_THREE)):
        folder = bench.path(work.replace(" ", "-"))
        os.mkdir(folder)
        layers = [materials.make_layer(folder, spec, scale=scale) for spec in specs]
        tars = [layer.tar for layer in layers]
        layout = materials.make_layout(os.path.join(folder, "layout"), tars, zipped=True)
        what = f"{len(layers)} layers, {sum(layer.entries for layer in layers):,} entries"
        yield _import(bench, f"{work}: {what}", layout, tars=tars)
        if work == IMPORT:
            yield _commit(bench, layout)
        shutil.rmtree(folder)
    if bench.image is not None:
        folder = bench.path("real")
        layout, layers = materials.real_image(folder, bench.image)
        what = f"import {materials.REAL}: a real image of {len(layers)} layers"
        yield _import(bench, what, layout, tars=[layer.tar for layer in layers], reference=materials.REAL)
        shutil.rmtree(folder)


def _import(
    bench: Bench, what: str, layout: str, *, tars: Sequence[str], reference: str = materials.REFERENCE
) -> Result:
    """Import a whole image of gzip layers."""
    work, _, title = what.partition(": ")
    blobs = materials.blobs_of(layout)
    contenders: dict[str, Contender] = {
        FLOOR: lambda: clocked(_decompress, blobs),
        TAR: lambda: _tar_all(bench, tars),
    }
    contenders |= {store_of(durability): _ours(bench, layout, durability) for durability in DURABILITIES}
    contenders[ONE_BY_ONE] = lambda: _singly(bench, layout)
    absent = {tools.BSDTAR: tools.NO_IMAGES, tools.STORAGE: "skopeo and buildah import into it"}
    theirs = {
        tools.SKOPEO: tools.skopeo_copy(bench.folder, layout, reference),
        tools.BUILDAH: tools.buildah_pull(bench.folder, layout, reference),
        tools.UMOCI: tools.umoci_unpack(bench.folder, layout, reference),
    }
    contenders |= tools.there(theirs, absent)
    title += f", {_megabytes(blobs)} of gzip, {_megabytes(tars)} of tar"
    return bench.compare(work, title, contenders, absent=absent, floor=FLOOR)


def _megabytes(paths: Sequence[str]) -> str:
    return f"{sum(map(os.path.getsize, paths)) / 1e6:.0f} MB"


def _decompress(blobs: Sequence[str]) -> None:
    """Decompress each layer and hash what comes out; nothing is kept."""
    for blob in blobs:
        decompressor, digest = isal.isal_zlib.decompressobj(wbits=31), hashlib.sha256()
        with open(blob, "rb") as stream:
            while chunk := stream.read(materials.CHUNK):
                digest.update(decompressor.decompress(chunk))


def _tar_all(bench: Bench, tars: Sequence[str]) -> float:
    target = bench.path("tar-all")
    os.mkdir(target)
    try:
        return sum(clocked(run, "tar", "-C", target, "--numeric-owner", "-xpf", tar) for tar in tars)
    finally:
        shutil.rmtree(target)


def _ours(bench: Bench, layout: str, durability: str) -> Contender:
    """Import as it is meant to be."""

    def bring() -> float:
        with ours.fresh_store(bench.folder, durability) as store:
            return clocked(store.import_image, layout)

    return bring


def _singly(bench: Bench, layout: str) -> float:
    """Import each layer by itself, with nothing read ahead and nothing overlapped."""
    with ours.fresh_store(bench.folder, "layer") as store, open_image(layout) as image:
        sources = [_source(image, number) for number in range(len(image.layers))]

        def bring() -> None:
            for end in range(1, len(sources) + 1):
                importing.import_layers(store.site, sources[:end], lease="benchmark")

        return clocked(bring)


def _source(image: Image, number: int) -> incoming.Source:
    layer = image.layers[number]

    def open_layer() -> BinaryIO:
        return image.open_layer(layer)

    return incoming.Source(layer.diff_id, open_layer)


def _commit(bench: Bench, layout: str) -> Result:
    """Make an image of a container with 1,000 new files."""
    absent = {tools.GNU_TAR: tools.NO_IMAGES, tools.BSDTAR: tools.NO_IMAGES, tools.STORAGE: _NO_COMMIT}
    absent |= {tools.SKOPEO: _NO_COMMIT}
    with contextlib.ExitStack() as scope:
        contenders: dict[str, Contender] = {}
        for durability in DURABILITIES:
            folder = bench.path(f"commit-{durability}")
            os.mkdir(folder)
            contenders[store_of(durability)] = _our_commit(
                bench, scope.enter_context(ours.fresh_store(folder, durability)), layout
            )
        absent |= tools.missing()
        if tools.BUILDAH not in absent:
            contenders[tools.BUILDAH] = _buildah_commit(bench, scope.enter_context(tools.buildah(bench.folder)), layout)
        if tools.UMOCI not in absent:
            contenders[tools.UMOCI] = _umoci_repack(bench, layout)
        title = f"an image of a container with {bench.scaled(CHANGED):,} new files over the imported one"
        return bench.compare("commit", title, contenders, absent=absent)


def _our_commit(bench: Bench, store: Store, layout: str) -> Contender:
    box = store.create(store.import_image(layout), name="box")
    with box.mounted() as root:
        edit(bench, os.fspath(root))

    def commit() -> float:
        seconds = clocked(store.commit, box, "committed:1")
        store.remove_image("committed:1")
        return seconds

    return commit


def _buildah_commit(bench: Bench, store: tools.Buildah, layout: str) -> Contender:
    box = store.start(store.pull(layout, materials.REFERENCE))
    edit(bench, store.mount(box))
    store.unmount(box)

    def commit() -> float:
        policy = os.path.join(store.root, "policy.json")
        seconds = clocked(store.call, "commit", "-q", "--signature-policy", policy, box, "committed:1")
        store.call("rmi", "localhost/committed:1")
        return seconds

    return commit


def _umoci_repack(bench: Bench, layout: str) -> Contender:
    """Repack a bundle: umoci's layers are compressed, for its images are OCI layouts."""
    bundle = bench.path("bundle")
    run("umoci", "unpack", "--image", f"{layout}:{materials.REFERENCE}", bundle)
    edit(bench, os.path.join(bundle, "rootfs"))
    numbers = itertools.count()
    return lambda: clocked(run, "umoci", "repack", "--image", f"{layout}:committed-{next(numbers)}", bundle)


def edit(bench: Bench, root: str) -> None:
    """Write the container's new files."""
    materials.fill(
        os.path.join(root, "srv"),
        materials.Spec(name="new", files=bench.scaled(CHANGED), size=bench.scaled(4 << 20), even=True, links=0),
    )


if __name__ == "__main__":
    alone(measure, __doc__)
