"""Random operations against a model of plain dictionaries, alone and from several processes that are killed."""

import contextlib
import os
import pathlib
import random
import signal
import time
from collections.abc import Callable

import attrs
import pytest
from storetools import Say, Tree, forked, layout_of, reopened, shown, tar_of, whole, write

from graphdrivers import Store, errors, open_store
from graphdrivers.store import recover

STEPS = int(os.environ.get("GRAPHDRIVERS_STORE_STEPS", "300"))
"""Random operations against the model, for each driver."""

ROUNDS = int(os.environ.get("GRAPHDRIVERS_STORE_ROUNDS", "4"))
"""Rounds of several processes at once, for each driver."""

IMAGES: dict[str, list[Tree]] = {
    "one": [{"a": "1", "b": "1"}],
    "two": [{"a": "1", "b": "1"}, {"a": "2", "c": "1"}],
    "three": [{"a": "1", "b": "1"}, {"a": "2", "c": "1"}, {"d": "1"}],
}
NAMES = ("ann", "bob", "cas")
POINTS = ("p", "q")
COMMITTED = ("made", "built")


@attrs.define(eq=False)
class Box:
    """A container, as the model has it."""

    image: str
    tree: Tree
    points: dict[str, Tree]
    """Oldest first, ``created`` at the beginning."""
    mounted: object = None


