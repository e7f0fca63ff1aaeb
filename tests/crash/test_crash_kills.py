"""SIGKILL at any moment: nothing acknowledged is lost, nothing is left over, and the store opens by itself."""

import functools
import io
import os
import pathlib
import random
import signal
import time
from collections.abc import Callable, Iterator

import pytest
from killing import killed_before, tmpfs
from storetools import Say, Tree, forked, layout_of, shown, tar_back, tar_of, whole, write

from graphdrivers import Store, open_store

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")

KILLS = int(os.environ.get("GRAPHDRIVERS_STORE_KILLS", "60"))
"""Processes killed at a random moment, for each driver."""

STEP = int(os.environ.get("GRAPHDRIVERS_STORE_KILL_STEP", "5"))
"""Operations are killed at every so many-th call; their recovery at every third of those. 1 leaves out none."""

LAYERS = [tar_of({"etc/motd": "welcome", "gone": "soon"}), tar_of({"etc/motd": "again", "gone": None})]
TREE = {"etc/motd": "again"}
MORE = [[*LAYERS, tar_of({"more": str(number)})] for number in range(3)]


@pytest.fixture
def memory(tmp_path: pathlib.Path) -> Iterator[pathlib.Path]:
    """Give a folder that no disk slows down."""
    with tmpfs(tmp_path / "memory") as place:
        layout_of(place / "image", *LAYERS)
        for number, layers in enumerate(MORE):
            layout_of(place / f"more{number}", *layers, comment=str(number))
        yield place


def start(memory: pathlib.Path, driver: str = "auto") -> Store:
    """Open the store, which has nothing to complain of."""
    store = open_store(memory / "store", driver, durability="none")
    assert store.problems == ()
    return store


def prepared(memory: pathlib.Path, driver: str) -> None:
    """Make a store with an image, and a container with a checkpoint that was written to since."""
    with start(memory, driver) as store:
        store.import_image(memory / "image", name="image")
        store.create("image", name="box")
        write(store, "box", {"kept": "1"})
        store.container("box").checkpoint("one")
        write(store, "box", {"kept": "2", "new": "x"})


OPERATIONS: dict[str, Callable[[Store, pathlib.Path], object]] = {
    "import": lambda store, memory: store.import_image(memory / "more0", name="more"),
    "create": lambda store, _: store.create("image", name="second"),
    "fork": lambda store, _: store.container("box").fork("second"),
    "checkpoint": lambda store, _: store.container("box").checkpoint("two"),
    "rollback": lambda store, _: store.container("box").rollback("one"),
    "mount": lambda store, _: store.container("box").mount(keep=True).release(),
    "commit": lambda store, _: store.commit("box", name="committed"),
    "rm": lambda store, _: store.container("box").remove(),
    "rmi": lambda store, _: (store.container("box").remove(), store.remove_image("image")),
}


def check(memory: pathlib.Path, operation: str, *, done: bool) -> None:
    """Assert that the store is as before the operation or as after it, and whole; ``done`` allows only the latter."""
    with start(memory) as store:
        whole(store)
        names = {container.name for container in store.containers()}
        images = {name for image in store.images() for name in image.familiar_names}
        trees = {container.name: shown(store.site, container.record().layer) for container in store.containers()}
        full = {**TREE, "kept": "2", "new": "x"}
        if operation in {"rm", "rmi"}:
            assert not (done and names)
        elif operation == "rollback" and (done or trees["box"] != full):
            assert trees["box"] == {**TREE, "kept": "1"}
        else:
            assert trees["box"] == full
        if "second" in names or (done and operation in {"create", "fork"}):
            assert trees["second"] == (TREE if operation == "create" else full)
        if "box" in names:
            points = {one.point: shown(store.site, one.layer) for one in store.container("box").checkpoints()}
            assert points.pop("one") == {**TREE, "kept": "1"}
            assert points == {"two": full} or (points == {} and not (done and operation == "checkpoint"))
        if done and operation in {"import", "commit"}:
            assert {"import": "more:latest", "commit": "committed:latest"}[operation] in images
        assert ("image:latest" in images) or (operation == "rmi" and not names)
        for image in store.images():
            for layer in image.layers:
                tar_back(store, layer)
        if "box" in names:
            write(store, "box", {"still": "writable"})
        store.collect()
        whole(store)
        for name in names:
            store.container(name).remove()
        for image in store.images():
            store.remove_image(image)
        assert store.collect().resisted == ()
        assert list(store.driver.layers()) == []
        whole(store)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_killed_before_each_call(memory: pathlib.Path, driver: str, operation: str) -> None:
    """Killed before each call that changes files, mounts or the ledger, and again while that is recovered from."""
    number = 1
    while True:
        prepared(memory, driver)

        def act() -> None:
            with start(memory) as store:
                OPERATIONS[operation](store, memory)

        killed = killed_before(number, act)
        if killed and number // STEP % 3 == 0:
            killed_before(number % 7 + 1, lambda: start(memory).close())
        check(memory, operation, done=not killed)
        os.rename(memory / "store", memory / f"old{number}")
        if not killed:
            break
        number += STEP
    assert number > 8


