"""Produce the diff of a layer, digest included, against ``tar -c | sha256sum``, in one run.

Usage: ``python benchmarks/diff.py [--directory DIR] [--rounds N] [--quick]``; as root.
"""

import contextlib
import os
from collections.abc import Iterator

import materials
import ours
import tools
from graphdrivers.archive.digests import Digester
from graphdrivers.archive.produce import CHUNK
from graphdrivers.driver import Driver
from measuring import Bench, Contender, Result, alone, clocked, piped, run

LAYERS = (materials.BASE, materials.SMALL)

FLOOR = "tar | sha256sum"
OPENSSL = "tar | openssl"
BSDTAR = "bsdtar | sha256sum"
_COMMITS = "it makes a diff only as it commits: see the commit"


def measure(bench: Bench) -> Iterator[Result]:
    """Diff each layer with everything that can."""
    choice = ours.drivers(bench.folder)
    with contextlib.ExitStack() as scope:
        drivers = scope.enter_context(ours.opened(bench, choice.usable))
        storage = scope.enter_context(tools.containers_storage(bench.folder))
        for spec in LAYERS:
            yield _layer(bench, spec, drivers, storage, dict(choice.refused))


def _layer(
    bench: Bench,
    spec: materials.Spec,
    drivers: dict[str, Driver],
    storage: tools.ContainersStorage,
    refused: dict[str, str],
) -> Result:
    layer = materials.make_layer(bench.folder, spec, scale=20 if bench.quick else 1)
    tree = bench.path(f"{spec.name}-tree")
    os.mkdir(tree)
    run("tar", "-C", tree, "-xpf", layer.tar)
    digest = ["sha256sum"]
    contenders: dict[str, Contender] = {
        FLOOR: lambda: clocked(piped, ["tar", "-C", tree, "-c", "."], digest),
        OPENSSL: lambda: clocked(piped, ["tar", "-C", tree, "-c", "."], ["openssl", "dgst", "-sha256"]),
        BSDTAR: lambda: clocked(piped, ["bsdtar", "-C", tree, "-c", "-f", "-", "."], digest),
    }
    absent = refused | {tools.UMOCI: _COMMITS, tools.BUILDAH: _COMMITS} | tools.missing()
    if tools.STORAGE not in absent:
        # It answers for a layer that was applied from the names it noted then, as our stores give back identical tars;
        # for one that was written to it compares trees, and so must our drivers.
        written = storage.create()
        run("cp", "-a", f"{tree}/.", storage.mount(written))
        storage.unmount(written)
        command = storage.command("diff", "-u", written)
        contenders[tools.STORAGE] = lambda: clocked(piped, command, digest)
    for name, driver in drivers.items():
        ours.apply(driver, spec.name, layer.tar)
        contenders[name] = of_layer(driver, spec.name)
    title = f"as a tar with its digest; {layer.size / 1e6:.0f} MB, {layer.entries:,} entries"
    return bench.compare(f"diff {spec.name}", title, contenders, absent=absent, floor=FLOOR)


def of_layer(driver: Driver, layer: str) -> Contender:
    """Diff with one of our drivers; the digest in a second thread."""

    def read() -> str:
        digester = Digester()
        with driver.diff(layer) as stream:
            while chunk := stream.read(CHUNK):
                digester.put(chunk)
        return digester.close()

    return lambda: clocked(read)


if __name__ == "__main__":
    alone(measure, __doc__)
