"""Sets of paths whose memory is that of their names, however deep the paths are.

What one layer makes, hides and relies on is remembered while it is applied. A
member of 16 KiB can imply eight thousand directories; their paths written out
would take a thousand times the room of their names, and looking for all paths
below one would mean to look at all there are.
"""

from collections.abc import Iterator

_Node = dict[bytes, "_Node | None"]
"""Entries by name: None for one with nothing below it. The empty name says that the node itself is in the set."""

_HERE = b""


class PathSet:
    """Real paths (see ``places``); the root is ``b""``."""

    __slots__ = ("_root",)

    def __init__(self) -> None:
        """Start with none."""
        self._root: _Node = {}

    def __bool__(self) -> bool:
        """Tell whether there are any."""
        return bool(self._root)

    def __contains__(self, path: bytes) -> bool:
        """Tell whether a path is in the set."""
        head, _, name = path.rpartition(b"/")
        node = self._node(head)
        if node is None or name not in node:
            return False
        inner = node[name]
        return inner is None or _HERE in inner

    def __iter__(self) -> Iterator[bytes]:
        """Give every path, in the order of their names, one above another first; the set must not change meanwhile."""
        return _paths(b"", self._root)

    def add(self, path: bytes) -> None:
        """Put a path in. Idempotent."""
        node = self._root
        head, _, name = path.rpartition(b"/")
        for part in head.split(b"/") if head else ():
            inner = node.get(part)
            if inner is None:
                inner = {_HERE: None} if part in node else {}
                node[part] = inner
            node = inner
        inner = node.setdefault(name, None)
        if inner is not None:
            inner[_HERE] = None

    def discard(self, path: bytes) -> None:
        """Take a path out, what is below it stays. Idempotent."""
        head, _, name = path.rpartition(b"/")
        node = self._node(head)
        if node is None or name not in node:
            return
        inner = node[name]
        if inner is not None:
            inner.pop(_HERE, None)
        if not inner:
            self._prune(head, name)

    def discard_tree(self, path: bytes) -> None:
        """Take out a path and all that are below it. Idempotent."""
        if not path:
            self._root.clear()
            return
        head, _, name = path.rpartition(b"/")
        node = self._node(head)
        if node is not None and name in node:
            self._prune(head, name)

    def below(self, path: bytes) -> Iterator[bytes]:
        """Give the paths below one, itself not; the set must not change meanwhile."""
        node = self._node(path)
        found = iter(()) if node is None else _paths(path, node)
        return (one for one in found if one != path)

    def has_below(self, path: bytes) -> bool:
        """Tell whether a path below one is in the set."""
        node = self._node(path) or {}
        return len(node) > (_HERE in node)

    def covers(self, path: bytes) -> bool:
        """Tell whether a path above one is in the set, the root included, itself not."""
        node = self._root
        start = 0
        while path:
            if _HERE in node:
                return True
            end = path.find(b"/", start)
            if end < 0:
                return False
            name = path[start:end]
            inner = node.get(name)
            if inner is None:
                return name in node
            node, start = inner, end + 1
        return False

    def _node(self, path: bytes) -> _Node | None:
        """Find what is kept below a path."""
        node: _Node | None = self._root
        start, end = 0, -1 if path else 0
        while end and node is not None:
            end = path.find(b"/", start)
            node = node.get(path[start:end] if end >= 0 else path[start:])
            if end < 0:
                break
            start = end + 1
        return node

    def _prune(self, head: bytes, name: bytes) -> None:
        """Drop an entry, and the nodes above that then hold nothing."""
        way = [self._root]
        parts = head.split(b"/") if head else []
        for part in parts:
            inner = way[-1].get(part)
            if inner is None:
                return
            way.append(inner)
        for node, part in zip(reversed(way), [name, *reversed(parts)], strict=True):
            del node[part]
            if node:
                return


def _paths(prefix: bytes, node: _Node) -> Iterator[bytes]:
    """Give what is kept at and below a node, without recursion."""
    pending = [(prefix, node, iter(sorted(node)))]
    while pending:
        path, node, names = pending[-1]
        name = next(names, None)
        if name is None:
            pending.pop()
        elif not name:
            yield path
        else:
            inner = node[name]
            child = path + b"/" + name if path else name
            if inner is None:
                yield child
            else:
                pending.append((child, inner, iter(sorted(inner))))
