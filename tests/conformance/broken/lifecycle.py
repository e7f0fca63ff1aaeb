"""Flaws that ``test_lifecycle.py`` catches: names, refusals, atomicity, use."""

import contextlib
import errno
import os
import stat
import time
from collections.abc import Iterator, Mapping
from typing import ClassVar, Self

import attrs

from broken.flaws import claiming, tree_of
from graphdrivers import errors
from graphdrivers.backends.overlay.driver import OverlayDriver
from graphdrivers.backends.vfs import VfsDriver
from graphdrivers.driver import Driver
from graphdrivers.model import LayerRecord, LayerSpec, Mount, Support, Usage


class Joining(VfsDriver):
    """Joins any name to a path, finds nothing there to remove, and is content."""

    name: ClassVar[str] = "joining"

    def remove(self, layer: str) -> None:
        """Look before the name is checked."""
        if os.path.lexists(os.path.join(self.home, "layers", layer)):
            super().remove(layer)


class Tabular(VfsDriver):
    """Reads its layers from the lines of a table, as a driver does that parses ``zfs list``."""

    name: ClassVar[str] = "tabular"

    def layers(self) -> Iterator[LayerRecord]:
        """Print and parse."""
        table = "\n".join(f"{one.name}\t{one.parent or ''}\t{one.sealed or ''}" for one in super().layers())
        for line in table.splitlines():
            name, parent, sealed = [*line.split("\t"), "", ""][:3]
            yield LayerRecord(name, parent or None, bool(sealed))


class Overwriting(VfsDriver):
    """Creates over an existing layer, losing it."""

    name: ClassVar[str] = "overwriting"

    def create(self, layer: str, parent: str | None = None, spec: LayerSpec = LayerSpec()) -> None:
        """Remove first."""
        self.remove(layer)
        super().create(layer, parent, spec)


class Orphaning(VfsDriver):
    """Creates a base layer where the parent is missing."""

    name: ClassVar[str] = "orphaning"

    def create(self, layer: str, parent: str | None = None, spec: LayerSpec = LayerSpec()) -> None:
        """Do without."""
        known = {record.name for record in self.layers()}
        super().create(layer, parent if parent in known else None, spec)


class Hasty(VfsDriver):
    """Seals a parent that its user is still writing to."""

    name: ClassVar[str] = "hasty"

    def create(self, layer: str, parent: str | None = None, spec: LayerSpec = LayerSpec()) -> None:
        """Seal first."""
        if parent is not None:
            self.seal(parent)
        super().create(layer, parent, spec)


class Imagining(VfsDriver):
    """Measures layers that do not exist."""

    name: ClassVar[str] = "imagining"

    def usage(self, layer: str) -> Usage:
        """Find nothing in nothing."""
        return super().usage(layer) if self._dirs.exists(layer) else Usage(0, 0, 0)


class SealingOnce(VfsDriver):
    """Refuses to seal what is sealed."""

    name: ClassVar[str] = "sealing-once"

    def seal(self, layer: str) -> None:
        """Complain."""
        self._dirs.writable(layer)
        super().seal(layer)


class Unsealed(VfsDriver):
    """Hands out sealed layers for writing."""

    name: ClassVar[str] = "unsealed"

    def mounts(self, layer: str, *, view: bool = False) -> tuple[Mount, ...]:
        """Give the writable plan always."""
        (plan,) = super().mounts(layer, view=True)
        return (attrs.evolve(plan, readonly=plan.readonly and view),)


class Insistent(VfsDriver):
    """Removes only what is there."""

    name: ClassVar[str] = "insistent"

    def remove(self, layer: str) -> None:
        """Complain."""
        self._dirs.read(layer)
        super().remove(layer)


class ParentsFirst(VfsDriver):
    """Lists parents before their children, so that removing in order hits a parent first."""

    name: ClassVar[str] = "parents-first"

    def layers(self) -> Iterator[LayerRecord]:
        """Turn the order around."""
        return iter(list(super().layers())[::-1])


class Remembering(VfsDriver):
    """Knows the layers that were there when it was opened, and its own."""

    name: ClassVar[str] = "remembering"

    def __init__(self, home: str, options: Mapping[str, str], support: Support) -> None:
        """Look once."""
        super().__init__(home, options, support)
        self._known = {record.name for record in super().layers()}

    def create(self, layer: str, parent: str | None = None, spec: LayerSpec = LayerSpec()) -> None:
        """Add it."""
        super().create(layer, parent, spec)
        self._known.add(layer)

    def layers(self) -> Iterator[LayerRecord]:
        """Leave out what others made."""
        return (record for record in super().layers() if record.name in self._known)


