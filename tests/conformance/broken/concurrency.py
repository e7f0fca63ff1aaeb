"""Flaws that ``test_concurrency.py`` catches: processes that meet where they should not."""

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from typing import BinaryIO, ClassVar

from broken.lifecycle import Insistent
from broken.trees import Entangling
from graphdrivers import errors
from graphdrivers.backends.overlay.driver import OverlayDriver
from graphdrivers.backends.vfs import VfsDriver
from graphdrivers.driver import Driver
from graphdrivers.kit.layerdirs import delete
from graphdrivers.model import Applied, LayerRecord, LayerSpec, Limits, Progress

_WHILE = 0.05
"""Seconds in which another process comes by."""


class Solitary(VfsDriver):
    """Unpacks one tar at a time in the whole home, and turns everybody else away."""

    name: ClassVar[str] = "solitary"

    def apply(
        self,
        layer: str,
        tar: BinaryIO,
        *,
        headers: BinaryIO | None = None,
        limits: Limits = Limits(),
        progress: Progress | None = None,
    ) -> Applied:
        """Take a lock of the home."""
        with open(os.path.join(self.home, "lock"), "ab") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise errors.LayerInUse(layer, "by another apply") from None
            time.sleep(_WHILE)
            return super().apply(layer, tar, headers=headers, limits=limits, progress=progress)


class Late(VfsDriver):
    """Looks whether a name is taken, and after a while takes it from whoever has it now."""

    name: ClassVar[str] = "late-looking"

    def create(self, layer: str, parent: str | None = None, spec: LayerSpec = LayerSpec()) -> None:
        """Look, wait, take."""
        if self._dirs.exists(layer):
            raise errors.LayerExists(layer)
        time.sleep(_WHILE)
        with contextlib.suppress(errors.LayerExists):
            super().create(layer, parent, spec)


class Sweeping(VfsDriver):
    """Deletes everything that is not finished, whoever is busy with it."""

    name: ClassVar[str] = "sweeping"

    def settle(self, layer: str | None = None) -> None:
        """Look at no lock."""
        if layer is not None:
            super().settle(layer)
            return
        for name in os.listdir(os.path.join(self.home, "tmp")):
            delete(os.path.join(self.home, "tmp"), name)


class Trusting(VfsDriver):
    """Lists the names of its layers, and expects all of them to be there a moment later."""

    name: ClassVar[str] = "trusting-names"

    def layers(self) -> Iterator[LayerRecord]:
        """List, wait, read."""
        names = self._dirs.names()
        time.sleep(_WHILE / 10)
        return iter(sorted((self.record(name) for name in names), key=lambda record: record.parent is None))


class Unseeing(OverlayDriver):
    """Knows only of mounts that it made itself."""

    name: ClassVar[str] = "unseeing"

    def _refuse_mounted(self, layer: str) -> None:
        del layer


CAUGHT_BY: dict[type[Driver], tuple[str, ...]] = {
    Solitary: ("test_whole_lives_in_parallel",),
    Late: ("test_one_name_is_created_by_one_process",),
    Sweeping: ("test_opening_disturbs_nobody",),
    Trusting: ("test_layers_are_listed_while_they_come_and_go",),
    Insistent: ("test_two_processes_remove_one_layer",),
    Unseeing: ("test_another_process_sees_the_mount",),
    Entangling: ("test_views_while_others_work", "test_writers_of_different_layers_at_once"),
}
