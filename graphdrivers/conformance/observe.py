"""What a tree shows: every path with every attribute that a driver has to keep."""

import hashlib
import os
import stat
from collections.abc import Iterator, Mapping

import attrs

from graphdrivers.archive import owners
from graphdrivers.linux import trees, xattrs

_LABELS = frozenset({"security.selinux", "security.SMACK64"})
"""Set by the machine, not by the image."""


@attrs.frozen(kw_only=True)
class Item:
    """One path as it is seen from outside."""

    kind: int
    """File type bits of the mode."""
    mode: int
    uid: int
    gid: int
    size: int
    """Of regular files; else 0."""
    mtime: int
    """ns."""
    device: int
    target: str
    """Of a symbolic link; else empty."""
    xattrs: Mapping[str, bytes]
    digest: str
    """sha256 of a regular file's content; else empty."""
    names: frozenset[str]
    """All names of the same inode in the tree."""


def snapshot(root: int | str, *, resolution: int = 1, recorded_modes: bool = False) -> dict[str, Item]:
    """Read a whole tree; the root itself is the path ``.``.

    Args:
        root: an open directory or a path.
        resolution: in ns; modification times are rounded down to it.
        recorded_modes: show modes as they are recorded where owners are (`graphdrivers.archive.owners`), and no
            record; the owners shown are those that the files have.
    """
    fd = os.dup(root) if isinstance(root, int) else os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        found = _snapshot(fd, resolution)
        return {path: _as_recorded(item) for path, item in found.items()} if recorded_modes else found
    finally:
        os.close(fd)


def differences(expected: Mapping[str, Item], actual: Mapping[str, Item]) -> list[str]:
    """Say in what two snapshots differ, one line per path and attribute; nothing when they are equal."""
    lines = [f"{path!r} is missing" for path in expected if path not in actual]
    lines += [f"{path!r} should not be there" for path in actual if path not in expected]
    for path in expected:
        if path in actual and expected[path] != actual[path]:
            wanted, found = (attrs.asdict(tree[path], recurse=False) for tree in (expected, actual))
            lines += [
                f"{path!r}: {key} is {found[key]!r}, not {wanted[key]!r}" for key in wanted if wanted[key] != found[key]
            ]
    return sorted(lines)


def assert_same(expected: Mapping[str, Item], actual: Mapping[str, Item]) -> None:
    """Fail with every difference between two snapshots."""
    lines = differences(expected, actual)
    assert not lines, "the trees differ:\n" + "\n".join(lines)


def _snapshot(root: int, resolution: int) -> dict[str, Item]:
    found = {path: _look(root, path, status) for path, status in walk(root)}
    names: dict[tuple[int, int], set[str]] = {}
    for path, (_, inode) in found.items():
        names.setdefault(inode, set()).add(path)
    rounded = {}
    for path, (item, inode) in found.items():
        mtime = item.mtime // resolution * resolution
        rounded[path] = attrs.evolve(item, mtime=mtime, names=frozenset(names[inode]))
    return rounded


def _as_recorded(item: Item) -> Item:
    value = item.xattrs.get(owners.XATTR)
    if value is None:
        return item
    status = owners.shown(os.stat_result((item.kind | item.mode, *[0] * 9)), value)
    marks = {name: mark for name, mark in item.xattrs.items() if name != owners.XATTR}
    return attrs.evolve(item, mode=stat.S_IMODE(status.st_mode), xattrs=marks)


def walk(root: int) -> Iterator[tuple[str, os.stat_result]]:
    """Give every path below an open directory, itself (``.``) first, with its ``lstat``; without recursion."""
    yield ".", os.fstat(root)
    with trees.DirStack(root) as stack:
        for inside in stack.visit():
            for name in sorted(os.fsencode(name) for name in os.listdir(stack.fd)):
                status = os.stat(name, dir_fd=stack.fd, follow_symlinks=False)
                yield os.fsdecode(stack.path(name)), status
                if stat.S_ISDIR(status.st_mode):
                    inside.append(name)


def _look(root: int, path: str, status: os.stat_result) -> tuple[Item, tuple[int, int]]:
    place = f"/proc/self/fd/{root}/{path}"
    kind = stat.S_IFMT(status.st_mode)
    regular = kind == stat.S_IFREG
    marks = xattrs.read_all(os.fsencode(place))
    item = Item(
        kind=kind,
        mode=stat.S_IMODE(status.st_mode),
        uid=status.st_uid,
        gid=status.st_gid,
        size=status.st_size if regular else 0,
        mtime=status.st_mtime_ns,
        device=status.st_rdev,
        target=os.readlink(place) if kind == stat.S_IFLNK else "",
        xattrs={name: value for name, value in marks.items() if name not in _LABELS},
        digest=_digest(place) if regular else "",
        names=frozenset(),
    )
    return item, (status.st_dev, status.st_ino)


def _digest(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
