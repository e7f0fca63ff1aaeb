"""The kernel's caches before a cold read: emptied where this user may, else only what can be let go of."""

import os

from graphdrivers.linux import filesystems

_DROP = "/proc/sys/vm/drop_caches"
_ALL = b"3\n"
"""Pages, directory entries and inodes. Source: the kernel's ``Documentation/admin-guide/sysctl/vm.rst``."""

_IN_MEMORY = frozenset({"tmpfs", "ramfs"})


def kept_in_memory(folder: str) -> str:
    """Say why nothing below ``folder`` can be cold; empty where it can."""
    kind = filesystems.fs_type(folder)
    return f"files on {kind} are always in memory" if kind in _IN_MEMORY else ""


def how() -> str:
    """Say how caches are made cold here."""
    if os.access(_DROP, os.W_OK):
        return f"written out, then 3 to {_DROP}"
    return "written out, then posix_fadvise(POSIX_FADV_DONTNEED) on each file; directories stay in memory"


def make_cold(*trees: str) -> None:
    """Let the kernel forget what it holds of the files below some directories, as far as this user may."""
    for tree in trees:
        _evict(tree)
    try:
        descriptor = os.open(_DROP, os.O_WRONLY | os.O_CLOEXEC)
    except PermissionError:
        return
    try:
        os.write(descriptor, _ALL)
    finally:
        os.close(descriptor)


def _evict(tree: str) -> None:
    """Write what is dirty, which could not be forgotten, and let go of the pages."""
    for folder, _folders, names in os.walk(tree):
        for name in names:
            try:
                descriptor = os.open(
                    os.path.join(folder, name), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
                )
            except OSError:  # a link, a socket, a file that this user may not read: it was not read before either
                continue
            try:
                os.fdatasync(descriptor)
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            finally:
                os.close(descriptor)
