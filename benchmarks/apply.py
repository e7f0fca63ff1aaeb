"""Apply layers: our drivers against GNU tar, bsdtar, umoci and containers-storage, in one run.

Usage: ``python benchmarks/apply.py [--directory DIR] [--rounds N] [--quick]``; as root.
Ours with all checks, the digest and the header record, as an import has them.
"""

import contextlib
import os
import time
from collections.abc import Iterator, Mapping

import isal.isal_zlib

import materials
import ours
import tools
from graphdrivers.archive import compression
from graphdrivers.bench.quantities import quantity
from graphdrivers.driver import Driver
from graphdrivers.model import Limits
from measuring import Bench, Contender, Result, alone, clocked

LAYERS = (materials.BASE, materials.BIG, materials.DELTA, materials.SMALL)

_OVER = {"big": "base", "delta": "base"}
"""Which layer a layer is applied over; the others are applied over none."""

ISAL = "isal alone"
_OF_A_TAR = {tools.BUILDAH: tools.WHOLE_IMAGES, tools.SKOPEO: "it unpacks nothing itself"}


def measure(bench: Bench) -> Iterator[Result]:
    """Apply each layer with everything that can; the lowest one of the real image too."""
    layers = {spec.name: materials.make_layer(bench.folder, spec, scale=20 if bench.quick else 1) for spec in LAYERS}
    if bench.image is not None:
        layers[materials.REAL] = materials.real_image(bench.path("real"), bench.image)[1][0]
    choice = ours.drivers(bench.folder)
    with contextlib.ExitStack() as scope:
        drivers = scope.enter_context(ours.opened(bench, choice.usable))
        storage = scope.enter_context(tools.containers_storage(bench.folder))
        for driver in drivers.values():
            ours.apply(driver, "base", layers["base"].tar)
        absent = dict(choice.refused) | _OF_A_TAR | tools.missing()
        below = "" if tools.STORAGE in absent else storage.applied(layers["base"].tar)
        for name, layer in layers.items():
            theirs = _theirs(bench, layer, storage, below if name in _OVER else None)
            yield _plain(bench, layer, drivers, tools.there(theirs, absent), absent)
        for layer in layers.values():
            yield _gzip(bench, layer, drivers)


def _theirs(
    bench: Bench, layer: materials.Layer, storage: tools.ContainersStorage, parent: str | None
) -> dict[str, Contender]:
    layout = materials.make_layout(bench.path(f"layout-{layer.spec.name}"), [layer.tar], zipped=False)
    return {
        tools.GNU_TAR: tools.tar_into("tar", bench.folder, layer.tar, "--numeric-owner"),
        tools.BSDTAR: tools.tar_into("bsdtar", bench.folder, layer.tar, "--numeric-owner"),
        tools.UMOCI: tools.umoci_raw_unpack(bench.folder, layout, materials.REFERENCE),
        tools.STORAGE: _into_storage(storage, layer.tar, parent),
    }


def _plain(
    bench: Bench,
    layer: materials.Layer,
    drivers: Mapping[str, Driver],
    theirs: Mapping[str, Contender],
    absent: Mapping[str, str],
) -> Result:
    """Apply a plain tar."""
    contenders = dict(theirs)
    for name, driver in drivers.items():
        contenders[name] = into(driver, bench.path("headers"), layer.tar, _OVER.get(layer.spec.name))
    title = f"{quantity(layer.size, 'B')}, {layer.entries:,} entries"
    return bench.compare(f"apply {layer.spec.name}", title, contenders, absent=absent, floor=tools.GNU_TAR)


def _gzip(bench: Bench, layer: materials.Layer, drivers: Mapping[str, Driver]) -> Result:
    """Apply the same tar compressed, against its decompression alone and its plain form."""
    layout = materials.make_layout(bench.path(f"layout-gzip-{layer.spec.name}"), [layer.tar], zipped=True)
    (blob,) = materials.blobs_of(layout)
    parent = _OVER.get(layer.spec.name)
    work = {tools.GNU_TAR: tools.tar_into("tar", bench.folder, blob, "--numeric-owner", "-z")}
    contenders: dict[str, Contender] = {ISAL: gunzip_alone(blob), **work}
    for name in ("overlay", "aufs"):
        if name in drivers:
            contenders[plain(name)] = into(drivers[name], bench.path("headers"), layer.tar, parent)
            contenders[name] = into(drivers[name], bench.path("headers"), blob, parent)
    title = f"{quantity(os.path.getsize(blob), 'B')} of gzip"
    return bench.compare(f"apply {layer.spec.name}, gzip", title, contenders, floor=ISAL)


def plain(driver: str) -> str:
    """Name the contender that applies the uncompressed tar beside the compressed one."""
    return f"{driver}, plain tar"


def into(driver: Driver, headers: str, tar: str, parent: str | None = None) -> Contender:
    """Apply with one of our drivers: all checks, digest and header record included."""

    def run() -> float:
        driver.create("layer", parent)
        try:
            with open(headers, "wb") as record, open(tar, "rb") as stream:
                start = time.perf_counter()
                with compression.open_plain(stream, Limits()) as plain_stream:
                    driver.apply("layer", plain_stream, headers=record)
                return time.perf_counter() - start
        finally:
            driver.remove("layer")

    return run


def gunzip_alone(path: str) -> Contender:
    """Decompress with isal and throw the bytes away."""

    def read() -> None:
        decompressor = isal.isal_zlib.decompressobj(wbits=31)
        with open(path, "rb") as stream:
            while chunk := stream.read(materials.CHUNK):
                decompressor.decompress(chunk)

    return lambda: clocked(read)


def _into_storage(storage: tools.ContainersStorage, tar: str, parent: str | None) -> Contender:
    """Apply with the overlay driver of containers/storage."""

    def run() -> float:
        layer = storage.create(parent)
        try:
            return clocked(storage.apply, layer, tar)
        finally:
            storage.remove(layer)

    return run


if __name__ == "__main__":
    alone(measure, __doc__)
