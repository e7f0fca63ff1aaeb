"""Measure the store against its goals, and an import against skopeo, umoci and containers-storage.

One run on one machine, everything on the file system of DIRECTORY (default: the
system's temporary folder); ratios are what counts. Needs root; the peers are
left out where they are not installed::

    python benchmarks/store.py [DIRECTORY]
"""

import contextlib
import itertools
import json
import os
import pathlib
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator

import graphdrivers
from graphdrivers.api.store import Store
from graphdrivers.store import importing, ledger
from graphdrivers.store.holders import Holder

LAYERS = [(2000, 60_000), (9000, 15_000), (15_000, 10_000)]
"""Files and their average size, of the layers of the image that is imported: 405 MB and more in 26,000 files."""


def main() -> None:
    """Measure everything."""
    base = sys.argv[1] if len(sys.argv) > 1 else tempfile.gettempdir()
    with tempfile.TemporaryDirectory(dir=base, prefix="store-bench-") as folder:
        layout = make_image(pathlib.Path(folder))
        measure_import(folder, layout)
        measure_containers(folder, layout)
        measure_fork(folder, layout)


def make_image(folder: pathlib.Path) -> str:
    """Make a 3-layer gzip image with umoci, of files that compress as programs and text do."""
    dice = random.Random(4)  # noqa: S311 - not for secrets
    words = [dice.randbytes(dice.randint(3, 30)) for _ in range(4000)]
    layout = folder / "layout"
    run("umoci", "init", "--layout", layout)
    run("umoci", "new", "--image", f"{layout}:big")
    for number, (files, size) in enumerate(LAYERS):
        tree = folder / f"tree{number}"
        for index in range(files):
            place = tree / f"layer{number}" / f"{index // 50}"
            place.mkdir(parents=True, exist_ok=True)
            wanted = int(dice.expovariate(1 / size)) + 1
            text = b"".join(dice.choices(words, k=wanted // 16 + 1))[:wanted]
            (place / f"file{index}").write_bytes(text)
        tar = folder / f"layer{number}.tar"
        run("tar", "-C", tree, "-cf", tar, ".")
        run("umoci", "raw", "add-layer", "--image", f"{layout}:big", tar)
        shutil.rmtree(tree)
        tar.unlink()
    return os.fspath(layout)


def measure_import(folder: str, layout: str) -> None:
    """Time the import, then the layers one by one, then the peers, three rounds in turns."""
    work = [
        ("import, durability layer", lambda: import_all(folder, layout, "layer")),
        ("import, durability none", lambda: import_all(folder, layout, "none")),
        ("its layers one by one, durability layer", lambda: import_singly(folder, layout)),
    ]
    if shutil.which("umoci"):
        work.append(("umoci unpack", lambda: unpack(folder, layout)))
    if shutil.which("skopeo") and shutil.which("containers-storage"):
        work.append(("skopeo copy into containers-storage", lambda: skopeo(folder, layout)))
    times: dict[str, list[float]] = {name: [] for name, _ in work}
    for _round in range(3):
        for name, action in work:
            times[name].append(action())
    ours = statistics.median(times[work[0][0]])
    for name, found in times.items():
        median = statistics.median(found)
        print(f"{name:45} {median:7.2f} s  {median / ours:5.2f} x  ({', '.join(f'{one:.2f}' for one in found)})")


def import_all(folder: str, layout: str, durability: str) -> float:
    """Import the image as it is meant to be."""
    with fresh_store(folder, durability) as store:
        start = time.perf_counter()
        store.import_image(layout)
        return time.perf_counter() - start


def import_singly(folder: str, layout: str) -> float:
    """Import each layer by itself, with nothing read ahead and nothing overlapped."""
    from graphdrivers.images.opening import open_image  # noqa: PLC0415 - only here

    with fresh_store(folder, "layer") as store, open_image(layout) as image:
        sources = [
            importing.Source(layer.diff_id, lambda layer=layer: image.open_layer(layer)) for layer in image.layers
        ]  # type: ignore[misc]
        start = time.perf_counter()
        for end in range(1, len(sources) + 1):
            importing.import_layers(store.site, sources[:end], lease="bench")
        return time.perf_counter() - start


def unpack(folder: str, layout: str) -> float:
    """Let umoci unpack the image."""
    target = os.path.join(folder, "bundle")
    seconds = clocked(lambda: run("umoci", "unpack", "--image", f"{layout}:big", target))
    shutil.rmtree(target)
    return seconds


def skopeo(folder: str, layout: str) -> float:
    """Let skopeo copy the image into an overlay store of containers-storage."""
    root = os.path.join(folder, "peer")
    target = f"containers-storage:[overlay@{root}/graph+{root}/run]localhost/big:1"
    seconds = clocked(lambda: run("skopeo", "copy", "-q", f"oci:{layout}:big", target))
    subprocess.run(["umount", "-R", f"{root}/graph/overlay"], check=False, capture_output=True)
    shutil.rmtree(root)
    return seconds


def measure_containers(folder: str, layout: str) -> None:
    """Time a container's life, with few and with very many layers in the ledger."""
    for durability in ("layer", "none"):
        with fresh_store(folder, durability) as store:
            image = store.import_image(layout)
            few = life(store, image)
            box = store.create(image, name="untouched")
            list(box.changes())
            untouched = statistics.median(clocked(lambda: list(box.changes())) for _ in range(50))  # noqa: B023 - called at once
            crowd(store, image, 10_000)
            many = life(store, image)
        print(f"create, mount, umount, rm, durability {durability}: {few}; with 10,000 layers more: {many}")
        print(f"diff of an untouched container: {1000 * untouched:.2f} ms")


def life(store: Store, image: graphdrivers.Image) -> str:
    """Give the median time of a container's whole life, and of its parts."""
    samples = []
    for number in range(120):
        times = [time.perf_counter()]
        box = store.create(image, name=f"box{number}")
        times.append(time.perf_counter())
        mounted = box.mount()
        times.append(time.perf_counter())
        mounted.release()
        times.append(time.perf_counter())
        box.remove()
        times.append(time.perf_counter())
        samples.append([1000 * (after - before) for before, after in itertools.pairwise(times)])
    samples = samples[20:]
    whole = statistics.median(sum(sample) for sample in samples)
    parts = ", ".join(f"{statistics.median(part):.2f}" for part in zip(*samples, strict=True))
    return f"{whole:.2f} ms ({parts})"


def crowd(store: Store, image: graphdrivers.Image, count: int) -> None:
    """Fill the store with sealed layers, as a busy one has, in the driver and in the ledger."""
    with store.site.database.write() as step:
        made = [f"image.{number:032x}" for number in range(count)]
        for name in made:
            ledger.intend(step, name, image.layers[0].name, Holder.here())
            ledger.complete(step, name)
    for name in made:
        store.driver.create(name, image.layers[0].name)
        store.driver.seal(name)


def measure_fork(folder: str, layout: str) -> None:
    """Time the fork of a container with 1 GB in its upper, the disk already having it."""
    for durability in ("layer", "none"):
        with fresh_store(folder, durability) as store:
            box = store.create(store.import_image(layout), name="heavy")
            samples = []
            for number in range(5):
                with box.mounted() as rootfs, open(rootfs / "heavy", "wb") as file:
                    file.writelines(os.urandom(1 << 20) for _ in range(1024))
                    os.fsync(file.fileno())
                samples.append(clocked(lambda: box.fork(f"fork{number}")))  # noqa: B023 - called at once
            print(f"fork with 1 GB in the upper, durability {durability}: {1000 * statistics.median(samples):.2f} ms")


@contextlib.contextmanager
def fresh_store(folder: str, durability: str) -> Iterator[Store]:
    """Open a new store, and remove it at the end."""
    root = os.path.join(folder, "root")
    with graphdrivers.open_store(root, "overlay", durability=durability) as store:
        yield store
    shutil.rmtree(root)
    os.sync()


def clocked(action: Callable[[], object]) -> float:
    """Give the seconds that an action takes."""
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def run(*command: str | os.PathLike[str]) -> None:
    """Run a program."""
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(json.dumps(command, default=str) + "\n" + done.stderr)


if __name__ == "__main__":
    main()
