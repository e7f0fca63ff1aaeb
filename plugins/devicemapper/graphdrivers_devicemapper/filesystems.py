"""The file systems on the devices: made once, mounted in plans, searched for names that a layer may not have."""

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator

from graphdrivers import errors
from graphdrivers.archive.whiteouts import PREFIX
from graphdrivers.kit import layerdirs, reserved
from graphdrivers.linux import copying, durable, mounts, trees
from graphdrivers.model import Mount
from graphdrivers_devicemapper import sizes
from graphdrivers_devicemapper.settings import NAME

_PROGRAMS = f"{os.defpath}:/usr/local/sbin:/usr/sbin:/sbin"
_MAKE = {
    # Nothing is zeroed: an unwritten block of a thin device is.
    "ext4": ("-q", "-F", "-m", "0", "-E", "nodiscard,lazy_itable_init=1,lazy_journal_init=1"),
    "xfs": ("-q", "-f", "-K"),
}
_PACKAGES = {"ext4": "e2fsprogs", "xfs": "xfsprogs"}
_OPTIONS: dict[str, tuple[tuple[str, str | None], ...]] = {
    # Without noinit_itable the kernel would write the inode tables of every mounted snapshot, and so fill the pool.
    "ext4": (("discard", None), ("noinit_itable", None)),
    # A snapshot has its origin's UUID, which xfs refuses to mount twice.
    # prjquota with each mount, also read-only ones: after one without it, all inodes are counted anew.
    "xfs": (("discard", None), ("nouuid", None), ("prjquota", None)),
}
_READONLY = ("ro", None)
_HOLDER = PREFIX + b".aside"
"""Directory in the root of a tree, for the time that an entry is being put aside."""


def program(fs: str) -> str:
    """Find the program that makes a file system.

    Raises:
        PrerequisiteMissing: it is not installed.
    """
    found = shutil.which(f"mkfs.{fs}", path=_PROGRAMS)
    if found is None:
        raise errors.PrerequisiteMissing(NAME, f"mkfs.{fs} is not installed", f"install {_PACKAGES[fs]}")
    return found


def make(fs: str, node: str) -> None:
    """Make an empty file system whose root is a new layer's: 0755, 0:0, times 0, nothing in it. Durable.

    Raises:
        PrerequisiteMissing: the program is not installed, or fails.
    """
    command = [program(fs), *_MAKE[fs], node]
    done = subprocess.run(
        command, check=False, capture_output=True, text=True, errors="replace", env={"PATH": _PROGRAMS}
    )
    if done.returncode:
        reason = f"mkfs.{fs} failed: {' '.join(done.stderr.split())}"
        raise errors.PrerequisiteMissing(NAME, reason, "see what it says; the size of layers is option 'size'")
    with mounted(plan(fs, node)) as root:
        with contextlib.suppress(FileNotFoundError):
            os.rmdir("lost+found", dir_fd=root)
        if fs == "xfs":
            sizes.begin(root)
        os.fchown(root, 0, 0)
        os.fchmod(root, 0o755)
        os.utime(root, ns=(0, 0))


def plan(fs: str, node: str) -> Mount:
    """Plan the writable mount of a device."""
    return Mount(fs, node, _OPTIONS[fs])


def view(fs: str, node: str, *, sealed: bool) -> Mount:
    """Plan a read-only mount of a device.

    Of a layer that is not sealed only the mount is read-only, not the file
    system: the same may be mounted writable meanwhile, and is one for the kernel.
    """
    if sealed:
        return Mount(fs, node, _OPTIONS[fs], readonly=True)
    return Mount(fs, node, (*_OPTIONS[fs], _READONLY))


@contextlib.contextmanager
def mounted(wanted: Mount) -> Iterator[int]:
    """Open the root of a writable mount; what was written is durable in its file system when the block has ended.

    Raises:
        OSError: at the end: something could not be written.
    """
    with mounts.opened((wanted,)) as root:
        yield root
        durable.syncfs(root)


def put_aside(root: int, shelf: str) -> tuple[str, ...]:
    """Move every entry with a reserved name to ``shelf/NUMBER/``, on another file system: copied, then deleted.

    The times of the directories that held them are kept. What a killed process
    was about stays in the tree, under a reserved name, until the next time.

    Returns:
        The paths that they had, absolute inside the tree.
    """
    top = os.fstat(root)
    moved = ["/" + os.fsdecode(name) for name in _shelve(root, shelf)]
    for path, stack, name in reserved.found(root):
        before = os.fstat(stack.fd)
        os.mkdir(_HOLDER, 0o700, dir_fd=root)
        os.rename(name, os.path.join(_HOLDER, name), src_dir_fd=stack.fd, dst_dir_fd=root)
        _shelve(root, shelf)
        os.utime(stack.fd, ns=(before.st_atime_ns, before.st_mtime_ns))
        moved.append("/" + os.fsdecode(path))
    if moved:
        os.utime(root, ns=(top.st_atime_ns, top.st_mtime_ns))
    return tuple(moved)


def _shelve(root: int, shelf: str) -> list[bytes]:
    """Copy what the holder has to the shelf and delete it; give the names, none where there is no holder."""
    try:
        holder = os.open(_HOLDER, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=root)
    except (FileNotFoundError, NotADirectoryError):
        return []
    try:
        names = [os.fsencode(name) for name in os.listdir(holder)]
        os.makedirs(shelf, mode=0o700, exist_ok=True)
        place = os.path.join(shelf, f"{len(os.listdir(shelf)):04}")
        os.mkdir(place, 0o700)
        with layerdirs.directory(place) as target:
            copying.copy_tree(holder, target)
    finally:
        os.close(holder)
    trees.remove_tree(root, _HOLDER)
    return names
