"""SIGKILL at any moment: nothing acknowledged is lost, nothing is left over, and the store opens by itself."""

import functools
import os
import pathlib
import random
import signal
import time

import pytest
from killing import killed_before
from operations import MORE, OPERATIONS, check, prepared, start
from storetools import Say, Tree, forked, shown, tar_back, whole, write

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")

KILLS = int(os.environ.get("GRAPHDRIVERS_STORE_KILLS", "100"))
"""Processes killed at a random moment, for each driver."""

STEP = int(os.environ.get("GRAPHDRIVERS_STORE_KILL_STEP", "13"))
"""Operations are killed at every so many-th call; their recovery at every third of those. 1 leaves out none."""


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
    assert number > 4


def acknowledged(seed: int, memory: pathlib.Path, say: Say) -> None:  # noqa: C901 - a list
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
    told = 0
    for number in range(KILLS):
        child = forked(functools.partial(acknowledged, number, memory))
        time.sleep(0.02 + dice.random() * 0.25)
        os.kill(child.pid, signal.SIGKILL)
        lines = child.lines()
        assert child.wait() == -signal.SIGKILL, f"seed {number}"
        unsure = ""
        for line in lines:
            words = line.split()
            told += words[0] in {"image", "box"}
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
    assert told > KILLS


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
