"""What is measured: each workload is one function that starts the bed's clock around what counts.

Everything outside the clock (creating what is worked on, cleaning up) is free.
"""

import os
import stat
from collections.abc import Callable

import attrs

from graphdrivers.bench.bed import Bed, write_files
from graphdrivers.linux import mounts

_CHUNK = 1 << 20
"""Bytes read at a time."""

DEPTHS = (2, 10, 50, 100)
"""Layers in the stacks that are measured, the writable one included."""


@attrs.frozen
class Workload:
    """One row of the report."""

    name: str
    title: str
    """What is timed, for people."""
    run: Callable[[Bed], float]
    """Take one sample, in `unit`."""
    unit: str = "s"
    """``s`` for seconds per operation, ``B`` for bytes."""


def apply(bed: Bed) -> float:
    """Unpack all layers of the image from uncompressed tars on disk."""
    for layer in reversed(bed.apply_image()):
        bed.driver.remove(layer)
    return bed.elapsed


def diff(bed: Bed) -> float:
    """Read the diff of a layer with many new files to its end."""
    layer = bed.edited()
    with bed.clock(), bed.driver.diff(layer) as tar:
        while tar.read(_CHUNK):
            pass
    return bed.elapsed


def changes(bed: Bed) -> float:
    """List what that layer changes."""
    layer = bed.edited()
    with bed.clock():
        for _change in bed.driver.changes(layer):
            pass
    return bed.elapsed


def mount(bed: Bed) -> float:
    """Plan, mount, unmount and settle a child of the image."""
    target = os.path.join(bed.folder, "merged")
    os.makedirs(target, exist_ok=True)
    with bed.child(bed.base()) as layer:
        for _ in range(bed.loops):
            with bed.clock():
                plan = bed.driver.mounts(layer)
                if mounts.plain_directory(plan) is None:
                    mounts.attach(plan, target)
                    mounts.detach(target)
                bed.driver.settle(layer)
    return bed.elapsed / bed.loops


def create(bed: Bed) -> float:
    """Create a writable child of the image."""
    parent = bed.base()
    for _ in range(bed.loops):
        layer = bed.unused()
        with bed.clock():
            bed.driver.create(layer, parent)
        bed.driver.remove(layer)
    return bed.elapsed / bed.loops


def copy_up(bed: Bed) -> float:
    """Change the first byte of a large file of the parent, in the mounted child."""
    with bed.child(bed.large()) as layer, bed.merged(layer) as root, bed.clock():
        descriptor = os.open(os.path.join(root, "large"), os.O_WRONLY | os.O_CLOEXEC)
        os.pwrite(descriptor, b"!", 0)
        os.close(descriptor)
    return bed.elapsed


def metadata(bed: Bed) -> float:
    """Create, stat, rename and unlink many small files in a mounted child of the image."""
    with bed.child(bed.base()) as layer, bed.merged(layer) as root:
        folder = os.path.join(root, "bench.storm")
        names = [
            (os.path.join(folder, f"a{number}"), os.path.join(folder, f"b{number}")) for number in range(bed.files)
        ]
        with bed.clock():
            os.mkdir(folder)
            for first, _second in names:
                os.close(os.open(first, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o644))
            for first, second in names:
                os.stat(first)
                os.rename(first, second)
            for _first, second in names:
                os.unlink(second)
            os.rmdir(folder)
    return bed.elapsed


def read(bed: Bed) -> float:
    """Walk the whole image and read every file, through a view."""
    with bed.merged(bed.base(), view=True) as root, bed.clock():
        for folder, _folders, names in os.walk(root):
            for name in names:
                _read_file(os.path.join(folder, name))
    return bed.elapsed


def _read_file(path: str) -> None:
    if not stat.S_ISREG(os.lstat(path).st_mode):
        return
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        while os.read(descriptor, _CHUNK):
            pass
    finally:
        os.close(descriptor)


def remove(bed: Bed) -> float:
    """Remove a child of the image that holds many new files."""
    layer = bed.unused()
    bed.driver.create(layer, bed.base())
    with bed.merged(layer) as root:
        write_files(os.path.join(root, "bench.new"), bed.files)
    with bed.clock():
        bed.driver.remove(layer)
    return bed.elapsed


def disk(bed: Bed) -> float:
    """Measure what the image takes on disk."""
    before = bed.disk()
    layers = bed.apply_image()
    used = bed.disk() - before
    for layer in reversed(layers):
        bed.driver.remove(layer)
    return float(used)


def _stack(depth: int) -> Callable[[Bed], float]:
    def stack(bed: Bed) -> float:
        """Create a layer on a deep stack, mount it, stat the file at the bottom, unmount."""
        parent, layer = bed.stack(depth - 1), bed.unused()
        try:
            with bed.clock():
                bed.driver.create(layer, parent)
                with bed.merged(layer) as root:
                    os.stat(os.path.join(root, "file-1"))
        finally:
            bed.driver.remove(layer)
        return bed.elapsed

    return stack


WORKLOADS: tuple[Workload, ...] = (
    Workload("apply", "unpack the image", apply),
    Workload("create", "create a child of it", create),
    Workload("mount", "mount and unmount that", mount),
    Workload("read", "read the whole tree", read),
    Workload("metadata", "create/stat/rename/unlink files", metadata),
    Workload("copy-up", "first write to a 32 MiB file", copy_up),
    Workload("changes", "list the changes of a layer", changes),
    Workload("diff", "diff of that layer", diff),
    Workload("remove", "remove a layer with files", remove),
    *(Workload(f"stack-{depth}", f"start on {depth} layers", _stack(depth)) for depth in DEPTHS),
    Workload("disk", "disk used by the image", disk, unit="B"),
)
"""Every workload, in the order of the report."""
