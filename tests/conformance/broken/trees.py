"""Flaws that ``test_trees.py`` catches: what a stack shows."""

import errno
import os
import stat
from collections.abc import Mapping
from typing import ClassVar

import attrs

from broken.flaws import Altering, Resting, below, claiming, tree_of
from graphdrivers import errors
from graphdrivers.backends.overlay.driver import OverlayDriver
from graphdrivers.backends.vfs import VfsDriver
from graphdrivers.driver import Driver
from graphdrivers.model import LayerSpec, Mount, Support


class Umasked(VfsDriver):
    """Makes the root of a base layer as private as its home."""

    name: ClassVar[str] = "umasked"

    def create(self, layer: str, parent: str | None = None, spec: LayerSpec = LayerSpec()) -> None:
        """Set 0700."""
        super().create(layer, parent, spec)
        if parent is None:
            os.chmod(tree_of(self, layer), 0o700)


class Socketless(VfsDriver):
    """Throws sockets away when a layer is sealed, because a tar cannot hold them."""

    name: ClassVar[str] = "socketless"

    def seal(self, layer: str) -> None:
        """Unlink them."""
        for path, facts in below(tree_of(self, layer)):
            if stat.S_ISSOCK(facts.st_mode):
                above = os.lstat(os.path.dirname(path))
                os.unlink(path)
                os.utime(os.path.dirname(path), ns=(above.st_atime_ns, above.st_mtime_ns))
        super().seal(layer)


class Mistaking(Altering):
    """Copies sockets as fifos, as moby's vfs does."""

    name: ClassVar[str] = "mistaking"

    def alter(self, root: str) -> None:
        """Replace them."""
        for path, facts in below(root):
            if stat.S_ISSOCK(facts.st_mode):
                os.unlink(path)
                os.mknod(path, stat.S_IFIFO | stat.S_IMODE(facts.st_mode))
                os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))


class Unlinking(Altering):
    """Copies a parent without its hard links."""

    name: ClassVar[str] = "unlinking"

    def alter(self, root: str) -> None:
        """Give each further name its own copy."""
        for path, facts in below(root):
            if stat.S_ISREG(facts.st_mode) and os.lstat(path).st_nlink > 1:
                with open(path, "rb") as old:
                    content = old.read()
                os.unlink(path)
                with open(path, "wb") as new:
                    new.write(content)
                os.chmod(path, stat.S_IMODE(facts.st_mode))
                os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))


class Rootless(OverlayDriver):
    """Forgets the attributes of the parent's root."""

    name: ClassVar[str] = "rootless"

    def create(self, layer: str, parent: str | None = None, spec: LayerSpec = LayerSpec()) -> None:
        """Set it to 0755."""
        super().create(layer, parent, spec)
        os.chmod(os.path.join(self.home, "layers", layer, "diff"), 0o755)  # noqa: S103 - that is the flaw


class Entangling(VfsDriver):
    """Saves space by linking to the parent's files (``cp -al``), which are then written through."""

    name: ClassVar[str] = "entangling"

    def create(self, layer: str, parent: str | None = None, spec: LayerSpec = LayerSpec()) -> None:
        """Replace each copy by the original."""
        super().create(layer, parent, spec)
        root = tree_of(self, layer)
        for path, facts in below(root) if parent else ():
            if stat.S_ISREG(facts.st_mode):
                os.unlink(path)
                os.link(os.path.join(tree_of(self, parent or ""), os.path.relpath(path, root)), path)


class UpsideDown(OverlayDriver):
    """Stacks the ancestors of a layer the wrong way round."""

    name: ClassVar[str] = "upside-down"

    def mounts(self, layer: str, *, view: bool = False) -> tuple[Mount, ...]:
        """Turn their order around; a view begins with the layer itself."""
        (plan,) = super().mounts(layer, view=view)
        lowers = [option for option in plan.options if option[0] == "lowerdir+"]
        own = lowers[: int(view)]
        rest = [option for option in plan.options if option not in lowers]
        return (attrs.evolve(plan, options=(*own, *lowers[len(own) :][::-1], *rest)),)


