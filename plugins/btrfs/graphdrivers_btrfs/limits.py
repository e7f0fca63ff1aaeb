"""Limits on the size of layers, by the qgroups of their subvolumes.

Two limits are set. *Exclusive* is what no other subvolume shares: what a layer
takes beyond its parents, to the block. A snapshot of a live layer shares all of
that, and the count begins again at nothing; so the layer as a whole, *referenced*,
may be no larger than it began plus its size. With quotas of the simple kind both
count what was written in the layer; it then has a qgroup of a higher level too,
which subvolumes that are made inside of it join, so that they are no way out.

The limit binds root too. It ends with the layer's life as a writable one: what is
sealed cannot grow. The size stays on record, in a file of the layer's folder.
"""

import contextlib
import errno
import os
import struct

import attrs

from graphdrivers import errors
from graphdrivers.kit import layerdirs
from graphdrivers.kit.quotas import Refusal
from graphdrivers.linux import durable
from graphdrivers_btrfs import ioctls
from graphdrivers_btrfs.ioctls import MAX_EXCL, MAX_RFER, QUOTA_TREE, Key

_FILE = "limit"
"""In a layer's folder: the bytes of its size, and those that its subvolume referenced when it was made."""

_ON, _RESCAN, _INCONSISTENT, _SIMPLE = 1, 2, 4, 8
_NUMBERS = (1 << 48) - 1
"""The part of a qgroup's number that is its subvolume's; above it is the level."""
_LEVEL = 0x6764 << 48
"""Of our qgroups of a higher level: one that administrators hardly use."""
_STATUS = struct.Struct("<16xQ")
_USAGE = struct.Struct("<8xQ8xQ")
_FIRST = struct.Struct("<Q")
"""Generation of a qgroup's count, flags of its limit."""
_NONE = (1 << 64) - 1
_TRIAL = 8 << 20
_OVER = frozenset({errno.EDQUOT, errno.ENOSPC})


@attrs.frozen
class Usage:
    """What a qgroup has counted, in bytes, as of the last commit."""

    referenced: int
    exclusive: int


def obstacle(inside: int) -> Refusal | None:
    """Say what keeps limits from holding on the file system of an open file; ``None`` where nothing does."""
    try:
        flags = _flags(inside)
    except PermissionError:
        reason = "limits on the size of layers are set by root outside of user namespaces only"
        return Refusal(reason, "run as root, or ask for no size")
    if not flags & _ON:
        fix = "btrfs quota enable --simple ROOT (before Linux 6.7 without --simple)"
        return Refusal("quotas are off on this btrfs", fix)
    if flags & _RESCAN:
        return Refusal("btrfs is still counting what its subvolumes hold", "wait for: btrfs quota rescan -w ROOT")
    if flags & _INCONSISTENT:
        return Refusal("btrfs has lost count of what its subvolumes hold", "btrfs quota rescan -w ROOT")
    return None


def kind(inside: int) -> str:
    """Name the quotas that are on: ``simple`` or ``full``; empty where none are, or this user may not ask."""
    try:
        flags = _flags(inside)
    except OSError:
        return ""
    if not flags & _ON:
        return ""
    return "simple" if flags & _SIMPLE else "full"


def usage(inside: int, number: int) -> Usage | None:
    """Give what a subvolume holds; ``None`` without quotas."""
    try:
        found = _item(inside, Key(0, ioctls.QGROUP_INFO, number))
    except OSError:
        return None
    return None if found is None else Usage(*_USAGE.unpack_from(found))


def size_of(folder: str) -> int | None:
    """Give the size that the layer in a folder is limited to, if it is."""
    found = _read(folder)
    return None if found is None else found[0]


def limit(driver: str, folder: str, tree: str, size: int) -> None:
    """Limit a layer that was just made.

    Raises:
        NotSupported: limits do not hold (any more).
    """
    with layerdirs.directory(tree) as root:
        _refuse(driver, root)
        number = ioctls.describe(root).number
        began = usage(root, number)
        with layerdirs.directory(folder) as opened:
            text = f"{size} {began.referenced if began else 0}\n".encode()
            durable.write_atomic(opened, _FILE, text, durable=False)
    keep(driver, folder, tree)


def keep(driver: str, folder: str, tree: str) -> None:
    """See to it that the limit of a layer holds. Idempotent; nothing for one without limit.

    Raises:
        NotSupported: limits do not hold any more.
    """
    found = _read(folder)
    if found is None:
        return
    size, began = found
    with layerdirs.directory(tree) as root:
        _refuse(driver, root)
        ioctls.set_qgroup_limit(root, _made_group(root), {MAX_RFER: began + size, MAX_EXCL: size})


def lift(folder: str, tree: str) -> None:
    """Take the limit of a layer away. Idempotent; where quotas are off by now, there is none."""
    if _read(folder) is None:
        return
    with contextlib.suppress(OSError), layerdirs.directory(tree) as root:
        ioctls.set_qgroup_limit(root, _qgroup(root), {MAX_RFER: _NONE, MAX_EXCL: _NONE})


def forget(folder: str, tree: str) -> None:
    """Remove what limits a layer that is about to be deleted. Idempotent.

    The qgroup of the subvolume itself is removed by the kernel (6.11) or, where it lets us, here.
    """
    if not os.path.lexists(os.path.join(folder, _FILE)):
        return
    with contextlib.suppress(OSError), layerdirs.directory(tree) as root:
        number = ioctls.describe(root).number
        for one in (_LEVEL | number, number):
            with contextlib.suppress(OSError):
                ioctls.set_qgroup_limit(root, one, {MAX_RFER: _NONE, MAX_EXCL: _NONE})
            with contextlib.suppress(OSError):
                ioctls.remove_qgroup(root, one)