class Careless(OverlayDriver):
    """Removes layers that are mounted."""

    name: ClassVar[str] = "careless"

    def remove(self, layer: str) -> None:
        """Do not look."""
        self._dirs.remove(layer)


class Purging(VfsDriver):
    """Takes every writable layer for what a crash left half done."""

    name: ClassVar[str] = "purging"

    def settle(self, layer: str | None = None) -> None:
        """Remove them."""
        super().settle(layer)
        for record in list(self.layers()) if layer is None else []:
            if not record.sealed:
                self._dirs.remove(record.name)


class Tidying(OverlayDriver):
    """Deletes the kernel's scratch space below a mount that needs it."""

    name: ClassVar[str] = "tidying"

    def settle(self, layer: str | None = None) -> None:
        """Do not look."""
        if layer is not None and not self._dirs.is_sealed(layer):
            self._rest(layer)
        super().settle(layer)


class ClosingOnce(VfsDriver):
    """Closes what is closed already."""

    name: ClassVar[str] = "closing-once"

    def __init__(self, home: str, options: Mapping[str, str], support: Support) -> None:
        """Open something."""
        super().__init__(home, options, support)
        self._is_open = True

    def close(self) -> None:
        """Complain as the kernel does."""
        if not self._is_open:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        self._is_open = False


class Wishing(VfsDriver):
    """Ignores a size that it cannot enforce."""

    name: ClassVar[str] = "wishing"

    def create(self, layer: str, parent: str | None = None, spec: LayerSpec = LayerSpec()) -> None:
        """Forget it."""
        del spec
        super().create(layer, parent)


class Promising(Wishing):
    """Ignores a size that it claims to enforce."""

    name: ClassVar[str] = "promising"

    @classmethod
    def probe(cls, home: str, options: Mapping[str, str]) -> Support:
        """Claim."""
        return claiming(super().probe(home, options), quota=True)


class MountFree(OverlayDriver):
    """Claims to need no mounts, which is true of base layers only."""

    name: ClassVar[str] = "mount-free"

    @classmethod
    def probe(cls, home: str, options: Mapping[str, str]) -> Support:
        """Claim."""
        return claiming(super().probe(home, options), mount_free=True)


class Mounted(VfsDriver):
    """Claims to need mounts and does not."""

    name: ClassVar[str] = "mounted"

    @classmethod
    def probe(cls, home: str, options: Mapping[str, str]) -> Support:
        """Claim less than there is."""
        return claiming(super().probe(home, options), mount_free=False)


class Falsy(VfsDriver):
    """Is another class than the one that is offered, and false without layers."""

    name: ClassVar[str] = "falsy"

    def __new__(cls, *_: object) -> Self:
        """Choose the class."""
        return super().__new__(_Counting)


class _Counting(Falsy):
    def __len__(self) -> int:
        return len(list(self.layers()))


class Open(VfsDriver):
    """Lets strangers through its home, and so to the setuid files of images (CVE-2021-41091)."""

    name: ClassVar[str] = "open"

    def __init__(self, home: str, options: Mapping[str, str], support: Support) -> None:
        """Set 0711, as Docker did."""
        super().__init__(home, options, support)
        os.chmod(home, 0o711)  # noqa: S103 - that is the flaw


class Racing(VfsDriver):
    """Looks whether a name is taken, and takes what somebody else makes after that for its own."""

    name: ClassVar[str] = "racing"

    def create(self, layer: str, parent: str | None = None, spec: LayerSpec = LayerSpec()) -> None:
        """Be content with it."""
        self._dirs.check_new(layer, parent, None)
        time.sleep(0.1)
        with contextlib.suppress(errors.LayerExists):
            super().create(layer, parent, spec)


class Sharing(VfsDriver):
    """Keeps in the driver what belongs to one call."""

    name: ClassVar[str] = "sharing"

    def create(self, layer: str, parent: str | None = None, spec: LayerSpec = LayerSpec()) -> None:
        """Let other threads change it meanwhile."""
        self._layer = layer
        time.sleep(0.1)
        super().create(self._layer, parent, spec)


