"""Flaws that ``test_stacks.py`` catches: what shows only in stacks, in their order, and at their ends."""

import io
import os
from collections.abc import Mapping
from typing import BinaryIO, ClassVar

import attrs

from broken.changes import Undeleting
from broken.flaws import Members, Remaking, hidden, tree_of
from broken.mounted_files import Following, Restoring
from broken.trees import Entangling, Forgiving, Opening, Transparent, Unlinking
from broken.whiteouts import NeverOpaque
from graphdrivers import errors
from graphdrivers.backends.overlay.driver import OverlayDriver
from graphdrivers.backends.vfs import VfsDriver
from graphdrivers.driver import Driver
from graphdrivers.model import Applied, LayerSpec, Limits, Mount, Progress, Support

_PAGE = 4096


class Paged(OverlayDriver):
    """Cuts the list of branches where the one page of mount(2) ends, as the kernel did."""

    name: ClassVar[str] = "paged"

    def mounts(self, layer: str, *, view: bool = False) -> tuple[Mount, ...]:
        """Leave out what does not fit."""
        return tuple(attrs.evolve(plan, options=self._fitting(plan)) for plan in super().mounts(layer, view=view))

    def _fitting(self, plan: Mount) -> tuple[tuple[str, str | None], ...]:
        room, kept = _PAGE, []
        for key, value in plan.options:
            room -= len(value or "") if key == "lowerdir+" else 0
            if key != "lowerdir+" or room > 0:
                kept.append((key, value))
        return tuple(kept)


class Cut(Remaking):
    """Ends a long diff one member too early."""

    name: ClassVar[str] = "cut"

    def remake(self, members: Members) -> Members:
        """Leave out the last of many."""
        return members[:-1] if len(members) > 50 else members


class Committing(Remaking):
    """Commits what is there, and not what is gone."""

    name: ClassVar[str] = "committing"

    def remake(self, members: Members) -> Members:
        """Leave out the whiteouts."""
        return [one for one in members if hidden(one[0]) is None and not one[0].name.endswith(".wh..wh..opq")]


class Cascading(VfsDriver):
    """Removes a parent with its last child, as if it counted references."""

    name: ClassVar[str] = "cascading"

    def remove(self, layer: str) -> None:
        """Look whether it was the last."""
        parents = {record.name: record.parent for record in self.layers()}
        super().remove(layer)
        parent = parents.pop(layer, None)
        if parent is not None and parent not in parents.values():
            super().remove(parent)


class Undead(VfsDriver):
    """Keeps the files of removed layers, for the next one of the same name."""

    name: ClassVar[str] = "undead"

    def remove(self, layer: str) -> None:
        """Put its tree aside."""
        if self._dirs.exists(layer):
            os.rename(tree_of(self, layer), os.path.join(self.home, "tmp", f"kept-{layer}"))
        super().remove(layer)

    def create(self, layer: str, parent: str | None = None, spec: LayerSpec = LayerSpec()) -> None:
        """Take it back."""
        super().create(layer, parent, spec)
        kept = os.path.join(self.home, "tmp", f"kept-{layer}")
        if os.path.isdir(kept):
            os.rename(tree_of(self, layer), kept + "-empty")
            os.rename(kept, tree_of(self, layer))


class Splitting(VfsDriver):
    """Writes its home into an option string, and reads it back to the first separator."""

    name: ClassVar[str] = "splitting"

    def __init__(self, home: str, options: Mapping[str, str], support: Support) -> None:
        """Cut it off."""
        if any(separator in home for separator in (":", ",")):
            raise errors.InvalidOption(self.name, "home", "it contains a separator")
        super().__init__(home, options, support)


class Demanding(VfsDriver):
    """Takes an archive without members for one that was cut off."""

    name: ClassVar[str] = "demanding-members"

    def apply(
        self,
        layer: str,
        tar: BinaryIO,
        *,
        headers: BinaryIO | None = None,
        limits: Limits = Limits(),
        progress: Progress | None = None,
    ) -> Applied:
        """Refuse it."""
        content = tar.read()
        if not content.strip(b"\0"):
            raise errors.MalformedArchive("it is empty", "")
        return super().apply(layer, io.BytesIO(content), headers=headers, limits=limits, progress=progress)


CAUGHT_BY: dict[type[Driver], tuple[str, ...]] = {
    Forgiving: (
        "test_a_deletion_at_every_level",
        "test_echo_travels",
        "test_a_container_becomes_an_image",
    ),
    Paged: ("test_long_names_in_a_deep_stack",),
    Cut: ("test_many_files_travel",),
    NeverOpaque: ("test_four_layers_of_whiteouts", "test_markers_in_several_layers"),
    Transparent: ("test_a_directory_goes_and_comes_six_times",),
    Following: ("test_a_name_changes_its_kind_in_every_layer",),
    Opening: ("test_attributes_through_a_stack",),
    Restoring: ("test_an_init_layer_between",),
    Unlinking: ("test_links_through_a_stack",),
    Entangling: ("test_siblings_are_isolated",),
    Cascading: ("test_layers_go_in_any_legal_order",),
    Undead: ("test_a_name_is_used_again",),
    Committing: ("test_a_container_becomes_an_image", "test_profiles_agree_on_names"),
    Undeleting: ("test_an_init_layer_between",),
    Splitting: ("test_a_home_with_an_odd_path",),
    Demanding: ("test_a_layer_from_an_empty_tar",),
}
