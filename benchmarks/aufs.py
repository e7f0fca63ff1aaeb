"""Compare the aufs driver over shadow branches with the overlay driver: what its dialect costs.

Both drivers do the same in turns, so that noise hits both: apply a layer, mount
a stack of ten layers with deletions in each, look at files and write them in the
mount, settle. The goals are ratios: 1.1 for apply and for warm operations, 2
for a mount. Needs root::

    python benchmarks/aufs.py [ROUNDS]
"""

import gc
import io
import os
import statistics
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterable, Iterator

import graphdrivers
from graphdrivers.driver import Driver
from graphdrivers.linux import mounts
from measuring import clocked

DRIVERS = ("overlay", "aufs")
LAYERS = 10
FILES = 1000


def layer_tar(number: int, files: int) -> bytes:
    """Give a tar of small files in directories, which deletes some of the layer below."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for index in range(files):
            content = os.urandom(3000)
            member = tarfile.TarInfo(f"d{index // 10}/file-{number}-{index}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
            if number and index % 20 == 0:
                tar.addfile(tarfile.TarInfo(f"d{index // 10}/.wh.file-{number - 1}-{index}"))
    return buffer.getvalue()


def applied(driver: Driver, tar: bytes) -> float:
    """Apply a base layer, and remove it again."""
    driver.create("big")
    spent = clocked(lambda: driver.apply("big", io.BytesIO(tar)))
    driver.remove("big")
    return spent


def mounted(driver: Driver, target: str) -> Iterator[tuple[str, float]]:
    """Give the times of a container's life over the stack: until it is mounted, at work, and at rest again."""
    driver.create("box", f"layer{LAYERS - 1}")
    yield "mount, 10 layers", clocked(lambda: mounts.attach(driver.mounts("box"), target))
    names = [os.path.join(target, f"d{index // 10}/file-0-{index}") for index in range(1, FILES, 20)]
    yield "stat, cold", clocked(each, os.stat, names)
    yield "stat, warm x20", clocked(each, os.stat, names * 20)
    yield "open and read, warm x20", clocked(each, read, names * 20)
    yield "readdir, all", clocked(each, os.listdir, [os.path.join(target, f"d{n}") for n in range(FILES // 10)])
    made = [os.path.join(target, f"d1/new{index}") for index in range(200)]
    yield "create 200", clocked(each, write, made)
    yield "unlink 200", clocked(each, os.unlink, made)
    yield "unlink 50 of lower layers", clocked(each, os.unlink, names)
    mounts.detach(target)
    yield "settle", clocked(lambda: driver.settle("box"))
    driver.remove("box")


def each(action: Callable[[str], object], names: Iterable[str]) -> None:
    """Do something to each file."""
    for name in names:
        action(name)


def read(name: str) -> None:
    """Read a file."""
    with open(name, "rb", buffering=0) as file:
        file.read()


def write(name: str) -> None:
    """Write a small file."""
    with open(name, "xb", buffering=0) as file:
        file.write(b"x" * 4096)


def main() -> None:
    """Measure in a scratch folder and print."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 40
    gc.disable()
    times: dict[str, dict[str, list[float]]] = {}
    with tempfile.TemporaryDirectory(dir="/dev/shm") as base:
        target = os.path.join(base, "merged")
        os.mkdir(target)
        big = layer_tar(0, 10_000)
        drivers = {name: graphdrivers.load_driver(name, os.path.join(base, name)) for name in DRIVERS}
        for number in range(LAYERS):
            tar = layer_tar(number, FILES)
            for driver in drivers.values():
                driver.create(f"layer{number}", f"layer{number - 1}" if number else None)
                driver.apply(f"layer{number}", io.BytesIO(tar))
                driver.seal(f"layer{number}")
        for turn in range(rounds):
            for name in DRIVERS if turn % 2 else DRIVERS[::-1]:
                if turn < max(rounds // 4, 2):
                    times.setdefault("apply 10,000 files", {}).setdefault(name, []).append(applied(drivers[name], big))
                for what, spent in mounted(drivers[name], target):
                    times.setdefault(what, {}).setdefault(name, []).append(spent)
    for what, found in times.items():
        overlay, aufs = (statistics.median(found[name]) * 1e3 for name in DRIVERS)
        quartiles = [statistics.quantiles(found[name], n=4)[0] for name in DRIVERS]
        ratio = f"{aufs / overlay:5.2f} (lower quartiles {quartiles[1] / quartiles[0]:5.2f})"
        print(f"{what:26} overlay {overlay:9.3f} ms   aufs {aufs:9.3f} ms   ratio {ratio}")


if __name__ == "__main__":
    main()
