"""Folders that nobody but their owner may change: what is in a store must not be put there by somebody else."""

import errno
import os
import stat

from graphdrivers import errors

_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


def make_private(root: str, folder: str) -> None:
    """Make a directory that only its owner enters, whatever the umask; one that is there is looked at. Idempotent.

    Args:
        root: of the store, for messages.
        folder: its absolute path, without symbolic links.

    Raises:
        UnsafeStore: see `refuse_shared`.
    """
    try:
        os.makedirs(folder, mode=0o700)
    except FileExistsError:
        refuse_shared(root, folder)
    else:
        os.chmod(folder, 0o700)


def refuse_shared(root: str, folder: str) -> None:
    """Refuse a directory in which other users could put something of theirs in the place of ours.

    It has to belong to who we are, root too: in a folder of somebody else's
    whatever root makes, unpacks or removes could be led elsewhere by links. Its
    mode is never changed: it may be a folder that others need (``/tmp``).

    Raises:
        UnsafeStore: it belongs to another user, others may write to it, or it is a symbolic link.
        OSError: it is missing, or no directory.
    """
    facts = os.lstat(folder)
    if stat.S_ISLNK(facts.st_mode):
        raise errors.UnsafeStore(root, f"{folder!r} is a symbolic link")
    if not stat.S_ISDIR(facts.st_mode):
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), folder)
    if facts.st_uid != os.geteuid():
        raise errors.UnsafeStore(root, f"{folder!r} belongs to user {facts.st_uid}, and this is user {os.geteuid()}")
    if facts.st_mode & _OTHERS_WRITE:
        raise errors.UnsafeStore(root, f"other users may write to {folder!r}")
