"""Limits on the size of layers, by the project quotas of xfs and ext4.

A layer with a limit has a project of its own. Its number is that of the layer's
folder, which no container sees; the trees in the folder carry it too, and hand
it down to what is made in them. The file ``limit`` in the folder says how many
bytes the project may take. The folder itself hands nothing down, so our own
files beside the trees never meet the limit.

Project numbers are taken from a range of our own, and nobody keeps a list of
them: a number is free when no inode has it and no limit is set for it, and it
is ours when, after the folder got it, the folder is the only inode that has it.
So processes, homes and containers on one file system agree through the file
system itself, whatever lock they do not share, and a crash leaves none behind:
a folder that is found is all that there is to know. The limit is taken away
before the folder is deleted.
"""

import contextlib
import errno
import os
import secrets
from collections.abc import Callable, Iterator

import attrs

from graphdrivers import errors
from graphdrivers.linux import capabilities, durable, filesystems, namespaces, quota
from graphdrivers.linux.quota import Project

FIRST = 0x67640000
"""The first of our project numbers."""

_SPAN = 1 << 24
"""How many numbers are ours."""
_FEW = 64
"""The range that is tried first; close numbers keep the kernel's own records small."""
_TRIES = 4

NO_LIMIT = 1 << 60
"""Bytes; more than any file system has."""

LIMIT = "limit"
"""Name of the file in a layer's folder."""

TRIAL = "layer"
"""Name of the folder of a trial, and of a layer in the making: both are swept alike."""

_SPARE = 256
"""Blocks that must be free for a mount: xfs makes a directory only where as many as 152 could be taken for it."""
_MOUNTS = 16
"""How often a full layer can be mounted again without anything being deleted from it."""

_OVER = frozenset({errno.EDQUOT, errno.ENOSPC})
_SWITCH_ON = {
    "xfs": "mount it with -o prjquota",
    "ext4": "unmounted: tune2fs -O project -Q prjquota DEVICE; then mount it with -o prjquota",
}


Use = Callable[[str, str], contextlib.AbstractContextManager[int]]
"""Opens the writable tree of a layer as a driver lets it be written to.

It is given the layer's folder, and an empty directory in it that has a limit.
"""


@attrs.frozen
class Refusal:
    """Why the size of layers cannot be limited here, and what to do about it."""

    reason: str
    fix: str

    def error(self, driver: str) -> "errors.NotSupported":
        """Give it as an error."""
        return errors.NotSupported(driver, self.reason, self.fix)


def check(driver: str, size: int | None, *, claimed: bool, tried: Callable[[], Refusal | None]) -> None:
    """Refuse a size that cannot be enforced, saying why.

    Args:
        driver: which driver is asked.
        size: what is asked for.
        claimed: whether the driver's probe found that it can.
        tried: finds the reason where it cannot.

    Raises:
        NotSupported: it cannot, or the size is none.
    """
    if size is None:
        return
    if size <= 0:
        raise errors.NotSupported(driver, f"{size} bytes are no size of a layer", "ask for one byte or more")
    if not claimed:
        again = Refusal("sizes could not be limited when the home was opened, and can be now", "open it again")
        raise (tried() or again).error(driver)


def refused(driver: str, folder: str, use: Use) -> Refusal | None:
    """Find out, by passing a limit, whether limits hold; ``None`` where they do.

    Args:
        driver: which driver is to have them.
        folder: a scratch folder on the file system of the home.
        use: how the driver lets a layer be written to.
    """
    obstacle = _obstacle(folder)
    if obstacle:
        return obstacle
    try:
        held = _tried(driver, folder, use)
    except errors.NotSupported as error:
        return Refusal(error.reason, error.advice)
    except OSError as error:
        if error.errno in _OVER:  # for want of room on the disk
            raise
        return Refusal(f"a limit could not be tried on {filesystems.fs_type(folder)} ({error})", "ask for no size")
    if held:
        return None
    reason = f"{filesystems.fs_type(folder)} holds no limit against a process with the capability CAP_SYS_RESOURCE"
    return Refusal(reason, "run without this capability, use driver overlay, or put --root on xfs")


def limit(driver: str, layer: str, size: int, *trees: str) -> None:
    """Give a layer's folder a project, and limit what its trees take.

    Args:
        driver: whose layer it is.
        layer: the folder, which is not in use yet; it may be covered already.
        size: in bytes.
        trees: empty directories, which get content of the layer from now on.

    Raises:
        NotSupported: there are no project quotas (any more).
    """
    with _explained(driver, layer):
        _set_size(layer, size)
        if not _is_ours(quota.project_of(layer).number):
            _take_number(layer)
        quota.set_limit(layer, quota.project_of(layer).number, size)
    keep(driver, layer, *trees)


def cover(driver: str, layer: str, tree: str) -> None:
    """Count what a tree will take, without limiting it yet; arguments as for `limit`."""
    limit(driver, layer, NO_LIMIT, tree)


def is_limited(layer: str) -> bool:
    """Say whether the layer of this folder has a limit."""
    return os.path.lexists(os.path.join(layer, LIMIT))


