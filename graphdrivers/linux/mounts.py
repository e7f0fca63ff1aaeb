"""Plans of mounts performed: attached to a directory, or only opened.

The new mount API is used where the kernel has it (Linux 5.12; for overlay 6.5):
nothing is escaped, nothing is cut at a page, directories are taken by
descriptor, and the kernel says why it refuses. ``mount(2)`` serves the rest.
A type ``fuse.PROGRAM`` is served by that program: see `fuse_mount`.
"""

import contextlib
import errno
import os
from collections.abc import Iterator, Sequence

import attrs

from graphdrivers.errors import SyscallError
from graphdrivers.linux import aufs_mount, fuse_mount, legacy_mount, mountapi, probe, resolve
from graphdrivers.linux.libc import AT_FDCWD, c_string
from graphdrivers.model import Mount

_ATTRIBUTES = {
    "ro": mountapi.MOUNT_ATTR_RDONLY,
    "nosuid": mountapi.MOUNT_ATTR_NOSUID,
    "nodev": mountapi.MOUNT_ATTR_NODEV,
    "noexec": mountapi.MOUNT_ATTR_NOEXEC,
    "noatime": mountapi.MOUNT_ATTR_NOATIME,
}
"""Options that belong to a mount, not to its file system; any other goes to the file system."""

_LAYERS = frozenset({"lowerdir+", "datadir+", "upperdir", "workdir"})
"""Overlay options whose value is a directory."""

_SCRATCH = "/tmp"  # noqa: S108 - a new directory of mode 0700 is made in it
_PLACE = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC


def plain_directory(plan: Sequence[Mount]) -> str | None:
    """Give the directory that a plan amounts to, where it needs no mount at all: one writable bind."""
    if len(plan) != 1:
        return None
    (mount,) = plan
    if mount.type != "bind" or mount.readonly or mount.target or mount.options:
        return None
    return mount.source


def attach(plan: Sequence[Mount], target: str) -> None:
    """Perform a plan at a directory: all of it or nothing.

    ``target`` is looked up once; mounts are attached to what it was then. A
    later mount of the plan may lie below an earlier one, reached without
    symbolic links.

    Raises:
        SyscallError: with the kernel's own explanation where it gives one.
        ValueError: a bind with an option that binds do not have.
    """
    if all(_by_descriptor(mount) for mount in plan):
        _attach_by_descriptor(plan, target)
    else:
        legacy_mount.attach(plan, target)


@contextlib.contextmanager
def opened(plan: Sequence[Mount]) -> Iterator[int]:
    """Open the root directory of a plan's merged tree, with no trace in the mount namespace.

    The mount is a detached one (``nosuid``, ``nodev``) that is gone at exit, or
    when the process dies. A plan that is one writable directory is opened
    without any mount; so is a read-only one for a caller who may not mount, and
    who then has to keep from writing.

    Yields:
        A directory opened for reading; closed at exit.

    Raises:
        SyscallError: with the kernel's own explanation where it gives one;
            ``ENOSYS`` for a plan of several mounts before Linux 5.2.
    """
    mount_fd = _merged_root(plan)
    try:
        root = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=mount_fd)
        try:
            yield root
        finally:
            os.close(root)
    finally:
        os.close(mount_fd)


def detach(target: str, *, lazy: bool = False) -> None:
    """Unmount what is on top at ``target``.

    Args:
        target: never followed where it is a symbolic link.
        lazy: take it, and all that is mounted below it, out of sight now, and
            let it go when nobody uses it any more.

    Raises:
        SyscallError: ``EBUSY`` while files in it are open or something is
            mounted below it, ``EINVAL`` where nothing is mounted.
    """
    mountapi.umount2(target, mountapi.UMOUNT_NOFOLLOW | (mountapi.MNT_DETACH if lazy else 0))


def _by_descriptor(mount: Mount) -> bool:
    """Tell whether the new mount API can do this one here; aufs is mounted in several steps by the old one."""
    if mount.type == aufs_mount.TYPE:
        return False
    return probe.has_lowerdir_append() if mount.type == "overlay" else probe.has_new_mount_api()


def _attach_by_descriptor(plan: Sequence[Mount], target: str) -> None:
    root = os.open(target, _PLACE)
    descriptors = [root]
    attached: list[int] = []
    try:
        for mount in plan:
            place = root
            if mount.target:
                place = resolve.open_beneath(root, os.fsencode(mount.target), _PLACE)
                descriptors.append(place)
            mount_fd = _detached(mount, 0)
            descriptors.append(mount_fd)
            mountapi.move_mount(mount_fd, place, what=f"{target}/{mount.target}" if mount.target else target)
            attached.append(mount_fd)
            root = root if mount.target else mount_fd
    except BaseException:
        for mount_fd in reversed(attached):
            mountapi.umount2(f"/proc/self/fd/{mount_fd}", mountapi.MNT_DETACH)
        raise
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


