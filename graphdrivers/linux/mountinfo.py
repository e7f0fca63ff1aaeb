"""The mount table, as this process's mount namespace shows it.

Source: proc_pid_mountinfo(5). Detached mounts are not in it.
"""

import os
import re
from collections.abc import Iterable, Iterator

import attrs

_OCTAL = re.compile(rb"\\([0-7]{3})")
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_ESCAPED = re.compile(rb"[ \t\n\\]")

_PIECE = 1 << 16
"""Bytes asked for at a time."""


@attrs.frozen
class MountPoint:
    """One line of ``/proc/self/mountinfo``, escapes undone."""

    mount_id: int
    parent_id: int
    device: str
    """``major:minor``."""
    root: str
    """The directory of the file system that is mounted, seen from the file system's root."""
    target: str
    """Where it is mounted; ends in ``//deleted`` where the directory is gone."""
    options: tuple[str, ...]
    """Of this mount (``ro``, ``nosuid``)."""
    fs_type: str
    source: str
    super_options: tuple[tuple[str, str | None], ...]
    """Of the file system, in order; ``lowerdir+`` repeats. ``None`` for flags."""

    def option(self, key: str) -> str | None:
        """Give the first value of a file-system option, ``None`` where it is absent."""
        return next((value for name, value in self.super_options if name == key), None)


def parse(lines: Iterable[bytes]) -> list[MountPoint]:
    """Parse lines of ``mountinfo``, of any length.

    Raises:
        ValueError: a line that is none.
    """
    return [_parse_line(line) for line in lines if line.strip()]


def read() -> list[MountPoint]:
    """Read the table of this process."""
    return parse(_lines())


def mounted_at(path: str) -> MountPoint | None:
    """Give what is mounted exactly at ``path`` (the topmost), or ``None``."""
    wanted = os.path.realpath(path)
    found = [mount for mount in mounted_within(wanted) if mount.target == wanted]
    return found[-1] if found else None


def targets() -> frozenset[str]:
    """Give all places where something is mounted: what `mounted_at` tells of one, for many at the cost of one."""
    return frozenset(_unescape(line.split(b" ", 5)[4]) for line in _lines() if line)


def unparsed() -> bytes:
    """Read the mount table of this mount namespace, as the kernel writes it."""
    opened = os.open("/proc/self/mountinfo", os.O_RDONLY | os.O_CLOEXEC)
    try:
        return b"".join(iter(lambda: os.read(opened, _PIECE), b""))
    finally:
        os.close(opened)


def mounted_below(path: str) -> list[MountPoint]:
    """Give what is mounted below ``path``, but not at it, in the order of the table (parents first)."""
    real = os.path.realpath(path)
    return [mount for mount in mounted_within(real) if mount.target != real]


def mounted_within(real: str) -> list[MountPoint]:
    """Give what is mounted at or below ``real``, an absolute path without symbolic links."""
    prefix = real.rstrip("/") + "/"
    # Only lines that mention the path are parsed: a hundred large overlays would take milliseconds.
    escaped = _ESCAPED.sub(lambda match: b"\\%03o" % ord(match[0]), os.fsencode(real))
    candidates = parse(line for line in _lines() if escaped in line)
    return [mount for mount in candidates if mount.target == real or mount.target.startswith(prefix)]


def users_of(directory: str) -> list[MountPoint]:
    """Give the mounts that write to ``directory``: binds of it, and overlays whose upper or work directory it is.

    Being a lower directory does not count. Mounts of other mount namespaces
    cannot be seen.

    Raises:
        OSError: it does not exist.
    """
    directory_fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        own_mount = mount_id(directory_fd)
        real = os.readlink(f"/proc/self/fd/{directory_fd}")
        identity = os.fstat(directory_fd)
    finally:
        os.close(directory_fd)
    table = read()
    names = {real, os.path.abspath(directory)}
    inside = _path_inside(table, own_mount, real)
    return [mount for mount in table if _uses(mount, own_mount, inside, names, identity)]


