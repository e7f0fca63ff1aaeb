"""Drivers that agree with themselves, and with no other."""

import io
from typing import BinaryIO, ClassVar

from graphdrivers.backends.vfs import VfsDriver
from graphdrivers.driver import Driver
from graphdrivers.model import Profile


class Padding(VfsDriver):
    """Fills its diffs up in a way of its own."""

    name: ClassVar[str] = "padding"

    def diff(self, layer: str, *, profile: Profile = Profile.FULL, source_date_epoch: int | None = None) -> BinaryIO:
        """Append zeros, which mean nothing behind the end of a tar."""
        with super().diff(layer, profile=profile, source_date_epoch=source_date_epoch) as stream:
            return io.BytesIO(b"".join(iter(lambda: stream.read(1 << 20), b"")) + bytes(10240))


CAUGHT_BY: dict[type[Driver], tuple[str, ...]] = {
    Padding: ("test_random_stacks_are_the_same_everywhere", "test_the_same_edits_give_the_same_bytes"),
}
