"""Limits on the size of single layers, by the project quota of xfs: the layer's whole tree is in one project.

Every layer is a file system of its own, so that one project number serves them
all. It is given to the root of the base device, and handed down from there to
all that is ever made in a layer, so what a layer's parents take is known when
its snapshot is made: the limit is that, and the size that was asked for. A
snapshot has the quotas of its origin too; of a limited one the limit is taken
away again. The file ``size`` in a layer's folder says that there is one.

ext4 has project quotas that do not bind a process with ``CAP_SYS_RESOURCE``.
"""

import os

from graphdrivers.kit import quotas
from graphdrivers.linux import quota
from graphdrivers.linux.quota import Project

REFUSAL = quotas.Refusal(
    "ext4 holds no limit against a process with the capability CAP_SYS_RESOURCE, and a thin device is as large as its "
    "parent's",
    "make the home with fs=xfs, or ask for no size",
)

_FILE = "size"
_PROJECT = 1


def begin(root: int) -> None:
    """Put the root of an empty file system into the project."""
    quota.set_project(_path(root), Project(_PROJECT, inherited=True))


def are_enforced(root: int) -> bool:
    """Say whether a mounted file system holds to limits."""
    return quota.is_enforced(_path(root))


def limit(root: int, folder: str, size: int) -> None:
    """Let a layer, which has only its parents' content yet, take so many bytes beyond that.

    Args:
        root: of its mounted tree.
        folder: of the layer.
        size: in bytes; the kernel rounds up to a block.
    """
    quota.set_limit(_path(root), _PROJECT, quota.quota_of(_path(root), _PROJECT).used + size)
    with open(os.path.join(folder, _FILE), "x", encoding="ascii") as file:
        file.write(f"{size}\n")


def lift(root: int) -> None:
    """Take the limit away that a snapshot has from its origin. Idempotent."""
    quota.set_limit(_path(root), _PROJECT, 0)


def is_limited(folder: str) -> bool:
    """Say whether the layer of a folder has a limit."""
    return os.path.lexists(os.path.join(folder, _FILE))


def _path(root: int) -> str:
    return f"/proc/self/fd/{root}/."
