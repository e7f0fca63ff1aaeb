"""Drivers that claim what they cannot do, or that quietly do what they do not claim."""

from collections.abc import Mapping
from typing import BinaryIO, ClassVar

import attrs

from graphdrivers import errors
from graphdrivers.backends.overlay.driver import OverlayDriver
from graphdrivers.backends.vfs import VfsDriver
from graphdrivers.driver import Driver
from graphdrivers.model import Applied, LayerSpec, Limits, Mount, Progress, Support


class _Claiming(Driver):
    """Claims other capabilities than are found."""

    claims: ClassVar[Mapping[str, object]]

    @classmethod
    def probe(cls, home: str, options: Mapping[str, str]) -> Support:
        """Claim."""
        support = super().probe(home, options)
        return attrs.evolve(support, capabilities=attrs.evolve(support.capabilities, **cls.claims))


class _Quiet(_Claiming, VfsDriver):
    """Unpacks all that it can, whatever it claims."""

    def apply(
        self,
        layer: str,
        tar: BinaryIO,
        *,
        headers: BinaryIO | None = None,
        limits: Limits = Limits(),
        progress: Progress | None = None,
    ) -> Applied:
        """Forget the claims."""
        told, self.support = self.support, VfsDriver.probe(self.home + "-probe", {})
        try:
            return super().apply(layer, tar, headers=headers, limits=limits, progress=progress)
        finally:
            self.support = told


class NotMountFree(_Claiming, OverlayDriver):
    """Claims that nothing has to be mounted."""

    name: ClassVar[str] = "not-mount-free"
    claims: ClassVar = {"mount_free": True}


class Modest(_Claiming, VfsDriver):
    """Does not say that its layers are plain directories."""

    name: ClassVar[str] = "modest"
    claims: ClassVar = {"mount_free": False}


class QuietOwners(_Quiet):
    """Gives files away without saying that it can."""

    name: ClassVar[str] = "quiet-owners"
    claims: ClassVar = {"ownership": False}


class QuietDevices(_Quiet):
    """Makes device nodes without saying that it can."""

    name: ClassVar[str] = "quiet-devices"
    claims: ClassVar = {"devices": False, "char_0_0": False}


class QuietXattrs(_Quiet):
    """Sets extended attributes without saying that it can."""

    name: ClassVar[str] = "quiet-xattrs"
    claims: ClassVar = {
        "user_xattrs": False,
        "trusted_xattrs": False,
        "security_xattrs": False,
        "posix_acls": False,
    }


class DevicesOverWhiteouts(_Claiming, OverlayDriver):
    """Claims to keep what overlay takes for a whiteout."""

    name: ClassVar[str] = "devices-over-whiteouts"
    claims: ClassVar = {"char_0_0": True}


class SecretlyReadOnly(_Claiming, VfsDriver):
    """Has read-only views and does not say so."""

    name: ClassVar[str] = "secretly-read-only"
    claims: ClassVar = {"readonly_views": False}

    def mounts(self, layer: str, *, view: bool = False) -> tuple[Mount, ...]:
        """Make views read-only."""
        return tuple(attrs.evolve(plan, readonly=view) for plan in super().mounts(layer, view=view))


class Copying(_Claiming, VfsDriver):
    """Claims that children cost nothing."""

    name: ClassVar[str] = "copying"
    claims: ClassVar = {"copy_on_write": True}


class Thrifty(_Claiming, OverlayDriver):
    """Does not say that children cost nothing."""

    name: ClassVar[str] = "thrifty"
    claims: ClassVar = {"copy_on_write": False}


class SealsMounted(VfsDriver):
    """Seals what is mounted, without a word."""

    name: ClassVar[str] = "seals-mounted"

    def seal(self, layer: str) -> None:
        """Do not look."""
        self._dirs.seal(layer)


class ShallowStacks(VfsDriver):
    """Has a limit of depth that it does not tell."""

    name: ClassVar[str] = "shallow-stacks"

    def create(self, layer: str, parent: str | None = None, spec: LayerSpec = LayerSpec()) -> None:
        """Refuse many."""
        if len(list(self.layers())) > 99:
            raise errors.ChainTooDeep(layer, 101, 100)
        super().create(layer, parent, spec)


class ShortNames(_Claiming, VfsDriver):
    """Claims a limit of names that is not there."""

    name: ClassVar[str] = "short-names"
    claims: ClassVar = {"name_max": 100}


CAUGHT_BY: dict[type[Driver], tuple[str, ...]] = {
    NotMountFree: ("test_a_mount_free_layer_is_a_plain_directory",),
    Modest: ("test_a_layer_that_takes_mounts_is_no_plain_directory",),
    QuietOwners: ("test_owners_that_are_not_kept_are_not_lost_in_silence",),
    QuietDevices: (
        "test_devices_are_refused_where_they_are_not_claimed",
        "test_a_device_0_0_that_is_not_claimed_is_refused",
    ),
    QuietXattrs: ("test_xattrs_that_are_not_claimed_are_not_lost_in_silence",),
    DevicesOverWhiteouts: ("test_a_device_0_0_that_is_claimed_is_content",),
    SecretlyReadOnly: ("test_views_that_are_read_only_are_claimed",),
    Copying: ("test_a_child_that_costs_nothing",),
    Thrifty: ("test_a_child_that_is_a_copy",),
    SealsMounted: ("test_a_live_layer_is_not_sealed",),
    ShallowStacks: ("test_a_stack_without_a_limit",),
    ShortNames: ("test_names_are_as_long_as_claimed",),
}