class Transparent(Resting):
    """Forgets that a directory was made anew over one of a lower layer (moby#25244)."""

    name: ClassVar[str] = "transparent"

    def alter(self, upper: str) -> None:
        """Take the mark off."""
        for path, _ in below(upper):
            if "trusted.overlay.opaque" in os.listxattr(path, follow_symlinks=False):
                os.removexattr(path, "trusted.overlay.opaque")


class Forgiving(Resting):
    """Forgets deletions when a layer comes to rest."""

    name: ClassVar[str] = "forgiving"

    def alter(self, upper: str) -> None:
        """Unlink the whiteouts."""
        for path, facts in list(below(upper)):
            if stat.S_ISCHR(facts.st_mode) and facts.st_rdev == 0:
                os.unlink(path)


class Squashing(Altering):
    """Keeps only 16 bits of an owner."""

    name: ClassVar[str] = "squashing"

    def alter(self, root: str) -> None:
        """Cut the rest off."""
        for path, facts in ((root, os.lstat(root)), *below(root)):
            os.chown(path, facts.st_uid & 0xFFFF, facts.st_gid & 0xFFFF, follow_symlinks=False)
            if not stat.S_ISLNK(facts.st_mode):
                os.chmod(path, stat.S_IMODE(facts.st_mode))


class Opening(Altering):
    """Makes directories with ``makedirs``, so that a copy has them all 0755 (moby#27298)."""

    name: ClassVar[str] = "opening"

    def alter(self, root: str) -> None:
        """Set it."""
        for path, facts in below(root):
            if stat.S_ISDIR(facts.st_mode):
                os.chmod(path, 0o755)  # noqa: S103 - that is the flaw


class Boasting(OverlayDriver):
    """Claims to rename directories and to keep hard links across layers, and does neither."""

    name: ClassVar[str] = "boasting"

    @classmethod
    def probe(cls, home: str, options: Mapping[str, str]) -> Support:
        """Claim."""
        return claiming(super().probe(home, options), rename_directories=True, hard_links_across_layers=True)


class Modest(VfsDriver):
    """Does what it does not claim, so that who relies on the refusal is surprised."""

    name: ClassVar[str] = "modest"

    @classmethod
    def probe(cls, home: str, options: Mapping[str, str]) -> Support:
        """Claim less than there is."""
        return claiming(super().probe(home, options), rename_directories=False, hard_links_across_layers=False)


class Readable(Altering):
    """Loses names that are not UTF-8."""

    name: ClassVar[str] = "readable"

    def alter(self, root: str) -> None:
        """Remove what has one."""
        for folder, folders, names in os.walk(root, topdown=False):
            for name in (*folders, *names):
                if not name.isprintable():
                    path = os.path.join(folder, name)
                    os.rmdir(path) if name in folders else os.unlink(path)


class WholeSeconds(Altering):
    """Copies times as whole seconds."""

    name: ClassVar[str] = "whole-seconds"

    def alter(self, root: str) -> None:
        """Round down."""
        for path, facts in below(root):
            moment = facts.st_mtime_ns // 10**9 * 10**9
            os.utime(path, ns=(moment, moment), follow_symlinks=False)


class Bare(Altering):
    """Copies without extended attributes."""

    name: ClassVar[str] = "bare"

    def alter(self, root: str) -> None:
        """Remove them."""
        for path, _ in ((root, None), *below(root)):
            for name in os.listxattr(path, follow_symlinks=False):
                os.removexattr(path, name, follow_symlinks=False)


class Deviceless(Altering):
    """Puts an empty file in the place of each device node, while it claims to keep them."""

    name: ClassVar[str] = "deviceless"

    def alter(self, root: str) -> None:
        """Replace them."""
        for path, facts in below(root):
            if stat.S_ISCHR(facts.st_mode) or stat.S_ISBLK(facts.st_mode):
                os.unlink(path)
                os.mknod(path, stat.S_IFREG | stat.S_IMODE(facts.st_mode))
                os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))


