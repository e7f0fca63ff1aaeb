"""The same work done in a mounted layer and in a flat directory, whose results must not differ."""

import contextlib
import os
import pathlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence

import attrs
import pytest

from graphdrivers.conformance import observe
from graphdrivers.conformance.workbench import Workbench
from graphdrivers.edits import Edit
from graphdrivers.linux import mounts

Action = Callable[[str], object]
"""Work below a root; what it returns must be the same on both sides."""


def check_action(bench: Workbench, base: Sequence[Edit], action: Action) -> None:
    """Do the work in a child of a layer and in a flat directory: the same result, and the same trees.

    The trees are compared in the mount, at rest, and after the child has a
    child of its own; the parent must stay as it was. Modification times are
    left out, because the work was done twice; and in the mount, where the
    driver claims no ``stable_inodes``, which names are one file.
    """
    flat = bench.flat(base)
    bench.layer("base", None, base)
    before = bench.tree("base")
    expected = action(flat)
    wanted = timeless(bench.flat_tree(flat))
    bench.driver.create("child", "base")
    with bench.writing("child") as root:
        assert action(root) == expected
        shown = timeless(bench.flat_tree(root))
        if bench.can.stable_inodes:
            observe.assert_same(wanted, shown)
        else:
            observe.assert_same(linkless(wanted), linkless(shown))
    bench.driver.seal("child")
    observe.assert_same(wanted, timeless(bench.tree("child")))
    observe.assert_same(wanted, timeless(bench.tree(bench.layer("grandchild", "child"))))
    observe.assert_same(before, bench.tree("base"))


def fails(code: int, action: Action, *others: int) -> Action:
    """Turn work that must fail with this errno, or another that means the same, into work that succeeds by failing."""
    codes = {code, *others}
    words = "|".join(re.escape(os.strerror(one)) for one in codes)

    def act(root: str) -> int:
        with pytest.raises(OSError, match=words) as caught:
            action(root)
        assert caught.value.errno in codes
        return code

    return act


def timeless(tree: Mapping[str, observe.Item]) -> dict[str, observe.Item]:
    """Give a snapshot without its modification times."""
    return {path: attrs.evolve(item, mtime=0) for path, item in tree.items()}


def linkless(tree: Mapping[str, observe.Item]) -> dict[str, observe.Item]:
    """Give a snapshot without which names are one file."""
    return {path: attrs.evolve(item, names=frozenset()) for path, item in tree.items()}


@contextlib.contextmanager
def attached(bench: Workbench, layer: str, folder: pathlib.Path, *, view: bool = False) -> Iterator[str]:
    """Mount a layer where every process sees it; a new directory in ``folder``, which may hold the home.

    A check that cannot mount is left out, unless the plan is a directory that needs no mount.
    """
    plan = bench.driver.mounts(layer, view=view)
    place = os.path.join(folder, "place")
    os.makedirs(place, exist_ok=True)
    try:
        mounts.attach(plan, place)
    except PermissionError:
        directory = mounts.plain_directory(plan)
        if directory is None:
            pytest.skip("gated: this user may not mount")
        yield directory
        return
    try:
        yield place
    finally:
        mounts.detach(place)
