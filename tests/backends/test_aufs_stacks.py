"""Random stacks of raw ``.wh.`` directories: overlayfs over shadows, the union and the OCI rule show the same."""

import os
import pathlib
import random
import stat

import pytest
from aufstools import Opener, docker_home, long_marker, merged, shown, visible

from graphdrivers.archive.attributes import Attributes
from graphdrivers.archive.compare import compare
from graphdrivers.archive.plain import EmptyTree
from graphdrivers.archive.replicate import replicate
from graphdrivers.archive.union import Branch, Union
from graphdrivers.archive.whiteouts import AUFS_ESCAPED, PLAIN
from graphdrivers.backends.aufs.driver import AufsDriver
from graphdrivers.conformance import observe

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")

STACKS = int(os.environ.get("GRAPHDRIVERS_AUFS_STACKS", "40"))
"""Stacks that are compared; set the variable for more."""

_NAMES = ("a", "b", "c", "d", ".h", "x\udcff", "n" * 251, "m" * 252, "l" * 255)
_OTHERS = (
    ".wh.",
    ".wh..",
    ".wh...",
    ".wh..wh.aufs",
    ".wh..wh.plnk",
    ".wh..wh.orph",
    ".wh..wh.a.0f3c",
    ".wh..wh.long-x",
)


class RandomLayer:
    """Fills one directory with entries and markers of all sorts."""

    def __init__(self, dice: random.Random, root: pathlib.Path) -> None:
        """Fill ``root``."""
        self._dice = dice
        self._files: list[str] = []
        os.chmod(root, dice.choice([0o755, 0o711, 0o1777]))
        self._fill(str(root), 0)

    def _fill(self, directory: str, depth: int) -> None:
        dice = self._dice
        for name in dice.sample(_NAMES, dice.randrange(2, 5)):
            self._entry(os.path.join(directory, name), depth)
        for name in dice.sample(_NAMES, dice.choice([0, 0, 1, 2])):
            short = len(os.fsencode(name)) < 252
            self._marker(directory, f".wh.{name}" if short else long_marker(name), os.fsencode(name))
        if dice.random() < (0.25 if depth else 0.08):
            self._marker(directory, ".wh..wh..opq", b"")
        if dice.random() < 0.15:
            self._marker(directory, dice.choice(_OTHERS), b"")
        if dice.random() < 0.3:
            os.setxattr(directory, "user.note", dice.randbytes(3))
        if dice.random() < 0.2:
            os.setxattr(directory, "trusted.overlay.overlay.note", dice.randbytes(3))
        os.chown(directory, dice.choice([0, 7]), dice.choice([0, 8]))
        moment = dice.randrange(10**18)
        os.utime(directory, ns=(moment, moment))

    def _entry(self, path: str, depth: int) -> None:
        dice = self._dice
        kind = dice.choice(["file", "file", "directory", "directory", "link", "symlink", "fifo"])
        if kind == "directory" and depth < 3:
            os.mkdir(path, 0o755)
            os.chmod(path, dice.choice([0o755, 0o700, 0o2775]))
            self._fill(path, depth + 1)
        elif kind == "symlink":
            os.symlink(dice.choice(["a", "../b", "/c", "."]), path)
        elif kind == "fifo":
            os.mkfifo(path)
        elif kind == "link" and self._files:
            os.link(dice.choice(self._files), path)
        else:
            with open(path, "wb") as file:
                file.write(dice.randbytes(dice.choice([0, 1, 20])))
            self._files.append(path)

    def _marker(self, directory: str, name: str, content: bytes) -> None:
        """Make a marker; a long one is told by its content, any other may be of any kind."""
        path = os.path.join(directory, name)
        long = name.startswith(".wh..wh.long-")
        kind = "file" if long else self._dice.choice(["empty", "empty", "file", "directory", "symlink", "hard"])
        if kind == "directory":
            os.mkdir(path)
            pathlib.Path(path, "inside").touch()
            pathlib.Path(path, ".wh.a").touch()
        elif kind == "symlink":
            os.symlink("a", path)
        elif kind == "hard" and self._files:
            os.link(self._dice.choice(self._files), path)
        else:
            pathlib.Path(path).write_bytes(content if long else b"" if kind == "empty" else b"whatever")


def by_union(layers: list[pathlib.Path], place: pathlib.Path, driver: AufsDriver) -> dict[str, observe.Item]:
    """Copy what `Union` shows, and look at the copy."""
    place.mkdir()
    root = os.open(place, os.O_RDONLY)
    try:
        with Union([Branch(str(layer), AUFS_ESCAPED) for layer in layers]) as union, union.root() as top:
            attributes = Attributes(PLAIN, driver.support.capabilities)
            replicate(compare(EmptyTree(), union), root, attributes, PLAIN, top=top.node)
    finally:
        os.close(root)
    return observe.snapshot(str(place))


def special(tree: dict[str, observe.Item]) -> bool:
    """Tell whether a tree is worth a comparison."""
    return any(item.kind == stat.S_IFDIR for path, item in tree.items() if path != ".")


@pytest.mark.parametrize("part", range(4))
def test_random_stacks_show_what_the_rule_says(memory: pathlib.Path, opened: Opener, part: int) -> None:
    """Every attribute of every path, for layers that no normal form was made of, by the kernel and by the union."""
    compared = 0
    for seed in range(part, STACKS, 4):
        dice = random.Random(seed)
        home = memory / f"home{seed}"
        layers = [f"l{number}" for number in range(dice.randrange(3, 7))]
        folders = docker_home(home, [*layers, "top"])
        for folder in folders[:-1]:
            RandomLayer(dice, folder)
        expected = visible(merged(folders[-2::-1]))
        driver = opened(home)

        assert observe.differences(expected, shown(driver, layers[-1])) == [], f"kernel, seed {seed}"
        assert observe.differences(expected, by_union(folders[-2::-1], memory / f"union{seed}", driver)) == [], seed
        compared += special(expected)
    assert compared > STACKS // 16