class Restamping(VfsDriver):
    """Writes to a sealed layer's root whenever the layer is settled."""

    name: ClassVar[str] = "restamping"

    def settle(self, layer: str | None = None) -> None:
        """Touch it."""
        super().settle(layer)
        if layer is not None and self._dirs.is_sealed(layer):
            os.utime(tree_of(self, layer))


class Messy(VfsDriver):
    """Leaves what its probe made."""

    name: ClassVar[str] = "messy"

    @classmethod
    def probe(cls, home: str, options: Mapping[str, str]) -> Support:
        """Make something."""
        os.makedirs(os.path.join(os.path.dirname(home), "probed"), exist_ok=True)
        return super().probe(home, options)


class Indifferent(VfsDriver):
    """Takes any option."""

    name: ClassVar[str] = "indifferent"

    def __init__(self, home: str, options: Mapping[str, str], support: Support) -> None:
        """Forget them."""
        del options
        super().__init__(home, {}, support)

    @classmethod
    def probe(cls, home: str, options: Mapping[str, str]) -> Support:
        """Forget them."""
        del options
        return super().probe(home, {})


class Hoarding(VfsDriver):
    """Renames a removed layer away and never deletes it."""

    name: ClassVar[str] = "hoarding"

    def remove(self, layer: str) -> None:
        """Keep it."""
        if self._dirs.exists(layer):
            self._dirs.refuse_mounted(layer, "root")
            attic = os.path.join(self.home, "removed")
            os.makedirs(attic, exist_ok=True)
            os.rename(self._dirs.path(layer), os.path.join(attic, str(time.time_ns())))


class Heedless(OverlayDriver):
    """Never looks whether a layer is mounted."""

    name: ClassVar[str] = "heedless"

    def _refuse_mounted(self, layer: str) -> None:
        """Be content."""


class Respectful(VfsDriver):
    """Removes no layer of which the root is closed to writing."""

    name: ClassVar[str] = "respectful"

    def remove(self, layer: str) -> None:
        """Ask the root for its permission."""
        if self._dirs.exists(layer) and not os.stat(tree_of(self, layer)).st_mode & stat.S_IWUSR:
            raise PermissionError(errno.EACCES, "the root is closed", layer)
        super().remove(layer)


CAUGHT_BY: dict[type[Driver], tuple[str, ...]] = {
    Joining: ("test_bad_names_are_refused",),
    Tabular: ("test_odd_names_live_a_whole_life",),
    Overwriting: ("test_an_existing_name_is_left_untouched",),
    Orphaning: ("test_a_missing_parent",),
    Hasty: ("test_a_writable_parent",),
    Imagining: ("test_a_missing_layer",),
    SealingOnce: ("test_seal_is_idempotent",),
    Unsealed: ("test_a_sealed_layer_is_immutable",),
    Insistent: ("test_remove_is_idempotent",),
    ParentsFirst: ("test_layers_are_listed_children_first",),
    Remembering: ("test_another_process_finds_the_same",),
    Careless: ("test_a_mounted_layer_is_in_use", "test_a_viewed_layer_is_not_removed"),
    Purging: ("test_settling_leaves_a_mounted_layer_alone",),
    Tidying: ("test_settling_leaves_a_mounted_layer_alone",),
    ClosingOnce: ("test_settle_and_close_are_idempotent",),
    Wishing: ("test_a_size_that_cannot_be_enforced_is_refused",),
    Promising: ("test_a_size_that_is_claimed_holds",),
    MountFree: ("test_a_mount_free_driver_gives_one_directory",),
    Mounted: ("test_a_mount_free_driver_gives_one_directory",),
    Falsy: ("test_a_driver_is_true",),
    Open: ("test_nobody_else_reaches_the_layers",),
    Racing: ("test_one_name_is_created_once",),
    Restamping: ("test_settle_and_close_are_idempotent",),
    Messy: ("test_probing_leaves_nothing",),
    Indifferent: ("test_unknown_options_are_refused",),
    Hoarding: ("test_removed_layers_take_no_room",),
    Heedless: tuple(f"test_a_mounted_layer_is_in_use[{verb}]" for verb in ("remove", "seal", "apply")),
    Sharing: ("test_distinct_layers_in_parallel",),
    Respectful: ("test_a_root_that_its_owner_may_not_write_to",),
}
