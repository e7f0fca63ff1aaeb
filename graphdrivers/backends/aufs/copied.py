"""The ``copy`` engine: the merged tree as a real one, folded back into the layer when it comes to rest.

It mounts nothing and needs no privilege; where the file system can, the copy
shares its blocks with the layers. The tree is in ``mnt/NAME``. The layer's
folder of ``state`` says what it is:

``baseline``
    The tree of a writable layer; inode and ctime of what the ancestors gave to
    it, which tells without reading what was changed since.
``shown``
    The tree of a sealed layer, complete; it stays until the layer is removed.
``folded``
    A complete new ``diff``, about to take the place of the old one.

A tree in ``mnt`` without one of the first two was never finished.
"""

import contextlib
import errno
import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, ClassVar

from graphdrivers import archive
from graphdrivers.archive.entries import Difference, Node
from graphdrivers.archive.plain import EmptyTree, PlainTree
from graphdrivers.archive.union import Union, UnionNode
from graphdrivers.backends.aufs import phases
from graphdrivers.backends.aufs.engine import Engine, Plan
from graphdrivers.backends.aufs.home import DIFF, ESCAPES
from graphdrivers.backends.aufs.phases import Phase
from graphdrivers.kit import baseline, layerdirs
from graphdrivers.kit.watch import WatchedDialect
from graphdrivers.linux import durable
from graphdrivers.model import Mount

if TYPE_CHECKING:
    from graphdrivers.archive.equality import Proof
    from graphdrivers.archive.replicate import Made

_BASELINE, _SHOWN, _FOLDED = "baseline", "shown", "folded"


