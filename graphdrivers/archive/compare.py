"""What changed between two trees, in the order in which a layer tar lists it.

One walk serves every driver, so that the same content gives the same diff from
all of them. It comes in two forms: over two whole trees, and over what some
layers hold, whose cost is those layers' size and not the image's.

The order: depth first; in each directory deletions, then entries, both sorted
by name bytes; a directory before what is in it.
"""

import stat
from collections.abc import Callable, Iterator, Sequence

from graphdrivers.archive.entries import Difference, Directory, Node, Tree
from graphdrivers.archive.equality import Proof, same, same_file
from graphdrivers.archive.plain import EmptyTree
from graphdrivers.archive.union import Branch, Union, UnionDirectory
from graphdrivers.model import ChangeKind

_ADDED, _MODIFIED, _DELETED = ChangeKind.ADDED, ChangeKind.MODIFIED, ChangeKind.DELETED

Pair = tuple[Node | None, Node | None]
"""Both sides of one name, lower and upper; not both None."""

Lister = Callable[[Directory | None, Directory], list[Pair]]
"""Gives the pairs of one directory that may differ, deletions first, sorted.

Among them is every name that leads to a difference further down, and every name
of a file that has several and of which one was changed or added.
"""


def every_pair(lower: Directory | None, upper: Directory) -> list[Pair]:
    """Give all pairs of one directory: the `Lister` for where nothing is known."""
    if lower is None:
        return [(None, node) for node in upper.scan()]
    old = {node.name: node for node in lower.scan()}
    pairs: list[Pair] = [(old.pop(node.name, None), node) for node in upper.scan()]
    return [*((node, None) for node in old.values()), *pairs] if old else pairs


def compare(
    lower: Tree, upper: Tree, *, unchanged: Proof | None = None, pairs: Lister = every_pair
) -> Iterator[Difference]:
    """Give what has to be done to ``lower`` to make it ``upper``.

    What counts as a change is said in `graphdrivers.archive.equality.same`. A
    path that becomes or ceases to be a directory is one modification. A deleted
    directory is one deletion; everything in an added one is an addition. Given
    too, but not ``listed``, so that a tar can carry them: a directory that only
    holds differences, just before the first of them, and an unchanged name of a
    file that also has changed names.

    The trees stay the caller's and must be open until the iterator is closed
    or at its end; the nodes given are usable until the next difference.

    Args:
        lower: the old state.
        upper: the new state.
        unchanged: spares the reading of xattrs and contents where it says yes.
        pairs: spares the looking at what cannot differ.

    Raises (while iterating):
        OSError: something cannot be read, or changed under our hands.
    """
    return _Comparison(lower, upper, pairs, unchanged).differences()


def compare_layer(upper: Branch, lower: Union | EmptyTree) -> Iterator[Difference]:
    """Give what the layer ``upper`` changes in what lies below it; see `compare_layers`."""
    return compare_layers([upper], lower)


def compare_layers(uppers: Sequence[Branch], lower: Union | EmptyTree) -> Iterator[Difference]:
    """Give what several layers, top first, change together in what lies below them.

    The same, to the byte, as ``compare(lower, Union([*uppers, *lower.branches]))``,
    but it looks only at what the layers hold (and, for their opaque and redirected
    directories, at what those hide). Nothing below may change meanwhile.

    Raises (while iterating):
        OSError: as for `compare`.
    """
    if not uppers:
        return
    below = lower.branches if isinstance(lower, Union) else ()
    with Union([*uppers, *below], own=len(uppers)) as merged:
        yield from _Comparison(lower, merged, _list_layers, None).differences()


def _list_layers(lower: Directory | None, upper: Directory) -> list[Pair]:
    if not isinstance(upper, UnionDirectory) or not upper.in_place:
        return every_pair(lower, upper)
    if lower is None:
        return [(None, node) for _, node in upper.own() if node is not None]
    deletions: list[Pair] = []
    pairs: list[Pair] = []
    for name, node in upper.own():
        old = lower.lookup(name)
        if node is not None:
            pairs.append((old, node))
        elif old is not None:
            deletions.append((old, None))
    return deletions + pairs


class _Frame:
    """One directory of the walk, on both sides."""

    __slots__ = ("length", "lower", "pairs", "pending", "upper")

    def __init__(self, length: int, lower: Directory | None, upper: Directory) -> None:
        self.length = length
        """Of its path, with the slash behind it; kept instead of the path for the sake of very deep trees."""
        self.lower = lower
        self.upper = upper
        self.pairs: Iterator[Pair] | None = None
        """What is left to be given, once it was listed."""
        self.pending: tuple[Node, Node] | None = None
        """The directory itself, to be given before the first difference in it."""

    def close(self) -> None:
        self.upper.close()
        if self.lower is not None:
            self.lower.close()