class Model:
    """What a store should hold, and the same operations on both."""

    def __init__(self, store: Store, images: pathlib.Path, dice: random.Random) -> None:
        """Begin with an empty store."""
        self.store = store
        self.images: dict[str, Tree] = {}
        self.boxes: dict[str, Box] = {}
        self._folder = images
        self._dice = dice

    def step(self) -> str:
        """Do one random thing; give what it was."""
        verbs = [name.removeprefix("do_") for name in sorted(dir(self)) if name.startswith("do_")]
        verb = self._dice.choice(verbs)
        subjects = {"import": sorted(IMAGES), "rmi": [*IMAGES, *COMMITTED], "tag": [*IMAGES, *COMMITTED]}
        subject = self._dice.choice(subjects.get(verb, NAMES))
        getattr(self, f"do_{verb}")(subject)
        return f"{verb} {subject}"

    def do_import(self, name: str) -> None:
        """Bring an image in, or find it there."""
        self.store.import_image(self._folder / name, name=name)
        self.images[name] = {path: text for layer in IMAGES[name] for path, text in layer.items()}

    def do_commit(self, name: str) -> None:
        """Make an image of a container."""
        image = self._dice.choice(COMMITTED)
        if name in self.boxes and image not in self.images:
            self.store.commit(name, image)
            self.images[image] = dict(self.boxes[name].tree)

    def do_rmi(self, name: str) -> None:
        """Remove an image, if there is one that nothing stands on."""
        if name not in self.images:
            with pytest.raises(errors.ImageNotFound):
                self.store.remove_image(name)
        elif any(box.image == name for box in self.boxes.values()):
            with pytest.raises(errors.ImageInUse):
                self.store.remove_image(name)
        else:
            self.store.remove_image(name)
            del self.images[name]

    def do_tag(self, name: str) -> None:
        """Give and take a second name."""
        if name in self.images:
            self.store.tag(name, f"extra-{name}")
            self.store.untag(f"extra-{name}")

    def do_create(self, name: str) -> None:
        """Make a container of some image."""
        image = self._dice.choice([*IMAGES, *COMMITTED])
        if image not in self.images:
            with pytest.raises(errors.ImageNotFound):
                self.store.create(image, name=name)
        elif name in self.boxes:
            with pytest.raises(errors.ContainerExists):
                self.store.create(image, name=name)
        else:
            self.store.create(image, name=name)
            tree = self.images[image]
            self.boxes[name] = Box(image, dict(tree), {"created": dict(tree)})

    def do_write(self, name: str) -> None:
        """Change files, in a mount of a moment or in the one that there is."""
        if (box := self.boxes.get(name)) is None:
            return
        path, text = self._dice.choice("abxy"), str(self._dice.randrange(100))
        write(self.store, name, {path: text, "empty/deep": text})
        box.tree |= {path: text, "empty/deep": text}
        if "b" in box.tree and self._dice.random() < 0.3:
            write(self.store, name, {"b": None})
            del box.tree["b"]

    def do_mount(self, name: str) -> None:
        """Mount for longer, or let go."""
        if (box := self.boxes.get(name)) is None:
            return
        if box.mounted is None:
            box.mounted = self.store.container(name).mount()
        else:
            box.mounted.release()  # type: ignore[attr-defined]
            box.mounted = None

    def do_view(self, name: str) -> None:
        """Mount read-only for a moment, beside whatever there is, where that is possible."""
        if name in self.boxes:
            with (
                contextlib.suppress(errors.ContainerInUse),
                self.store.container(name).mounted(read_only=True) as place,
            ):
                assert (place / "etc").is_dir()

    def do_fork(self, name: str) -> None:
        """Branch a container."""
        other = self._dice.choice(NAMES)
        if (box := self.boxes.get(name)) is None:
            return
        if other in self.boxes:
            with pytest.raises((errors.ContainerExists, errors.ContainerInUse)):
                self.store.container(name).fork(other)
        elif box.mounted is not None:
            with pytest.raises(errors.ContainerInUse):
                self.store.container(name).fork(other)
        else:
            self.store.container(name).fork(other)
            self.boxes[other] = Box(box.image, dict(box.tree), {"created": dict(box.tree)})

    def do_checkpoint(self, name: str) -> None:
        """Keep a state."""
        if (box := self.boxes.get(name)) is None:
            return
        point = self._dice.choice(POINTS)
        if point in box.points:
            with pytest.raises((errors.CheckpointExists, errors.ContainerInUse)):
                self.store.container(name).checkpoint(point)
        elif box.mounted is not None:
            with pytest.raises(errors.ContainerInUse):
                self.store.container(name).checkpoint(point)
        else:
            self.store.container(name).checkpoint(point)
            box.points[point] = dict(box.tree)

    def do_rollback(self, name: str) -> None:
        """Go back to some state, or to the latest."""
        if (box := self.boxes.get(name)) is None:
            return
        point = self._dice.choice((*POINTS, "created", None))
        latest = list(box.points)[-1] if len(box.points) > 1 else "missing"
        if box.mounted is not None:
            with pytest.raises(errors.ContainerInUse):
                self.store.container(name).rollback(point)
        elif (point or latest) not in box.points:
            with pytest.raises(errors.CheckpointNotFound):
                self.store.container(name).rollback(point)
        else:
            self.store.container(name).rollback(point)
            box.tree = dict(box.points[point or latest])

    def do_forget(self, name: str) -> None:
        """Drop a state."""
        point = self._dice.choice(POINTS)
        if (box := self.boxes.get(name)) is None:
            return
        if point in box.points:
            self.store.container(name).forget(point)
            del box.points[point]
        else:
            with pytest.raises(errors.CheckpointNotFound):
                self.store.container(name).forget(point)

    def do_rm(self, name: str) -> None:
        """Remove a container."""
        if name not in self.boxes:
            with pytest.raises(errors.ContainerNotFound):
                self.store.container(name)
        elif self.boxes[name].mounted is not None:
            with pytest.raises(errors.ContainerInUse):
                self.store.container(name).remove()
        else:
            self.store.container(name).remove()
            del self.boxes[name]

    def do_gc(self, _name: str) -> None:
        """Collect."""
        assert self.store.collect().resisted == ()
        assert self.store.unused() == []

    def do_reopen(self, _name: str) -> None:
        """Close the store and open it again; mounts of this process stay."""
        held = {name for name, box in self.boxes.items() if box.mounted is not None}
        self.store = reopened(self.store)
        for name in held:
            with contextlib.suppress(errors.GraphDriverError):
                self.boxes[name].mounted._site = self.store.site  # type: ignore[attr-defined]

    def agree(self) -> None:
        """Assert that the store holds what the model does."""
        images = {name.removesuffix(":latest"): image for image in self.store.images() for name in image.familiar_names}
        assert set(images) == set(self.images)
        for name, image in images.items():
            assert shown(self.store.site, str(image.top)) == self.images[name], name
        assert {container.name for container in self.store.containers()} == set(self.boxes)
        for name, box in self.boxes.items():
            container = self.store.container(name)
            assert {one.point for one in container.checkpoints()} == set(box.points) - {"created"}
            if box.mounted is None:
                assert shown(self.store.site, container.record().layer) == box.tree, name
            for one in container.checkpoints():
                assert shown(self.store.site, one.layer) == box.points[one.point], (name, one.point)
        whole(self.store)


