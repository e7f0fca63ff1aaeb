"""Trees written as trees: entries of one made in another, differences between two carried out in a third."""

import os
import stat
from collections.abc import Callable, Iterable

from graphdrivers.archive.attributes import Attributes
from graphdrivers.archive.entries import Difference, Node
from graphdrivers.archive.places import Place, Places
from graphdrivers.archive.whiteouts import Dialect
from graphdrivers.linux import copying, namespaces, resolve, xattrs

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

Made = Callable[[Node, os.stat_result], object]
"""Called with an entry and the ``lstat`` of its copy, once it is final."""


def copy_node(node: Node, directory: int, name: bytes, attributes: Attributes) -> None:
    """Make what is no directory a second time, as a copy-up does: content (shared where it can be) and attributes.

    Raises:
        OSError: ``EEXIST`` where the name is taken.
        UnsupportedEntry: an xattr that cannot be kept.
    """
    facts = node.stat
    if stat.S_ISREG(facts.st_mode):
        _copy_regular(node, directory, name, attributes)
        return
    if stat.S_ISLNK(facts.st_mode):
        os.symlink(node.readlink(), name, dir_fd=directory)
    else:
        os.mknod(name, facts.st_mode, facts.st_rdev, dir_fd=directory)
    attributes.own(name, facts.st_uid, facts.st_gid, directory)
    attributes.mark(xattrs.at(directory, name), node.xattrs())
    if not stat.S_ISLNK(facts.st_mode):
        os.chmod(name, stat.S_IMODE(facts.st_mode), dir_fd=directory)
    os.utime(name, ns=(facts.st_mtime_ns, facts.st_mtime_ns), dir_fd=directory, follow_symlinks=False)


def _copy_regular(node: Node, directory: int, name: bytes, attributes: Attributes) -> None:
    target = os.open(name, _NEW, 0o600, dir_fd=directory)
    try:
        source = node.open()
        try:
            copying.copy_file(source, target, node.stat.st_size)
        finally:
            os.close(source)
        mtime = attributes.copy(node, target)
        os.utime(target, ns=(mtime, mtime))
    finally:
        os.close(target)


def replicate(
    differences: Iterable[Difference],
    root: int,
    attributes: Attributes,
    dialect: Dialect,
    *,
    top: Node,
    source: int | None = None,
    made: Made | None = None,
) -> None:
    """Carry out ``differences``, parents before what is in them, in an empty directory.

    Deletions become whiteouts of ``dialect``. Names that are one file in the
    tree described stay one.

    Args:
        differences: from `compare`, at least the parent of each entry before it.
        root: the directory.
        attributes: how owners and xattrs are given, in the same dialect.
        dialect: how deletions are written.
        top: the root of the tree described, whose attributes the directory gets.
        source: the same root, open, on the same file system: files are
            linked from there and not copied, but for those whose xattrs are
            stored under other names here.
        made: see `Made`; not called for directories.
    """
    _Replica(root, attributes, dialect, top=top, source=source, made=made).run(differences)


class _Replica:
    def __init__(
        self, root: int, attributes: Attributes, dialect: Dialect, *, top: Node, source: int | None, made: Made | None
    ) -> None:
        mtime = attributes.copy(top, root)
        attributes.finish_root(root)
        self._attributes = attributes
        self._dialect = dialect
        self._made = made
        self._links: dict[tuple[int, int], tuple[bytes, Node]] = {}
        self._places = Places(root, privileged=namespaces.has_capability("CAP_DAC_OVERRIDE"))
        self._places.root.mtime = mtime
        self._source = None if source is None else _Source(source)

    def run(self, differences: Iterable[Difference]) -> None:
        try:
            for difference in differences:
                self._carry_out(difference)
            self._report_links()
        except BaseException:
            self._places.close(restore=False)
            raise
        finally:
            if self._source is not None:
                self._source.close()
        self._places.close()

    def _carry_out(self, difference: Difference) -> None:
        node = difference.upper
        if not difference.path:
            return
        head, _, name = difference.path.rpartition(b"/")
        place = self._place(head)
        if node is None:
            self._dialect.write_whiteout(place.fd, name)
        elif stat.S_ISDIR(node.stat.st_mode):
            self._directory(place, name, difference, node)
        else:
            self._entry(place, name, difference.path, node)

    def _place(self, path: bytes) -> Place:
        place = self._places.find(path)
        if place is None:
            raise AssertionError("differences list a directory before what is in it")
        return place

    def _directory(self, place: Place, name: bytes, difference: Difference, node: Node) -> None:
        os.mkdir(name, 0o700, dir_fd=place.fd)
        fd = os.open(name, _DIRECTORY, dir_fd=place.fd)
        mtime = self._attributes.copy(node, fd)
        if difference.lower is not None and not stat.S_ISDIR(difference.lower.stat.st_mode):
            self._dialect.write_opaque(fd)  # aufs goes on looking below a file
        self._places.adopt(difference.path, fd, mtime)

    def _entry(self, place: Place, name: bytes, path: bytes, node: Node) -> None:
        facts = node.stat
        if facts.st_nlink > 1:
            first = self._links.setdefault((facts.st_dev, facts.st_ino), (path, node))[0]
            if first != path:
                self._link_first(first, place, name)
                return
        if self._source is None or self._escapes(node):
            copy_node(node, place.fd, name, self._attributes)
        else:
            os.link(name, name, src_dir_fd=self._source.parent(path), dst_dir_fd=place.fd, follow_symlinks=False)
        if self._made is not None and facts.st_nlink == 1:
            self._made(node, os.lstat(name, dir_fd=place.fd))

    def _link_first(self, first: bytes, place: Place, name: bytes) -> None:
        place.pinned = True
        head, _, source = first.rpartition(b"/")
        os.link(source, name, src_dir_fd=self._place(head).fd, dst_dir_fd=place.fd, follow_symlinks=False)
        place.pinned = False

    def _escapes(self, node: Node) -> bool:
        return any(self._dialect.escape(name) != name for name in node.xattrs())

    def _report_links(self) -> None:
        """Report files with several names: each new one has changed the others' ctime."""
        if self._made is None:
            return
        for path, node in self._links.values():
            head, _, name = path.rpartition(b"/")
            self._made(node, os.lstat(name, dir_fd=self._place(head).fd))


class _Source:
    """Directories of the tree to link from; the last one used stays open."""

    def __init__(self, root: int) -> None:
        self._root = root
        self._path: bytes | None = None
        self._fd = -1

    def parent(self, path: bytes) -> int:
        head = path.rpartition(b"/")[0]
        if head != self._path:
            self.close()
            self._fd = resolve.open_beneath(self._root, head or b".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            self._path = head
        return self._fd

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
        self._path, self._fd = None, -1
