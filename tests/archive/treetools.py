"""Trees made, mounted and looked at, for the tests of whiteouts, unions and comparisons."""

import contextlib
import os
import random
import shutil
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from graphdrivers.archive.entries import Directory, Node, Tree
from graphdrivers.archive.plain import PlainTree
from graphdrivers.archive.union import Branch
from graphdrivers.archive.whiteouts import OVERLAY, OVERLAY_USER, Dialect

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounting and device nodes need root")

NAMES = [b"a", b"b", b"c", b"caf\xe9", b"new\nline", b"-d"]
"""Few, so that layers collide; two of them awkward."""

FEATURES = {
    "plain": (OVERLAY, ("redirect_dir=nofollow", "metacopy=off")),
    "redirects": (OVERLAY, ("redirect_dir=on", "metacopy=on")),
    "userxattr": (OVERLAY_USER, ("userxattr",)),
}
"""Ways to mount overlay: the dialect of its layers and the mount options."""

Look = tuple[object, ...]
"""All that a merged view shows of one path, comparable."""


def make_file(path: bytes, content: bytes = b"x", *, mode: int = 0o644, mtime: int = 10**18) -> None:
    """Make a regular file with a fixed time."""
    with open(path, "wb") as file:
        file.write(content)
    os.chmod(path, mode)
    os.utime(path, ns=(mtime, mtime))


def whiteout(path: bytes) -> None:
    """Make overlay's whiteout device."""
    os.mknod(path, stat.S_IFCHR, os.makedev(0, 0))


@contextlib.contextmanager
def tmpfs(place: Path) -> Iterator[Path]:
    """Mount a fresh tmpfs, so that tests do not depend on what ``/tmp`` is."""
    place.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=0755", "graphdrivers-tests", place], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", place], check=True)


@contextlib.contextmanager
def overlay(place: Path, lowers: list[Path], upper: Path | None = None, *options: str) -> Iterator[bytes]:
    """Mount kernel overlayfs below ``place``; one lower gets an empty one below it."""
    for part in ("merged", "empty"):
        (place / part).mkdir(parents=True, exist_ok=True)
    stack = [str(lower) for lower in lowers]
    if upper is None and len(stack) == 1:
        stack.append(str(place / "empty"))
    pairs = [f"lowerdir={':'.join(stack)}"]
    if upper is not None:
        work = upper.with_name(upper.name + ".work")
        work.mkdir(exist_ok=True)
        pairs += [f"upperdir={upper}", f"workdir={work}"]
    merged = place / "merged"
    subprocess.run(["mount", "-t", "overlay", "overlay", "-o", ",".join((*pairs, *options)), merged], check=True)
    try:
        yield os.fsencode(merged)
    finally:
        subprocess.run(["umount", merged], check=True)


def look_at_mount(root: bytes) -> dict[bytes, Look]:
    """Read a mounted tree with plain system calls; listed names that cannot be looked up are not there."""
    seen = {b"": _look(os.lstat(root), _xattrs(root), b"", b"")}
    waiting = [b""]
    while waiting:
        path = waiting.pop()
        for name in os.listdir(os.path.join(root, path)):
            inner = os.path.join(path, name)
            full = os.path.join(root, inner)
            try:
                status = os.lstat(full)
            except FileNotFoundError:
                continue
            link = os.readlink(full) if stat.S_ISLNK(status.st_mode) else b""
            content = Path(os.fsdecode(full)).read_bytes() if stat.S_ISREG(status.st_mode) else b""
            seen[inner] = _look(status, _xattrs(full), link, content)
            if stat.S_ISDIR(status.st_mode):
                waiting.append(inner)
    return seen


def look_at_tree(tree: Tree, *, by_lookup: bool = False) -> dict[bytes, Look]:
    """Read a tree through the `Tree` interface, children by scan or (the names being known) by lookup."""
    seen: dict[bytes, Look] = {}
    with tree.root() as root:
        seen[b""] = look_at_node(root.node)
        _look_into(root, b"", seen, by_lookup=by_lookup)
    return seen


def _look_into(directory: Directory, path: bytes, seen: dict[bytes, Look], *, by_lookup: bool) -> None:
    nodes = directory.scan()
    assert [node.name for node in nodes] == sorted(node.name for node in nodes)
    if by_lookup:
        found = [directory.lookup(name) for name in [*NAMES, *(node.name for node in nodes)]]
        nodes = list({node.name: node for node in found if node is not None}.values())
    for node in nodes:
        inner = os.path.join(path, node.name)
        seen[inner] = look_at_node(node)
        if stat.S_ISDIR(node.stat.st_mode):
            with directory.enter(node) as below:
                _look_into(below, inner, seen, by_lookup=by_lookup)


