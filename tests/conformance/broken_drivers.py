"""Drivers that break the contract in one way each; the conformance suite has to catch every one.

Each is a working driver with one flaw put in front of it. ``CAUGHT_BY`` names,
for each, a check that must fail; ``graphdrivers.conformance`` is not told.
"""

import io
import os
import time
from collections.abc import Iterator, Mapping
from typing import BinaryIO, ClassVar

import attrs

from graphdrivers import errors
from graphdrivers.archive.equality import Proof
from graphdrivers.backends.overlay.driver import OverlayDriver
from graphdrivers.backends.vfs import VfsDriver
from graphdrivers.linux import mounts
from graphdrivers.model import Change, ChangeKind, LayerRecord, LayerSpec, Mount, Profile, Support, Usage


class Sound(VfsDriver):
    """No flaw: the control."""

    name: ClassVar[str] = "sound"


class Unavailable(VfsDriver):
    """Works nowhere, and says so."""

    name: ClassVar[str] = "unavailable"

    @classmethod
    def probe(cls, home: str, options: Mapping[str, str]) -> Support:
        """Refuse."""
        del home, options
        raise errors.PrerequisiteMissing(cls.name, "the moon is not full", "wait for it")


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


class WritableViews(VfsDriver):
    """Claims read-only views and gives writable ones."""

    name: ClassVar[str] = "writable-views"

    def mounts(self, layer: str, *, view: bool = False) -> tuple[Mount, ...]:
        """Drop the flag."""
        return tuple(attrs.evolve(plan, readonly=False) for plan in super().mounts(layer, view=view))


class Trusting(VfsDriver):
    """Takes equal sizes and times for equal contents, as moby's naive diff did."""

    name: ClassVar[str] = "trusting"

    def unchanged(self, layer: str) -> Proof:
        """Believe everything."""
        del layer
        return lambda _lower, _upper: True


class Undeleting(OverlayDriver):
    """Leaves deletions out of changes and diffs."""

    name: ClassVar[str] = "undeleting"

    def changes(self, layer: str) -> Iterator[Change]:
        """Keep the rest."""
        return (change for change in super().changes(layer) if change.kind is not ChangeKind.DELETED)


class Restless(OverlayDriver):
    """Gives a diff that is different every time."""

    name: ClassVar[str] = "restless"

    def diff(self, layer: str, *, profile: Profile = Profile.FULL, source_date_epoch: int | None = None) -> BinaryIO:
        """Append the time behind the archive."""
        with super().diff(layer, profile=profile, source_date_epoch=source_date_epoch) as stream:
            content = b"".join(iter(lambda: stream.read(1 << 20), b""))
        return io.BytesIO(content + str(time.time_ns()).encode())


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


class DoubleCounting(OverlayDriver):
    """Counts a file once for each of its names."""

    name: ClassVar[str] = "double-counting"

    def usage(self, layer: str) -> Usage:
        """Add what hard links share."""
        usage = super().usage(layer)
        with mounts.opened(self.mounts(layer, view=True)) as root:
            names = len([1 for _, _, files, _ in os.fwalk(".", dir_fd=root) for _ in files])
        return attrs.evolve(usage, inodes=usage.inodes + names)


CAUGHT_BY = {
    Overwriting: "test_lifecycle.py::test_an_existing_name_is_left_untouched",
    Unsealed: "test_lifecycle.py::test_a_sealed_layer_is_immutable",
    WritableViews: "test_trees.py::test_a_view_refuses_writes",
    Trusting: "test_changes.py::test_same_size_and_time_other_content",
    Undeleting: "test_changes.py::test_a_deleted_directory_is_one_change",
    Restless: "test_diffs.py::test_a_diff_is_reproducible",
    Unlinking: "test_trees.py::test_a_child_shows_its_parent",
    Rootless: "test_trees.py::test_the_root_keeps_its_attributes",
    Boasting: "test_trees.py::test_directories_move_where_it_is_claimed",
    ParentsFirst: "test_lifecycle.py::test_layers_are_listed_children_first",
    Insistent: "test_lifecycle.py::test_remove_is_idempotent",
    Careless: "test_lifecycle.py::test_a_mounted_layer_is_in_use",
    DoubleCounting: "test_diffs.py::test_usage_counts_each_inode_once",
}