def _merged_root(plan: Sequence[Mount]) -> int:
    """Give a descriptor of the merged root: in no mount, a detached one, or one that was detached again."""
    if (directory := plain_directory(plan)) is not None:
        return os.open(directory, _PLACE)
    try:
        if len(plan) == 1 and not plan[0].target and _by_descriptor(plan[0]):
            return _detached(plan[0], mountapi.MOUNT_ATTR_NOSUID | mountapi.MOUNT_ATTR_NODEV)
        return _passing_root(plan)
    except SyscallError as error:
        if error.errno != errno.EPERM or len(plan) != 1 or plan[0].type != "bind" or plan[0].target:
            raise
    return os.open(plan[0].source, _PLACE)


def _passing_root(plan: Sequence[Mount]) -> int:
    """Mount somewhere for a moment, open the root, and detach again: the descriptor keeps it alive."""
    place = os.path.join(_SCRATCH, f"graphdrivers-{os.urandom(8).hex()}")
    os.mkdir(place, 0o700)
    # As a detached mount has them, and from the first moment on.
    careful = [attrs.evolve(mount, options=(*mount.options, ("nosuid", None), ("nodev", None))) for mount in plan]
    try:
        attach(careful, place)
        try:
            if len(plan) == 1:
                return os.open(place, _PLACE)
            # To detach takes a tree of mounts apart; a copy of the tree stays together.
            return mountapi.open_tree(AT_FDCWD, place, mountapi.OPEN_TREE_CLONE | mountapi.AT_RECURSIVE)
        finally:
            detach(place, lazy=True)
    finally:
        os.rmdir(place)


def _detached(mount: Mount, attributes: int) -> int:
    """Give a detached mount as a descriptor, with at least these attributes."""
    if mount.readonly:
        attributes |= mountapi.MOUNT_ATTR_RDONLY
    settings = []
    for key, value in mount.options:
        if value is None and key in _ATTRIBUTES:
            attributes |= _ATTRIBUTES[key]
        else:
            settings.append((key, value))
    if fuse_mount.is_fuse(mount.type):
        return fuse_mount.detached(mount.type, mount.source, settings, attributes)
    if mount.type != "bind":
        return _detached_new(mount, settings, attributes)
    if settings:
        raise ValueError(f"a bind mount has no option {settings[0][0]!r}")
    return _detached_bind(mount.source, attributes)


def _detached_bind(source: str, attributes: int) -> int:
    mount_fd = mountapi.open_tree(AT_FDCWD, source, mountapi.OPEN_TREE_CLONE)
    try:
        if attributes:
            mountapi.mount_setattr(mount_fd, attributes)
    except BaseException:
        os.close(mount_fd)
        raise
    return mount_fd


def _detached_new(mount: Mount, settings: Sequence[tuple[str, str | None]], attributes: int) -> int:
    context = mountapi.fsopen(mount.type)
    try:
        if mount.source:
            mountapi.fsconfig_set_string(context, "source", c_string(mount.source))
        for (key, value), encoded in zip(settings, _encoded(settings), strict=True):
            if value is None:
                mountapi.fsconfig_set_flag(context, key)
            elif key in _LAYERS and (len(encoded) > mountapi.FSCONFIG_STRING_MAX or b"\\" in encoded):
                _set_layer_fd(context, key, encoded)
            else:
                mountapi.fsconfig_set_string(context, key, encoded)
        if mount.readonly and mount.type != "overlay":
            # A device may be read-only itself. An overlay without upper directory is so by nature. The option "ro" is
            # the mount's alone: of a file system that may be mounted writable too.
            mountapi.fsconfig_set_flag(context, "ro")
        mountapi.fsconfig_create(context)
        return mountapi.fsmount(context, attributes)
    finally:
        os.close(context)


def _encoded(settings: Sequence[tuple[str, str | None]]) -> list[bytes]:
    """Encode the values of options; empty for those without one. All at once: there are up to 500 layers.

    Raises:
        ValueError: one contains a NUL byte.
    """
    if not settings:
        return []
    found = os.fsencode("\0".join([value or "" for _, value in settings])).split(b"\0")
    if len(found) != len(settings):
        raise ValueError("embedded null byte")
    return found


def _set_layer_fd(context: int, key: str, value: bytes) -> None:
    """Name a directory by descriptor: its path is too long for a string, or has a backslash.

    Overlay undoes backslash escapes in ``upperdir`` and ``workdir``, but not in ``lowerdir+``.
    """
    directory = os.open(value, _PLACE)
    try:
        try:
            mountapi.fsconfig_set_fd(context, key, directory)
        except SyscallError as error:
            if error.errno != errno.EINVAL:
                raise
            # Linux 6.5 to 6.12: strings only. The mount table will show this one, not the path.
            mountapi.fsconfig_set_string(context, key, b"/proc/self/fd/%d" % directory)
    finally:
        os.close(directory)