def look_at_node(node: Node) -> Look:
    """Read all that one node shows."""
    mode = node.stat.st_mode
    content = b""
    if stat.S_ISREG(mode):
        with open(node.open(), "rb") as file:
            content = file.read()
    link = node.readlink() if stat.S_ISLNK(mode) else b""
    return _look(node.stat, node.xattrs(), link, content)


def _look(status: os.stat_result, xattrs: dict[str, bytes], link: bytes, content: bytes) -> Look:
    mode = status.st_mode
    size = 0 if stat.S_ISDIR(mode) else status.st_size
    device = status.st_rdev if stat.S_ISCHR(mode) or stat.S_ISBLK(mode) else 0
    return (oct(mode), status.st_uid, status.st_gid, size, status.st_mtime_ns, device, link, content, xattrs)


def _xattrs(path: bytes) -> dict[str, bytes]:
    names = os.listxattr(path, follow_symlinks=False)
    return {name: os.getxattr(path, name, follow_symlinks=False) for name in names}


def fill(root: Path, files: dict[str, str | None]) -> Path:
    """Make a tree: ``name/`` is a directory, ``None`` overlay's whiteout, ``-> x`` a symbolic link, else a content."""
    root.mkdir(parents=True, exist_ok=True)
    root.chmod(0o755)
    for name, content in files.items():
        path = os.fsencode(root / name)
        os.makedirs(path if name.endswith("/") else os.path.dirname(path), exist_ok=True)
        if content is None:
            whiteout(path)
        elif content.startswith("-> "):
            os.symlink(content.removeprefix("-> "), path)
        elif not name.endswith("/"):
            make_file(path, content.encode())
    return root


def branches(dialect: Dialect, layers: list[Path]) -> list[Branch]:
    """Make branches of layer directories, top first."""
    return [Branch(os.fsencode(layer), dialect) for layer in layers]


def random_layers(place: Path, seed: int, features: str) -> list[Path]:
    """Make up to five random layers of the overlay dialect, top first."""
    rng = random.Random(seed)
    layers = [place / f"layer{number}" for number in range(rng.randint(1, 5))]
    for layer in layers:
        layer.mkdir(parents=True)
        RandomLayer(rng, FEATURES[features][0], redirects=features == "redirects").fill(os.fsencode(layer))
    return layers


def edited_layers(place: Path, seed: int, features: str) -> list[Path]:
    """Make layers as containers do, top first: random edits in overlay mounts, each over the layers before."""
    rng = random.Random(seed)
    base = place / "base"
    base.mkdir(parents=True)
    RandomEdits(rng, os.fsencode(base)).run(60)
    layers = [base]
    for number in range(rng.randint(1, 3)):
        upper = place / f"upper{number}"
        upper.mkdir()
        with overlay(place, layers, upper, *FEATURES[features][1]) as merged:
            RandomEdits(rng, merged).run(rng.randint(1, 30))
        layers.insert(0, upper)
    return layers


class RandomLayer:
    """Fills a directory with a random layer of the overlay dialect, marks included."""

    def __init__(self, rng: random.Random, dialect: Dialect = OVERLAY, *, redirects: bool = False) -> None:
        """Draw from ``rng``; with ``redirects``, directories may point elsewhere."""
        self._rng = rng
        self._dialect = dialect
        self._redirects = redirects
        self._files: list[bytes] = []

    def fill(self, path: bytes, depth: int = 0) -> None:
        """Put random entries into an existing directory."""
        names = NAMES[:3] if self._redirects else NAMES
        for name in self._rng.sample(names, self._rng.randint(0, len(names) - 1)):
            self._make(os.path.join(path, name), depth)
        self._decorate(path)

    def _make(self, path: bytes, depth: int) -> None:
        rng = self._rng
        kind = rng.choice(("d" * 20 if self._redirects else "ddddd") + "ffffhlwwwxpcs" if depth < 3 else "ffhlwwxpcs")
        if kind == "d":
            os.mkdir(path)
            self.fill(path, depth + 1)
            self._mark_directory(path)
        elif kind == "f":
            make_file(path, rng.randbytes(rng.randint(0, 9)), mode=rng.choice([0o644, 0o755, 0o4711]))
            self._files.append(path)
        elif kind == "h" and self._files:
            os.link(rng.choice(self._files), path)
        elif kind == "l":
            os.symlink(rng.choice([b"a", b"/etc/passwd", b"\xff"]), path)
        elif kind == "w":
            whiteout(path)
        elif kind == "x":
            make_file(path, b"")
            os.setxattr(path, self._dialect.xattr("whiteout"), b"")
        elif kind == "p":
            os.mkfifo(path)
        elif kind == "c":
            os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(rng.choice([0, 1]), 3))
        else:
            os.mknod(path, stat.S_IFSOCK | 0o600)

    def _mark_directory(self, path: bytes) -> None:
        rng = self._rng
        draw = rng.random()
        if draw < 0.15:
            os.setxattr(path, self._dialect.xattr("opaque"), b"y")
        elif draw < 0.3:
            os.setxattr(path, self._dialect.xattr("opaque"), b"x")
        elif draw < 0.7 and self._redirects:
            parts = rng.choices(NAMES[:3], k=rng.randint(1, 3))
            target = rng.choice([parts[0], b"/" + b"/".join(parts)])
            os.setxattr(path, self._dialect.xattr("redirect"), target)

    def _decorate(self, path: bytes) -> None:
        rng = self._rng
        if rng.random() < 0.3:
            os.setxattr(path, rng.choice(["trusted.note", "user.note"]), b"n")
        if rng.random() < 0.3:
            os.setxattr(path, self._dialect.escape(self._dialect.xattr("opaque")), b"y")
        os.chmod(path, rng.choice([0o755, 0o700, 0o1777]))
        time = rng.randint(0, 10**18)
        os.utime(path, ns=(time, time))


