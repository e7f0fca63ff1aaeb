"""Apply a layer of many small files: our drivers against GNU tar and containers-storage, paired, in one run.

Usage: ``python benchmarks/apply.py [--directory DIR] [--files 30000] [--repeats 5]``; as root.
Every round runs each contender once, so a drifting machine hits all alike; the
ratio is taken round by round against GNU tar and its median is printed.
"""

import argparse
import os
import random
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable

import isal.igzip
import isal.isal_zlib

import graphdrivers
from graphdrivers.archive import compression
from graphdrivers.model import Limits

CHUNK = 1 << 20


def make_layer(root: str, files: int) -> str:
    """Write ``files`` files of 2 to 4 kB, ten to a directory, and pack them with GNU tar; gives the tar's path."""
    rng = random.Random(1)  # noqa: S311 - content for a benchmark
    tree = os.path.join(root, "tree")
    for number in range(files // 10):
        folder = os.path.join(tree, f"d{number // 100:03}", f"s{number % 100:02}")
        os.makedirs(folder)
        for name in range(10):
            with open(os.path.join(folder, f"file{name}.txt"), "wb") as file:
                file.write(rng.randbytes(rng.randrange(2000, 4000)))
    path = os.path.join(root, "layer.tar")
    subprocess.run(["tar", "-C", tree, "-cf", path, "."], check=True)
    shutil.rmtree(tree)
    return path


def apply_with(driver_name: str, root: str, tar: str) -> Callable[[], float]:
    """Apply with one of our drivers: all checks, digest and header record included."""

    def run() -> float:
        home = os.path.join(root, f"home-{driver_name}")
        driver = graphdrivers.load_driver(driver_name, home)
        driver.create("layer")
        with open(os.path.join(root, "headers"), "wb") as headers, open(tar, "rb") as stream:
            start = time.perf_counter()
            with compression.open_plain(stream, Limits()) as plain:
                driver.apply("layer", plain, headers=headers)
            elapsed = time.perf_counter() - start
        driver.close()
        shutil.rmtree(home)
        return elapsed

    return run


def gnu_tar(root: str, tar: str) -> Callable[[], float]:
    """Unpack with GNU tar as a whole process: the floor."""

    def run() -> float:
        target = os.path.join(root, "tar-x")
        os.mkdir(target)
        start = time.perf_counter()
        subprocess.run(["tar", "-C", target, "-xf", tar], check=True)
        elapsed = time.perf_counter() - start
        shutil.rmtree(target)
        return elapsed

    return run


def containers_storage(root: str, tar: str) -> Callable[[], float]:
    """Apply with containers/storage's overlay driver through its own command."""

    def run() -> float:
        home = os.path.join(root, "cs")
        command = ["containers-storage", "--graph", home, "--run", home + "-run", "--storage-driver", "overlay"]
        made = subprocess.run([*command, "create-layer"], check=True, capture_output=True, text=True)
        layer = made.stdout.split()[0]
        start = time.perf_counter()
        subprocess.run([*command, "applydiff", "-f", tar, layer], check=True, capture_output=True)
        elapsed = time.perf_counter() - start
        subprocess.run([*command, "wipe"], check=True, capture_output=True)
        subprocess.run([*command, "shutdown"], check=False, capture_output=True)
        shutil.rmtree(home)
        shutil.rmtree(home + "-run", ignore_errors=True)
        return elapsed

    return run


def gunzip_alone(path: str) -> Callable[[], float]:
    """Decompress with isal and throw the bytes away."""

    def run() -> float:
        start = time.perf_counter()
        decompressor = isal.isal_zlib.decompressobj(wbits=31)
        with open(path, "rb") as stream:
            while chunk := stream.read(CHUNK):
                decompressor.decompress(chunk)
        return time.perf_counter() - start

    return run


def main() -> None:
    """Run the rounds and print medians and ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--directory", default=None, help="where to work: its file system is what is measured")
    parser.add_argument("--files", type=int, default=30_000)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    root = tempfile.mkdtemp(prefix="bench-apply-", dir=options.directory)
    try:
        tar = make_layer(root, options.files)
        zipped = tar + ".gz"
        with open(tar, "rb") as source, isal.igzip.open(zipped, "wb", compresslevel=3) as sink:
            shutil.copyfileobj(source, sink, CHUNK)
        contenders = {
            "tar -x": gnu_tar(root, tar),
            "overlay": apply_with("overlay", root, tar),
            "vfs": apply_with("vfs", root, tar),
            "overlay, gzip": apply_with("overlay", root, zipped),
            "isal alone": gunzip_alone(zipped),
        }
        if shutil.which("containers-storage"):
            contenders["containers-storage"] = containers_storage(root, tar)
        times: dict[str, list[float]] = {name: [] for name in contenders}
        for _ in range(options.repeats + 1):
            for name, run in contenders.items():
                times[name].append(run())
        for name, values in times.items():
            kept = values[1:]  # the first round warms up
            ratio = statistics.median(a / b for a, b in zip(kept, times["tar -x"][1:], strict=True))
            print(f"{name:20} {statistics.median(kept):7.3f} s  {ratio:5.2f} x tar -x")
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        print(f"peak memory of this process: {peak / 1024:.0f} MiB")
    finally:
        shutil.rmtree(root)


if __name__ == "__main__":
    sys.exit(main())
