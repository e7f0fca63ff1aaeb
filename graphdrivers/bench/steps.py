"""The steps that workloads are composed of: values, each an act on a scene and the row that its time is counted for."""

import concurrent.futures
import os
import stat
import time
from collections.abc import Callable, Iterable, Sequence

import attrs

from graphdrivers import edits
from graphdrivers.bench.readings import Readings
from graphdrivers.bench.scene import Scene

_CHUNK = 1 << 20
"""Bytes read at a time."""

Act = Callable[[Scene], None]


@attrs.frozen
class Step:
    """One thing that is done."""

    act: Act
    row: str = ""
    """What the time that it takes is counted for; empty where it is not, or where the act counts by itself."""

    def perform(self, scene: Scene) -> None:
        """Do it, by the clock."""
        if not self.row:
            self.act(scene)
        else:
            with scene.clock(self.row):
                self.act(scene)


def create(scene: Scene) -> None:
    """Make a writable layer and take it in hand."""
    scene.create()


def mount(scene: Scene) -> None:
    """Mount it."""
    scene.mount()


def unmount(scene: Scene) -> None:
    """Unmount it."""
    scene.unmount()


def seal(scene: Scene) -> None:
    """Seal it: what comes is made over it."""
    scene.seal()


def remove(scene: Scene) -> None:
    """Remove it."""
    scene.remove()


def diff(scene: Scene) -> None:
    """Read its diff to the end."""
    with scene.driver.diff(scene.layer) as tar:
        while tar.read(_CHUNK):
            pass


def edit(make: Callable[[int], Iterable[edits.Edit]]) -> Act:
    """Perform the edits of a turn in the mounted tree."""

    def perform(scene: Scene) -> None:
        edits.perform(make(scene.number), scene.root)

    return perform


def in_turns(steps: Sequence[Step], turns: int, *, row: str = "") -> Act:
    """Do some steps ``turns`` times, or as often as the patience allows; count each turn for ``row``."""
    whole = Step(in_order(steps), row)

    def play(scene: Scene) -> None:
        for number in scene.bed.times(turns):
            scene.number = number
            whole.perform(scene)

    return play


def in_order(steps: Sequence[Step]) -> Act:
    """Do some steps one after the other."""

    def play(scene: Scene) -> None:
        for step in steps:
            step.perform(scene)

    return play


def at_once(steps: Sequence[Step], turns: int, *, threads: int, row: str) -> Act:
    """Do some steps ``turns`` times, several threads at once, each on its own scene; count it all for ``row``.

    The count of turns is that of the patience: a thread begins none after it.
    """
    one = in_order(steps)

    def turn(scene: Scene, number: int, deadline: float) -> bool:
        if number >= threads and time.monotonic() > deadline:
            return False
        with Scene(scene.bed, scene.parent, Readings()) as own:
            own.number = number
            one(own)
        return True

    def play(scene: Scene) -> None:
        deadline = time.monotonic() + scene.bed.patience
        start = time.perf_counter()
        numbers = range(scene.bed.most(turns))
        with scene.readings.span(row), concurrent.futures.ThreadPoolExecutor(threads) as pool:
            done = sum(pool.map(lambda number: turn(scene, number, deadline), numbers))
        scene.readings.add(row, time.perf_counter() - start, done)

    return play


def read_tree(scene: Scene) -> None:
    """Walk the mounted tree and read every file."""
    for folder, _folders, names in os.walk(scene.root):
        for name in names:
            read_file(os.path.join(folder, name))


def read_file(path: str) -> None:
    """Read a regular file to its end; anything else is only looked at."""
    if not stat.S_ISREG(os.lstat(path).st_mode):
        return
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        while os.read(descriptor, _CHUNK):
            pass
    finally:
        os.close(descriptor)
