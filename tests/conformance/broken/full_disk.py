"""Flaws that ``test_full_disk.py`` catches: what is done, and not done, where there is no room."""

import contextlib
import os
from typing import BinaryIO, ClassVar

from broken.crash import InPlace
from broken.flaws import content_of, tree_of
from broken.mounted_files import Reverting
from graphdrivers.backends.vfs import VfsDriver
from graphdrivers.driver import Driver
from graphdrivers.linux import durable, trees
from graphdrivers.model import Applied, DiffID, Limits, Profile, Progress


class Swallowing(VfsDriver):
    """Unpacks what fits, and says that all of it did."""

    name: ClassVar[str] = "swallowing"

    def apply(
        self,
        layer: str,
        tar: BinaryIO,
        *,
        headers: BinaryIO | None = None,
        limits: Limits = Limits(),
        progress: Progress | None = None,
    ) -> Applied:
        """Forget the error."""
        with contextlib.suppress(OSError):
            return super().apply(layer, tar, headers=headers, limits=limits, progress=progress)
        return Applied(DiffID(f"sha256:{'0' * 64}"), 0, 0)


class Staging(VfsDriver):
    """Makes a directory to delete a layer in, as this project's drivers did."""

    name: ClassVar[str] = "staging"

    def remove(self, layer: str) -> None:
        """Make it, and move the layer there."""
        with durable.Staging(os.path.join(self.home, "tmp")) as staging, contextlib.suppress(FileNotFoundError):
            os.rename(self._dirs.path(layer), os.path.join(staging.path, "layer"))


class Panicking(VfsDriver):
    """Takes a layer that cannot be brought to rest for lost."""

    name: ClassVar[str] = "panicking"

    def settle(self, layer: str | None = None) -> None:
        """Write something down; where that fails, begin anew."""
        super().settle(layer)
        if layer is None:
            return
        try:
            with open(self._dirs.path(layer, "at-rest"), "wb") as file:
                file.write(bytes(1 << 12))
        except OSError:
            root = os.open(tree_of(self, layer), os.O_RDONLY | os.O_DIRECTORY)
            for name in os.listdir(root):
                trees.remove_tree(root, os.fsencode(name))
            os.close(root)


class Spooling(VfsDriver):
    """Writes a diff to its own disk before it gives it out."""

    name: ClassVar[str] = "spooling"

    def diff(self, layer: str, *, profile: Profile = Profile.FULL, source_date_epoch: int | None = None) -> BinaryIO:
        """Write, then read."""
        content = content_of(super().diff(layer, profile=profile, source_date_epoch=source_date_epoch))
        spool = os.path.join(self.home, "spool")
        with open(spool, "wb") as file:
            file.write(content)
        opened = open(spool, "rb")  # noqa: SIM115 - the caller closes it
        os.unlink(spool)
        return opened


CAUGHT_BY: dict[type[Driver], tuple[str, ...]] = {
    Swallowing: ("test_a_tar_that_does_not_fit",),
    Reverting: ("test_a_layer_that_is_written_full",),
    InPlace: ("test_creating_on_a_full_disk",),
    Staging: ("test_removing_on_a_full_disk",),
    Panicking: ("test_settling_and_sealing_on_a_full_disk",),
    Spooling: ("test_reading_from_a_full_disk",),
}
