"""List and diff what a container changed: 1,000 files over an image of 50,000, and nothing.

Usage: ``python benchmarks/changes.py [--directory DIR] [--rounds N] [--quick]``; as root.
Two shapes: the changes in 50 of the image's directories, and one in each of 1,000.
"""

import contextlib
import os
from collections.abc import Iterator

import diff
import materials
import ours
import tools
from graphdrivers.driver import Driver
from measuring import Bench, Contender, Result, alone, clocked, piped

IMAGE = materials.Spec(name="image", files=50_000, size=5 << 20, even=True, links=0)
CHANGED = 1_000
LAYERS = {
    "none": "nothing changed",
    "clustered": "1,000 files changed, in 50 directories",
    "spread": "1,000 files changed, in 1,000 directories",
}
"""The containers, and what was done in each."""

_REPACKS = "it compares only as it repacks: see the commit"
_COMMITS = "it compares only as it commits: see the commit"
_ABSENT = {
    tools.GNU_TAR: tools.NO_LAYERS,
    tools.BSDTAR: tools.NO_LAYERS,
    tools.UMOCI: _REPACKS,
    tools.BUILDAH: _COMMITS,
}


def measure(bench: Bench) -> Iterator[Result]:
    """Build the image once for each, then time each container's changes and diff."""
    layer = materials.make_layer(bench.folder, IMAGE, scale=20 if bench.quick else 1)
    choice = ours.drivers(bench.folder)
    with contextlib.ExitStack() as scope:
        drivers = scope.enter_context(ours.opened(bench, choice.usable))
        storage = scope.enter_context(tools.containers_storage(bench.folder))
        absent = dict(choice.refused) | _ABSENT | tools.missing()
        theirs = _their_containers(bench, storage, layer) if tools.STORAGE not in absent else {}
        for driver in drivers.values():
            _our_containers(bench, driver, layer)
        for name, title in LAYERS.items():
            for work, act, ours_does in (
                ("changes", f"list them: {title}", _list),
                ("container diff", f"as a tar: {title}", diff.of_layer),
            ):
                contenders = {tools.STORAGE: _asked(storage, work, theirs[name])} if theirs else {}
                contenders |= {key: ours_does(driver, name) for key, driver in drivers.items()}
                yield bench.compare(f"{work} {name}", act, contenders, absent=absent, rounds=3 * bench.rounds)


def _list(driver: Driver, layer: str) -> Contender:
    return lambda: clocked(lambda: sum(1 for _ in driver.changes(layer)))


def _asked(storage: tools.ContainersStorage, work: str, layer: str) -> Contender:
    if work == "changes":
        return lambda: clocked(storage.call, "changes", layer)
    command = storage.command("diff", "-u", layer)
    return lambda: clocked(piped, command, ["sha256sum"])


def _our_containers(bench: Bench, driver: Driver, image: materials.Layer) -> None:
    ours.apply(driver, "image", image.tar)
    for name in LAYERS:
        driver.create(name, "image")
        with ours.mounted(driver, name, bench.path("mnt")) as target:
            change(bench, target, name)


def _their_containers(bench: Bench, storage: tools.ContainersStorage, image: materials.Layer) -> dict[str, str]:
    base = storage.applied(image.tar)
    made = {}
    for name in LAYERS:
        made[name] = storage.create(base)
        change(bench, storage.mount(made[name]), name)
        storage.unmount(made[name])
    return made


def change(bench: Bench, root: str, how: str) -> None:
    """Append to files: to all of a directory, to one of each, or to none."""
    if how == "none":
        return
    each = 1 if how == "spread" else IMAGE.per_folder
    for number in range(bench.scaled(CHANGED) // each):
        for name in range(each):
            path = os.path.join(root, IMAGE.name, f"d{number // 100:03}", f"s{number % 100:02}", f"file{name}")
            with open(path, "ab") as file:
                file.write(b"more")


if __name__ == "__main__":
    alone(measure, __doc__)
