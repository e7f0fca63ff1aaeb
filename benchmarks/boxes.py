"""A container's life: create, mount and remove, in drivers and in a store, against others.

Usage: ``python benchmarks/boxes.py [--directory DIR] [--rounds N] [--quick]``; as root.
The store is measured with few layers in it, and with 10,000 more: both have to take the same.
"""

import contextlib
import itertools
import os
import shutil
from collections.abc import Callable, Iterator

import attrs

import graphdrivers
import materials
import ours
import tools
from graphdrivers.api.containers import Container
from graphdrivers.api.store import Store
from graphdrivers.driver import Driver
from graphdrivers.store import ledger
from graphdrivers.store.holders import Holder
from measuring import Bench, Contender, Result, alone, clocked, run

IMAGE = (
    materials.Spec(name="base", files=5_000, size=50 << 20),
    materials.Spec(name="application", files=3_000, size=20 << 20),
    materials.Spec(name="settings", files=200, size=1 << 20, even=True),
)
CROWD = 10_000
CROWDED = "store, 10,000 layers more"
RM = "rm -rf"
HEAVY = 256 << 20
"""Bytes in the writable layer that is forked."""

_ROUNDS = 40
_ABSENT = {tools.GNU_TAR: tools.NO_LAYERS, tools.BSDTAR: tools.NO_LAYERS}
_UNPACKS = "its containers are unpacked images: see the import"


def store_of(durability: str) -> str:
    """Name the contender that is a store of ours."""
    return f"store, durability {durability}"


@attrs.define
class Subject:
    """Something that makes containers; `made` is the last one."""

    create: Callable[[], object]
    mount: Callable[[], object]
    unmount: Callable[[], object]
    remove: Callable[[], object]

    def created(self) -> float:
        """Time the making of a container alone."""
        seconds = clocked(self.create)
        self.remove()
        return seconds

    def readied(self) -> float:
        """Time it until the container is mounted."""
        seconds = clocked(self.create) + clocked(self.mount)
        self.unmount()
        self.remove()
        return seconds

    def removed(self) -> float:
        """Time the removal alone."""
        self.create()
        return clocked(self.remove)


def measure(bench: Bench) -> Iterator[Result]:
    """Measure each stage of the life, then the removal of much and the fork of much."""
    tars = [materials.make_layer(bench.folder, spec, scale=20 if bench.quick else 1).tar for spec in IMAGE]
    layout = materials.make_layout(bench.path("layout"), tars, zipped=True)
    choice = ours.drivers(bench.folder)
    absent = dict(choice.refused) | _ABSENT | {tools.UMOCI: _UNPACKS} | tools.missing()
    with contextlib.ExitStack() as scope:
        drivers = scope.enter_context(ours.opened(bench, choice.usable))
        subjects = {name: _of_driver(driver, ours.stack(driver, tars), bench) for name, driver in drivers.items()}
        subjects |= _theirs(bench, scope, tars, layout, absent)
        if "overlay" in drivers:
            subjects |= _stores(bench, scope, layout)
            subjects[ours.COMMANDS] = _of_commands(bench.folder, f"stack-{len(tars) - 1}")
        for work, title, stage in (
            ("create", "make a writable layer over an image of 3 layers", Subject.created),
            ("create and mount", "the same, until it is mounted and ready", Subject.readied),
            ("remove", "remove a writable layer that nothing was written to", Subject.removed),
        ):
            yield bench.compare(work, title, _stage(subjects, stage), absent=absent, rounds=_ROUNDS)
    yield from measure_removal(bench, absent)
    yield _fork(bench, layout)


def _stage(subjects: dict[str, Subject], stage: Callable[[Subject], float]) -> dict[str, Contender]:
    return {name: lambda subject=subject: stage(subject) for name, subject in subjects.items()}  # type: ignore[misc]


def _of_driver(driver: Driver, image: str, bench: Bench) -> Subject:
    scope = contextlib.ExitStack()
    return Subject(
        create=lambda: driver.create("box", image),
        mount=lambda: scope.enter_context(ours.mounted(driver, "box", bench.path("mnt"))),
        unmount=scope.close,
        remove=lambda: driver.remove("box"),
    )


def _theirs(
    bench: Bench, scope: contextlib.ExitStack, tars: list[str], layout: str, absent: dict[str, str]
) -> dict[str, Subject]:
    found: dict[str, Subject] = {}
    if tools.STORAGE not in absent:
        storage = scope.enter_context(tools.containers_storage(bench.folder))
        top = storage.stack(tars)
        layers: list[str] = []
        found[tools.STORAGE] = Subject(
            create=lambda: layers.append(storage.create(top)),
            mount=lambda: storage.mount(layers[-1]),
            unmount=lambda: storage.unmount(layers[-1]),
            remove=lambda: storage.remove(layers.pop()),
        )
    if tools.BUILDAH not in absent:
        store = scope.enter_context(tools.buildah(bench.folder))
        image = store.pull(layout, materials.REFERENCE)
        boxes: list[str] = []
        found[tools.BUILDAH] = Subject(
            create=lambda: boxes.append(store.start(image)),
            mount=lambda: store.mount(boxes[-1]),
            unmount=lambda: store.unmount(boxes[-1]),
            remove=lambda: store.remove(boxes.pop()),
        )
    return found


