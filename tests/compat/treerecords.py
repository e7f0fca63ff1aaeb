"""What a tree on disk is, entry by entry, as values that can be compared."""

import hashlib
import os
import stat
from collections.abc import Mapping

import attrs


@attrs.frozen
class Record:
    """One entry: everything about it that an image carries."""

    kind: str
    mode: int
    uid: int
    gid: int
    mtime: int
    """ns since the epoch."""
    size: int
    """Bytes of a regular file, else 0."""
    digest: str
    """Of a regular file's content."""
    target: bytes
    """Of a symbolic link."""
    device: tuple[int, int]
    links: tuple[bytes, ...]
    """All paths of the same file in this tree, when it has more than one."""
    xattrs: Mapping[str, bytes]


_KINDS = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "directory",
    stat.S_IFLNK: "symlink",
    stat.S_IFCHR: "character device",
    stat.S_IFBLK: "block device",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
}


def records(root: str | bytes) -> dict[bytes, Record]:
    """Record a whole tree by path; the root's is empty, and its own record is there too."""
    top = os.fsencode(root)
    statuses = {b"": os.stat(top)}
    folders = [b""]
    while folders:
        folder = folders.pop()
        with os.scandir(os.path.join(top, folder)) as entries:
            for entry in entries:
                path = os.path.join(folder, entry.name)
                statuses[path] = entry.stat(follow_symlinks=False)
                if entry.is_dir(follow_symlinks=False):
                    folders.append(path)
    names: dict[tuple[int, int], list[bytes]] = {}
    for path, status in sorted(statuses.items()):
        if not stat.S_ISDIR(status.st_mode):
            names.setdefault((status.st_dev, status.st_ino), []).append(path)
    groups = {key: tuple(paths) for key, paths in names.items() if len(paths) > 1}
    return {
        path: _record(os.path.join(top, path), status, groups.get((status.st_dev, status.st_ino), ()))
        for path, status in statuses.items()
    }


def _record(path: bytes, status: os.stat_result, links: tuple[bytes, ...]) -> Record:
    kind = stat.S_IFMT(status.st_mode)
    regular, link = kind == stat.S_IFREG, kind == stat.S_IFLNK
    device = kind in {stat.S_IFCHR, stat.S_IFBLK}
    return Record(
        kind=_KINDS[kind],
        mode=stat.S_IMODE(status.st_mode),
        uid=status.st_uid,
        gid=status.st_gid,
        mtime=status.st_mtime_ns,
        size=status.st_size if regular else 0,
        digest=_digest(path) if regular else "",
        target=os.readlink(path) if link else b"",
        device=(os.major(status.st_rdev), os.minor(status.st_rdev)) if device else (0, 0),
        links=links,
        xattrs={
            name: os.getxattr(path, name, follow_symlinks=False)
            for name in sorted(os.listxattr(path, follow_symlinks=False))
        },
    )


def _digest(path: bytes) -> str:
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def differences(expected: Mapping[bytes, Record], actual: Mapping[bytes, Record]) -> dict[tuple[bytes, str], object]:
    """Compare two trees: the path and the field that differ, with both values.

    An entry that only one of them has differs in the field ``kind``.
    """
    found: dict[tuple[bytes, str], object] = {}
    for path in sorted(expected.keys() | actual.keys()):
        left, right = expected.get(path), actual.get(path)
        if left is None or right is None:
            found[path, "kind"] = (left and left.kind, right and right.kind)
            continue
        for field in attrs.fields(Record):
            values = getattr(left, field.name), getattr(right, field.name)
            if values[0] != values[1]:
                found[path, field.name] = values
    return found
