"""Flaws that ``test_changes.py`` catches: lists of changes that are not what changed."""

import os
import stat
from collections.abc import Iterator, Mapping
from typing import ClassVar

import attrs

from broken.flaws import below, tree_of, upper_of
from graphdrivers.archive.entries import Node
from graphdrivers.archive.equality import Proof, same
from graphdrivers.backends.overlay.driver import OverlayDriver
from graphdrivers.backends.vfs import VfsDriver
from graphdrivers.driver import Driver
from graphdrivers.model import Change, ChangeKind, Support


class Rooted(VfsDriver):
    """Lists the root, because its times are always new."""

    name: ClassVar[str] = "rooted"

    def changes(self, layer: str) -> Iterator[Change]:
        """Put it first."""
        return iter([Change("/", ChangeKind.MODIFIED), *super().changes(layer)])


class Undeleting(OverlayDriver):
    """Leaves deletions out."""

    name: ClassVar[str] = "undeleting"

    def changes(self, layer: str) -> Iterator[Change]:
        """Keep the rest."""
        return (change for change in super().changes(layer) if change.kind is not ChangeKind.DELETED)


class Parentless(VfsDriver):
    """Leaves out the directories above a change."""

    name: ClassVar[str] = "parentless"

    def changes(self, layer: str) -> Iterator[Change]:
        """Drop what others lie below."""
        found = list(super().changes(layer))
        above = {os.path.dirname(change.path) for change in found}
        return (one for one in found if one.kind is not ChangeKind.MODIFIED or one.path not in above)


class Exhaustive(VfsDriver):
    """Lists everything that lay in a deleted directory."""

    name: ClassVar[str] = "exhaustive"

    def changes(self, layer: str) -> Iterator[Change]:
        """Walk the parent's tree."""
        root = tree_of(self, self.record(layer).parent or "")
        for change in super().changes(layer):
            yield change
            if change.kind is ChangeKind.DELETED:
                for path, _ in below(root + change.path):
                    yield Change(path.removeprefix(root), ChangeKind.DELETED)


class ContentOnly(VfsDriver):
    """Compares sizes and times, and no other attribute."""

    name: ClassVar[str] = "content-only"

    def changes(self, layer: str) -> Iterator[Change]:
        """Leave out what agrees in both."""
        for change in super().changes(layer):
            if change.kind is not ChangeKind.MODIFIED or self._looks(layer, change) != self._looks(None, change, layer):
                yield change

    def _looks(self, layer: str | None, change: Change, child: str = "") -> tuple[int, int]:
        facts = os.lstat(tree_of(self, layer or self.record(child).parent or "") + change.path)
        return facts.st_size, facts.st_mtime_ns


class NoXattrs(VfsDriver):
    """Compares no extended attributes, as most of moby's drivers do."""

    name: ClassVar[str] = "no-xattrs"

    def unchanged(self, layer: str) -> Proof:
        """Find all else equal."""
        del layer
        return lambda lower, upper: same(lower, _Blind(upper, lower))


@attrs.frozen
class _Blind:
    """An entry that is said to have the xattrs of another."""

    entry: Node
    other: Node

    def __getattr__(self, name: str) -> object:
        return getattr(self.other if name == "xattrs" else self.entry, name)


class CopiedUp(OverlayDriver):
    """Takes everything in its directory for changed, also what was only copied up."""

    name: ClassVar[str] = "copied-up"

    def changes(self, layer: str) -> Iterator[Change]:
        """Add the rest."""
        upper = upper_of(self, layer)
        found = {change.path: change for change in super().changes(layer)}
        for path, _ in below(upper):
            shown = path.removeprefix(upper)
            found.setdefault(shown, Change(shown, ChangeKind.MODIFIED))
        return iter(sorted(found.values(), key=lambda change: os.fsencode(change.path)))


class Trusting(VfsDriver):
    """Takes equal sizes and times for equal contents, as moby's naive diff did."""

    name: ClassVar[str] = "trusting"

    def unchanged(self, layer: str) -> Proof:
        """Believe everything."""
        del layer
        return lambda _lower, _upper: True


class TwoSteps(VfsDriver):
    """Lists a change of kind as a deletion and an addition."""

    name: ClassVar[str] = "two-steps"

    def changes(self, layer: str) -> Iterator[Change]:
        """Split it."""
        trees = [tree_of(self, name) for name in (layer, self.record(layer).parent or "")]
        for change in super().changes(layer):
            places = [tree + change.path for tree in trees]
            if len({stat.S_IFMT(os.lstat(place).st_mode) for place in places if os.path.lexists(place)}) > 1:
                yield Change(change.path, ChangeKind.DELETED)
                yield Change(change.path, ChangeKind.ADDED)
            else:
                yield change


class DepthFirst(VfsDriver):
    """Sorts by the components of a path, as a walk meets them, and not by its bytes."""

    name: ClassVar[str] = "depth-first"

    def changes(self, layer: str) -> Iterator[Change]:
        """Sort again."""
        return iter(sorted(super().changes(layer), key=lambda change: change.path.split("/")))


class Caching(VfsDriver):
    """Finds the changes of a layer once."""

    name: ClassVar[str] = "caching"

    def __init__(self, home: str, options: Mapping[str, str], support: Support) -> None:
        """Begin with none."""
        super().__init__(home, options, support)
        self._found: dict[str, list[Change]] = {}

    def changes(self, layer: str) -> Iterator[Change]:
        """Give the first answer."""
        if layer not in self._found:
            self._found[layer] = list(super().changes(layer))
        return iter(self._found[layer])


CAUGHT_BY: dict[type[Driver], tuple[str, ...]] = {
    Rooted: ("test_nothing_changed", "test_a_base_layer_is_all_additions"),
    Undeleting: ("test_the_exact_list", "test_a_rename_is_a_deletion_and_an_addition", "test_echo[0]"),
    Parentless: ("test_parents_of_a_change_are_listed",),
    Exhaustive: ("test_a_deleted_directory_is_one_change", "test_echo[3]"),
    ContentOnly: ("test_attributes_alone_are_changes",),
    NoXattrs: ("test_attributes_alone_are_changes",),
    CopiedUp: ("test_what_was_touched_and_put_back_is_no_change", "test_other_names_of_a_changed_file"),
    Trusting: (
        "test_same_size_and_time_other_content",
        "test_a_change_right_after_the_creation",
        "test_two_files_that_swap_names",
        "test_another_target_or_device",
    ),
    TwoSteps: ("test_a_change_of_kind",),
    DepthFirst: ("test_order_is_that_of_path_bytes",),
    Caching: ("test_changes_of_a_writable_layer",),
}
