"""Flaws that ``test_trees.py`` catches."""

import os
from collections.abc import Mapping
from typing import ClassVar

import attrs

from graphdrivers.backends.overlay.driver import OverlayDriver
from graphdrivers.backends.vfs import VfsDriver
from graphdrivers.driver import Driver
from graphdrivers.linux import mounts
from graphdrivers.model import LayerSpec, Mount, Support


class WritableViews(VfsDriver):
    """Claims read-only views and gives writable ones."""

    name: ClassVar[str] = "writable-views"

    def mounts(self, layer: str, *, view: bool = False) -> tuple[Mount, ...]:
        """Drop the flag."""
        return tuple(attrs.evolve(plan, readonly=False) for plan in super().mounts(layer, view=view))


class Unlinking(VfsDriver):
    """Copies a parent without its hard links."""

    name: ClassVar[str] = "unlinking"

    def create(self, layer: str, parent: str | None = None, spec: LayerSpec = LayerSpec()) -> None:
        """Give each further name its own copy."""
        super().create(layer, parent, spec)
        root = mounts.plain_directory(self.mounts(layer)) or ""
        for folder, _, names in os.walk(root):
            for name in names:
                self._part(os.path.join(folder, name))

    def _part(self, path: str) -> None:
        facts = os.lstat(path)
        if facts.st_nlink > 1:
            with open(path, "rb") as old:
                content = old.read()
            os.unlink(path)
            with open(path, "wb") as new:
                new.write(content)
            os.chmod(path, facts.st_mode & 0o7777)
            os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))


class Rootless(OverlayDriver):
    """Forgets the attributes of the parent's root."""

    name: ClassVar[str] = "rootless"

    def create(self, layer: str, parent: str | None = None, spec: LayerSpec = LayerSpec()) -> None:
        """Set it to 0755."""
        super().create(layer, parent, spec)
        os.chmod(os.path.join(self.home, "layers", layer, "diff"), 0o755)  # noqa: S103 - that is the flaw


class Boasting(OverlayDriver):
    """Claims to rename directories and does not."""

    name: ClassVar[str] = "boasting"

    @classmethod
    def probe(cls, home: str, options: Mapping[str, str]) -> Support:
        """Claim."""
        support = super().probe(home, options)
        return attrs.evolve(support, capabilities=attrs.evolve(support.capabilities, rename_directories=True))


CAUGHT_BY: dict[type[Driver], tuple[str, ...]] = {
    WritableViews: ("test_a_view_refuses_writes",),
    Unlinking: ("test_a_child_shows_its_parent",),
    Rootless: ("test_the_root_keeps_its_attributes",),
    Boasting: ("test_directories_move_where_it_is_claimed",),
}
