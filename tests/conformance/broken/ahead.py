"""Flaws that ``test_ahead.py`` catches: layers filled before their parents, by drivers in front of overlay."""

import os
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO, ClassVar

from broken.flaws import claiming, upper_of
from graphdrivers.backends.overlay.driver import OverlayDriver
from graphdrivers.driver import Driver
from graphdrivers.model import Applied, Support

Ready = Callable[[], object]


class Unclaimed(OverlayDriver):
    """Does not say that it can."""

    name: ClassVar[str] = "unclaimed-ahead"

    @classmethod
    def probe(cls, home: str, options: Mapping[str, str]) -> Support:
        """Claim nothing."""
        return claiming(super().probe(home, options), apply_ahead=False)


class HasARootOfItsOwn(OverlayDriver):
    """Leaves the root of a layer as it was born."""

    name: ClassVar[str] = "has-a-root-of-its-own"

    def apply_ahead(self, layer: str, parent: str | None, tar: BinaryIO, **more: Any) -> Applied:
        """Forget the parent's."""
        made = super().apply_ahead(layer, parent, tar, **more)
        os.chmod(upper_of(self, layer), 0o700)
        return made


class WaitsForNobody(OverlayDriver):
    """Waits for a parent where there is none."""

    name: ClassVar[str] = "waits-for-nobody"

    def apply_ahead(self, layer: str, parent: str | None, tar: BinaryIO, *, ready: Ready, **more: Any) -> Applied:
        """Wait first, whatever for."""
        ready()
        return super().apply_ahead(layer, parent, tar, ready=lambda: None, **more)


class AsksTwice(OverlayDriver):
    """Asks for the parent again and again."""

    name: ClassVar[str] = "asks-twice"

    def apply_ahead(self, layer: str, parent: str | None, tar: BinaryIO, *, ready: Ready, **more: Any) -> Applied:
        """Wait twice."""
        return super().apply_ahead(layer, parent, tar, ready=lambda: (ready(), ready()), **more)


class SealsAtOnce(OverlayDriver):
    """Takes a layer that is filled for one that is done."""

    name: ClassVar[str] = "seals-at-once"

    def apply_ahead(self, layer: str, parent: str | None, tar: BinaryIO, **more: Any) -> Applied:
        """Seal it."""
        made = super().apply_ahead(layer, parent, tar, **more)
        self.seal(layer)
        return made


class ForgetsTheRecord(OverlayDriver):
    """Writes no header record."""

    name: ClassVar[str] = "forgets-the-record"

    def apply_ahead(self, layer: str, parent: str | None, tar: BinaryIO, **more: Any) -> Applied:
        """Leave it out."""
        return super().apply_ahead(layer, parent, tar, **{**more, "headers": None})


class LeavesWhatFailed(OverlayDriver):
    """Leaves an empty layer where one could not be filled."""

    name: ClassVar[str] = "leaves-what-failed"

    def apply_ahead(self, layer: str, parent: str | None, tar: BinaryIO, **more: Any) -> Applied:
        """Make it after all."""
        try:
            return super().apply_ahead(layer, parent, tar, **more)
        except BaseException:
            self.create(layer)
            raise


class MakesUpAParent(OverlayDriver):
    """Makes a parent that is missing, and seals one that is not."""

    name: ClassVar[str] = "makes-up-a-parent"

    def apply_ahead(self, layer: str, parent: str | None, tar: BinaryIO, *, ready: Ready, **more: Any) -> Applied:
        """Help out."""

        def helped() -> None:
            ready()
            if parent is not None and not self._dirs.exists(parent):
                self.create(parent)
            if parent is not None:
                self.seal(parent)

        return super().apply_ahead(layer, parent, tar, ready=helped, **more)


class MakesRoom(OverlayDriver):
    """Removes what has the name."""

    name: ClassVar[str] = "makes-room"

    def apply_ahead(self, layer: str, parent: str | None, tar: BinaryIO, **more: Any) -> Applied:
        """Replace it."""
        self.remove(layer)
        return super().apply_ahead(layer, parent, tar, **more)


CAUGHT_BY: dict[type[Driver], tuple[str, ...]] = {
    Unclaimed: ("test_layers_ahead_that_are_not_claimed",),
    HasARootOfItsOwn: ("test_a_layer_before_its_parent",),
    WaitsForNobody: ("test_a_base_layer_ahead",),
    AsksTwice: ("test_a_stack_from_the_top",),
    SealsAtOnce: ("test_a_layer_made_ahead_is_writable",),
    ForgetsTheRecord: ("test_what_gives_the_tar_back_of_a_layer_made_ahead",),
    LeavesWhatFailed: ("test_a_parent_that_never_comes",),
    MakesUpAParent: ("test_a_parent_that_is_not_what_it_should_be",),
    MakesRoom: ("test_what_cannot_be_made_ahead",),
}
