"""Acts that belong to one workload each, where steps in a row do not say it."""

import os
import time
from collections.abc import Iterable

from graphdrivers import edits, errors
from graphdrivers.bench import caches, database, storms
from graphdrivers.bench.bed import Bed
from graphdrivers.bench.contents import File
from graphdrivers.bench.scene import Scene
from graphdrivers.bench.steps import read_file, read_tree

DEPTHS = (2, 10, 50, 120)
"""Layers in the stacks of ``deep``, the writable one included."""

CONTAINERS = (1, 10, 50)
"""Containers of ``density``."""

DATABASE = "database"
"""The file of the database."""

_FRESH_EVERY = 20
"""Turns after which a sandbox starts anew: each adds a layer, and stacks end at some depth."""

_DENSITY_PATIENCE = 4
"""How many times the patience of a sample making containers for ``density`` may take."""


def image(bed: Bed) -> str:
    """Give the ground of most: the top layer of the image."""
    return bed.image_layer()


def nothing(_bed: Bed) -> None:
    """Give no ground."""


def installed(bed: Bed) -> str:
    """Give the ground of ``packages``."""
    return bed.ground("packages", storms.packages)


def database_file(bed: Bed) -> str:
    """Give the ground of ``database``."""
    return bed.ground("database", lambda: [File(DATABASE, bed.sizes.database)])


def shared_files(bed: Bed) -> str:
    """Give the ground of ``density``: files of 256 KiB."""
    return bed.ground("shared", lambda: [File(f"file-{n}", 256 << 10) for n in range(bed.sizes.shared >> 18)])


def unpack(scene: Scene) -> None:
    """Unpack the image, and see what it takes on disk; the first one stays, as the ground of other workloads."""
    before = scene.bed.disk()
    if scene.bed.has_image:
        scene.adopt(scene.bed.apply_image("apply"))
    else:
        scene.bed.image_layer("apply")
    scene.readings.note("disk", scene.bed.disk() - before)


def fork(scene: Scene) -> None:
    """Keep the present state of the mounted layer in hand: by a live snapshot, else by sealing it and branching."""
    if scene.driver.support.capabilities.fork_live:
        scene.point = scene.snapshot()
    else:
        scene.unmount()
        scene.point = scene.seal()
        scene.create()
        scene.mount()


def rollback(scene: Scene) -> None:
    """Go back to the state that was kept."""
    scene.unmount()
    scene.remove()
    scene.create(scene.point)
    scene.mount()


def fresh_sandbox(scene: Scene) -> None:
    """Begin, and now and then begin anew."""
    if scene.number % _FRESH_EVERY == 0:
        scene.restart()
        scene.create()
        scene.mount()


def upgrade(scene: Scene) -> None:
    """Upgrade a package; counted per file."""
    with scene.clock("upgrade", storms.PACKAGE_FILES):
        edits.perform(storms.upgrade(scene.number), scene.root)


def purge(scene: Scene) -> None:
    """Purge a package; counted per file."""
    with scene.clock("purge", storms.PACKAGE_FILES):
        edits.perform(storms.purge(scene.number), scene.root)


def use_database(scene: Scene) -> None:
    """Write to the database's file for the first time, then at random, then read all of it."""
    path = os.path.join(scene.root, DATABASE)
    engine, writes = scene.bed.instruments.database, scene.bed.sizes.writes
    with scene.clock("copy-up"):
        descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        os.pwrite(descriptor, b"!", 0)
        os.close(descriptor)
    with scene.readings.span("write"):
        scene.readings.add("write", database.random_writes(engine, path, writes), writes)
    with scene.readings.span("read"):
        scene.readings.add("read", database.sequential_read(engine, path))


def read_cold_and_warm(scene: Scene) -> None:
    """Read the whole tree with cold caches, where that can be had, and once more."""
    scene.layer = scene.parent or ""
    reason = caches.kept_in_memory(scene.driver.home)
    scene.mount(view=True)
    if not reason:
        caches.make_cold(scene.driver.home, scene.root)
    for row in ("cold", "warm"):
        with scene.clock(row):
            read_tree(scene)
    if reason:
        scene.readings.cannot("cold", reason)
    scene.unmount()


def go_deep(scene: Scene) -> None:
    """Use layers on stacks of several depths, each mounted freshly, so that no name was looked up before."""
    for depth in DEPTHS:
        try:
            parent = scene.bed.stack(depth - 1)
            with scene.clock(f"mount-{depth}"):
                scene.create(parent)
                scene.mount()
        except (errors.ChainTooDeep, TimeoutError) as error:
            for what in ("mount", "stat", "readdir", "open"):
                scene.readings.cannot(f"{what}-{depth}", str(error))
            continue
        names = [os.path.join(scene.root, f"file-{number}") for number in range(1, depth)]
        with scene.clock(f"stat-{depth}", len(names)):
            for name in names:
                os.stat(name)
        with scene.clock(f"readdir-{depth}"):
            os.listdir(scene.root)
        with scene.clock(f"open-{depth}", len(names)):
            for name in names:
                read_file(name)
        scene.unmount()
        scene.remove()


def crowd_together(scene: Scene) -> None:
    """Start more and more containers that read the same files; see what they take on disk and in memory."""
    bed, meter = scene.bed, scene.bed.instruments.memory
    deadline = time.monotonic() + bed.patience * _DENSITY_PATIENCE
    reason = caches.kept_in_memory(scene.driver.home)
    empty = bed.disk()
    running: list[str] = []
    for count in CONTAINERS:
        while len(running) < count and (not running or time.monotonic() < deadline):
            running.append(scene.started(storms.short_container(len(running))))
        if len(running) < count:
            text = f"starting {count} containers takes longer than there is time for: {len(running)} were started"
            scene.readings.cannot(f"disk-{count}", text)
            scene.readings.cannot(f"memory-{count}", text)
            continue
        scene.readings.note(f"disk-{count}", bed.disk() - empty)
        if reason:
            scene.readings.cannot(f"memory-{count}", reason)
            continue
        caches.make_cold(scene.driver.home, *running)
        scene.readings.note(f"memory-{count}", meter.taken(lambda: _read_files(running)))


def _read_files(roots: Iterable[str]) -> None:
    for root in roots:
        for name in sorted(os.listdir(root)):
            if name.startswith("file-"):
                read_file(os.path.join(root, name))


def write_many(scene: Scene) -> None:
    """Write many small files into the mounted layer."""
    edits.perform(storms.new_files("files", scene.bed.sizes.files), scene.root)


def remove_image(scene: Scene) -> None:
    """Make a stack of three layers with many small files, and remove it."""
    layers: list[str] = []
    for _ in range(3):
        files = [File(f"layer-{len(layers)}/file-{n}", 2048) for n in range(scene.bed.sizes.files)]
        layers.append(scene.bed.applied(layers[-1] if layers else None, files))
        scene.adopt(layers[-1:])
    with scene.clock("image"):
        for layer in reversed(layers):
            scene.remove(layer)