def acknowledged(seed: int, memory: pathlib.Path, say: Say) -> None:
    """Do random things to a store, for as long as it is let; tell of each what it promises now, and what it begins."""
    dice = random.Random(seed)
    with start(memory) as store:
        say("open")
        for number in range(10_000):
            name = f"box{dice.randrange(4)}"
            image = f"more{dice.randrange(3)}"
            there = {container.name for container in store.containers()}
            images = {known for found in store.images() for known in found.familiar_names}
            verb = dice.choice(("import", "create", "write", "fork", "rollback", "rm", "rmi", "gc"))
            subject = image if verb in {"import", "rmi"} else name
            say(f"begin {subject}")
            text = str(number)
            if verb == "import":
                store.import_image(memory / image, name=image)
                say(f"image {image} yes")
            elif verb == "rmi" and f"{image}:latest" in images:
                used = [one for one in store.containers() if one.image_id == store.image(image).image_id]
                if not used:
                    store.remove_image(image)
                    say(f"image {image} no")
            elif verb == "create" and name not in there and f"{image}:latest" in images:
                store.create(image, name=name)
                say(f"box {name} -")
            elif verb == "write" and name in there:
                write(store, name, {"kept": text})
                store.container(name).checkpoint()
                say(f"box {name} {text}")
            elif verb == "rollback" and name in there:
                store.container(name).rollback("created")
                say(f"box {name} ?")
            elif verb == "fork" and name in there and "forked" not in there:
                store.container(name).fork("forked").remove()
                say(f"box {name} ?")
            elif verb == "rm" and name in there:
                store.container(name).remove()
                say(f"box {name} no")
            elif verb == "gc":
                store.collect()
            say(f"end {subject}")


def test_killed_at_any_moment(memory: pathlib.Path, driver: str) -> None:
    """A process is killed at a random moment, again and again, on one store: what it told of is there, and no more."""
    start(memory, driver).close()
    dice = random.Random(1234)
    images: dict[str, str] = {}
    boxes: dict[str, str] = {}
    for number in range(KILLS):
        child = forked(functools.partial(acknowledged, number, memory))
        time.sleep(0.02 + dice.random() * 0.25)
        os.kill(child.pid, signal.SIGKILL)
        lines = child.lines()
        assert child.wait() == -signal.SIGKILL, f"seed {number}"
        unsure = ""
        for line in lines:
            words = line.split()
            if words[0] == "begin":
                unsure = words[1]
            elif words[0] == "end":
                unsure = ""
            elif words[0] == "image":
                images[words[1]] = words[2]
            elif words[0] == "box":
                boxes[words[1]] = words[2]
        found = agree(memory, images, boxes, unsure)
        images.update(found[0])
        boxes.update(found[1])


def agree(
    memory: pathlib.Path, images: dict[str, str], boxes: dict[str, str], unsure: str
) -> tuple[dict[str, str], dict[str, str]]:
    """Open a store, compare it with what was acknowledged but for the thing in work, and give what is there."""
    with start(memory) as store:
        whole(store)
        there = {name.removesuffix(":latest") for image in store.images() for name in image.familiar_names}
        for name, state in images.items():
            assert name == unsure or (name in there) == (state == "yes"), (name, state, unsure)
        trees: dict[str, Tree] = {
            container.name: shown(store.site, container.record().layer) for container in store.containers()
        }
        for name, state in boxes.items():
            if name == unsure or state == "?":
                continue
            assert (name in trees) == (state != "no"), (name, state, unsure)
            if name in trees:
                assert trees[name].get("kept", "-") == state
        for image in store.images():
            for layer, tar in zip(image.layers, MORE[int(image.familiar_names[0][4])], strict=True):
                assert tar_back(store, layer) == tar
        if "forked" in trees:
            store.container("forked").remove()
        state = {name: "yes" if name in there else "no" for name in images}
        return state, {name: trees[name].get("kept", "-") if name in trees else "no" for name in boxes}


def test_a_torn_stream_is_killed(memory: pathlib.Path, driver: str) -> None:
    """Killed while a layer of an import arrives: the layers before it stay, and the import goes on from there."""
    start(memory, driver).close()

    def work(_say: Say) -> None:
        with start(memory) as store:
            read = io.BytesIO.read

            class Dying(io.BytesIO):
                """Dies when it is read."""

                def read(self, size: int | None = -1, /) -> bytes:
                    """Kill the process."""
                    os.kill(os.getpid(), signal.SIGKILL)
                    return read(self, size)

            from storetools import diff_id, source_of  # noqa: PLC0415

            from graphdrivers.store.importing import Source, import_layers  # noqa: PLC0415

            top = MORE[0][2]
            sources = [*map(source_of, LAYERS), Source(diff_id(top), lambda: Dying(top))]
            import_layers(store.site, sources, lease="x")

    child = forked(work)
    child.lines()
    assert child.wait() == -signal.SIGKILL
    with start(memory) as store:
        whole(store)
        found: list[str] = []
        store.import_image(memory / "more0", name="more")
        del found
        whole(store)
