"""Flaws that ``test_crash.py`` catches: verbs that are seen half done by whoever comes after a killed process."""

import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any, BinaryIO, ClassVar

from broken.flaws import below, tree_of
from graphdrivers import errors
from graphdrivers.backends.overlay.driver import OverlayDriver
from graphdrivers.backends.vfs import VfsDriver
from graphdrivers.driver import Driver
from graphdrivers.kit.layerdirs import LayerFile
from graphdrivers.linux import trees
from graphdrivers.model import Applied, LayerRecord, LayerSpec, Limits, Mount, Progress, Support


class InPlace(VfsDriver):
    """Makes a layer where it will be, and copies into it."""

    name: ClassVar[str] = "in-place"

    def create(self, layer: str, parent: str | None = None, spec: LayerSpec = LayerSpec()) -> None:
        """Make it empty, then bring the copy piece by piece."""
        if parent is None:
            super().create(layer, parent, spec)
            return
        self._make_visible(layer, self._dirs.check_new(layer, parent, None))
        super().create(f"{layer}-copy", parent, spec)
        for name in os.listdir(tree_of(self, f"{layer}-copy")):
            os.rename(os.path.join(tree_of(self, f"{layer}-copy"), name), os.path.join(tree_of(self, layer), name))
        self._dirs.remove(f"{layer}-copy")

    def _make_visible(self, layer: str, ancestry: LayerFile) -> None:
        with self._dirs.making(layer, ancestry) as folder:
            os.mkdir(os.path.join(folder, "root"), 0o755)

    def layers(self) -> Iterator[LayerRecord]:
        """Hide what is only on its way."""
        return (record for record in super().layers() if not record.name.endswith("-copy"))


class Stubborn(VfsDriver):
    """Keeps a layer whose unpacking was cut from being removed."""

    name: ClassVar[str] = "stubborn"

    def apply(
        self,
        layer: str,
        tar: BinaryIO,
        *,
        headers: BinaryIO | None = None,
        limits: Limits = Limits(),
        progress: Progress | None = None,
    ) -> Applied:
        """Mark it meanwhile."""
        self._dirs.mark(layer, "busy")
        applied = super().apply(layer, tar, headers=headers, limits=limits, progress=progress)
        os.unlink(self._dirs.path(layer, "busy"))
        return applied

    def remove(self, layer: str) -> None:
        """Look for the mark."""
        if self._dirs.exists(layer) and os.path.exists(self._dirs.path(layer, "busy")):
            raise errors.LayerInUse(layer, "by who unpacks it")
        super().remove(layer)


class Moving(VfsDriver):
    """Seals a layer by moving it from one place to another, and back."""

    name: ClassVar[str] = "moving"

    def seal(self, layer: str) -> None:
        """Take it away for a moment."""
        place = os.path.join(self.home, "tmp", "sealing")
        os.rename(self._dirs.path(layer), place)
        os.rename(place, self._dirs.path(layer))
        super().seal(layer)


class Swapping(VfsDriver):
    """Works on a layer's tree aside when it comes to rest."""

    name: ClassVar[str] = "swapping"

    def settle(self, layer: str | None = None) -> None:
        """Move it there and back."""
        super().settle(layer)
        if layer is not None:
            place = self._dirs.path(layer, "settling")
            os.rename(tree_of(self, layer), place)
            for path, _ in below(place):
                os.listxattr(path, follow_symlinks=False)
            os.rename(place, tree_of(self, layer))


class Piecemeal(VfsDriver):
    """Deletes a layer where it is, its record last."""

    name: ClassVar[str] = "piecemeal"

    def remove(self, layer: str) -> None:
        """Delete its tree first."""
        if self._dirs.exists(layer):
            folder = os.open(self._dirs.path(layer), os.O_RDONLY | os.O_DIRECTORY)
            root = os.open("root", os.O_RDONLY | os.O_DIRECTORY, dir_fd=folder)
            for name in os.listdir(root):
                trees.remove_tree(root, os.fsencode(name))
            os.close(root)
            os.close(folder)
        super().remove(layer)


class Scribbling(VfsDriver):
    """Writes its plan down beside the layers, and throws it away."""

    name: ClassVar[str] = "scribbling"

    def mounts(self, layer: str, *, view: bool = False) -> tuple[Mount, ...]:
        """Write and unlink."""
        note = os.path.join(self.home, f"plan-{os.getpid()}")
        os.close(os.open(note, os.O_WRONLY | os.O_CREAT, 0o600))
        plan = super().mounts(layer, view=view)
        os.unlink(note)
        return plan


class Announcing(VfsDriver):
    """Puts a file into its home while it tries what works there."""

    name: ClassVar[str] = "announcing"

    @classmethod
    def probe(cls, home: str, options: Mapping[str, str]) -> Support:
        """Write and unlink."""
        if not os.path.isdir(home):
            return super().probe(home, options)
        note = os.path.join(home, f"opening-{os.getpid()}")
        os.close(os.open(note, os.O_WRONLY | os.O_CREAT, 0o600))
        support = super().probe(home, options)
        os.unlink(note)
        return support


class Untidy(VfsDriver):
    """Leaves what a crash left."""

    name: ClassVar[str] = "untidy"

    def settle(self, layer: str | None = None) -> None:
        """Do nothing about the home."""
        if layer is not None:
            super().settle(layer)


class InTwoSteps(OverlayDriver):
    """Creates the layer, and fills it in the sight of all."""

    name: ClassVar[str] = "in-two-steps"

    def apply_ahead(
        self, layer: str, parent: str | None, tar: BinaryIO, *, ready: Callable[[], object], **more: Any
    ) -> Applied:
        """Do one after the other."""
        if parent is not None:
            ready()
        self.create(layer, parent)
        return self.apply(layer, tar, **more)


CAUGHT_BY: dict[type[Driver], tuple[str, ...]] = {
    InPlace: ("test_killed_while_creating",),
    Stubborn: ("test_killed_while_applying",),
    Moving: ("test_killed_while_sealing",),
    Swapping: ("test_killed_while_settling",),
    Piecemeal: ("test_killed_while_removing",),
    Scribbling: ("test_killed_while_planning_a_mount",),
    Announcing: ("test_killed_while_opening",),
    Untidy: ("test_killed_while_creating", "test_killed_while_removing", "test_killed_while_cleaning_up"),
    InTwoSteps: ("test_killed_while_applying_ahead",),
}
