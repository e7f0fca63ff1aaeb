"""Produce the diff of a layer of many small files, digest included, against ``tar -c | sha256sum``, paired, in one run.

Usage: ``python benchmarks/diff.py [--directory DIR] [--files 30000] [--repeats 5]``.
Every round runs each contender once, so a drifting machine hits all alike; the
ratio is taken round by round against GNU tar and its median is printed. CPU is
what the round's processes used together.
"""

import argparse
import os
import random
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator

from graphdrivers.archive.compare import compare, compare_layer
from graphdrivers.archive.digests import Digester
from graphdrivers.archive.entries import Difference
from graphdrivers.archive.plain import EmptyTree, PlainTree
from graphdrivers.archive.produce import CHUNK, produce
from graphdrivers.archive.union import Branch
from graphdrivers.archive.whiteouts import OVERLAY
from graphdrivers.model import Profile

Contender = Callable[[], object]


def make_tree(root: str, files: int) -> str:
    """Write ``files`` files of 2 to 4 kB, ten to a directory, with whole-second times as in an image."""
    rng = random.Random(1)  # noqa: S311 -- content for a benchmark
    tree = os.path.join(root, "tree")
    for number in range(files // 10):
        folder = os.path.join(tree, f"d{number // 100:03}", f"s{number % 100:02}")
        os.makedirs(folder)
        for name in range(10):
            path = os.path.join(folder, f"file{name}.txt")
            with open(path, "wb") as file:
                file.write(rng.randbytes(rng.randrange(2000, 4000)))
            os.utime(path, (1_700_000_000 + number, 1_700_000_000 + number))
    return tree


def gnu_tar(tree: str) -> Contender:
    """GNU tar in one process, the digest in another: the measure."""
    return lambda: subprocess.run(f"tar -C '{tree}' -c . | sha256sum", shell=True, check=True, capture_output=True)  # noqa: S602 -- our own path


def gnu_tar_openssl(tree: str) -> Contender:
    """Run GNU tar with the digest by OpenSSL, as Python has it."""
    command = f"tar -C '{tree}' -c . | openssl dgst -sha256"
    return lambda: subprocess.run(command, shell=True, check=True, capture_output=True)  # noqa: S602 -- our own path


def plain(tree: str) -> Iterator[Difference]:
    """Compare as vfs does: real trees on both sides."""
    fd = os.open(tree, os.O_RDONLY)
    try:
        with PlainTree(fd) as upper:
            yield from compare(EmptyTree(), upper)
    finally:
        os.close(fd)


def layer(tree: str) -> Iterator[Difference]:
    """Compare as overlay does: the upper directory against what lies below."""
    return compare_layer(Branch(tree, OVERLAY), EmptyTree())


def ours(tree: str, source: Callable[[str], Iterator[Difference]], profile: Profile) -> Contender:
    """Compare, produce and digest; the digest in a second thread."""

    def run() -> str:
        digester = Digester()
        with produce(source(tree), profile=profile) as stream:
            while chunk := stream.read(CHUNK):
                digester.put(chunk)
        return digester.close()

    return run


def measure(contender: Contender) -> tuple[float, float]:
    """Return wall and CPU seconds of one run."""
    before, start = os.times(), time.perf_counter()
    contender()
    wall, after = time.perf_counter() - start, os.times()
    return wall, sum(after[:4]) - sum(before[:4])


def main() -> None:
    """Run all contenders and print one line for each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--directory", default="/dev/shm", help="where the tree is made (default: %(default)s)")  # noqa: S108 -- tmpfs wanted
    parser.add_argument("--files", type=int, default=30_000)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.directory) as root:
        tree = make_tree(root, options.files)
        contenders: dict[str, Contender] = {
            "tar | sha256sum": gnu_tar(tree),
            "tar | openssl": gnu_tar_openssl(tree),
            "vfs, full": ours(tree, plain, Profile.FULL),
            "vfs, oci": ours(tree, plain, Profile.OCI),
            "overlay, full": ours(tree, layer, Profile.FULL),
            "compare only": lambda: sum(1 for _ in plain(tree)),
        }
        for contender in contenders.values():
            contender()
        rounds = [{name: measure(contender) for name, contender in contenders.items()} for _ in range(options.repeats)]
    for name in contenders:
        wall = statistics.median(each[name][0] for each in rounds)
        cpu = statistics.median(each[name][1] for each in rounds)
        ratio = statistics.median(each[name][0] / each["tar | sha256sum"][0] for each in rounds)
        print(f"{name:16} {wall:6.3f} s wall, {cpu:6.3f} s CPU, {ratio:5.2f} x tar | sha256sum")


if __name__ == "__main__":
    main()
