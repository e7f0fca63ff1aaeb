"""Flaws that ``test_stress.py`` catches: what only many names, great depth or many hands bring out."""

import errno
import os
from typing import ClassVar

from broken.flaws import Altering, below
from broken.mounted_files import Dataless, Reverting
from broken.mounted_trees import Losing, Parting
from broken.trees import Forgiving
from graphdrivers.driver import Driver
from graphdrivers.model import LayerSpec


class Recursive(Altering):
    """Copies a tree by calling itself, and gives up where it is deep."""

    name: ClassVar[str] = "recursive"

    def alter(self, root: str) -> None:
        """Look how deep it is."""
        if any(path.removeprefix(root).count("/") > 150 for path, _ in below(root)):
            raise OSError(errno.ELOOP, "too deep")


class LostAndFound(Altering):
    """Shows the directory that a file system has of its own in the root of a child."""

    name: ClassVar[str] = "lost-and-found"

    def alter(self, root: str) -> None:
        """Make it."""
        os.mkdir(os.path.join(root, "lost+found"), 0o700)

    def create(self, layer: str, parent: str | None = None, spec: LayerSpec = LayerSpec()) -> None:
        """Make it once."""
        if parent is None or self.record(parent).parent is None:
            super().create(layer, parent, spec)
        else:
            super(Altering, self).create(layer, parent, spec)


CAUGHT_BY: dict[type[Driver], tuple[str, ...]] = {
    Recursive: ("test_two_hundred_levels",),
    Losing: ("test_five_thousand_names",),
    Reverting: (
        "test_a_storm_in_many_directories",
        "test_a_storm_of_copy_ups",
        "test_a_storm_of_readers",
    ),
    LostAndFound: ("test_a_storm_on_the_same_new_names", "test_a_storm_of_removals"),
    Forgiving: ("test_a_storm_of_renames", "test_mounted_and_unmounted_again_and_again"),
    Parting: ("test_a_storm_of_attributes",),
    Dataless: ("test_large_files",),
}
