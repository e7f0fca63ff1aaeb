"""Drivers that keep of each layer what it changes, as the upper directory of a union: how such layers are read.

Neither a mount nor the merging program is needed for that, and it costs what the
layer holds, not what the image does.
"""

import abc
import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, BinaryIO

from graphdrivers import archive, errors, naivediff
from graphdrivers.archive.whiteouts import Dialect
from graphdrivers.driver import Driver
from graphdrivers.kit.layerdirs import LayerDirs, LayerFile, directory
from graphdrivers.linux import trees
from graphdrivers.model import Capabilities, Change, LayerRecord, Profile, Usage

if TYPE_CHECKING:
    from graphdrivers.archive.apply import Target
    from graphdrivers.archive.entries import Difference
    from graphdrivers.archive.union import Branch, Union

DIFF = "diff"
"""Name of the upper directory in a layer's folder."""


class UpperDriver(Driver):
    """One folder per layer, with its upper directory; how layers are made, mounted and brought to rest is added."""

    _dirs: LayerDirs

    @abc.abstractmethod
    def _dialect_of(self, layer: str) -> Dialect:
        """Say how whiteouts are written in a layer at this moment."""

    @abc.abstractmethod
    def _rest(self, layer: str) -> None:
        """Clean up after mounts of a layer that is not mounted now."""

    def _refuse_mounted(self, layer: str) -> None:
        self._dirs.refuse_mounted(layer, DIFF)

    def seal(self, layer: str) -> None:
        """Set a mark file."""
        self._dirs.read(layer)
        if self._dirs.is_sealed(layer):
            return
        self._refuse_mounted(layer)
        self._rest(layer)
        self._dirs.seal(layer)

    def changes(self, layer: str) -> Iterator[Change]:
        """Read the upper directory and what it covers; cost independent of the image."""
        return naivediff.listed(self._differences(layer, self._dirs.read(layer).ancestors))

    def diff(self, layer: str, *, profile: Profile = Profile.FULL, source_date_epoch: int | None = None) -> BinaryIO:
        """Read the upper directory and what it covers; cost independent of the image."""
        found = self._differences(layer, self._dirs.read(layer).ancestors)
        return archive.produce.produce(found, profile=profile, source_date_epoch=source_date_epoch)

    def usage(self, layer: str) -> Usage:
        """Measure the upper directory."""
        self._dirs.read(layer)
        with directory(self._dirs.path(layer, DIFF)) as root:
            return Usage(*trees.usage(root, self._dialect_of(layer).is_mark))

    def layers(self) -> Iterator[LayerRecord]:
        """Read the ``layer.json`` of every layer."""
        return self._dirs.records()

    def remove(self, layer: str) -> None:
        """Rename the layer's folder away, then delete it."""
        if self._dirs.exists(layer):
            self._refuse_mounted(layer)
            self._dirs.remove(layer)

    def _branch(self, layer: str) -> "Branch":
        return archive.union.Branch(self._dirs.path(layer, DIFF), self._dialect_of(layer))

    def _union(self, layers: Sequence[str]) -> "Union":
        return archive.union.Union([self._branch(layer) for layer in layers])

    def _differences(self, layer: str, ancestors: Sequence[str]) -> "Iterator[Difference]":
        """Compare a layer with the merged view of its ancestors (nearest first); closes what it opened."""
        if not ancestors:
            yield from archive.compare.compare_layer(self._branch(layer), archive.plain.EmptyTree())
            return
        with self._union(ancestors) as lower:
            yield from archive.compare.compare_layer(self._branch(layer), lower)


class Awaited:
    """The ancestry of a layer whose parent may still be in the making: asked for, it waits."""

    def __init__(
        self, dirs: LayerDirs, layer: str, parent: str | None, ready: Callable[[], object], max_depth: int | None
    ) -> None:
        """Wait with ``ready`` (see `driver.AppliesAhead.apply_ahead`), at most once; not for a base layer.

        Raises:
            LayerExists: the layer's name is taken.
        """
        if dirs.exists(layer):
            raise errors.LayerExists(layer)
        self._dirs = dirs
        self._layer = layer
        self._parent = parent
        self._ready = ready
        self._max_depth = max_depth
        self._known: LayerFile | None = None

    def __call__(self) -> LayerFile:
        """Give the ancestry. Raises as `LayerDirs.check_new` does, and what ``ready`` raises."""
        if self._known is None:
            if self._parent is not None:
                self._ready()
            self._known = self._dirs.check_new(self._layer, self._parent, self._max_depth)
        return self._known

    @contextlib.contextmanager
    def target(
        self, tree: str, dialect: Dialect, capabilities: Capabilities, branch: "Callable[[str], Branch]"
    ) -> "Iterator[Target]":
        """Give what to unpack into ``tree``, the new layer's root as `roots.make_root` made it.

        Args:
            tree: a path.
            dialect: how it is written.
            capabilities: the driver's.
            branch: gives a layer's own tree, as a part of the view of the parents.
        """
        with directory(tree) as root, contextlib.ExitStack() as stack:
            lower = None
            if self._parent is not None:
                late = archive.union.LateUnion(lambda: [branch(layer) for layer in self().ancestors])
                lower = stack.enter_context(late)
            yield archive.apply.Target(root, dialect, lower, capabilities, late=lower is not None)
