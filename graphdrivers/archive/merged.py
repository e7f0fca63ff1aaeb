"""The merged view of a layer that is being filled: what it holds so far, over what its parents show.

Names of members are resolved here as a chroot would resolve them, links of
lower layers included, but never by the kernel and never outside: each step is
one component, opened without following. Directories that no member names are
made on the way, with the attributes the stack shows for them.

Two kinds of target share this code. In a *layered* one (overlay) the layer is a
directory of its own and the parents are a `Union`; in a *flat* one (vfs) the
layer starts as a full copy, so the tree itself is the merged view and ``made``
tells what this layer put there.
"""

import errno
import os
import stat
from typing import Literal

from graphdrivers import errors
from graphdrivers.archive.attributes import Attributes
from graphdrivers.archive.entries import Node
from graphdrivers.archive.headers import HeaderRecorder
from graphdrivers.archive.pathset import PathSet
from graphdrivers.archive.places import Place, Places, join
from graphdrivers.archive.replicate import copy_node
from graphdrivers.archive.union import Union
from graphdrivers.archive.whiteouts import PREFIX, PSEUDO_LINKS
from graphdrivers.linux import trees
from graphdrivers.model import Limits

_MAX_LINKS = 40
"""Symbolic links followed in one name, as the kernel's own limit (path_resolution(7))."""

_ALIASES = 4096
_ALIAS_MAX = 1024
"""Names remembered with what they mean, and bytes of one of them with it."""


