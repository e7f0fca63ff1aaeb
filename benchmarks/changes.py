"""List the changes of a writable overlay layer: 1,000 changed files over an image of 50,000, and none.

Usage: ``python benchmarks/changes.py [--directory DIR] [--repeats 15]``; as root.
Two shapes: the changes in 50 of the image's directories, and one in each of 1,000.
"""

import argparse
import os
import shutil
import statistics
import sys
import tempfile
import time

import graphdrivers
from graphdrivers.linux import mounts

FILES, PER_DIRECTORY, CHANGED = 50_000, 20, 1_000


def fill(root: str) -> None:
    """Write the image's files, a few bytes each."""
    for number in range(FILES // PER_DIRECTORY):
        folder = os.path.join(root, f"d{number // 50}", f"s{number % 50}")
        os.makedirs(folder)
        for name in range(PER_DIRECTORY):
            with open(os.path.join(folder, f"f{name}"), "w") as file:
                file.write("content")


def change(root: str, *, spread: bool) -> None:
    """Append to files, all of a directory or one of each."""
    each = 1 if spread else PER_DIRECTORY
    for number in range(CHANGED // each):
        for name in range(each):
            with open(os.path.join(root, f"d{number // 50}", f"s{number % 50}", f"f{name}"), "a") as file:
                file.write("more")


def main() -> None:
    """Build the image once, then time each layer's changes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--directory", default=None)
    parser.add_argument("--repeats", type=int, default=15)
    options = parser.parse_args()
    root = tempfile.mkdtemp(prefix="bench-changes-", dir=options.directory)
    target = os.path.join(root, "mnt")
    os.mkdir(target)
    try:
        driver = graphdrivers.load_driver("overlay", os.path.join(root, "home"))
        driver.create("image")
        fill(mounts.plain_directory(driver.mounts("image")) or "")
        driver.seal("image")
        for layer in ("untouched", "clustered", "spread"):
            driver.create(layer, "image")
            mounts.attach(driver.mounts(layer), target)
            if layer != "untouched":
                change(target, spread=layer == "spread")
            mounts.detach(target)
            times = []
            for _ in range(options.repeats):
                start = time.perf_counter()
                found = len(list(driver.changes(layer)))
                times.append(time.perf_counter() - start)
            print(f"{layer:10} {found:5} changes  {statistics.median(times) * 1000:7.2f} ms")
        driver.close()
    finally:
        shutil.rmtree(root)


if __name__ == "__main__":
    sys.exit(main())
