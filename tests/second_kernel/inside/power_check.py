"""Open a store after power cuts and tell, as a list on standard output, what of it is not as was acknowledged.

    power_check.py DISK FS_TYPE JOURNAL

DISK is the image of a disk or a device, JOURNAL the lines that ``power_work.py`` printed.
Mounts it for good: to be run in a mount namespace, or a guest, of its own.
"""

import json
import os
import pathlib
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Mapping

import power_model as model

from graphdrivers import Store, open_store
from graphdrivers.errors import GraphDriverError
from graphdrivers.store import recover


def main(disk: str, fs_type: str, journal: str) -> None:
    """Mount, look, tell."""
    place = tempfile.mkdtemp(dir="/run")
    loop = ["-o", "loop"] if os.path.isfile(disk) else []
    subprocess.run(["mount", "-t", fs_type, *loop, disk, place], check=True, capture_output=True)
    try:
        found = list(complaints(f"{place}/store", pathlib.Path(journal).read_text(encoding="ascii").split("\n")))
    except (GraphDriverError, OSError) as error:
        found = [f"{type(error).__name__}: {error}"]
    finally:
        subprocess.run(["umount", place], check=True)
        os.rmdir(place)
    sys.stdout.write(json.dumps(found))


def complaints(root: str, lines: list[str]) -> Iterator[str]:
    """Give all that is wrong."""
    acknowledged, begun = replayed(lines)
    for _ in range(2):  # what the first did is not undone by the second
        with open_store(root) as store:
            yield from (f"not repaired: {problem}" for problem in store.problems)
            yield from left_over(store)
            yield from (f"{fault.kind}: {fault}" for fault in store.check(deep=True))
            yield from not_as_acknowledged(store, acknowledged, begun)
    with open_store(root) as store:
        yield from wrong_layers(store, acknowledged)
        yield from wrong_branches(store)
        yield from (f"not collected: {layer}: {why}" for layer, why in store.collect().resisted)
        yield from (f"in use by nothing: {name}" for name in store.unused())
        yield from left_over(store)


def replayed(lines: list[str]) -> tuple[model.State, model.Step | None]:
    """Give what was acknowledged, and the step that was begun and not."""
    state, begun = model.EMPTY, None
    for line in filter(None, lines):
        told = json.loads(line)
        if "begun" in told:
            begun = told["step"]
        elif "done" in told and begun is not None:
            state, begun = model.after(state, begun), None
    return state, begun


def left_over(store: Store) -> Iterator[str]:
    """Give what ledger, driver and folders do not agree on, and what is half done."""
    site = store.site
    yield from site.database.is_sound()
    yield from map(str, recover.compare(site, repair=False))
    rows = site.database.read("SELECT name, state, parent, diff_id FROM layers")
    yield from (f"unfinished: {row[0]} {row[1]}" for row in rows if row[1] != "ready")
    there = {layer.name: layer.parent for layer in site.driver.layers()}
    if there != {row[0]: row[2] for row in rows}:
        yield f"layers: {sorted(there)} in the driver, {sorted(row[0] for row in rows)} in the ledger"
    records = set(os.listdir(os.path.join(site.folder, "records")))
    if records != {row[0] for row in rows if row[3] is not None}:
        yield f"records: {sorted(records)}"
    for query in ("SELECT name FROM containers WHERE NOT ready", "SELECT layer FROM leases", "SELECT * FROM mounts"):
        yield from (f"{query}: {row}" for row in site.database.read(query))
    if site.driver.name == "btrfs":
        trees = {os.path.join(site.driver.home, "layers", name, "tree") for name in there}
        yield from (f"subvolume: {path}" for path in trees ^ subvolumes(site.root))
    for folder in (os.path.join(site.driver.home, "tmp"), os.path.join(site.root, "mounts")):
        yield from (f"left over: {folder}/{name}" for name in os.listdir(folder))


