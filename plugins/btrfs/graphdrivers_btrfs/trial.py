"""What works in a home, found out by trying: subvolumes, their deletion, searches, limits."""

import errno
import os

import attrs

from graphdrivers import errors
from graphdrivers.errors import SyscallError
from graphdrivers.kit import abilities, layerdirs
from graphdrivers.kit.quotas import Refusal
from graphdrivers.linux import filesystems, namespaces
from graphdrivers.model import Capabilities
from graphdrivers_btrfs import ioctls, limits, subvolumes

_MISSING = frozenset({errno.ENOTTY, errno.ENOSYS, errno.EOPNOTSUPP})


@attrs.frozen
class Found:
    """What works."""

    files: Capabilities
    """What files can be; see `graphdrivers.kit.abilities.tried`."""
    deletes: bool
    """A subvolume is deleted as a whole, whatever is in it."""
    searches: bool
    """The trees of the file system can be searched."""
    unlimited: Refusal | None
    """Why sizes cannot be limited; ``None`` where they can."""
    quotas: str
    """The kind that is on: see `limits.kind`."""


def run(driver: str, home: str) -> Found:
    """Try in a scratch folder, which is gone at the end.

    Raises:
        NotSupported, PrerequisiteMissing, IncompatibleFilesystem: there is no way.
    """
    with abilities.scratch(driver, home) as folder:
        _refuse_others(driver, home, folder)
        try:
            return _tried(folder)
        except SyscallError as error:
            explained = _explained(driver, error)
            if explained is None:
                raise
            raise explained from error
        finally:
            subvolumes.remove_all(folder)


def _refuse_others(driver: str, home: str, folder: str) -> None:
    found = filesystems.fs_type(folder)
    if found == "btrfs":
        return
    place = os.path.dirname(home)
    fix = "put --root on btrfs; for a try: truncate -s 10G FILE, mkfs.btrfs FILE, mount -o loop FILE DIRECTORY"
    if not filesystems.is_known("btrfs"):
        fix += "; this kernel knows no btrfs yet: modprobe btrfs"
    raise errors.IncompatibleFilesystem(driver, f"{place!r} is on {found}, and subvolumes are btrfs's", fix)


def _tried(folder: str) -> Found:
    tree, copy = os.path.join(folder, "tree"), os.path.join(folder, "copy")
    with layerdirs.directory(folder) as place:
        ioctls.make_subvolume(place, b"tree")
        files = abilities.tried(tree)
        with layerdirs.directory(tree) as root:
            ioctls.make_snapshot(root, place, b"copy", readonly=True)
            list(ioctls.subvolumes_in(root))
        with layerdirs.directory(copy) as root:
            searches = _searches(root)
        deletes, quotas = _deletes(place), limits.kind(place)
    return Found(files, deletes, searches, limits.tried(folder), quotas)


def _searches(root: int) -> bool:
    own = ioctls.describe(root)
    key = ioctls.Key(ioctls.FIRST_INODE, ioctls.INODE_ITEM, 0)
    try:
        return bool([key for key, _ in ioctls.search(root, own.number, key, key)])
    except PermissionError:
        return False


def _deletes(place: int) -> bool:
    """Delete what is not empty."""
    try:
        ioctls.destroy(place, b"tree")
    except PermissionError:
        return False
    return True


def _explained(driver: str, error: SyscallError) -> errors.DriverUnavailable | None:
    if error.errno in _MISSING:
        reason = f"this kernel's btrfs lacks {error.syscall}"
        return errors.NotSupported(driver, reason, "use Linux 4.18 or later, or another driver")
    if error.errno in {errno.EPERM, errno.EACCES}:
        reason = f"{error.syscall} is not permitted to {namespaces.describe()}"
        return errors.PrerequisiteMissing(driver, reason, "run as root, or permit the ioctls of btrfs in the sandbox")
    return None
