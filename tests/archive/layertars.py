"""Small layer tars for tests, member by member, and the trees that applying a stack of them gives."""

import io
import os
import stat
import tarfile
from collections.abc import Iterable
from pathlib import Path

from graphdrivers import model
from graphdrivers.archive import apply as applying
from graphdrivers.archive.plain import PlainTree
from graphdrivers.archive.union import Branch, Union
from graphdrivers.archive.whiteouts import OVERLAY, PLAIN
from graphdrivers.linux import mounts

ALL = model.Capabilities(
    ownership=True,
    devices=True,
    char_0_0=True,
    user_xattrs=True,
    trusted_xattrs=True,
    security_xattrs=True,
    posix_acls=True,
)
Snapshot = dict[bytes, tuple[object, ...]]


def member(name: str, kind: str = "file", content: bytes = b"", **fields: object) -> tuple[tarfile.TarInfo, bytes]:
    """Describe one member; ``fields`` are those of ``tarfile.TarInfo``."""
    entry = tarfile.TarInfo(name)
    entry.type = {
        "file": tarfile.REGTYPE,
        "dir": tarfile.DIRTYPE,
        "link": tarfile.LNKTYPE,
        "symlink": tarfile.SYMTYPE,
        "fifo": tarfile.FIFOTYPE,
        "char": tarfile.CHRTYPE,
        "block": tarfile.BLKTYPE,
    }[kind]
    entry.mode = 0o755 if kind == "dir" else 0o644
    entry.mtime = 1_000_000
    entry.size = len(content)
    for field, value in fields.items():
        setattr(entry, field, value)
    return entry, content


def pack(*members: tuple[tarfile.TarInfo, bytes]) -> io.BytesIO:
    """Make a tar of the members, in their order."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT, errors="surrogateescape") as tar:
        for entry, content in members:
            tar.addfile(entry, io.BytesIO(content))
    out.seek(0)
    return out


class Stack:
    """One stack of layers applied twice: flat into one tree, and layered as overlay directories."""

    def __init__(self, root: Path) -> None:
        """Start with no layers below ``root``."""
        self.flat = root / "flat"
        self.root = root
        self.layers: list[Path] = []
        _base(self.flat)

    def add(self, tar: io.BytesIO) -> tuple[model.Applied, model.Applied]:
        """Apply one more layer both ways."""
        first = self._flat(tar)
        tar.seek(0)
        return first, self._layered(tar)

    def refused(self, tar: io.BytesIO) -> tuple[str, str]:
        """Apply a layer that both ways must refuse; gives the names of the errors' classes."""
        names = []
        for way in (self._flat, self._layered):
            tar.seek(0)
            try:
                way(tar)
            except model.errors.ArchiveError as error:
                names.append(type(error).__name__)
            else:
                names.append("applied")
        return names[0], names[1]

    def snapshots(self) -> tuple[Snapshot, Snapshot]:
        """Both merged trees, everything included."""
        flat = os.open(self.flat, os.O_RDONLY)
        try:
            union = Union([Branch(os.fspath(path), OVERLAY) for path in self.layers[::-1]])
            try:
                return snapshot(PlainTree(flat)), snapshot(union)
            finally:
                union.close()
        finally:
            os.close(flat)

    def mounted(self) -> Snapshot:
        """What the kernel's overlay shows of the layered directories; needs at least two."""
        options = [("lowerdir+", os.fspath(path)) for path in self.layers[::-1]]
        with mounts.opened([model.Mount("overlay", "overlay", tuple(options), readonly=True)]) as root:
            return snapshot(PlainTree(root))

    def _flat(self, tar: io.BytesIO) -> model.Applied:
        root = os.open(self.flat, os.O_RDONLY)
        try:
            return applying.apply(tar, applying.Target(root, PLAIN, None, ALL))
        finally:
            os.close(root)

    def _layered(self, tar: io.BytesIO) -> model.Applied:
        upper = self.root / f"layer{len(self.layers)}"
        _base(upper)
        below = self.layers[::-1]
        lower = Union([Branch(os.fspath(path), OVERLAY) for path in below]) if below else None
        root = os.open(upper, os.O_RDONLY)
        try:
            if below:
                top = os.stat(below[0])
                os.chmod(root, stat.S_IMODE(top.st_mode))
                os.utime(root, ns=(top.st_mtime_ns, top.st_mtime_ns))
            capabilities = model.Capabilities(**{**_fields(ALL), "char_0_0": False})
            applied = applying.apply(tar, applying.Target(root, OVERLAY, lower, capabilities))
        finally:
            os.close(root)
            if lower is not None:
                lower.close()
        self.layers.append(upper)
        return applied


def snapshot(tree: object) -> Snapshot:
    """Everything a tree shows, by path: kind, mode, owner, mtime, content or target, device, xattrs, link group."""
    found: Snapshot = {}
    inodes: dict[tuple[int, int], bytes] = {}
    pending = [(b"", tree.root())]
    opened = []
    while pending:
        path, directory = pending.pop()
        opened.append(directory)
        found[path] = _facts(directory.node, path, inodes)
        for node in directory.scan():
            child = path + b"/" + node.name
            if stat.S_ISDIR(node.stat.st_mode):
                pending.append((child, directory.enter(node)))
            else:
                found[child] = _facts(node, child, inodes)
    for directory in reversed(opened):
        directory.close()
    return found


def names(found: Snapshot) -> list[str]:
    """The paths of a snapshot, sorted, the root left out."""
    return sorted(os.fsdecode(path) for path in found if path)


def _facts(node: object, path: bytes, inodes: dict[tuple[int, int], bytes]) -> tuple[object, ...]:
    facts = node.stat
    kind = stat.S_IFMT(facts.st_mode)
    content: object = None
    group = path
    if kind == stat.S_IFREG:
        fd = node.open()
        content = os.read(fd, 1 << 20)
        os.close(fd)
    elif kind == stat.S_IFLNK:
        content = node.readlink()
    elif kind in {stat.S_IFCHR, stat.S_IFBLK}:
        content = facts.st_rdev
    if kind != stat.S_IFDIR:
        group = inodes.setdefault((facts.st_dev, facts.st_ino), path)
    return (kind, facts.st_mode & 0o7777, facts.st_uid, facts.st_gid, facts.st_mtime_ns, content, node.xattrs(), group)


def _fields(value: model.Capabilities) -> dict[str, object]:
    return {name: getattr(value, name) for name in value.__slots__ if not name.startswith("__")}


def _base(path: Path) -> None:
    path.mkdir(mode=0o755)
    os.utime(path, ns=(0, 0))


def chain(root: Path, *layers: Iterable[tuple[tarfile.TarInfo, bytes]]) -> Stack:
    """Apply several layers, each given as its members."""
    stack = Stack(root)
    for members in layers:
        stack.add(pack(*members))
    return stack