class _Walk:
    """Goes through all pairs of two trees, deep ones without recursion."""

    def __init__(self, lister: Lister) -> None:
        self.kept = 0
        """How many directories are kept; see `keep`."""
        self._frames: list[_Frame] = []
        self._entered = False
        """The present pair is a directory, which is the last of the frames."""
        self._lister = lister
        self._path = bytearray()
        self._prefix: bytes | None = None
        """The path as bytes, once an entry needed it: in very deep trees it is long, and few do."""

    def path(self, name: bytes) -> bytes:
        """Return the path of the present pair, whose name is given."""
        if self._prefix is None:
            self._prefix = bytes(self._path)
        return self._prefix[:-1] if self._entered else self._prefix + name

    def pairs(self, lower: Directory | None, upper: Directory) -> Iterator[Pair]:
        """Give the pairs below two directories (which are closed at the end), directories before their content.

        A directory was entered when it is given: open, it is compared at less expense.
        """
        try:
            self._push(b"", lower, upper)
            while self._frames:
                frame = self._frames[-1]
                if frame.pairs is None:
                    frame.pairs = iter(self._lister(frame.lower, frame.upper))
                for pair in frame.pairs:
                    old, new = pair
                    if new is not None and stat.S_ISDIR(new.stat.st_mode):
                        self._enter(frame, old, new)
                        self._entered = True
                        yield pair
                        break
                    self._entered = False
                    yield pair
                else:
                    self._pop()
        finally:
            for frame in reversed(self._frames):
                frame.close()

    def keep(self, old: Node, new: Node) -> None:
        """Keep the present pair, a directory, for when something in it differs."""
        self._frames[-1].pending = (new, old)
        self.kept += 1

    def take_kept(self) -> Iterator[Difference]:
        """Give the directories above the present pair that were kept and not given yet, outermost first."""
        last = len(self._frames) - self._entered
        first = last - self.kept
        self.kept = 0
        for frame in self._frames[first:last]:
            if frame.pending is not None:
                new, old = frame.pending
                frame.pending = None
                yield Difference(bytes(self._path[: frame.length - 1]), _MODIFIED, new, old, listed=False)

    def _enter(self, frame: _Frame, old: Node | None, new: Node) -> None:
        lower = None
        if frame.lower is not None and old is not None and stat.S_ISDIR(old.stat.st_mode):
            lower = frame.lower.enter(old)
        self._push(b"%s/" % new.name, lower, frame.upper.enter(new))

    def _push(self, component: bytes, lower: Directory | None, upper: Directory) -> None:
        self._path += component
        self._frames.append(_Frame(len(self._path), lower, upper))
        self._prefix = None

    def _pop(self) -> None:
        frame = self._frames.pop()
        self.kept -= frame.pending is not None
        frame.close()
        del self._path[self._frames[-1].length if self._frames else 0 :]
        self._prefix = None


class _Comparison:
    """One comparison of two trees."""

    def __init__(self, lower: Tree, upper: Tree, lister: Lister, unchanged: Proof | None) -> None:
        self._lower = lower
        self._upper = upper
        self._lister = lister
        self._unchanged = unchanged
        self._changed_links: set[tuple[int, int]] | None = None

    def differences(self) -> Iterator[Difference]:
        with self._lower.root() as lower, self._upper.root() as upper:
            if not same(lower.node, upper.node, self._unchanged):
                yield Difference(b"", _MODIFIED, upper.node, lower.node, listed=False)
            walk = _Walk(self._lister)
            for old, new in walk.pairs(lower, upper):
                difference = self._judge(walk, old, new)
                if difference is None:
                    continue
                if walk.kept:
                    yield from walk.take_kept()
                yield difference

    def _judge(self, walk: _Walk, old: Node | None, new: Node | None) -> Difference | None:
        """Say how the two sides differ now; a directory that may yet hold differences is kept."""
        if new is None:
            return None if old is None else Difference(walk.path(old.name), _DELETED, None, old)
        if old is None:
            return Difference(walk.path(new.name), _ADDED, new, None)
        if not same(old, new, self._unchanged):
            return Difference(walk.path(new.name), _MODIFIED, new, old)
        if stat.S_ISDIR(new.stat.st_mode):
            walk.keep(old, new)
        elif new.stat.st_nlink > 1 and not same_file(old, new) and self._has_changed_names(new):
            return Difference(walk.path(new.name), _MODIFIED, new, old, listed=False)
        return None

    def _has_changed_names(self, node: Node) -> bool:
        """Say whether a file has other names that changed; the first question costs one more walk, then all do none."""
        if self._changed_links is None:
            with self._lower.root() as lower, self._upper.root() as upper:
                pairs = _Walk(self._lister).pairs(lower, upper)
                self._changed_links = {_inode(new) for old, new in pairs if new is not None and self._differs(old, new)}
        return _inode(node) in self._changed_links

    def _differs(self, old: Node | None, new: Node) -> bool:
        """Say whether a file that can have several names was changed or added."""
        status = new.stat
        if status.st_nlink == 1 or stat.S_ISDIR(status.st_mode):
            return False
        return old is None or not same(old, new, self._unchanged)


def _inode(node: Node) -> tuple[int, int]:
    return node.stat.st_dev, node.stat.st_ino
