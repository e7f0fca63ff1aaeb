"""What an engine is: one way to mount a stack of layers that are kept as ``.wh.`` files."""

import abc
import contextlib
import os
from collections.abc import Iterator, Sequence
from typing import ClassVar

import attrs

from graphdrivers import archive
from graphdrivers.archive import owners
from graphdrivers.archive.entries import Difference
from graphdrivers.archive.plain import EmptyTree
from graphdrivers.archive.union import Branch, Union
from graphdrivers.archive.whiteouts import (
    AUFS_ESCAPED,
    AUFS_ESCAPED_USER,
    OVERLAY,
    OVERLAY_USER,
    PLAIN,
    PLAIN_ESCAPED,
    PLAIN_ESCAPED_USER,
    Dialect,
)
from graphdrivers.backends.aufs import phases
from graphdrivers.backends.aufs.home import ESCAPES, MARKED, AufsDirs
from graphdrivers.backends.aufs.phases import Phase
from graphdrivers.backends.overlay.options import Settings
from graphdrivers.backends.overlay.support import undoes_escapes
from graphdrivers.kit import layerdirs, reserved
from graphdrivers.model import Capabilities, Mount

Plan = tuple[Mount, ...]


@attrs.frozen
class Forms:
    """How the layers of one home are written, at rest and while overlayfs has one for its upper directory."""

    rest: Dialect
    unmarked: Dialect
    """At rest, without any ``.wh.`` names."""
    overlay: Dialect
    """What the kernel writes and undoes; recorded owners are not its business."""
    live: Dialect
    """The same, as it is read."""
    plain: Dialect
    """A merged tree."""

    @classmethod
    def of(cls, *, user_xattrs: bool, recorded: bool) -> "Forms":
        """Take the forms for marks in ``user.overlay.*`` or in ``trusted.overlay.*``, and for recorded owners."""
        rest, unmarked, overlay = AUFS_ESCAPED, PLAIN_ESCAPED, OVERLAY
        if user_xattrs:
            rest, unmarked, overlay = AUFS_ESCAPED_USER, PLAIN_ESCAPED_USER, OVERLAY_USER
        read = [attrs.evolve(dialect, records_owners=recorded) for dialect in (rest, unmarked, overlay, PLAIN)]
        return cls(read[0], read[1], overlay, read[2], read[3])


class Engine(abc.ABC):
    """One engine at work on one home. The caller serialises work on one layer."""

    name: ClassVar[str]

    limits: ClassVar[bool] = False
    """Keeps layers within the size that they may have; see ``quotas``."""

    def __init__(self, dirs: AufsDirs, forms: Forms, capabilities: Capabilities) -> None:
        """Work on the layers of ``dirs``."""
        self.dirs = dirs
        self.forms = forms
        self.capabilities = capabilities

    def refusal(self, layer: str, ancestors: Sequence[str]) -> str:  # noqa: ARG002 -- most take any
        """Say why the engine would not show a stack as its layers mean it; empty where it does."""
        return ""

    def undoes_escapes(self) -> bool:
        """Tell whether escaped xattrs show under their own names: with overlayfs they do so from Linux 6.7 on."""
        return undoes_escapes(self.dirs.home, Settings(user_xattrs=self.forms.overlay is OVERLAY_USER))

    @abc.abstractmethod
    def writable(self, layer: str, ancestors: Sequence[str]) -> Plan:
        """Make a writable layer ready and plan its mount; the layer is live afterwards. Idempotent."""

    @abc.abstractmethod
    def view(self, layer: str, ancestors: Sequence[str], *, sealed: bool) -> Plan:
        """Plan a read-only mount. Idempotent."""

    @abc.abstractmethod
    def live_differences(self, layer: str, ancestors: Sequence[str]) -> Iterator[Difference]:
        """Compare a live layer with what its ancestors show; closes what it opened."""

    @abc.abstractmethod
    def to_rest(self, layer: str, ancestors: Sequence[str], phase: Phase) -> tuple[str, ...]:
        """Bring a layer that is not mounted to rest. Idempotent at every point where it can be cut.

        Returns:
            The paths of names that were put aside: see `reserved.put_aside`.
        """

    def may_rest(self, layer: str, phase: Phase) -> bool:
        """Say whether a live layer that nobody gave back is surely mounted no more; false where it cannot be known."""
        return not phases.is_of_this_boot(phase) and not self.dirs.mounted_at(layer)

    @abc.abstractmethod
    def branches(self, layer: str, ancestors: Sequence[str]) -> Iterator[tuple[str, str]]:
        """Give what a mount of the layer is made of, top first: a path and its role."""

    def facts(self, layer: str) -> dict[str, str]:  # noqa: ARG002 -- most have none
        """Give what only this engine knows of a mounted layer."""
        return {}

    def keeps_elsewhere(self, layer: str) -> bool:  # noqa: ARG002 -- most engines work in ``diff``
        """Say whether what a live layer changed is not in its ``diff``."""
        return False

    def is_plain(self, layer: str, ancestors: Sequence[str]) -> bool:
        """Say whether a layer's directory is its merged tree as it stands."""
        return not ancestors and not self.dirs.has(layer, MARKED) and not self.dirs.has(layer, ESCAPES)

    def branch(self, layer: str) -> Branch:
        """Give a layer at rest as a part of a union."""
        marked = self.dirs.has(layer, MARKED)
        return Branch(self.dirs.diff(layer), self.forms.rest if marked else self.forms.unmarked)

    @contextlib.contextmanager
    def lower(self, ancestors: Sequence[str]) -> Iterator[Union | EmptyTree]:
        """Give what the ancestors (nearest first) show together."""
        if not ancestors:
            yield EmptyTree()
            return
        with Union([self.branch(ancestor) for ancestor in ancestors]) as union:
            yield union

    def compared(self, own: Branch, ancestors: Sequence[str]) -> Iterator[Difference]:
        """Compare a branch with what the ancestors of its layer show; closes what it opened."""
        with self.lower(ancestors) as lower:
            yield from archive.compare.compare_layer(own, lower)

    def put_aside(self, layer: str, tree: str) -> tuple[str, ...]:
        """Move ``.wh.`` names out of a tree that somebody wrote to; see `reserved.put_aside`."""
        if self.forms.plain.records_owners:
            with layerdirs.directory(tree) as root:
                owners.make_usable(root)
        return reserved.put_aside(tree, self.shelf(layer))

    def shelf(self, layer: str) -> str:
        """Give the folder where reserved names are put."""
        return self.dirs.path(layer, "reserved")

    def tmp(self) -> str:
        """Give the folder to make things in."""
        return os.path.join(self.dirs.home, "tmp")

    def sync(self, layer: str) -> None:
        """Make what was done to a layer durable, so that its next phase may be."""
        with layerdirs.directory(self.dirs.diff(layer)) as root:
            self.dirs.sync(root)

    def note_marks(self, layer: str, *, marked: bool) -> None:
        """Remember whether a layer holds ``.wh.`` names."""
        if marked:
            self.dirs.mark(layer, MARKED)
        else:
            self.dirs.unmark(layer, MARKED)

    def private(self, layer: str, name: str) -> str:
        """Make a directory of ours in a layer's folder; give its path. Idempotent."""
        folder = self.dirs.path(layer, name)
        layerdirs.make_private(folder)
        return folder
