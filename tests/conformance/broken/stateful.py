"""Drivers that only go wrong over time: between two mounts, among several children, or when they are opened again."""

import os
from collections.abc import Iterator, Mapping
from typing import ClassVar

import attrs

from graphdrivers.backends.vfs import VfsDriver
from graphdrivers.driver import Driver
from graphdrivers.linux import mounts
from graphdrivers.model import LayerRecord, LayerSpec, Support


class Sharing(VfsDriver):
    """Gives a second child the very files of the first one."""

    name: ClassVar[str] = "sharing"

    def create(self, layer: str, parent: str | None = None, spec: LayerSpec = LayerSpec()) -> None:
        """Replace the copies."""
        older = [record.name for record in self.layers() if parent is not None and record.parent == parent]
        super().create(layer, parent, spec)
        if older:
            self._share(self._dirs.path(older[0], "root"), layer)

    def _share(self, source: str, layer: str) -> None:
        target = mounts.plain_directory(self.mounts(layer)) or ""
        before = os.stat(target)
        for name in os.listdir(target):
            ours, theirs = os.path.join(target, name), os.path.join(source, name)
            if os.path.isfile(ours) and os.path.isfile(theirs) and not os.path.islink(ours):
                os.unlink(ours)
                os.link(theirs, ours)
        os.utime(target, ns=(before.st_atime_ns, before.st_mtime_ns))


class Undoing(VfsDriver):
    """Loses at the second rest of a layer the newest name in its root."""

    name: ClassVar[str] = "undoing"

    def __init__(self, home: str, options: Mapping[str, str], support: Support) -> None:
        """Count."""
        super().__init__(home, options, support)
        self._rests: dict[str, int] = {}

    def settle(self, layer: str | None = None) -> None:
        """Remove a file, and hide the traces."""
        super().settle(layer)
        if layer is None:
            return
        self._rests[layer] = self._rests.get(layer, 0) + 1
        root = mounts.plain_directory(self.mounts(layer)) or ""
        files = [entry.path for entry in os.scandir(root) if entry.is_file(follow_symlinks=False)]
        if self._rests[layer] == 2 and files:
            before = os.stat(root)
            os.unlink(max(files))
            os.utime(root, ns=(before.st_atime_ns, before.st_mtime_ns))


class Unsealing(VfsDriver):
    """Knows what is sealed as long as it is open."""

    name: ClassVar[str] = "unsealing"

    def __init__(self, home: str, options: Mapping[str, str], support: Support) -> None:
        """Know nothing."""
        super().__init__(home, options, support)
        self._known: set[str] = set()

    def seal(self, layer: str) -> None:
        """Remember."""
        super().seal(layer)
        self._known.add(layer)

    def layers(self) -> Iterator[LayerRecord]:
        """Tell what is remembered."""
        return (attrs.evolve(one, sealed=one.name in self._known) for one in super().layers())


class Hiding(VfsDriver):
    """Removes a layer from its list only, so that it is back when the home is opened again."""

    name: ClassVar[str] = "hiding"

    def __init__(self, home: str, options: Mapping[str, str], support: Support) -> None:
        """Hide nothing."""
        super().__init__(home, options, support)
        self._hidden: set[str] = set()

    def remove(self, layer: str) -> None:
        """Hide."""
        self._hidden.add(layer)

    def layers(self) -> Iterator[LayerRecord]:
        """Tell the rest."""
        return (one for one in super().layers() if one.name not in self._hidden)


CAUGHT_BY: dict[type[Driver], tuple[str, ...]] = {
    Sharing: ("test_random_lives",),
    Undoing: ("test_random_lives",),
    Unsealing: ("test_random_lives",),
    Hiding: ("test_random_lives",),
}
