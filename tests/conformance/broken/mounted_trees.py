"""Flaws that ``test_mounted_trees.py`` catches: names that come back, get lost, or cannot move."""

import os
import stat
from collections.abc import Mapping
from typing import ClassVar

import attrs

from broken.flaws import Altering, Resting, below, claiming, upper_of
from broken.mounted_files import Following, Patchwork, Unwritable
from broken.trees import Bare, Forgiving, Transparent, Unlinking
from graphdrivers.backends.vfs import VfsDriver
from graphdrivers.driver import Driver
from graphdrivers.linux import trees
from graphdrivers.model import Mount, Support


class Parting(Resting):
    """Keeps a file of several names as several files once it is at rest."""

    name: ClassVar[str] = "parting"

    def alter(self, upper: str) -> None:
        """Give each further name its own copy."""
        for path, facts in below(upper):
            if stat.S_ISREG(facts.st_mode) and os.lstat(path).st_nlink > 1:
                with open(path, "rb") as old:
                    content = old.read()
                os.unlink(path)
                with open(path, "wb") as new:
                    new.write(content)
                os.chmod(path, stat.S_IMODE(facts.st_mode))
                os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))


class Obeying(Altering):
    """Takes an overlay's private mark in its own plain tree for an order."""

    name: ClassVar[str] = "obeying"

    def alter(self, root: str) -> None:
        """Empty the directories that have it."""
        for path, facts in list(below(root)):
            if stat.S_ISDIR(facts.st_mode) and "trusted.overlay.opaque" in os.listxattr(path):
                directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
                for name in os.listdir(path):
                    trees.remove_tree(directory, os.fsencode(name))
                os.close(directory)


class Groupless(Altering):
    """Copies directories without their set-group-ID bit."""

    name: ClassVar[str] = "groupless"

    def alter(self, root: str) -> None:
        """Take it away."""
        for path, facts in below(root):
            if stat.S_ISDIR(facts.st_mode):
                os.chmod(path, stat.S_IMODE(facts.st_mode) & ~stat.S_ISGID)


class Losing(Altering):
    """Reads large directories in two steps, and loses a name in between."""

    name: ClassVar[str] = "losing"

    def alter(self, root: str) -> None:
        """Remove the last file of each."""
        for folder, _, names in os.walk(root):
            if len(names) > 100:
                os.unlink(os.path.join(folder, max(names)))


class Boastful(VfsDriver):
    """Claims longer names than there can be."""

    name: ClassVar[str] = "boastful"

    @classmethod
    def probe(cls, home: str, options: Mapping[str, str]) -> Support:
        """Claim."""
        return claiming(super().probe(home, options), name_max=1023)


class Forbidding(VfsDriver):
    """Mounts so that no program runs."""

    name: ClassVar[str] = "forbidding"

    def mounts(self, layer: str, *, view: bool = False) -> tuple[Mount, ...]:
        """Set ``noexec``."""
        return tuple(attrs.evolve(plan, options=(("noexec", None),)) for plan in super().mounts(layer, view=view))


class LosingWrites(Resting):
    """Loses what was written through one name of a parent's linked file (fuse-overlayfs)."""

    name: ClassVar[str] = "losing-writes"

    def alter(self, upper: str) -> None:
        """Remove the copies."""
        ancestors = self._dirs.read(os.path.basename(os.path.dirname(upper))).ancestors
        for path, _ in list(below(upper)):
            lower = upper_of(self, ancestors[0]) + path.removeprefix(upper) if ancestors else ""
            if os.path.isfile(lower) and os.stat(lower).st_nlink > 1:
                os.unlink(path)


CAUGHT_BY: dict[type[Driver], tuple[str, ...]] = {
    Forgiving: ("test_names_move", "test_names_go", "test_a_removed_working_directory"),
    Transparent: ("test_names_move[onto a directory that was emptied]", "test_names_go[and make it again]"),
    Patchwork: ("test_names_move[over a parent's file]", "test_names_are_linked[to a parent's file]"),
    Unlinking: ("test_names_are_linked",),
    Parting: ("test_names_are_linked[many]",),
    Following: ("test_symbolic_links",),
    Unwritable: ("test_symbolic_links[relative]",),
    Bare: ("test_extended_attributes", "test_a_default_acl_is_inherited"),
    Obeying: ("test_a_mark_of_the_engine_is_content",),
    Groupless: ("test_a_group_is_inherited",),
    Losing: ("test_a_directory_is_read_while_it_changes", "test_a_directory_is_read_from_a_position"),
    Boastful: ("test_the_file_system_is_described",),
    Forbidding: ("test_programs_run",),
    LosingWrites: ("test_hard_linked_names_of_a_parent",),
}
