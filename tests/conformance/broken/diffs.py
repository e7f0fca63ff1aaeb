"""Flaws that ``test_diffs.py`` catches."""

import io
import os
import time
from typing import BinaryIO, ClassVar

import attrs

from graphdrivers.backends.overlay.driver import OverlayDriver
from graphdrivers.driver import Driver
from graphdrivers.linux import mounts
from graphdrivers.model import Profile, Usage


class Restless(OverlayDriver):
    """Gives a diff that is different every time."""

    name: ClassVar[str] = "restless"

    def diff(self, layer: str, *, profile: Profile = Profile.FULL, source_date_epoch: int | None = None) -> BinaryIO:
        """Append the time behind the archive."""
        with super().diff(layer, profile=profile, source_date_epoch=source_date_epoch) as stream:
            content = b"".join(iter(lambda: stream.read(1 << 20), b""))
        return io.BytesIO(content + str(time.time_ns()).encode())


class DoubleCounting(OverlayDriver):
    """Counts a file once for each of its names."""

    name: ClassVar[str] = "double-counting"

    def usage(self, layer: str) -> Usage:
        """Add what hard links share."""
        usage = super().usage(layer)
        with mounts.opened(self.mounts(layer, view=True)) as root:
            names = len([1 for _, _, files, _ in os.fwalk(".", dir_fd=root) for _ in files])
        return attrs.evolve(usage, inodes=usage.inodes + names)


CAUGHT_BY: dict[type[Driver], tuple[str, ...]] = {
    Restless: ("test_a_diff_is_reproducible",),
    DoubleCounting: ("test_usage_counts_each_inode_once",),
}