class Copy(Engine):
    """Copies merged trees."""

    name: ClassVar[str] = "copy"

    def undoes_escapes(self) -> bool:
        """Say yes: what is copied is written under its own name."""
        return True

    def writable(self, layer: str, ancestors: Sequence[str]) -> Plan:
        """Copy the merged tree, unless that was done before; see `Engine.writable`."""
        before = self.dirs.phase(layer)
        plain = self.is_plain(layer, ancestors)
        live = phases.now(self.name, "live")
        if live != before:  # first: a copy that no phase tells of would outlive what it was made from
            self.dirs.enter_phase(layer, live, lasting=before is None)
        if not plain and not self.dirs.has(layer, _BASELINE):
            self._copy_writable(layer, ancestors)
        return (Mount("bind", self.dirs.diff(layer) if plain else self.dirs.mnt(layer)),)

    def view(self, layer: str, ancestors: Sequence[str], *, sealed: bool) -> Plan:
        """Give the copy, made where it is missing; read-only where this process can mount."""
        if not sealed:
            (plan,) = self.writable(layer, ancestors)
            source = plan.source
        elif self.is_plain(layer, ancestors):
            source = self.dirs.diff(layer)
        else:
            source = self.dirs.mnt(layer)
            if not self.dirs.has(layer, _SHOWN):
                self._copy_shown(layer, ancestors)
        return (Mount("bind", source, readonly=self.capabilities.readonly_views),)

    def live_differences(self, layer: str, ancestors: Sequence[str]) -> Iterator[Difference]:
        """Compare the copy with the ancestors; what was not touched is known by its inode."""
        if not self.dirs.has(layer, _BASELINE):
            yield from self.compared(self.branch(layer), ancestors)
            return
        with contextlib.ExitStack() as stack:
            lower = stack.enter_context(self.lower(ancestors))
            root = stack.enter_context(layerdirs.directory(self.dirs.mnt(layer)))
            tree = stack.enter_context(PlainTree(root, recorded=self.forms.plain.records_owners))
            yield from archive.compare.compare(lower, tree, unchanged=self._proof(layer))

    def to_rest(self, layer: str, ancestors: Sequence[str], phase: Phase) -> tuple[str, ...]:
        """Put user-made ``.wh.`` names aside, make a new ``diff`` of what changed, and drop the copy."""
        del phase
        aside: tuple[str, ...] = ()
        if self.dirs.has(layer, _FOLDED):
            self._exchange(layer)
        if self.dirs.has(layer, _BASELINE):
            aside = self.put_aside(layer, self.dirs.mnt(layer))
            self._fold(layer, ancestors)
            self._exchange(layer)
            self.dirs.unmark(layer, _BASELINE)
            self.sync(layer)
        elif self.is_plain(layer, ancestors):
            aside = self.put_aside(layer, self.dirs.diff(layer))
        self._drop_tree(layer)
        self.dirs.come_to_rest(layer)
        return aside

    def branches(self, layer: str, ancestors: Sequence[str]) -> Iterator[tuple[str, str]]:
        """Give the copy in front of the layers that it was made of."""
        sealed = self.dirs.is_sealed(layer)
        if self.dirs.has(layer, _BASELINE):
            yield self.dirs.mnt(layer), "rw"
            yield self.dirs.diff(layer), "ro+wh"
        else:
            yield self.dirs.diff(layer), "ro+wh" if sealed or ancestors else "rw"
        for ancestor in ancestors:
            yield self.dirs.diff(ancestor), "ro+wh"

    def keeps_elsewhere(self, layer: str) -> bool:
        """It is in the copy."""
        return self.dirs.has(layer, _BASELINE)

    def _copy_writable(self, layer: str, ancestors: Sequence[str]) -> None:
        """Copy the merged tree of a writable layer; its baseline comes last and says that the copy is complete."""
        made: list[tuple[int, int]] = []

        def note(node: Node, copy: os.stat_result) -> None:
            # What the layer itself has is not what the ancestors show, so it is always compared.
            if isinstance(node, UnionNode) and node.layer.index > 0:
                made.append((copy.st_ino, copy.st_ctime_ns))

        self._drop_tree(layer)
        with durable.Staging(self.tmp()) as staging:
            tree = self._copied([layer, *ancestors], staging.path, note)
            record = os.path.join(staging.path, _BASELINE)
            baseline.write(record, made)
            os.rename(tree, self.dirs.mnt(layer))
            os.rename(record, self.dirs.path(layer, _BASELINE))

    def _copy_shown(self, layer: str, ancestors: Sequence[str]) -> None:
        """Copy the merged tree of a sealed layer; who comes second keeps what is there."""
        with durable.Staging(self.tmp()) as staging:
            tree = self._copied([layer, *ancestors], staging.path)
            try:
                os.rename(tree, self.dirs.mnt(layer))
            except OSError as error:
                if error.errno not in {errno.ENOTEMPTY, errno.EEXIST}:
                    raise
            self.dirs.mark(layer, _SHOWN)

    def _copied(self, layers: Sequence[str], folder: str, note: "Made | None" = None) -> str:
        """Copy the merged tree of layers into a new directory of ``folder``; give its path."""
        tree = os.path.join(folder, "tree")
        layerdirs.make_private(tree)
        with contextlib.ExitStack() as stack:
            root = stack.enter_context(layerdirs.directory(tree))
            union = stack.enter_context(Union([self.branch(layer) for layer in layers]))
            top = stack.enter_context(union.root())
            attributes = archive.attributes.Attributes(self.forms.plain, self.capabilities)
            everything = archive.compare.compare(EmptyTree(), union)
            archive.replicate.replicate(everything, root, attributes, self.forms.plain, top=top.node, made=note)
        return tree

    def _proof(self, layer: str) -> "Proof":
        proven = baseline.read(self.dirs.path(layer, _BASELINE))
        return lambda _lower, upper: (upper.stat.st_ino, upper.stat.st_ctime_ns) in proven

    def _fold(self, layer: str, ancestors: Sequence[str]) -> None:
        """Make a new ``diff`` of what the copy changed; files are linked, not copied."""
        watch = WatchedDialect.over(self.forms.rest)
        with durable.Staging(self.tmp()) as staging:
            folded = os.path.join(staging.path, _FOLDED)
            layerdirs.make_private(folded)
            with layerdirs.directory(folded) as root, layerdirs.directory(self.dirs.mnt(layer)) as source:
                attributes = archive.attributes.Attributes(watch, self.capabilities)
                with PlainTree(source, recorded=self.forms.plain.records_owners) as tree, tree.root() as top:
                    differences = self.live_differences(layer, ancestors)
                    archive.replicate.replicate(differences, root, attributes, watch, top=top.node, source=source)
                self.dirs.sync(root)
            self.note_marks(layer, marked=bool(watch.deleted))
            if watch.escaped:
                self.dirs.mark(layer, ESCAPES)
            os.rename(folded, self.dirs.path(layer, _FOLDED))

    def _exchange(self, layer: str) -> None:
        """Let the new ``diff`` take the place of the old one. Idempotent."""
        with durable.Staging(self.tmp()) as staging:
            with contextlib.suppress(FileNotFoundError):
                os.rename(self.dirs.diff(layer), os.path.join(staging.path, DIFF))
            os.rename(self.dirs.path(layer, _FOLDED), self.dirs.diff(layer))

    def _drop_tree(self, layer: str) -> None:
        """Delete a copy, and put an empty directory in its place."""
        tree = self.dirs.mnt(layer)
        with durable.Staging(self.tmp()) as staging:
            with contextlib.suppress(FileNotFoundError):
                os.rename(tree, os.path.join(staging.path, DIFF))
            os.mkdir(tree, 0o700)
