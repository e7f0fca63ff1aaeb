"""One run through the steps of a workload: the layer in hand, where it is mounted, what has to go afterwards."""

import contextlib
import errno
import os
import time
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Self

from graphdrivers import edits
from graphdrivers.bench.bed import Bed
from graphdrivers.bench.readings import Readings
from graphdrivers.linux import mounts

_BUSY = 5.0
"""Seconds after which a mount that is in use is an error."""

_PAUSE = 0.001
"""Seconds between two tries."""


class Scene:
    """What the steps of a workload hand on to each other; at its end all that they made is gone.

    The verbs are the driver's, with what a caller has to do around them.
    """

    def __init__(self, bed: Bed, parent: str | None, readings: Readings | None = None) -> None:
        """Begin over the sealed layer ``parent``; times go to ``readings`` (those of the bed)."""
        self.bed = bed
        self.driver = bed.driver
        self.parent = parent
        """What `create` makes layers over."""
        self.point: str | None = None
        """A state that was kept."""
        self.readings = bed.readings if readings is None else readings
        self.layer = ""
        """The layer in hand."""
        self.root = ""
        """Its merged tree while it is mounted."""
        self.number = 0
        """Which turn it is."""
        self._ground = parent
        self._target = ""
        self._made: list[str] = []
        self._open: list[tuple[str, str]] = []

    def create(self, parent: str | None = None) -> None:
        """Make a writable layer, by default over `parent`, and take it in hand."""
        layer = self.bed.unused()
        self.driver.create(layer, parent or self.parent)
        self._made.append(layer)
        self.layer = layer

    def mount(self, *, view: bool = False) -> None:
        """Mount the layer in hand, where that is needed."""
        plan = self.driver.mounts(self.layer, view=view)
        plain = mounts.plain_directory(plan)
        if plain is None:
            self._target = self.bed.place(self.layer)
            mounts.attach(plan, self._target)
        self.root = plain or self._target

    def unmount(self) -> None:
        """Undo that, and bring the layer to rest. Idempotent."""
        if self.root:
            self._detach(self._target)
            self.root = self._target = ""
            self.driver.settle(self.layer)

    def seal(self) -> str:
        """Seal the layer in hand; what is made from now on is made over it."""
        self.driver.seal(self.layer)
        self.parent = self.layer
        return self.layer

    def snapshot(self) -> str:
        """Give a sealed layer of the present state of the one in hand, which stays as it is, mounted or not.

        Only with the capability ``fork_live``.
        """
        name = self.bed.unused()
        self.driver.snapshot(self.layer, name)  # type: ignore[attr-defined]  # the capability says that it is there
        self._made.append(name)
        return name

    def remove(self, layer: str | None = None) -> None:
        """Remove a layer, by default the one in hand."""
        gone = layer or self.layer
        self.driver.remove(gone)
        self._made.remove(gone)

    def adopt(self, layers: Iterable[str]) -> None:
        """Remove these too in the end, parents first in order."""
        self._made.extend(layers)

    def started(self, changes: Iterable[edits.Edit]) -> str:
        """Start one more container over `parent`, edited and mounted until the end; give its merged tree."""
        self.create()
        self.mount()
        root = self.root
        edits.perform(changes, root)
        self._open.append((self.layer, self._target))
        self.root = self._target = ""
        return root

    def restart(self) -> None:
        """Remove all that was made, and stand on the ground again."""
        self.close()
        self.parent, self.point = self._ground, None

    def close(self) -> None:
        """Unmount and remove what is left, children first."""
        self.unmount()
        while self._open:
            layer, target = self._open.pop()
            self._detach(target)
            self.driver.settle(layer)
        while self._made:
            self.driver.remove(self._made[-1])
            self._made.pop()

    def _detach(self, target: str) -> None:
        """Unmount, patiently: a program that another thread starts has our open files until it is executed."""
        if not target:
            return
        deadline = time.monotonic() + _BUSY
        while True:
            try:
                mounts.detach(target)
            except OSError as error:
                if error.errno != errno.EBUSY or time.monotonic() > deadline:
                    raise
                time.sleep(_PAUSE)
            else:
                break
        os.rmdir(target)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @contextlib.contextmanager
    def clock(self, row: str, operations: int = 1) -> Iterator[None]:
        """See `Readings.clock`."""
        with self.readings.clock(row, operations):
            yield
