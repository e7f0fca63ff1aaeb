"""Flaws that ``test_changes.py`` catches."""

from collections.abc import Iterator
from typing import ClassVar

from graphdrivers.archive.equality import Proof
from graphdrivers.backends.overlay.driver import OverlayDriver
from graphdrivers.backends.vfs import VfsDriver
from graphdrivers.driver import Driver
from graphdrivers.model import Change, ChangeKind


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


CAUGHT_BY: dict[type[Driver], tuple[str, ...]] = {
    Trusting: ("test_same_size_and_time_other_content",),
    Undeleting: ("test_a_deleted_directory_is_one_change",),
}