def subvolumes(root: str) -> set[str]:
    """Give the paths of all subvolumes of a btrfs file system that ``root`` is directly on."""
    place = os.path.dirname(root)
    command = ["btrfs", "subvolume", "list", place]
    listed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return {os.path.join(place, line.partition(" path ")[2]) for line in listed.splitlines()}


def not_as_acknowledged(store: Store, state: model.State, begun: model.Step | None) -> Iterator[str]:
    """Compare with what was acknowledged, and where a step was under way also with what it leads to."""
    masked: dict[str, set[str]] = {}
    after = None if begun is None else model.after(state, begun)
    if begun is not None and begun["do"] == "write":  # its files come one by one
        masked, after = {begun["name"]: {*begun["files"], model.PATCHED}}, None
    found = observed(store)
    differences = [list(between(found, wanted, masked)) for wanted in (state, after) if wanted is not None]
    if all(differences):
        yield from differences[0]


def observed(store: Store) -> model.State:
    """Read what the store has; which checkpoints, not what is in them."""
    images, aliases = {}, {}
    for image in store.images():
        name = next((name for name in image.names if name.startswith("localhost/made:")), image.image_id)
        images[name] = tree_of(store, image.image_id)
        aliases |= {alias: name for alias in image.names if alias != name}
    boxes = {box.name: tree_of(store, box.name) for box in store.containers()}
    points = {box.name: {one.point: model.Tree() for one in box.checkpoints()} for box in store.containers()}
    return model.State(images, aliases, boxes, {}, points)


def between(found: model.State, wanted: model.State, masked: Mapping[str, set[str]]) -> Iterator[str]:
    """Give the differences of two states."""
    if found.aliases != wanted.aliases:
        yield f"names: {found.aliases}, not {wanted.aliases}"
    if {name: set(points) for name, points in found.points.items()} != {
        name: set(points) for name, points in wanted.points.items()
    }:
        yield f"checkpoints: {found.points}"
    for kind, here, there in (
        ("image", found.images, wanted.images),
        ("container", found.containers, wanted.containers),
    ):
        for name in sorted({*here, *there}):
            if name not in here or name not in there:
                yield f"{kind} {name}: {'lost' if name in there else 'not acknowledged, or back'}"
                continue
            left = masked.get(name, set())
            one, other = ({item for item in tree.items() if item[0] not in left} for tree in (here[name], there[name]))
            if one != other:
                yield f"{kind} {name}: other files: {sorted({path for path, _ in one ^ other})}"


def tree_of(store: Store, name: str) -> model.Tree:
    """Read a merged tree."""
    tree = {}
    with store.export(name) as stream, tarfile.open(fileobj=stream, mode="r|") as tar:
        for member in tar:
            if member.isreg() and member.size and (opened := tar.extractfile(member)):
                tree[member.name] = model.digest(opened.read())
    return tree


def wrong_layers(store: Store, state: model.State) -> Iterator[str]:
    """Give imported layers whose tar is not the one that was imported, to the byte."""
    for image in store.images():
        number = next((int(name.rpartition(":")[2]) for name in image.names if "/made:" in name), None)
        if number is None or state.images.get(model.image_name(number)) != model.imported(number):
            continue  # it was committed
        for layer, wanted in zip(image.layers, model.image_tars(number), strict=True):
            with store.open_layer(layer) as tar:
                if tar.read() != wanted:
                    yield f"layer {layer.name}: another tar"


def wrong_branches(store: Store) -> Iterator[str]:
    """Commit and fork containers, and give what does not hold what it should."""
    for box in store.containers():
        tree = tree_of(store, box.name)
        if tree_of(store, store.commit(box).image_id) != tree:
            yield f"container {box.name}: an image of it has other files"
        box.fork(f"{box.name}-fork")
        if tree_of(store, f"{box.name}-fork") != tree:
            yield f"container {box.name}: a fork of it has other files"
        if tree_of(store, box.name) != tree:
            yield f"container {box.name}: has other files after a fork"


if __name__ == "__main__":
    main(*sys.argv[1:])