def users_within(directory: str) -> list[tuple[MountPoint, str]]:
    """Give the mounts that are of something below ``directory``, each with the path of that relative to it.

    Looked at are the directory that is bound, an overlay's upper directory (its
    topmost lower one where it has none), and the source. Mounts of other mount
    namespaces cannot be seen.

    Raises:
        OSError: it does not exist.
    """
    directory_fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        own_mount = mount_id(directory_fd)
        real = os.readlink(f"/proc/self/fd/{directory_fd}")
    finally:
        os.close(directory_fd)
    table = read()
    device, inside = _path_inside(table, own_mount, real) or ("", "")
    found = []
    for mount in table:
        path = _first_below([mount.source, *_top_directory(mount)], [real, os.path.abspath(directory)])
        if not path and mount.device == device and mount.mount_id != own_mount:
            path = _first_below([mount.root], [inside])
        if path:
            found.append((mount, path))
    return found


def _top_directory(mount: MountPoint) -> Iterator[str]:
    """Give the directory of an overlay that is on top, as it is and with the escapes of mount(2) undone."""
    if mount.fs_type == "overlay":
        lower = mount.option("lowerdir+") or re.split(r"(?<!\\):", mount.option("lowerdir") or "")[0]
        top = mount.option("upperdir") or lower
        yield from (top, _ESCAPE.sub(r"\1", top))


def _first_below(paths: Iterable[str], directories: Iterable[str]) -> str:
    """Give the first of some paths that is below a directory, relative to that; empty where none is."""
    prefixes = [directory.rstrip("/") + "/" for directory in directories]
    return next((path[len(prefix) :] for path in paths for prefix in prefixes if path.startswith(prefix)), "")


def _uses(
    mount: MountPoint, own_mount: int, inside: tuple[str, str] | None, names: set[str], identity: os.stat_result
) -> bool:
    if mount.fs_type == "overlay":
        written = (value for key, value in mount.super_options if key in {"upperdir", "workdir"} and value)
        if any(_same_directory(path, names, identity) for path in written):
            return True
    return mount.mount_id != own_mount and (mount.device, mount.root) == inside


def _same_directory(path: str, names: set[str], identity: os.stat_result) -> bool:
    """Compare by name, then (for a path through symbolic links) by inode where the last components agree."""
    # What came through mount(2) is shown with the backslashes that escape it there.
    if path in names or _ESCAPE.sub(r"\1", path) in names:
        return True
    if not path.startswith("/") or os.path.basename(path) not in {os.path.basename(name) for name in names}:
        return False
    try:
        return os.path.samestat(os.stat(path), identity)
    except OSError:  # gone, or of another mount namespace
        return False


def _path_inside(table: list[MountPoint], mount_id: int, real: str) -> tuple[str, str] | None:
    """Give device and path, inside its file system, of a directory that is seen through a mount."""
    for mount in table:
        if mount.mount_id == mount_id:
            below = os.path.relpath(real, mount.target)
            return mount.device, os.path.normpath(os.path.join(mount.root, below))
    return None


def mount_id(fd: int) -> int:
    """Give the number of the mount that an open file was opened through; a detached one is not in the table."""
    with open(f"/proc/self/fdinfo/{fd}", "rb") as lines:
        for line in lines:
            if line.startswith(b"mnt_id:"):
                return int(line.split()[1])
    return -1


def _lines() -> list[bytes]:
    return unparsed().split(b"\n")


def _parse_line(line: bytes) -> MountPoint:
    mount_part, separator, fs_part = line.rstrip(b"\n").partition(b" - ")
    if not separator:
        raise ValueError(f"not a line of mountinfo: {line[:80]!r}")
    mount_id, parent_id, device, root, target, options, *_tags = mount_part.split(b" ")
    # The source may be empty, which leaves two spaces in a row.
    fs_type, source, super_options = fs_part.split(b" ", 2)
    return MountPoint(
        int(mount_id),
        int(parent_id),
        device.decode("ascii"),
        _unescape(root),
        _unescape(target),
        tuple(_unescape(option) for option in options.split(b",")),
        _unescape(fs_type),
        _unescape(source),
        tuple(_split_option(option) for option in super_options.split(b",")),
    )


def _split_option(option: bytes) -> tuple[str, str | None]:
    key, separator, value = option.partition(b"=")
    return _unescape(key), _unescape(value) if separator else None


def _unescape(field: bytes) -> str:
    if b"\\" in field:
        field = _OCTAL.sub(lambda match: bytes([int(match[1], 8)]), field)
    return os.fsdecode(field)
