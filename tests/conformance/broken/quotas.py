"""Flaws that ``test_quotas.py`` catches: limits that do not hold, or hold too much.

The limits themselves are real: a layer that has one is kept on a file system in memory of its own. Root can have that
on any kernel.
"""

import os
import subprocess
from collections.abc import Mapping
from typing import BinaryIO, ClassVar

from broken.flaws import claiming
from graphdrivers import errors
from graphdrivers.backends.vfs import VfsDriver
from graphdrivers.driver import Driver
from graphdrivers.kit.layerdirs import LayerDirs, directory
from graphdrivers.linux import copying, mounts
from graphdrivers.model import Applied, LayerSpec, Mount, Support

LARGE = 1 << 30


class _Dirs(LayerDirs):
    """Takes the file systems of layers for no use of them."""

    def mounted_at(self, layer: str, tree: str) -> str:
        """See nothing."""
        del layer, tree
        return ""


class Limiting(VfsDriver):
    """Enforces sizes; a flaw changes which."""

    name: ClassVar[str] = "limiting"

    @classmethod
    def probe(cls, home: str, options: Mapping[str, str]) -> Support:
        """Claim it."""
        return claiming(super().probe(home, options), quota=True)

    def __init__(self, home: str, options: Mapping[str, str], support: Support) -> None:
        """Know no sizes."""
        super().__init__(home, options, support)
        self._dirs = _Dirs(home, self.name, {})
        self.sizes: dict[str, int] = {}

    def create(self, layer: str, parent: str | None = None, spec: LayerSpec = LayerSpec()) -> None:
        """Put a layer with a size on a file system of its own."""
        super().create(layer, parent)
        size = self.size_of(layer, parent, spec)
        if size is None:
            return
        self.sizes[layer] = size
        root = self.root(layer)
        with directory(root) as below:
            copied = 0 if parent is None else self.usage(parent).disk
            mounts.attach((Mount("tmpfs", "limited", (("size", str(size + copied)),)),), root)
            with directory(root) as above:
                copying.copy_tree(below, above)

    def size_of(self, layer: str, parent: str | None, spec: LayerSpec) -> int | None:
        """Give the size that a layer may have."""
        del layer, parent
        return spec.size

    def root(self, layer: str) -> str:
        """Give the path of a layer's tree."""
        return os.path.join(self.home, "layers", layer, "root")

    def enlarge(self, layer: str) -> None:
        """Let a layer have any size."""
        if layer in self.sizes:
            command = ["mount", "-o", f"remount,size={LARGE}", self.root(layer)]
            subprocess.run(command, check=True, capture_output=True)

    def remove(self, layer: str) -> None:
        """Take the file system away."""
        if os.path.ismount(self.root(layer)):
            mounts.detach(self.root(layer), lazy=True)
        super().remove(layer)


class Forgetful(Limiting):
    """Limits the first mount only."""

    name: ClassVar[str] = "forgetful"

    def settle(self, layer: str | None = None) -> None:
        """Forget."""
        super().settle(layer)
        if layer is not None:
            self.enlarge(layer)


class Counting(Limiting):
    """Counts what a parent holds."""

    name: ClassVar[str] = "counting"

    def size_of(self, layer: str, parent: str | None, spec: LayerSpec) -> int | None:
        """Take the parent's bytes off."""
        size = super().size_of(layer, parent, spec)
        return size if size is None or parent is None else max(1 << 20, size - self.usage(parent).disk)


class Shared(Limiting):
    """Has one room for all layers."""

    name: ClassVar[str] = "shared"

    def size_of(self, layer: str, parent: str | None, spec: LayerSpec) -> int | None:
        """Take off what the others hold."""
        size = super().size_of(layer, parent, spec)
        return size if size is None else size - sum(self.usage(other).disk for other in self.sizes)


class Inherited(Limiting):
    """Lets a limit go on to children."""

    name: ClassVar[str] = "inherited"

    def size_of(self, layer: str, parent: str | None, spec: LayerSpec) -> int | None:
        """Look for the size at the parent too."""
        return super().size_of(layer, parent, spec) or self.sizes.get(parent or "")


class Choking(Limiting):
    """Seals no layer that is nearly full."""

    name: ClassVar[str] = "choking"

    def seal(self, layer: str) -> None:
        """Need room."""
        if layer in self.sizes and self.usage(layer).disk > self.sizes[layer] - (1 << 20):
            raise errors.LayerInUse(layer, "it is full")
        super().seal(layer)


class Unpacking(Limiting):
    """Unpacks archives of any size."""

    name: ClassVar[str] = "unpacking"

    def apply(self, layer: str, tar: BinaryIO, **how: object) -> Applied:  # type: ignore[override]
        """Make room."""
        self.enlarge(layer)
        return super().apply(layer, tar, **how)  # type: ignore[arg-type]


class Lasting(Limiting):
    """Knows sizes by names, also of layers that are gone."""

    name: ClassVar[str] = "lasting"

    def size_of(self, layer: str, parent: str | None, spec: LayerSpec) -> int | None:
        """Look the name up."""
        return super().size_of(layer, parent, spec) or self.sizes.get(layer)


CAUGHT_BY: dict[type[Driver], tuple[str, ...]] = {
    Forgetful: ("test_a_size_holds_in_every_mount",),
    Counting: ("test_a_size_holds_over_a_parent",),
    Shared: ("test_sizes_of_layers_are_apart",),
    Inherited: ("test_children_have_no_limit_of_their_parents",),
    Choking: ("test_a_full_layer_lives_on",),
    Unpacking: ("test_an_archive_that_passes_the_limit_is_an_error",),
    Lasting: ("test_a_removed_layer_leaves_no_limit",),
}
