"""Drivers that get snapshots of live layers wrong, in front of one that gets them right, if by copying."""

import os
import shutil
from collections.abc import Mapping
from typing import ClassVar

from broken.flaws import claiming, tree_of
from broken.quotas import Limiting
from graphdrivers import errors
from graphdrivers.backends.vfs import VfsDriver
from graphdrivers.driver import Driver
from graphdrivers.kit.layerdirs import LayerFile, directory, make_private
from graphdrivers.linux import copying
from graphdrivers.model import LayerSpec, Support


class _Snapping(VfsDriver):
    """Makes snapshots as the contract has them, but for their cost."""

    @classmethod
    def probe(cls, home: str, options: Mapping[str, str]) -> Support:
        """Claim it."""
        return claiming(super().probe(home, options), fork_live=True)

    def snapshot(self, layer: str, name: str) -> None:
        """Copy."""
        ancestry = self._dirs.writable(layer)
        if self._dirs.exists(name):
            raise errors.LayerExists(name)
        with self._dirs.making(name, self.ancestry(layer, ancestry)) as folder:
            root = os.path.join(folder, "root")
            make_private(root)
            self.copy(tree_of(self, layer), root)
        self.finish(name)

    def ancestry(self, layer: str, found: LayerFile) -> LayerFile:
        """Give the parents that the snapshot is to have."""
        del layer
        return found

    def copy(self, tree: str, root: str) -> None:
        """Copy one tree."""
        with directory(tree) as source, directory(root) as target:
            copying.copy_tree(source, target)

    def finish(self, name: str) -> None:
        """Seal the snapshot."""
        self._dirs.seal(name)


class Snapping(_Snapping):
    """No flaw: the control of the drivers that make snapshots."""

    name: ClassVar[str] = "snapping"


class Modest(Snapping):
    """Does not say that it can."""

    name: ClassVar[str] = "modest-about-snapshots"

    @classmethod
    def probe(cls, home: str, options: Mapping[str, str]) -> Support:
        """Claim nothing."""
        return claiming(super().probe(home, options), fork_live=False)


class SharesFiles(Snapping):
    """Links the files instead of copying them."""

    name: ClassVar[str] = "shares-files"

    def copy(self, tree: str, root: str) -> None:
        """Link."""
        shutil.copytree(tree, root, copy_function=os.link, symlinks=True, dirs_exist_ok=True)


class CopiesTheParent(Snapping):
    """Does not look at the layer at all."""

    name: ClassVar[str] = "copies-the-parent"

    def snapshot(self, layer: str, name: str) -> None:
        """Make a child of its parent."""
        self.create(name, self.record(layer).parent)
        self.seal(name)


class MakesChildren(Snapping):
    """Says that a snapshot stands on the layer that it was made of."""

    name: ClassVar[str] = "makes-children"

    def ancestry(self, layer: str, found: LayerFile) -> LayerFile:
        """Put the layer in between."""
        return LayerFile((layer, *found.ancestors))


class LeavesOpen(Snapping):
    """Does not seal snapshots."""

    name: ClassVar[str] = "leaves-open"

    def finish(self, name: str) -> None:
        """Forget it."""


class GoesWithItsLayer(Snapping):
    """Removes what was made in the same moment as a layer along with it."""

    name: ClassVar[str] = "goes-with-its-layer"

    def remove(self, layer: str) -> None:
        """Remove siblings too."""
        parent = self.record(layer).parent if self._dirs.exists(layer) else None
        for record in list(self.layers()):
            if record.name == layer or (parent and record.parent == parent):
                super().remove(record.name)


class NeedsAParent(Snapping):
    """Cannot do it at the bottom of a stack."""

    name: ClassVar[str] = "needs-a-parent"

    def snapshot(self, layer: str, name: str) -> None:
        """Refuse base layers."""
        if self.record(layer).parent is None:
            raise errors.NotSupported(self.name, "a base layer has no snapshots", "make a child first")
        super().snapshot(layer, name)


class Careless(Snapping):
    """Replaces whatever has the name."""

    name: ClassVar[str] = "careless"

    def snapshot(self, layer: str, name: str) -> None:
        """Make room."""
        if layer != name:
            self.remove(name)
        super().snapshot(layer, name)


class DropsReserved(Snapping):
    """Leaves names out that a tar would take for deletions, without a word."""

    name: ClassVar[str] = "drops-reserved"

    def copy(self, tree: str, root: str) -> None:
        """Copy, and delete them."""
        super().copy(tree, root)
        for folder, _folders, files in os.walk(root):
            for file in files:
                if file.startswith(".wh."):
                    os.unlink(os.path.join(folder, file))


class LimitedSnapping(_Snapping, Limiting):
    """No flaw: has limits too."""

    name: ClassVar[str] = "limited-snapping"


class HandsLimitsOn(LimitedSnapping):
    """Gives a snapshot's children the limit of the layer that it was made of."""

    name: ClassVar[str] = "hands-limits-on"

    def create(self, layer: str, parent: str | None = None, spec: LayerSpec = LayerSpec()) -> None:
        """Remember the smallest one."""
        size = spec.size or min(self.sizes.values(), default=None)
        super().create(layer, parent, LayerSpec(size=size))


CAUGHT_BY: dict[type[Driver], tuple[str, ...]] = {
    Modest: ("test_snapshots_that_are_not_claimed",),
    SharesFiles: ("test_an_open_file_goes_on",),
    CopiesTheParent: ("test_a_mounted_layer_is_snapshot", "test_a_snapshot_of_a_base_layer"),
    MakesChildren: ("test_a_snapshot_is_a_sibling",),
    LeavesOpen: ("test_a_snapshot_is_a_sibling",),
    GoesWithItsLayer: ("test_a_snapshot_needs_nothing_of_its_layer",),
    NeedsAParent: ("test_a_snapshot_of_a_base_layer",),
    Careless: ("test_what_cannot_be_snapshot",),
    DropsReserved: ("test_reserved_names_in_a_snapshot",),
    HandsLimitsOn: ("test_a_snapshot_has_no_limit",),
}
