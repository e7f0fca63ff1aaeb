"""Flaws that ``test_mounted_files.py`` catches: what becomes of a parent's file that a child changes."""

import os
import stat
from typing import ClassVar

import attrs

from broken.flaws import Altering, Resting, below, tree_of, upper_of
from broken.trees import Bare
from graphdrivers.backends.vfs import VfsDriver
from graphdrivers.driver import Driver
from graphdrivers.model import Mount


class Reverting(Resting):
    """Shows a parent's file again once its copy is at rest."""

    name: ClassVar[str] = "reverting"

    def alter(self, upper: str) -> None:
        """Remove the copies of files that a lower layer has."""
        for path in _copied_up(self, upper):
            os.unlink(path)


class Restoring(Resting):
    """Gives a copy the mode, owner and capabilities of the parent's file once it is at rest."""

    name: ClassVar[str] = "restoring"

    def alter(self, upper: str) -> None:
        """Take them over."""
        for path, lower in _copied_up(self, upper).items():
            facts = os.lstat(lower)
            os.chown(path, facts.st_uid, facts.st_gid)
            os.chmod(path, stat.S_IMODE(facts.st_mode))
            for name in os.listxattr(lower):
                if name.startswith("security."):
                    os.setxattr(path, name, os.getxattr(lower, name))


def _copied_up(driver: Resting, upper: str) -> dict[str, str]:
    """Give each regular file of a layer that its parent has too, with the parent's."""
    ancestors = driver._dirs.read(os.path.basename(os.path.dirname(upper))).ancestors
    found = {}
    for path, facts in below(upper) if ancestors else ():
        lower = upper_of(driver, ancestors[0]) + path.removeprefix(upper)
        if stat.S_ISREG(facts.st_mode) and os.path.isfile(lower):
            found[path] = lower
    return found


class Dataless(Altering):
    """Copies files as long as they are, and without their data (a metacopy that was mounted wrongly)."""

    name: ClassVar[str] = "dataless"

    def alter(self, root: str) -> None:
        """Leave holes."""
        for path, facts in below(root):
            if stat.S_ISREG(facts.st_mode):
                os.truncate(path, 0)
                os.truncate(path, facts.st_size)
                os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))


class Restamping(Resting):
    """Sets the times of all directories anew when a layer comes to rest."""

    name: ClassVar[str] = "restamping"

    def alter(self, upper: str) -> None:
        """Give them this moment."""
        for path, facts in below(upper):
            if stat.S_ISDIR(facts.st_mode):
                os.utime(path)


class Following(Altering):
    """Copies what symbolic links point to in their place, and drops those that lead nowhere."""

    name: ClassVar[str] = "following"

    def alter(self, root: str) -> None:
        """Replace them."""
        for path, facts in below(root):
            if stat.S_ISLNK(facts.st_mode):
                regular = os.path.isfile(path)
                os.unlink(path)
                if regular:
                    os.mknod(path)


class Pipeless(Altering):
    """Copies files, directories and links, and nothing else."""

    name: ClassVar[str] = "pipeless"

    def alter(self, root: str) -> None:
        """Remove the rest."""
        for path, facts in list(below(root)):
            if stat.S_ISFIFO(facts.st_mode) or stat.S_ISSOCK(facts.st_mode):
                os.unlink(path)


class Littering(Resting):
    """Leaves a hidden name behind for each directory that something was done in, as NFS and FUSE do."""

    name: ClassVar[str] = "littering"

    def alter(self, upper: str) -> None:
        """Leave it."""
        for path, facts in list(below(upper)):
            if stat.S_ISDIR(facts.st_mode):
                os.mknod(os.path.join(path, ".fuse_hidden0001"))


class Unwritable(VfsDriver):
    """Mounts a child read-only."""

    name: ClassVar[str] = "unwritable"

    def mounts(self, layer: str, *, view: bool = False) -> tuple[Mount, ...]:
        """Set the flag."""
        plans = super().mounts(layer, view=view)
        if self.record(layer).parent is None:
            return plans
        return tuple(attrs.evolve(plan, readonly=True) for plan in plans)


class Patchwork(VfsDriver):
    """Mounts each directory of a child's root by itself: nothing can be moved or linked from one to another."""

    name: ClassVar[str] = "patchwork"

    def mounts(self, layer: str, *, view: bool = False) -> tuple[Mount, ...]:
        """Add a bind for each."""
        plans = super().mounts(layer, view=view)
        if view or self.record(layer).parent is None:
            return plans
        root = tree_of(self, layer)
        names = [name for name in sorted(os.listdir(root)) if stat.S_ISDIR(os.lstat(os.path.join(root, name)).st_mode)]
        return (*plans, *(Mount("bind", os.path.join(root, name), target=name) for name in names))


CAUGHT_BY: dict[type[Driver], tuple[str, ...]] = {
    Reverting: (
        "test_a_parents_file_is_changed",
        "test_a_write_moves_times",
        "test_owners_are_changed",
        "test_capabilities_fall_with_a_write",
    ),
    Restoring: (
        "test_a_parents_file_is_changed[chmod]",
        "test_setuid_falls_with_the_owner",
        "test_setuid_falls_with_a_strangers_write",
    ),
    Dataless: ("test_files_are_opened", "test_a_reader_meets_a_copy_up"),
    Restamping: ("test_a_copy_up_keeps_times",),
    Following: ("test_files_are_opened[a long link]", "test_times_are_set"),
    Pipeless: ("test_fifos_carry_data", "test_sockets_accept"),
    Littering: ("test_a_file_without_a_name", "test_files_are_opened[unlinked]"),
    Unwritable: ("test_locks_exclude",),
    Patchwork: ("test_inodes_are_stable",),
    Bare: ("test_capabilities_fall_with_a_write",),
}
