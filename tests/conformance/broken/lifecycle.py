"""Flaws that ``test_lifecycle.py`` catches."""

from collections.abc import Iterator
from typing import ClassVar

import attrs

from graphdrivers import errors
from graphdrivers.backends.overlay.driver import OverlayDriver
from graphdrivers.backends.vfs import VfsDriver
from graphdrivers.driver import Driver
from graphdrivers.model import LayerRecord, LayerSpec, Mount


class Overwriting(VfsDriver):
    """Creates over an existing layer, losing it."""

    name: ClassVar[str] = "overwriting"

    def create(self, layer: str, parent: str | None = None, spec: LayerSpec = LayerSpec()) -> None:
        """Remove first."""
        self.remove(layer)
        super().create(layer, parent, spec)


class Unsealed(VfsDriver):
    """Hands out sealed layers for writing."""

    name: ClassVar[str] = "unsealed"

    def mounts(self, layer: str, *, view: bool = False) -> tuple[Mount, ...]:
        """Give the writable plan always."""
        (plan,) = super().mounts(layer, view=True)
        return (attrs.evolve(plan, readonly=plan.readonly and view),)


class ParentsFirst(VfsDriver):
    """Lists parents before their children, so that removing in order hits a parent first."""

    name: ClassVar[str] = "parents-first"

    def layers(self) -> Iterator[LayerRecord]:
        """Turn the order around."""
        return iter(list(super().layers())[::-1])


class Insistent(VfsDriver):
    """Removes only what is there."""

    name: ClassVar[str] = "insistent"

    def remove(self, layer: str) -> None:
        """Complain."""
        if not any(record.name == layer for record in self.layers()):
            raise errors.LayerNotFound(layer)
        super().remove(layer)


class Careless(OverlayDriver):
    """Removes layers that are mounted."""

    name: ClassVar[str] = "careless"

    def remove(self, layer: str) -> None:
        """Do not look."""
        self._dirs.remove(layer)


CAUGHT_BY: dict[type[Driver], tuple[str, ...]] = {
    Overwriting: ("test_an_existing_name_is_left_untouched",),
    Unsealed: ("test_a_sealed_layer_is_immutable",),
    ParentsFirst: ("test_layers_are_listed_children_first",),
    Insistent: ("test_remove_is_idempotent",),
    Careless: ("test_a_mounted_layer_is_in_use",),
}
