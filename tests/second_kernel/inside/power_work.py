"""Work on a store on a disk of its own, without end: each step is told before it is begun and after it returned.

    power_work.py DEVICE FS_TYPE OPTIONS DRIVER DURABILITY SEED BROKEN

Runs in a guest that is killed some time. With ``open`` in the place of a seed the store is only opened, and closed.
BROKEN names what is made to do nothing, to see that the loss is noticed: ``syncfs``, ``ledger``, or nothing.
"""

import itertools
import json
import os
import pathlib
import random
import sys
import tempfile
import termios
import time
from collections.abc import Callable

HERE = pathlib.Path(__file__).parent
sys.path[:0] = [str(HERE.parent.parent / "images")]

import power_model as model  # noqa: E402 - after the path
from layouts import Layout  # noqa: E402 - after the path

from graphdrivers import Store, open_store  # noqa: E402 - after the path
from graphdrivers.linux import durable  # noqa: E402 - after the path
from graphdrivers.linux.mounts import attach  # noqa: E402 - after the path
from graphdrivers.model import Mount  # noqa: E402 - after the path
from graphdrivers.store.database import Database  # noqa: E402 - after the path

DISK = "/run/disk"
QUIET = frozenset({"import", "create", "tag"})
"""Steps that write nothing but what the store has to make durable: to unmount an overlay is a sync of the disk."""
AT_MOST = 6
"""Images, and containers, that are kept at a time."""


def main(arguments: list[str]) -> None:
    """Mount the disk, and work until the power is cut."""
    device, fs_type, options, driver, durability, seed, broken = arguments
    os.mkdir(DISK)
    pairs = tuple((key, value) for key, _, value in (one.partition("=") for one in options.split(",") if one))
    attach((Mount(fs_type, device, options=pairs),), DISK)
    break_it(broken)
    tell({"opening": True})
    with open_store(f"{DISK}/store", driver, durability=durability) as store:
        tell({"opened": list(map(str, store.problems))})
        if seed != "open":
            work(store, random.Random(seed), QUIET if broken or durability == "none" else frozenset(DO))


def break_it(what: str) -> None:
    """Switch off what makes a store durable."""
    if what == "syncfs":
        durable.syncfs = lambda _fd: None
    if what == "ledger":
        whole = Database.write
        Database.write = lambda self, **_: whole(self, durable=False)  # type: ignore[method-assign]


def tell(line: object) -> None:
    """Print one line; it has left this kernel when this returns."""
    os.write(1, json.dumps(line).encode() + b"\n")
    termios.tcdrain(1)


def work(store: Store, chance: random.Random, kinds: frozenset[str]) -> None:
    """Do one step after the other, of these kinds."""
    state = model.EMPTY
    for number in itertools.count():
        step = chance.choice([step for step in possible(state, number, chance) if step["do"] in kinds])
        ready = prepared(step)
        tell({"begun": number, "step": step})
        DO[step["do"]](store, step, ready)
        tell({"done": number})
        if step["do"] == "write":  # nothing else syncs for a while what its fdatasync left out
            time.sleep(chance.uniform(0, 0.3))
        state = model.after(state, step)


def possible(state: model.State, number: int, chance: random.Random) -> list[model.Step]:
    """Give steps that are possible, the more often the more wanted."""
    boxes, images = sorted(state.containers), sorted(state.images)
    found: list[model.Step] = []
    if len(images) < AT_MOST:
        found += 3 * [{"do": "import", "number": number}]
    if images:
        image = chance.choice(images)
        found += [{"do": "tag", "image": image, "alias": f"localhost/alias:{number}"}]
        if image not in state.bases.values():
            found += (4 if len(images) >= AT_MOST else 1) * [{"do": "remove_image", "image": image}]
        if len(boxes) < AT_MOST:
            found += 3 * [{"do": "create", "name": f"box{number}", "image": image}]
    if state.aliases:
        found += [{"do": "untag", "alias": chance.choice(sorted(state.aliases))}]
    if boxes:
        found += of_a_container(state, chance.choice(boxes), number)
    return found


def of_a_container(state: model.State, name: str, number: int) -> list[model.Step]:
    """Give what can be done with a container."""
    files = {f"note-{number}": f"note {number}", model.REWRITTEN: f"again {number}"}
    found: list[model.Step] = 4 * [{"do": "write", "name": name, "files": files, "page": f"page {number}"}]
    found += [{"do": "checkpoint", "name": name, "point": f"p{number}"}, {"do": "remove", "name": name}]
    if len(state.images) < AT_MOST:
        found += 2 * [{"do": "commit", "name": name, "number": number}]
    if len(state.containers) < AT_MOST:
        found += 2 * [{"do": "fork", "name": name, "new": f"box{number}"}]
    for point in state.points[name]:
        found += [{"do": "rollback", "name": name, "point": point}, {"do": "forget", "name": name, "point": point}]
    return found


def prepared(step: model.Step) -> pathlib.Path:
    """Make what a step reads, in memory."""
    folder = pathlib.Path(tempfile.mkdtemp(dir="/run"))
    if step["do"] == "import":
        tars = model.image_tars(step["number"])
        layout = Layout(folder / "layout")
        layout.add(layout.manifest(*tars), "latest")
        return folder / "layout"
    return folder


def write(store: Store, step: model.Step, _folder: pathlib.Path) -> None:
    """Write files in a container, each made durable by whoever writes it, as a database does."""
    with store.container(step["name"]).mounted() as place:
        for path, seed in step["files"].items():
            with open(place / path, "wb") as file:
                file.write(model.text_of(seed))
                file.flush()
                os.fsync(file.fileno())
            durable.fsync_directory(str((place / path).parent))
        with open(place / model.PATCHED, "r+b") as file:
            file.write(model.page_of(step["page"]))
            file.flush()
            os.fdatasync(file.fileno())


DO: dict[str, Callable[[Store, model.Step, pathlib.Path], object]] = {
    "import": lambda store, step, path: store.import_image(path, name=model.image_name(step["number"])),
    "commit": lambda store, step, _: store.commit(step["name"], model.image_name(step["number"])),
    "tag": lambda store, step, _: store.tag(step["image"], step["alias"]),
    "untag": lambda store, step, _: store.untag(step["alias"]),
    "remove_image": lambda store, step, _: store.remove_image(step["image"]),
    "create": lambda store, step, _: store.create(step["image"], name=step["name"]),
    "fork": lambda store, step, _: store.container(step["name"]).fork(step["new"]),
    "checkpoint": lambda store, step, _: store.container(step["name"]).checkpoint(step["point"]),
    "rollback": lambda store, step, _: store.container(step["name"]).rollback(step["point"]),
    "forget": lambda store, step, _: store.container(step["name"]).forget(step["point"]),
    "remove": lambda store, step, _: store.container(step["name"]).remove(),
    "write": write,
}

if __name__ == "__main__":
    main(sys.argv[1:])
