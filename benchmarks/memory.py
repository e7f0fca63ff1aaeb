"""Peak memory of an apply: ours above the bare interpreter's, and that of the programs that do the same.

Usage: ``python benchmarks/memory.py [--directory DIR] [--rounds N] [--quick]``; as root.
Each apply is a process of its own; the kernel says what it held at the most (``ru_maxrss``, threads and all).
A bare interpreter starts it, for the kernel counts in what the starting process held.
"""

import sys
from collections.abc import Iterator

import materials
import ours
import tools
from measuring import Bench, Contender, Result, alone, run

BARE = "bare Python"
OURS = "overlay"
ZIPPED = "overlay, gzip"
FLAT = "overlay, many small files"

_PROGRAM = """
import sys
import graphdrivers
from graphdrivers.archive import compression
from graphdrivers.model import Limits
home, tar = sys.argv[1:]
driver = graphdrivers.load_driver("overlay", home)
driver.create("layer")
with open(home + "/../record", "wb") as headers, open(tar, "rb") as stream:
    with compression.open_plain(stream, Limits()) as plain:
        driver.apply("layer", plain, headers=headers)
"""

_METER = """
import os, sys
nowhere = os.open(os.devnull, os.O_WRONLY)
pid = os.posix_spawnp(sys.argv[1], sys.argv[1:], os.environ, file_actions=[(os.POSIX_SPAWN_DUP2, nowhere, 1)])
_pid, status, usage = os.wait4(pid, 0)
print(usage.ru_maxrss * 1024)
sys.exit(os.waitstatus_to_exitcode(status))
"""
_TOO_SMALL = "less than the interpreter that measures it"


def measure(bench: Bench) -> Iterator[Result]:
    """Apply the biggest layer, and the one with the most files."""
    scale = 20 if bench.quick else 1
    big, small = (materials.make_layer(bench.folder, spec, scale=scale) for spec in (materials.BIG, materials.SMALL))
    layout = materials.make_layout(bench.path("layout"), [big.tar], zipped=True)
    plain = materials.make_layout(bench.path("layout-plain"), [big.tar], zipped=False)
    contenders: dict[str, Contender] = {BARE: lambda: peak(sys.executable, "-c", "pass")}
    absent = dict(ours.drivers(bench.folder).refused)
    if OURS not in absent:
        (blob,) = materials.blobs_of(layout)
        contenders |= {name: _apply(bench, tar) for name, tar in ((OURS, big.tar), (ZIPPED, blob), (FLAT, small.tar))}
    with tools.containers_storage(bench.folder) as storage:
        theirs = {
            tools.UMOCI: lambda: _umoci(bench, plain),
            tools.STORAGE: lambda: _storage(storage, big.tar),
        }
        contenders |= tools.there(theirs, absent)
        absent |= {tools.BUILDAH: tools.WHOLE_IMAGES} | dict.fromkeys((tools.GNU_TAR, tools.BSDTAR), _TOO_SMALL)
        title = f"peak memory of applying {big.size / 1e6:.0f} MB"
        yield bench.compare("memory", title, contenders, absent=absent, floor=BARE, unit="B", rounds=3)


def peak(*command: str) -> float:
    """Run a program; give the most bytes that it held.

    Raises:
        subprocess.CalledProcessError: it failed.
    """
    return float(run(sys.executable, "-I", "-S", "-c", _METER, *command))


def _apply(bench: Bench, tar: str) -> Contender:
    def sample() -> float:
        with ours.removed(bench.path("home")) as home:
            return peak(sys.executable, "-c", _PROGRAM, home, tar)

    return sample


def _umoci(bench: Bench, layout: str) -> float:
    with ours.removed(bench.path("unpacked")) as target:
        return peak("umoci", "raw", "unpack", "--image", f"{layout}:{materials.REFERENCE}", target)


def _storage(storage: tools.ContainersStorage, tar: str) -> float:
    layer = storage.create()
    try:
        return peak(*storage.command("applydiff", "-f", tar, layer))
    finally:
        storage.remove(layer)


if __name__ == "__main__":
    alone(measure, __doc__)