@pytest.fixture
def images(tmp_path: pathlib.Path) -> pathlib.Path:
    """Make the images."""
    for name, layers in IMAGES.items():
        layout_of(tmp_path / "images" / name, *map(tar_of, layers), comment=name)
    return tmp_path / "images"


def test_random_operations_agree_with_a_model(store: Store, images: pathlib.Path) -> None:
    """After each of many random operations, refused ones too, names, trees and states are those of the model."""
    model = Model(store, images, random.Random(f"{store.driver.name}-1"))
    done = []
    for _ in range(STEPS):
        done.append(model.step())
        try:
            model.agree()
        except AssertionError as error:
            raise AssertionError(f"after {done}") from error
    for box in model.boxes.values():
        if box.mounted is not None:
            box.mounted.release()  # type: ignore[attr-defined]
    for name in list(model.boxes):
        model.store.container(name).remove()
    for name in model.images:
        model.store.remove_image(name)
    model.store.collect()
    assert list(model.store.driver.layers()) == []
    whole(model.store)
    model.store.close()


def one_of_many(root: pathlib.Path, images: pathlib.Path, seed: int) -> Callable[[Say], None]:
    """Do random things to a store that others work on too; only what they may cause is forgiven."""

    def run(say: Say) -> None:
        dice = random.Random(seed)
        with open_store(root, durability="none") as store:
            assert store.problems == ()
            for number in range(25):
                name, image = dice.choice(NAMES), dice.choice(sorted(IMAGES))
                acts: list[Callable[[], object]] = [
                    lambda image=image: store.import_image(images / image, name=image),  # type: ignore[misc]
                    lambda image=image, name=name: store.create(image, name=name),  # type: ignore[misc]
                    lambda name=name, text=str(number): write(store, name, {"x": text}),  # type: ignore[misc]
                    lambda name=name: store.container(name).fork(dice.choice(NAMES)),  # type: ignore[misc]
                    lambda name=name: store.container(name).checkpoint(),  # type: ignore[misc]
                    lambda name=name: store.container(name).rollback(),  # type: ignore[misc]
                    lambda name=name: store.container(name).remove(),  # type: ignore[misc]
                    lambda image=image: store.remove_image(image),  # type: ignore[misc]
                    store.collect,
                    lambda: [container.layers() for container in store.containers()] + [store.images()],  # type: ignore[operator]
                ]
                with contextlib.suppress(
                    errors.ContainerError,
                    errors.ImageNotFound,
                    errors.ImageInUse,
                    errors.LayerNotFound,
                    errors.LayerInUse,
                ):
                    dice.choice(acts)()
            say("done")

    return run


def test_many_processes_at_once(store: Store, images: pathlib.Path) -> None:
    """Processes work on one store at once and some are killed: each opens it, none is told of damage."""
    dice = random.Random(7)
    for number in range(ROUNDS):
        works = [one_of_many(pathlib.Path(store.root), images, 10 * number + which) for which in range(4)]
        children = [forked(work) for work in works]
        time.sleep(dice.random())
        doomed = children[: number % 3]
        for child in doomed:
            child.kill()
        for child in children:
            said = child.lines()
            status = child.wait()
            assert status == 0 or (child in doomed and status == -signal.SIGKILL), "standard error has its traceback"
            assert said == ["done"] or child in doomed
        assert recover.recover(store.site) == []
        whole(store)
        for container in store.containers():
            assert {"a", "etc"} & {*shown(store.site, container.record().layer), "etc"}


def test_readers_wait_for_nobody(store: Store, images: pathlib.Path) -> None:
    """While images are imported and removed, another process lists and reads all the time, and sees only whole ones."""
    store.import_image(images / "one", name="one")
    root = store.root

    def read(say: Say) -> None:
        with open_store(root, durability="none") as reader:
            say("ready")
            rounds = 0
            deadline = time.monotonic() + 1.5
            while rounds < 6 or time.monotonic() < deadline:
                for image in reader.images():
                    assert len(image.layers) == len(IMAGES[image.familiar_names[0].removesuffix(":latest")])
                assert list(reader.changes("one"))
                rounds += 1
            say("done")

    child = forked(read)
    while not os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG):
        store.import_image(images / "three", name="three")
        store.remove_image("three")
    assert child.lines() == ["ready", "done"]
    assert child.wait() == 0, "standard error has its traceback"