class MergedTree:
    """One layer in the making, with its parents' view below it."""

    def __init__(
        self,
        places: Places,
        attributes: Attributes,
        lower: Union | None,
        made: PathSet | None,
        recorder: HeaderRecorder | None,
        *,
        limits: Limits,
    ) -> None:
        """Look through ``places`` first, then at ``lower``.

        Args:
            places: the directories of the layer itself.
            attributes: how owners and xattrs are given.
            lower: the parents' merged view; ``None`` where there is none, or the tree is flat.
            made: real paths this layer made, kept up to date; ``None`` where all that is there is its own.
            recorder: gets the content of own files that are about to vanish.
            limits: how long a real path may be, and how many directories that nobody names (as many as members).
        """
        self.places = places
        self.made = made
        self.hidden = PathSet()
        """Names that this layer deletes from its parents."""
        self.opaque = PathSet()
        """Directories whose lower content this layer hides."""
        self.relied = PathSet()
        """Lower links and files that members were resolved through or copied from."""
        self.implied = PathSet()
        """Directories that were given their lower attributes."""
        self.pseudo_links = False
        """The layer brings files that aufs kept in `PSEUDO_LINKS`: that directory may be made."""
        self._attributes = attributes
        self._lower = lower
        self._recorder = recorder
        self._aliases: dict[bytes, bytes] = {}
        self._limits = limits
        self._nameless = 0

    def parent(self, literal: bytes) -> Place:
        """Open the directory that a member's parent name means, making what is missing."""
        place = self.places.get(literal)
        if place is not None:
            return place
        real = self._aliases.get(literal)
        if real is None:
            real = self._walk(literal, create=True)
            if real is None:
                raise AssertionError("a creating walk always arrives")
            if real != literal and len(literal) + len(real) <= _ALIAS_MAX:
                if len(self._aliases) >= _ALIASES:
                    self._aliases.clear()
                self._aliases[literal] = real
        place = self.places.find(real)
        if place is None:
            raise errors.MalformedArchive(f"directory {os.fsdecode(real)!r} vanished while the layer was applied")
        return place

    def locate(self, literal: bytes) -> bytes | None:
        """Resolve a directory's name without making anything; ``None`` where the view shows no directory."""
        return literal if self.places.get(literal) is not None else self._walk(literal, create=False)

    def lower(self, path: bytes) -> Node | None:
        """Find what the parents still show at a real path."""
        if self._lower is None or self._gone(path):
            return None
        return self._lower.find(path)

    def lower_names(self, path: bytes) -> list[bytes]:
        """Names the parents show in a directory, whatever this layer hides."""
        directory = None if self._lower is None else self._lower.directory(path)
        return [] if directory is None else [node.name for node in directory.scan()]

    def under_directories(self, path: bytes) -> bool:
        """Tell whether nothing in the layer but directories stands above a real path."""
        place = self.places.root
        for name in path.split(b"/")[:-1]:
            step = self.places.step(place, name)
            if step is None:
                return self.facts(place, name) is None
            place = step
        return True

    def facts(self, place: Place, name: bytes) -> os.stat_result | None:
        """``lstat`` an entry of the layer itself; ``None`` where there is none, or no such name can be."""
        try:
            return os.lstat(name, dir_fd=place.fd)
        except FileNotFoundError:
            return None
        except OSError as error:
            if error.errno != errno.ENAMETOOLONG:
                raise
            return None

    def source(self, literal: bytes) -> tuple[Place, bytes]:
        """Find the file a hard link means, without following its last component.

        A file that only a lower layer has is copied up first, with its attributes.

        Raises:
            MalformedArchive: nothing there, or a directory.
        """
        head, _, name = literal.rpartition(b"/")
        real = self.locate(head)
        if real is None:
            raise errors.MalformedArchive(f"hard link to {os.fsdecode(literal)!r}, which does not exist")
        path = join(real, name)
        place = self.places.find(real)
        facts = None if place is None else self.facts(place, name)
        node = self.lower(path) if facts is None else None
        if node is not None:
            _refuse_directory(literal, node.stat)
            self.relied.add(path)
            return self._copy_up(real, name, node), name
        if place is None or facts is None:
            raise errors.MalformedArchive(f"hard link to {os.fsdecode(literal)!r}, which does not exist")
        _refuse_directory(literal, facts)
        if self.made is not None and path not in self.made:
            self.relied.add(path)
        return place, name

    def inherit_root(self) -> None:
        """Give the root the attributes of the parents'; its times are set when it is left."""
        above = None if self._lower is None else self._lower.directory(b"")
        if above is not None:
            root = self.places.root
            root.mtime = self._attributes.copy(above.node, root.fd)

    def clear(self, place: Place, name: bytes) -> None:
        """Remove an entry of the layer that a member replaces; its content goes to the header record."""
        path = place.child(name)
        facts = os.lstat(name, dir_fd=place.fd)
        self._aliases.clear()
        if stat.S_ISDIR(facts.st_mode):
            self._spill_below(path)
            self.places.forget_below(path)
            trees.remove_tree(place.fd, name)
            self._forget(path)
        else:
            if stat.S_ISREG(facts.st_mode):
                self._spill(place.fd, name, path)
            os.unlink(name, dir_fd=place.fd)
            if self.made is not None:
                self.made.discard(path)

    def forget_names(self) -> None:
        """Resolve names anew from now on: something they went through was hidden."""
        self._aliases.clear()

    def make_directory(self, place: Place, name: bytes, path: bytes, node: Node | None) -> Place:
        """Make a directory that no member describes, at ``path``: as ``node``, else 0755, 0:0, times 0."""
        if name.startswith(PREFIX) and not (self.pseudo_links and path == PSEUDO_LINKS):
            raise errors.UnsafePath(f"a symbolic link leads to {os.fsdecode(path)!r}, which is a whiteout's name")
        self._nameless += 1
        if self._nameless > self._limits.members:
            reason = f"more than {self._limits.members} directories that no member names"
            raise errors.LimitExceeded(reason, limit="members")
        os.mkdir(name, 0o700, dir_fd=place.fd)
        fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=place.fd)
        mtime = 0
        try:
            if node is None:
                self._attributes.plain_directory(fd)
            else:
                mtime = self._attributes.copy(node, fd)
        except BaseException:
            os.close(fd)
            raise
        if node is not None:
            self.implied.add(path)
        if self.made is not None:
            self.made.add(path)
        return self.places.adopt(path, fd, mtime)

    def _walk(self, literal: bytes, *, create: bool) -> bytes | None:
        """Resolve a directory name component by component in the merged view; gives its real path."""
        todo = literal.split(b"/")[::-1]
        real, place, links = b"", self.places.root, 0
        here: Place | None = place
        while todo:
            name = todo.pop()
            if name in {b"", b"."}:
                continue
            if name == b"..":
                real = os.path.dirname(real)
                here = self.places.find(real)
                continue
            path = join(real, name)
            if len(path) > self._limits.path:
                raise errors.LimitExceeded(f"symbolic links lead to a path of {len(path)} bytes", limit="path")
            found = self._step(here, path, name, create=create)
            if isinstance(found, bytes):
                links += 1
                if links > _MAX_LINKS:
                    raise errors.UnsafePath(f"more than {_MAX_LINKS} symbolic links in one name", os.fsdecode(literal))
                if found.startswith(b"/"):
                    real, here = b"", self.places.root
                todo.extend(found.split(b"/")[::-1])
                continue
            if found is False:
                return None
            real, here = path, found
        return real

    def _step(
        self, here: Place | None, path: bytes, name: bytes, *, create: bool
    ) -> Place | bytes | Literal[False] | None:
        """Take one step: an open directory, ``None`` for one only in the parents, a link's target, or False."""
        if here is not None:
            place = self.places.step(here, name, path)
            if place is not None:
                return place
            facts = self.facts(here, name)
            if facts is not None and stat.S_ISLNK(facts.st_mode):
                if self.made is not None and path not in self.made:
                    self.relied.add(path)
                return os.readlink(name, dir_fd=here.fd)
            if facts is not None:
                return self._replace(here, name, path) if create else False
        node = self.lower(path)
        kind = 0 if node is None else stat.S_IFMT(node.stat.st_mode)
        if node is not None and kind == stat.S_IFLNK:
            self.relied.add(path)
            return node.readlink()
        if create:
            if here is None:
                raise AssertionError("a creating walk has its directory open")
            return self.make_directory(here, name, path, node if kind == stat.S_IFDIR else None)
        return None if kind == stat.S_IFDIR else False

    def _replace(self, here: Place, name: bytes, path: bytes) -> Place:
        """Put an implied directory where something else was: the member below it wins."""
        self.clear(here, name)
        if self._lower is not None:
            self.hidden.add(path)
        return self.make_directory(here, name, path, None)

    def _gone(self, path: bytes) -> bool:
        """Tell whether this layer hides what the parents have at a path."""
        return path in self.hidden or self.hidden.covers(path) or self.opaque.covers(path)

    def _copy_up(self, real: bytes, name: bytes, node: Node) -> Place:
        """Copy a lower file into the layer, as link(2) on a union mount does."""
        place = self.parent(real)
        copy_node(node, place.fd, name, self._attributes)
        return place

    def _forget(self, path: bytes) -> None:
        """Drop all records of a tree that was removed."""
        self.implied.discard_tree(path)
        if self.made is not None:
            self.made.discard_tree(path)

    def _spill_below(self, path: bytes) -> None:
        """Hand the own files of a tree that is about to go to the header record."""
        pending = [path] if self._recorder is not None else []
        while pending:
            here = self.places.find(pending.pop())
            if here is None:
                continue
            # Entries younger than the descriptor may be left out unless it is rewound (readdir(3)); Btrfs does so.
            os.lseek(here.fd, 0, os.SEEK_SET)
            with os.scandir(here.fd) as entries:
                for entry in entries:
                    name = os.fsencode(entry.name)
                    if entry.is_dir(follow_symlinks=False):
                        pending.append(here.child(name))
                    elif entry.is_file(follow_symlinks=False):
                        self._spill(here.fd, name, here.child(name))

    def _spill(self, dir_fd: int, name: bytes, path: bytes) -> None:
        """Hand one own file's content to the header record."""
        if self._recorder is None or (self.made is not None and path not in self.made):
            return
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=dir_fd)
        try:
            self._recorder.spill(path, fd)
        finally:
            os.close(fd)


def _refuse_directory(literal: bytes, facts: os.stat_result) -> None:
    """Refuse the source of a hard link that is a directory."""
    if stat.S_ISDIR(facts.st_mode):
        raise errors.MalformedArchive(f"hard link to the directory {os.fsdecode(literal)!r}")