class WritableViews(VfsDriver):
    """Claims read-only views and gives writable ones."""

    name: ClassVar[str] = "writable-views"

    def mounts(self, layer: str, *, view: bool = False) -> tuple[Mount, ...]:
        """Drop the flag."""
        return tuple(attrs.evolve(plan, readonly=False) for plan in super().mounts(layer, view=view))


class Exclusive(VfsDriver):
    """Gives out a layer's view once, as if a device were activated for it."""

    name: ClassVar[str] = "exclusive"

    def __init__(self, home: str, options: Mapping[str, str], support: Support) -> None:
        """Begin with none."""
        super().__init__(home, options, support)
        self._viewed: set[str] = set()

    def mounts(self, layer: str, *, view: bool = False) -> tuple[Mount, ...]:
        """Refuse the second time."""
        if view and layer in self._viewed:
            raise errors.LayerInUse(layer, "by another view")
        self._viewed.update({layer} if view else ())
        return super().mounts(layer, view=view)


class Unreserved(VfsDriver):
    """Leaves names that mean deletions where a user made them."""

    name: ClassVar[str] = "unreserved"

    def _rest(self, layer: str) -> None:
        self._dirs.rest(layer)


class Shallow(VfsDriver):
    """Takes 42 layers, as an old AUFS did, and does not say so."""

    name: ClassVar[str] = "shallow"

    def create(self, layer: str, parent: str | None = None, spec: LayerSpec = LayerSpec()) -> None:
        """Refuse the next."""
        if parent is not None and len(self._dirs.read(parent).ancestors) >= 41:
            raise OSError(errno.E2BIG, "too many branches")
        super().create(layer, parent, spec)


class Bottomless(VfsDriver):
    """Claims a limit of depth that it does not keep."""

    name: ClassVar[str] = "bottomless"

    @classmethod
    def probe(cls, home: str, options: Mapping[str, str]) -> Support:
        """Claim."""
        return claiming(super().probe(home, options), max_depth=3)


CAUGHT_BY: dict[type[Driver], tuple[str, ...]] = {
    Umasked: ("test_an_empty_layer",),
    Socketless: ("test_a_layer_keeps_what_is_put_into_it",),
    Mistaking: ("test_a_child_shows_its_parent",),
    Unlinking: ("test_a_child_shows_its_parent", "test_hard_links_of_one_layer"),
    Rootless: ("test_the_root_keeps_its_attributes",),
    Entangling: ("test_children_do_not_change_their_parent",),
    UpsideDown: ("test_a_file_rewritten_in_every_layer", "test_a_deep_stack"),
    Transparent: (
        "test_a_directory_removed_and_made_again",
        "test_one_kind_replaces_another",
        "test_new_directories_move_everywhere",
    ),
    Forgiving: (
        "test_a_directory_removed_in_one_layer_and_made_in_the_next",
        "test_deleted_files",
        "test_files_move",
        "test_a_layer_is_mounted_again_and_again",
    ),
    Squashing: ("test_owners",),
    Opening: ("test_modes_of_directories_survive",),
    Boasting: ("test_directories_move_where_it_is_claimed", "test_hard_links_hold_where_it_is_claimed"),
    Modest: (
        "test_directories_do_not_move_where_it_is_not_claimed",
        "test_hard_links_break_where_it_is_not_claimed",
    ),
    Readable: ("test_odd_names",),
    WholeSeconds: ("test_times_are_kept", "test_random_edits"),
    Bare: ("test_xattrs", "test_xattrs_of_directories"),
    Deviceless: ("test_devices",),
    WritableViews: ("test_a_view_refuses_writes",),
    Exclusive: ("test_views_are_unlimited",),
    Unreserved: ("test_reserved_names_delete_nothing",),
    Shallow: ("test_a_deep_stack",),
    Bottomless: ("test_the_depth_limit",),
}