def keep(driver: str, layer: str, *trees: str, room: bool = False) -> None:
    """See to it that the limit of a layer holds, and covers its trees. Idempotent; nothing for one without limit.

    A limit that was made larger by other means stays so.

    Args:
        driver: whose layer it is.
        layer: its folder.
        trees: the directories with its content.
        room: what is mounted has to make directories: leave room for them in a full layer, a few times.

    Raises:
        OSError: ``EDQUOT``, the layer was mounted full too often.
        NotSupported: there are no project quotas any more, or the layer was copied from another file system.
        StoreCorrupt: the size cannot be what was recorded.
    """
    if not is_limited(layer):
        return
    size = _size(layer)
    with _explained(driver, layer):
        number = quota.project_of(layer).number
        if not _is_ours(number):
            reason = f"the limit of layer {os.path.basename(layer)!r} was lost: its folder was copied here"
            raise errors.NotSupported(driver, reason, "make the layer anew from its diff")
        wanted = Project(number, inherited=True)
        for tree in trees:
            if quota.project_of(tree) != wanted:
                quota.set_project(tree, wanted)
        found = quota.quota_of(layer, number)
        spare = _spare(layer) if room else 0
        wanted_limit = max(size, min(found.used + spare, size + _MOUNTS * spare))
        if found.limit < wanted_limit:
            quota.set_limit(layer, number, wanted_limit)
    if room and found.used + spare > max(found.limit, wanted_limit):
        raise OSError(errno.EDQUOT, "the layer is too full to be mounted; its diff can be read", layer)


@contextlib.contextmanager
def kept(driver: str, layer: str, tree: str) -> Iterator[None]:
    """Keep to the limit of a layer ourselves, for the time of a block that writes to its tree; see `keep`."""
    if not is_limited(layer):
        yield
        return
    keep(driver, layer, tree)
    with capabilities.bound_by_limits():
        yield


def used(layer: str) -> int:
    """Give the bytes that a layer with a limit takes on disk."""
    return quota.quota_of(layer, quota.project_of(layer).number).used


def release(layer: str) -> None:
    """Take the limit away until the next `keep`: from a layer that is about to be deleted, or that we write to.

    Idempotent. A layer without limit is left alone.
    """
    if not is_limited(layer):
        return
    # Where quotas are off by now nothing is held; that must keep nobody from deleting a layer.
    with contextlib.suppress(OSError):
        number = quota.project_of(layer).number
        if _is_ours(number):
            quota.set_limit(layer, number, 0)


def _obstacle(folder: str) -> Refusal | None:
    """Look for what keeps limits from being set at all."""
    if not namespaces.in_initial_user_namespace() or not namespaces.has_capability("CAP_SYS_ADMIN"):
        return Refusal("limits on the size of layers are set by root outside of user namespaces only", "run as root")
    fs_type = filesystems.fs_type(folder)
    try:
        project = quota.project_of(folder)
    except OSError:
        return Refusal(f"{fs_type} has no project quotas", "put --root on xfs or ext4")
    try:
        enforced = quota.is_enforced(folder)
    except OSError as error:
        return Refusal(f"the kernel cannot be asked about project quotas ({error})", "permit quotactl to this process")
    if not enforced:
        fix = _SWITCH_ON.get(fs_type, "put --root on xfs or ext4, mounted with -o prjquota")
        return Refusal(f"project quotas of {fs_type} below {os.path.dirname(folder)!r} are not switched on", fix)
    if project.inherited:
        reason = f"the home is in project {project.number}, which layers with limits of their own would leave"
        return Refusal(reason, "choose a --root in no project")
    return None


@contextlib.contextmanager
def _explained(driver: str, layer: str) -> Iterator[None]:
    """Say, where quotas were switched off since the home was opened, that this is it."""
    try:
        yield
    except OSError as error:
        obstacle = _obstacle(layer)
        if obstacle is None:
            raise
        raise obstacle.error(driver) from error


def _tried(driver: str, folder: str, use: Use) -> bool:
    """Make a layer with a limit, and say whether it takes no more."""
    layer = os.path.join(folder, TRIAL)
    tree = os.path.join(layer, "tree")
    os.makedirs(tree)
    try:
        limit(driver, layer, 2 * _spare(folder), tree)
        with use(layer, tree) as root:
            return _is_held(root, 8 * _spare(folder))
    finally:
        release(layer)


def _is_held(root: int, size: int) -> bool:
    """Ask for more room than there may be. No byte is written: a full xfs would flush all files of everybody."""
    fd = os.open("large", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=root)
    try:
        os.posix_fallocate(fd, 0, size)
    except OSError as error:
        if error.errno in _OVER:
            return True
        raise
    finally:
        os.close(fd)
    return False


def _spare(folder: str) -> int:
    return _SPARE * os.statvfs(folder).f_frsize


def _take_number(layer: str) -> int:
    """Put a folder into a project that nothing else is in."""
    span = _FEW
    while span <= _SPAN:
        for _ in range(_TRIES):
            number = FIRST + secrets.randbelow(span)
            if quota.quota_of(layer, number) != quota.Quota():
                continue
            quota.set_project(layer, Project(number))
            found = quota.quota_of(layer, number)
            if found.inodes == 1 and not found.limit:
                return number
            # Somebody took it in the same moment. Both may give it back; the next try differs.
            quota.set_project(layer, Project())
        span *= 2
    raise OSError(errno.EUSERS, "all project numbers for layers seem to be taken", layer)


def _is_ours(number: int) -> bool:
    return FIRST <= number < FIRST + _SPAN


def _set_size(layer: str, size: int) -> None:
    fd = os.open(layer, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        durable.write_atomic(fd, LIMIT, f"{size}\n".encode(), durable=False)
    finally:
        os.close(fd)


def _size(layer: str) -> int:
    with open(os.path.join(layer, LIMIT), "rb") as file:
        text = file.read()
    if not text.strip().isdigit() or not int(text):
        raise errors.StoreCorrupt(layer, f"the size of its limit is {text!r}")
    return int(text)