def sweep(inside: int) -> None:
    """Remove qgroups that layers left: ours of a higher level, and those of subvolumes that are gone. Idempotent.

    With simple quotas a qgroup is kept for as long as something is there that was written under it, a copy in another
    subvolume that shares the blocks too; when that goes, nobody removes it. With full ones kernels before 6.11 remove
    none. As newer ones do, what belongs to no layer of ours is removed too, if it counts nothing and limits nothing.
    Nothing is done by a user who may not.
    """
    with contextlib.suppress(OSError):
        above, plain = _groups(inside, _LEVEL), _groups(inside, 0)
        ours = {one for group in above for one in (group, *_members(inside, group)) if one in above or one in plain}
        idle = {one for one, counted in plain.items() if one >= ioctls.FIRST_INODE and counted == Usage(0, 0)}
        there = _subvolumes(inside) if ours or idle else set()
        for one in sorted(one for one in ours | idle if one & _NUMBERS not in there):  # members before their group
            if one in ours or not _is_limited(inside, one):
                with contextlib.suppress(OSError):  # it still counts something
                    ioctls.remove_qgroup(inside, one)


def _groups(inside: int, level: int) -> dict[int, Usage]:
    """Give the qgroups of a level, each with what it has counted.

    Those of the running transaction are left out: that of a new subvolume is there a moment before the subvolume.
    """
    running = ioctls.generation(inside)
    keys = Key(0, ioctls.QGROUP_INFO, level), Key(0, ioctls.QGROUP_INFO, level | _NUMBERS)
    return {
        key.offset: Usage(*_USAGE.unpack_from(content))
        for key, content in ioctls.search(inside, QUOTA_TREE, *keys)
        if _FIRST.unpack_from(content)[0] < running
    }


def _members(inside: int, group: int) -> list[int]:
    keys = Key(group, ioctls.QGROUP_RELATION, 0), Key(group, ioctls.QGROUP_RELATION, _NONE)
    return [key.offset for key, _ in ioctls.search(inside, QUOTA_TREE, *keys)]


def _subvolumes(inside: int) -> set[int]:
    """Give the numbers of all subvolumes, also of those that are deleted and not cleaned up yet."""
    keys = Key(ioctls.FIRST_INODE, ioctls.ROOT_ITEM, 0), Key(_NUMBERS, ioctls.ROOT_ITEM, _NONE)
    found = ioctls.search(inside, ioctls.ROOT_TREE, *keys)
    return {key.objectid for key, _ in found if key.type == ioctls.ROOT_ITEM}


def _is_limited(inside: int, number: int) -> bool:
    found = _item(inside, Key(0, ioctls.QGROUP_LIMIT, number))
    return found is not None and bool(_FIRST.unpack_from(found)[0])


def tried(folder: str) -> Refusal | None:
    """Find out, by passing a limit in a scratch folder, whether limits hold; ``None`` where they do."""
    with layerdirs.directory(folder) as opened:
        found = obstacle(opened)
        if found is not None:
            return found
        ioctls.make_subvolume(opened, b"limited")
        tree = os.path.join(folder, "limited")
        try:
            with layerdirs.directory(tree) as root:
                number = ioctls.describe(root).number
                ioctls.set_qgroup_limit(root, number, {MAX_RFER: _TRIAL, MAX_EXCL: _TRIAL})
                held = _is_held(root)
        finally:
            ioctls.destroy(opened, b"limited")
    return (
        None if held else Refusal("this kernel lets a subvolume grow past the limit of its qgroup", "ask for no size")
    )


def _is_held(root: int) -> bool:
    fd = os.open("large", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=root)
    try:
        os.posix_fallocate(fd, 0, 4 * _TRIAL)
    except OSError as error:
        if error.errno == errno.EDQUOT:
            return True
        raise
    finally:
        os.close(fd)
    return False


def _refuse(driver: str, root: int) -> None:
    found = obstacle(root)
    if found is not None:
        raise found.error(driver)


def _flags(inside: int) -> int:
    """Give the state of the quotas; 0 where there are none."""
    try:
        status = _item(inside, Key(0, ioctls.QGROUP_STATUS, 0))
    except FileNotFoundError:
        return 0
    return 0 if status is None else int(_STATUS.unpack_from(status)[0])


def _made_group(root: int) -> int:
    """Give the qgroup that is to carry a layer's limit; one of a higher level goes when quotas are switched off."""
    number = ioctls.describe(root).number
    if not _flags(root) & _SIMPLE:
        return number
    if _item(root, Key(0, ioctls.QGROUP_INFO, _LEVEL | number)) is None:
        ioctls.make_qgroup(root, _LEVEL | number, number)
    return _LEVEL | number


def _qgroup(root: int) -> int:
    """Give the qgroup that carries a layer's limit."""
    number = ioctls.describe(root).number
    above = _item(root, Key(0, ioctls.QGROUP_INFO, _LEVEL | number))
    return number if above is None else _LEVEL | number


def _item(inside: int, key: Key) -> bytes | None:
    for _, content in ioctls.search(inside, QUOTA_TREE, key, key):
        return bytes(content)
    return None


def _read(folder: str) -> tuple[int, int] | None:
    try:
        with open(os.path.join(folder, _FILE), "rb") as file:
            text = file.read()
    except FileNotFoundError:
        return None
    words = text.split()
    if len(words) != 2 or not all(word.isdigit() for word in words):
        raise errors.StoreCorrupt(folder, f"the size of its limit is {text!r}")
    return int(words[0]), int(words[1])