class RandomEdits:
    """Edits a mounted tree as programs would, at random; what the kernel refuses is left undone."""

    def __init__(self, rng: random.Random, root: bytes) -> None:
        """Edit below ``root``."""
        self._rng = rng
        self._root = root
        self._edits = [
            self._write,
            self._append,
            self._make_directory,
            self._remove,
            self._rename,
            self._rename,
            self._replace,
            self._link,
            self._symlink,
            self._change_mode,
            self._change_owner,
            self._set_xattr,
            self._touch,
            self._copy_up_only,
        ]

    def run(self, count: int) -> None:
        """Perform up to ``count`` edits."""
        for _ in range(count):
            with contextlib.suppress(OSError):
                self._rng.choice(self._edits)()

    def _pick(self, *, new: bool = False) -> bytes:
        """Draw a path: one that may exist, or with ``new`` any name in a directory that does."""
        path = self._root
        for _ in range(self._rng.randint(1, 4)):
            names = sorted(os.listdir(path)) if stat.S_ISDIR(os.lstat(path).st_mode) else []
            if not names:
                break
            path = os.path.join(path, self._rng.choice(names))
        if new:
            directory = path if stat.S_ISDIR(os.lstat(path).st_mode) else os.path.dirname(path)
            return os.path.join(directory, self._rng.choice(NAMES))
        if path == self._root:
            raise FileNotFoundError
        return path

    def _write(self) -> None:
        fd = os.open(self._pick(new=True), os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o640)
        with open(fd, "wb") as file:
            file.write(self._rng.randbytes(self._rng.randint(0, 9)))

    def _append(self) -> None:
        fd = os.open(self._pick(), os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK)
        with open(fd, "wb") as file:
            file.write(b"+")

    def _make_directory(self) -> None:
        os.mkdir(self._pick(new=True), 0o750)

    def _remove(self) -> None:
        path = self._pick()
        if stat.S_ISDIR(os.lstat(path).st_mode):
            shutil.rmtree(path)
        else:
            os.unlink(path)

    def _rename(self) -> None:
        os.rename(self._pick(), self._pick(new=True))

    def _replace(self) -> None:
        path = self._pick()
        if stat.S_ISDIR(os.lstat(path).st_mode):
            shutil.rmtree(path)
            os.mkdir(path)
        else:
            os.unlink(path)
            self._rng.choice([os.mkdir, os.mkfifo, make_file])(path)

    def _link(self) -> None:
        os.link(self._pick(), self._pick(new=True), follow_symlinks=False)

    def _symlink(self) -> None:
        os.symlink(self._rng.choice(NAMES), self._pick(new=True))

    def _change_mode(self) -> None:
        path = self._pick()
        if not stat.S_ISLNK(os.lstat(path).st_mode):
            os.chmod(path, self._rng.choice([0o600, 0o755, 0o2755]))

    def _change_owner(self) -> None:
        os.chown(self._pick(), self._rng.randint(0, 3), 7, follow_symlinks=False)

    def _set_xattr(self) -> None:
        name = self._rng.choice(["trusted.note", "trusted.overlay.opaque", "user.overlay.opaque"])
        os.setxattr(self._pick(), name, b"y", follow_symlinks=False)

    def _touch(self) -> None:
        time = self._rng.choice([5, 10**18, 10**18 + 1])
        os.utime(self._pick(), ns=(time, time), follow_symlinks=False)

    def _copy_up_only(self) -> None:
        """Open for writing and write nothing: the copy in the upper layer equals the lower file."""
        os.close(os.open(self._pick(), os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK))


def plain_node(root: int, name: bytes) -> Node:
    """Look one entry of a real directory up."""
    with PlainTree(root) as tree:
        node = tree.root().lookup(name)
    assert node is not None
    return node
