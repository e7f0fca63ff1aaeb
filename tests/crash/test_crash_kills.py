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
from storetools import Child, Say, forked, shown, tar_back, whole, write

from graphdrivers import Image, Store

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")

KILLS = int(os.environ.get("GRAPHDRIVERS_STORE_KILLS", "100"))
"""Processes killed at a random moment, for each driver."""

PAUSE = float(os.environ.get("GRAPHDRIVERS_STORE_PAUSE", "0.05"))
"""Seconds until a process is killed after it has told what it did, at most: longer than what drivers do takes."""

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


def acknowledged(seed: int, memory: pathlib.Path, say: Say) -> None:
    """Do random things to a store, for as long as it is let; tell of each what it promises now, and what it begins."""
    dice = random.Random(seed)
    with start(memory) as store:
        say("open")
        for number in range(10_000):
            box, image, made = f"box{dice.randrange(4)}", f"more{dice.randrange(3)}", f"made{dice.randrange(2)}"
            verb = dice.choice(("import", "create", "write", "fork", "rollback", "rm", "commit", "rmi", "gc"))
            subject = {"import": image, "rmi": image, "commit": made}.get(verb, box)
            say(f"begin {subject}")
            if verb == "gc":
                store.collect()
            elif verb in {"import", "rmi", "commit"}:
                with_images(store, memory, say, verb, image=image, made=made, box=box)
            elif box in {container.name for container in store.containers()}:
                with_a_box(store, say, verb, box, dice=dice, text=str(number))
            elif verb == "create" and image in names_of(store):
                store.create(image, name=box)
                say(f"box {box} -")
            say(f"end {subject}")


def with_images(store: Store, memory: pathlib.Path, say: Say, verb: str, *, image: str, made: str, box: str) -> None:
    """Import, remove or commit an image, if that can be, and tell what is there now."""
    images = names_of(store)
    if verb == "import":
        store.import_image(memory / image, name=image)
        say(f"image {image} -")
    elif verb == "rmi" and image in images:
        if all(one.image_id != store.image(image).image_id for one in store.containers()):
            store.remove_image(image)
            say(f"image {image} no")
    elif verb == "commit" and made in images:
        store.remove_image(made)
        say(f"image {made} no")
    elif verb == "commit" and box in {container.name for container in store.containers()}:
        kept = kept_in(store, store.container(box).record().layer)
        store.commit(box, made)
        say(f"image {made} {kept}")


def with_a_box(store: Store, say: Say, verb: str, box: str, *, dice: random.Random, text: str) -> None:
    """Write to a container, fork it, take it back or remove it, and tell what it holds now."""
    container = store.container(box)
    if verb == "write":
        write(store, box, {"kept": text})
        container.checkpoint()
        say(f"box {box} {text}")
    elif verb == "rollback":
        there = {"created": "-", **{one.point: kept_in(store, one.layer) for one in container.checkpoints()}}
        point = dice.choice(sorted(there))
        container.rollback(point)
        say(f"box {box} {there[point]}")
    elif verb == "fork" and "forked" not in {one.name for one in store.containers()}:
        container.fork("forked").remove()
    elif verb == "rm":
        container.remove()
        say(f"box {box} no")


def names_of(store: Store) -> dict[str, Image]:
    """Give the images by their names."""
    return {name.removesuffix(":latest"): image for image in store.images() for name in image.familiar_names}


def kept_in(store: Store, layer: str) -> str:
    """Give what the file ``kept`` holds that each write makes anew, ``-`` without one."""
    return shown(store.site, layer).get("kept", "-")


def test_killed_at_any_moment(memory: pathlib.Path, driver: str) -> None:
    """A process is killed at a random moment, again and again, on one store: what it told of is there, and no more."""
    start(memory, driver).close()
    dice = random.Random(1234)
    told: dict[tuple[str, str], str] = {}
    tellings = 0
    for number in range(KILLS):
        child = forked(functools.partial(acknowledged, number, memory))
        lines = killed_after(child, dice.choice((0, dice.randrange(1, 20))), dice.random() * PAUSE)
        assert child.wait() == -signal.SIGKILL, f"seed {number}"
        unsure = ""
        for line in lines:
            what, *words = line.split()
            if what == "begin":
                unsure = words[0]
            elif what == "end":
                unsure = ""
            elif what in {"image", "box"}:
                told[what, words[0]] = words[1]
                tellings += 1
        if number % 4 == 3:  # its recovery is killed too
            child = forked(lambda _say: start(memory).close())
            killed_after(child, 0, dice.random() * PAUSE)
            assert child.wait() in {0, -signal.SIGKILL}
        told = agree(memory, told, unsure)
    assert tellings > KILLS // 4


def killed_after(child: Child, number: int, pause: float) -> list[str]:
    """Kill a process ``pause`` seconds after so many lines; give all that it said, to the last whole line."""
    said = b""
    while said.count(b"\n") < number and (piece := os.read(child.reader, 1 << 16)):
        said += piece
    time.sleep(pause)
    child.kill()
    said += "".join(f"{line}\n" for line in child.lines()).encode()
    return said.decode().splitlines()


def agree(memory: pathlib.Path, told: dict[tuple[str, str], str], unsure: str) -> dict[tuple[str, str], str]:
    """Open a store, compare it with what was told but for the thing in work, and give what is there."""
    with start(memory) as store:
        whole(store)
        boxes = {container.name: container.record().layer for container in store.containers()}
        images = names_of(store)
        assert len(images) == len(store.images())
        there = {("image", name): kept_in(store, image.layers[-1].name) for name, image in images.items()}
        there |= {("box", name): kept_in(store, layer) for name, layer in boxes.items()}
        forked = there.pop(("box", "forked"), None)
        known = {key: there.get(key, "no") for key in told.keys() | there.keys()}
        wrong = {key: (told.get(key, "no"), state) for key, state in known.items() if told.get(key, "no") != state}
        assert {name for _, name in wrong} <= {unsure}, wrong
        for name, image in images.items():
            tars = [tar_back(store, layer) for layer in image.layers]
            assert tars == MORE[int(name[4])] or not name.startswith("more")
        if forked is not None:
            assert forked == there["box", unsure], "a fork of what was not its original's state"
            store.container("forked").remove()
        return known
