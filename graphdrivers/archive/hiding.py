"""What a layer's whiteouts hide: in a union by marks written at the end, in a plain tree by deleting.

Markers act on what was there before the layer, whatever their place in the tar
(OCI image-spec, ``layer.md``, heading *Whiteouts*), so nothing that the layer
itself made is ever hidden. Markers that hide nothing leave no trace: the same
layer gives the same tree and the same diff on every driver.
"""

import os
import stat

from graphdrivers import errors
from graphdrivers.archive.attributes import Attributes
from graphdrivers.archive.merged import MergedTree
from graphdrivers.archive.pathset import PathSet
from graphdrivers.archive.places import Place, join
from graphdrivers.archive.whiteouts import Dialect
from graphdrivers.linux import trees


class Hiding:
    """Collects the markers of one layer and carries them out."""

    def __init__(self, tree: MergedTree, attributes: Attributes, dialect: Dialect, *, layered: bool) -> None:
        """Hide in ``tree``; ``layered`` says that its parents are a union below it."""
        self._tree = tree
        self._attributes = attributes
        self._dialect = dialect
        self._layered = layered

    def whiteout(self, parent: bytes, name: bytes) -> None:
        """Hide ``name`` of the directory that ``parent`` (as written in the tar) means."""
        real = self._tree.locate(parent)
        if real is None:
            return
        path = join(real, name)
        self._check(path, os.fsdecode(path), below_only=False)
        self._tree.forget_names()
        if self._layered:
            self._tree.hidden.add(path)
            self._unimply(path, below_only=False)
        elif self._tree.made is not None:
            place = self._tree.places.find(real)
            if place is not None:
                self._prune(place, name)

    def opaque(self, literal: bytes) -> None:
        """Hide everything that the parents have in the directory ``literal``."""
        real = self._tree.locate(literal)
        if real is None:
            real = self._over_a_file(literal)
        if real is None:
            return
        self._check(real, os.fsdecode(real) or "/", below_only=True)
        self._tree.forget_names()
        if self._layered:
            self._tree.opaque.add(real)
            self._unimply(real, below_only=True)
        elif self._tree.made is not None:
            place = self._tree.places.find(real)
            if place is not None:
                place.pinned = True
                for name in _names(place):
                    self._prune(place, name)
                place.pinned = False

    def finish(self) -> None:
        """Write the marks of a layered tree; a flat one has nothing left to do."""
        if not self._layered:
            return
        tree = self._tree
        hidden, opaque = tree.hidden, tree.opaque
        if b"" in opaque:  # the kernel ignores an opaque mark on a layer's root
            for name in tree.lower_names(b""):
                hidden.add(name)
            opaque.discard(b"")
        # The sets are emptied first: what is below a mark is found through the view without marks.
        tree.hidden, tree.opaque = PathSet(), PathSet()
        for path in hidden:
            if not hidden.covers(path) and not opaque.covers(path):
                self._mark(path, whole=True)
        for path in opaque:
            if path not in hidden and not hidden.covers(path) and not opaque.covers(path):
                self._mark(path, whole=False)

    def _mark(self, path: bytes, *, whole: bool) -> None:
        """Write what hides a lower entry: a whiteout, or an opaque mark on the directory in its place."""
        tree = self._tree
        node = tree.lower(path)
        if node is None or not tree.under_directories(path):
            return
        head, name = os.path.split(path)
        place = tree.places.find(head)
        facts = None if place is None else tree.facts(place, name)
        if facts is None and whole:
            self._dialect.write_whiteout(tree.parent(head).fd, name)
        elif stat.S_ISDIR(node.stat.st_mode) and (facts is None or stat.S_ISDIR(facts.st_mode)):
            self._dialect.write_opaque(tree.parent(path).fd)

    def _over_a_file(self, literal: bytes) -> bytes | None:
        """Make the directory of an opaque marker where the view has a file: the directory replaces it."""
        head, _, name = literal.rpartition(b"/")
        real = self._tree.locate(head)
        if real is None:
            return None
        path = join(real, name)
        node = self._tree.lower(path)
        place = self._tree.places.find(real)
        facts = None if place is None else self._tree.facts(place, name)
        facts = node.stat if facts is None and node is not None else facts
        if facts is None or stat.S_ISLNK(facts.st_mode):
            return None
        return self._tree.parent(path).path

    def _check(self, path: bytes, shown: str, *, below_only: bool) -> None:
        """Refuse a marker that comes after members which went through what it hides."""
        relied = self._tree.relied
        known = path if path in relied and not below_only else next(relied.below(path), None)
        if known is not None:
            raise errors.UnsupportedEntry(
                f"the whiteout of {shown!r} comes after members that were resolved through {os.fsdecode(known)!r}",
            )

    def _unimply(self, path: bytes, *, below_only: bool) -> None:
        """Take back the lower attributes of implied directories that turn out to be new ones."""
        implied = self._tree.implied
        found = [path] if path in implied and not below_only else []
        for known in [*found, *implied.below(path)]:
            implied.discard(known)
            self._plain(known)

    def _plain(self, path: bytes) -> None:
        """Give a directory the attributes of one that no layer describes."""
        place = self._tree.places.find(path)
        if place is None:
            return
        self._attributes.plain_directory(place.fd)
        self._tree.places.take(place)
        place.mtime = 0

    def _prune(self, place: Place, name: bytes) -> None:
        """Delete from a flat tree what an entry holds that this layer did not make."""
        made = self._tree.made
        if made is None:
            return
        top = place.child(name)
        facts = self._tree.facts(place, name)
        if facts is None:
            return
        if not stat.S_ISDIR(facts.st_mode):
            if top not in made:
                os.unlink(name, dir_fd=place.fd)
            return
        if top not in made and not made.has_below(top):
            self._tree.places.forget_below(top)
            trees.remove_tree(place.fd, name)
            return
        pending, kept = [top], []
        while pending:
            path = pending.pop()
            kept.append(path)
            pending.extend(self._prune_entries(path))
        for path in kept:
            if path not in made:
                made.add(path)
                self._plain(path)

    def _prune_entries(self, path: bytes) -> list[bytes]:
        """Delete a directory's foreign entries; returns the subdirectories that hold own ones."""
        tree = self._tree
        made = tree.made or PathSet()
        here = tree.places.find(path)
        if here is None:
            return []
        mixed: list[bytes] = []
        with os.scandir(here.fd) as entries:
            found = [(os.fsencode(e.name), e.is_dir(follow_symlinks=False)) for e in entries]
        for name, is_directory in found:
            child = here.child(name)
            if is_directory and (child in made or made.has_below(child)):
                mixed.append(child)
            elif is_directory:
                tree.places.forget_below(child)
                trees.remove_tree(here.fd, name)
            elif child not in made:
                os.unlink(name, dir_fd=here.fd)
        return mixed


def _names(place: Place) -> list[bytes]:
    """Names in an open directory."""
    with os.scandir(place.fd) as entries:
        return [os.fsencode(entry.name) for entry in entries]
