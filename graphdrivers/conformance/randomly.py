"""Random edits that are legal for the tree that they meet, found by making them on a flat directory."""

import os
import random
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence

import attrs

from graphdrivers import edits
from graphdrivers.conformance.observe import Item
from graphdrivers.conformance.workbench import Workbench
from graphdrivers.model import Capabilities

_NAMES = ("a", "a-b", "a.b", "b", "c", "dir", "usr", "x\udcff", "new\nline")

_PATIENCE = 20
"""Draws per edit; the dice may be loaded (hypothesis rolls the same side again and again), so there is an end."""


@attrs.frozen
class Round:
    """The edits of one layer and the tree that they lead to."""

    edits: Sequence[edits.Edit]
    expected: Mapping[str, Item]


def random_edits(
    bench: Workbench, flat: str, seed: int, *, layers: int, count: int, can: Capabilities | None = None
) -> Iterator[Round]:
    """Give rounds of edits, one per layer; equal seeds give equal rounds on drivers with equal capabilities.

    Args:
        bench: whose driver the edits are for.
        flat: a flat directory that they are made on.
        seed: of the dice.
        layers: how many rounds.
        count: edits in a round, or a few less.
        can: what may be asked for, where that is less than the driver claims.
    """
    dice = random.Random(seed)  # noqa: S311 - repeatable, not secret
    for _ in range(layers):
        made = edit_randomly(bench, flat, dice, count, can=can)
        yield Round(made, bench.flat_tree(flat))


def edit_randomly(
    bench: Workbench, flat: str, dice: random.Random, count: int, *, can: Capabilities | None = None
) -> list[edits.Edit]:
    """Draw up to ``count`` edits, each legal for what the ones before left, and make them on a flat directory.

    A `replay` of what is returned makes the same of an equal tree. Left out is
    what the driver does not claim: renames of directories, changes of files
    with several names, owners.
    """
    source = _Source(bench, bench.can if can is None else can, dice)
    made: list[edits.Edit] = []
    for _ in range(_PATIENCE * count):
        edit = source.draw(bench.flat_tree(flat))
        if edit is not None:
            edits.replay([edit], flat, start=edits.EPOCH + len(made) * edits.STEP)
            made.append(edit)
        if len(made) == count:
            break
    return made


class _Source:
    """Draws one edit at a time, fit for a tree."""

    def __init__(self, bench: Workbench, can: Capabilities, dice: random.Random) -> None:
        self._can = can
        self._kept = 0o700 if bench.bound else 0
        """Permissions that nothing loses: the next edit could not be done."""
        self._dice = dice
        self._draws: list[Callable[[Mapping[str, Item]], edits.Edit | None]] = [
            self._create,
            self._create,
            self._mkdir,
            self._write,
            self._remove,
            self._remove,
            self._rename,
            self._replace,
            self._chmod,
            self._chown,
            self._utime,
            self._link,
            self._symlink,
            self._mknod,
            self._set_xattr,
        ]

    def draw(self, tree: Mapping[str, Item]) -> edits.Edit | None:
        """Draw an edit; ``None`` when the dice chose what this tree has no place for."""
        return self._dice.choice(self._draws)(tree)

    def _free(self, tree: Mapping[str, Item]) -> str | None:
        directory = self._dice.choice([path for path in tree if tree[path].kind == stat.S_IFDIR])
        path = os.path.normpath(os.path.join(directory, self._dice.choice(_NAMES)))
        return None if path in tree or path.count("/") > 3 else path

    def _taken(self, tree: Mapping[str, Item], *kinds: int) -> str | None:
        """Choose an existing path that may be changed."""
        fit = [path for path in tree if path != "." and (not kinds or tree[path].kind in kinds)]
        if not self._can.hard_links_across_layers:
            fit = [path for path in fit if len(tree[path].names) == 1]
        return self._dice.choice(fit) if fit else None

    def _create(self, tree: Mapping[str, Item]) -> edits.Edit | None:
        path = self._free(tree)
        modes = [0o644, 0o4755, 0o600, 0o444]
        return edits.Create(path, self._content(), self._dice.choice(modes) | self._kept) if path else None

    def _content(self) -> bytes:
        return self._dice.randbytes(self._dice.choice([0, 1, 1, 100, 5000]))

    def _mkdir(self, tree: Mapping[str, Item]) -> edits.Edit | None:
        path = self._free(tree)
        return edits.Mkdir(path, self._dice.choice([0o755, 0o1777, 0o700])) if path else None

    def _write(self, tree: Mapping[str, Item]) -> edits.Edit | None:
        path = self._taken(tree, stat.S_IFREG)
        return edits.Write(path, self._content()) if path else None

    def _remove(self, tree: Mapping[str, Item]) -> edits.Edit | None:
        """Choose a path; one with much below it seldom, or little would ever be left to go wrong."""
        fit = [path for path in tree if path != "."]
        path = self._dice.choice(fit) if fit else ""
        below = sum(other.startswith(f"{path}/") for other in tree)
        return edits.Remove(path) if path and not self._dice.randrange(1 + below) else None

    def _rename(self, tree: Mapping[str, Item]) -> edits.Edit | None:
        kinds = [stat.S_IFREG, stat.S_IFLNK, stat.S_IFIFO]
        kinds += [stat.S_IFDIR] if self._can.rename_directories else []
        path, new = self._taken(tree, *kinds), self._free(tree)
        if path is None or new is None or new.startswith(path + "/"):
            return None
        return edits.Rename(path, new)

    def _replace(self, tree: Mapping[str, Item]) -> edits.Edit | None:
        path, new = self._taken(tree, stat.S_IFREG, stat.S_IFLNK), self._taken(tree, stat.S_IFREG, stat.S_IFLNK)
        if path is None or new is None or new in tree[path].names:
            return None
        return edits.Rename(path, new)

    def _chmod(self, tree: Mapping[str, Item]) -> edits.Edit | None:
        path = self._taken(tree, stat.S_IFREG, stat.S_IFDIR, stat.S_IFIFO)
        return edits.Chmod(path, self._dice.choice([0o755, 0o711, 0o640, 0o2755]) | self._kept) if path else None

    def _chown(self, tree: Mapping[str, Item]) -> edits.Edit | None:
        path = self._taken(tree) if self._can.ownership else None
        return edits.Chown(path, self._dice.choice([0, 1, 60_000]), self._dice.choice([0, 2])) if path else None

    def _utime(self, tree: Mapping[str, Item]) -> edits.Edit | None:
        path = self._taken(tree)
        return edits.Utime(path, self._dice.choice([-1, 1, edits.EPOCH])) if path else None

    def _link(self, tree: Mapping[str, Item]) -> edits.Edit | None:
        path, new = self._taken(tree, stat.S_IFREG), self._free(tree)
        return edits.Link(path, new) if path and new else None

    def _symlink(self, tree: Mapping[str, Item]) -> edits.Edit | None:
        path = self._free(tree)
        return edits.Symlink(path, self._dice.choice(["a", "../b", "/usr", "x" * 300])) if path else None

    def _mknod(self, tree: Mapping[str, Item]) -> edits.Edit | None:
        path = self._free(tree)
        return edits.Mknod(path) if path else None

    def _set_xattr(self, tree: Mapping[str, Item]) -> edits.Edit | None:
        path = self._taken(tree, stat.S_IFREG, stat.S_IFDIR) if self._can.user_xattrs else None
        return edits.SetXattr(path, "user.random", self._content()[:50]) if path else None