def _of_commands(root: str, image: str) -> Subject:
    return Subject(
        create=lambda: ours.command(root, "layer", "create", "typed", "--parent", image),
        mount=lambda: ours.command(root, "layer", "mount", "typed"),
        unmount=lambda: ours.command(root, "layer", "umount", "typed"),
        remove=lambda: ours.command(root, "layer", "rm", "typed"),
    )


def _stores(bench: Bench, scope: contextlib.ExitStack, layout: str) -> dict[str, Subject]:
    found: dict[str, Subject] = {}
    for name, durability, crowd in (
        (store_of("none"), "none", 0),
        (store_of("layer"), "layer", 0),
        (CROWDED, "layer", bench.scaled(CROWD)),
    ):
        folder = bench.path(f"store-{len(found)}")
        os.mkdir(folder)
        store = scope.enter_context(ours.fresh_store(folder, durability))
        image = store.import_image(layout)
        fill(store, image, crowd)
        found[name] = _of_store(store, image)
    return found


def _of_store(store: Store, image: graphdrivers.Image) -> Subject:
    numbers = itertools.count()
    boxes: list[Container] = []
    scope = contextlib.ExitStack()
    return Subject(
        create=lambda: boxes.append(store.create(image, name=f"box{next(numbers)}")),
        mount=lambda: scope.callback(boxes[-1].mount().release),
        unmount=scope.close,
        remove=lambda: boxes.pop().remove(),
    )


def fill(store: Store, image: graphdrivers.Image, count: int) -> None:
    """Fill the store with sealed layers, as a busy one has, in the driver and in the ledger."""
    made = [f"image.{number:032x}" for number in range(count)]
    with store.site.database.write() as step:
        for name in made:
            ledger.intend(step, name, image.layers[0].name, Holder.here())
            ledger.complete(step, name)
    for name in made:
        store.driver.create(name, image.layers[0].name)
        store.driver.seal(name)


def measure_removal(bench: Bench, absent: dict[str, str]) -> Iterator[Result]:
    """Remove a layer of many small files."""
    layer = materials.make_layer(bench.folder, materials.SMALL, scale=20 if bench.quick else 1)
    with contextlib.ExitStack() as scope:
        drivers = scope.enter_context(ours.opened(bench, ours.drivers(bench.folder).usable))
        contenders: dict[str, Contender] = {RM: _rm(bench, layer.tar)}
        if tools.STORAGE not in absent:
            storage = scope.enter_context(tools.containers_storage(bench.folder))
            contenders[tools.STORAGE] = lambda: clocked(storage.remove, storage.applied(layer.tar))
        contenders |= {name: _removal(driver, layer.tar) for name, driver in drivers.items()}
        without = absent | ({tools.BUILDAH: "it removes images, not layers"} if tools.BUILDAH not in absent else {})
        title = f"remove a layer of {layer.entries:,} entries, to the last file"
        yield bench.compare("remove small", title, contenders, absent=without, floor=RM)


def _rm(bench: Bench, tar: str) -> Contender:
    def remove() -> float:
        with contextlib.ExitStack() as scope:
            target = bench.path("rm")
            os.mkdir(target)
            scope.callback(shutil.rmtree, target, ignore_errors=True)
            run("tar", "-C", target, "-xf", tar)
            return clocked(run, "rm", "-rf", target)

    return remove


def _removal(driver: Driver, tar: str) -> Contender:
    def remove() -> float:
        ours.apply(driver, "layer", tar)
        return clocked(driver.remove, "layer")

    return remove


def _fork(bench: Bench, layout: str) -> Result:
    """Fork a container with much in its upper, the disk already having it."""
    numbers = itertools.count()
    with contextlib.ExitStack() as scope:
        contenders: dict[str, Contender] = {}
        for durability in ("none", "layer"):
            folder = bench.path(f"fork-{durability}")
            os.mkdir(folder)
            store = scope.enter_context(ours.fresh_store(folder, durability))
            box = store.create(store.import_image(layout), name="heavy")
            contenders[store_of(durability)] = lambda box=box: _forked(bench, box, f"fork{next(numbers)}")  # type: ignore[misc]
        title = f"fork a container with {bench.scaled(HEAVY) / 1e9:.2f} GB in its writable layer"
        others = dict.fromkeys((tools.GNU_TAR, tools.BSDTAR), tools.NO_LAYERS)
        others |= dict.fromkeys((tools.UMOCI, tools.STORAGE, tools.BUILDAH), "it cannot fork")
        return bench.compare("fork", title, contenders, absent=others)


def _forked(bench: Bench, box: Container, name: str) -> float:
    with box.mounted() as rootfs, open(rootfs / "heavy", "wb") as file:
        piece = os.urandom(1 << 20)
        file.writelines(piece for _ in range(bench.scaled(HEAVY) >> 20))
        os.fsync(file.fileno())
    made: list[Container] = []
    seconds = clocked(lambda: made.append(box.fork(name)))
    made[0].remove()
    return seconds


if __name__ == "__main__":
    alone(measure, __doc__)
