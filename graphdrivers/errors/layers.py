"""What can be wrong with one layer."""

from typing import ClassVar

import attrs

from graphdrivers.errors.base import GraphDriverError


@attrs.define(eq=False)
class LayerError(GraphDriverError):
    """Base of the errors about one layer; ``layer`` is its name."""

    layer: str

    template: ClassVar[str] = "layer {layer!r}"
    exit_code: ClassVar[int] = 30


@attrs.define(eq=False)
class LayerNotFound(LayerError):
    """No layer of this name."""

    template: ClassVar[str] = "layer {layer!r} does not exist"
    remedy: ClassVar[str] = "'graphdriver layer ls' lists those that do"
    exit_code: ClassVar[int] = 31


@attrs.define(eq=False)
class LayerExists(LayerError):
    """The name is taken; the layer that has it is untouched."""

    template: ClassVar[str] = "layer {layer!r} exists already and was left as it is"
    remedy: ClassVar[str] = "choose another name or remove it first"
    exit_code: ClassVar[int] = 32


@attrs.define(eq=False)
class LayerInUse(LayerError):
    """The layer is mounted (or busy in another process)."""

    where: str = ""

    template: ClassVar[str] = "layer {layer!r} is in use {where}"
    remedy: ClassVar[str] = "unmount it first"
    exit_code: ClassVar[int] = 33


@attrs.define(eq=False)
class LayerSealed(LayerError):
    """The layer is immutable."""

    template: ClassVar[str] = "layer {layer!r} is sealed and never changes again"
    remedy: ClassVar[str] = "create a child of it and change that"
    exit_code: ClassVar[int] = 34


@attrs.define(eq=False)
class LayerNotSealed(LayerError):
    """Only a sealed layer can be a parent."""

    template: ClassVar[str] = "layer {layer!r} is still writable and cannot be a parent"
    remedy: ClassVar[str] = "seal it first"
    exit_code: ClassVar[int] = 35


@attrs.define(eq=False)
class LayerHasChildren(LayerError):
    """Other layers stand on this one."""

    children: tuple[str, ...] = ()

    template: ClassVar[str] = "layer {layer!r} has {count} child layer(s): {names}"
    remedy: ClassVar[str] = "remove them first"
    exit_code: ClassVar[int] = 36

    @property
    def message(self) -> str:
        """Name the first few children."""
        names = ", ".join(repr(child) for child in self.children[:5])
        return self.template.format(layer=self.layer, count=len(self.children), names=names)


@attrs.define(eq=False)
class ChainTooDeep(LayerError):
    """The stack would have more layers than the driver can mount."""

    depth: int
    limit: int

    template: ClassVar[str] = "layer {layer!r} would be number {depth} of its stack; the limit is {limit}"
    remedy: ClassVar[str] = "merge layers, or use a driver without the limit (vfs)"
    exit_code: ClassVar[int] = 37


@attrs.define(eq=False)
class ReservedNameError(LayerError):
    """Files in a writable layer use names that the dialect reserves; they were put aside, not lost."""

    paths: tuple[str, ...] = ()

    template: ClassVar[str] = "layer {layer!r} holds {count} reserved name(s), put aside: {names}"
    remedy: ClassVar[str] = "rename them: names that begin with '.wh.' mean deletions in layers"
    exit_code: ClassVar[int] = 38

    @property
    def message(self) -> str:
        """Name the first few paths."""
        names = ", ".join(repr(path) for path in self.paths[:5])
        return self.template.format(layer=self.layer, count=len(self.paths), names=names)


@attrs.define(eq=False)
class LayerOwned(LayerError):
    """The layer belongs to the store, which alone changes and removes it."""

    owner: str

    template: ClassVar[str] = "layer {layer!r} belongs to {owner}"
    remedy: ClassVar[str] = "leave it to the store: 'graphdriver rm', 'rmi' and 'gc' remove layers of its own"
    exit_code: ClassVar[int] = 39
