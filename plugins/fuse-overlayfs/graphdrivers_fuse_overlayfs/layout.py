"""Folders and mount plans: which directories of which layers, in which order.

A layer's folder holds ``diff`` (its own content, the upper directory while it
is writable), while it is mounted ``work`` (scratch space of fuse-overlayfs), and
``served``, on which each program that serves a mount of the layer has a lock.

These are pure functions of paths; nothing here touches the disk.
"""

import os
from collections.abc import Sequence

from graphdrivers.kit import uppers
from graphdrivers.kit.layerdirs import label
from graphdrivers.model import Mount
from graphdrivers_fuse_overlayfs.options import TYPE, Settings

DIFF = uppers.DIFF
WORK = "work"
SERVED = "served"

MAX_DEPTH = 500
"""Layers in one stack: as many as kernel overlayfs merges, so that a home could be mounted by either.

fuse-overlayfs itself is bound by nothing but open files, one for each layer.
"""


def writable(folder: str, lowers: Sequence[str], settings: Settings) -> tuple[Mount, ...]:
    """Plan the read-write mount of a layer.

    Args:
        folder: the layer's own folder; it labels the mount, so that it can be found.
        lowers: folders of its ancestors, nearest first.
        settings: how this home mounts.
    """
    diff = os.path.join(folder, DIFF)
    if not lowers:
        return (Mount("bind", diff),)
    own = (("upperdir", diff), ("workdir", os.path.join(folder, WORK)))
    return (Mount(TYPE, label(folder), (*_lower_options(lowers), *own, *_others(folder, settings))),)


def view(folder: str, lowers: Sequence[str], settings: Settings) -> tuple[Mount, ...]:
    """Plan the read-only mount of a layer with its ancestors; arguments as for `writable`."""
    if not lowers:
        return (Mount("bind", os.path.join(folder, DIFF), readonly=True),)
    options = (*_lower_options([folder, *lowers]), *_others(folder, settings))
    return (Mount(TYPE, label(folder), options, readonly=True),)


def _lower_options(folders: Sequence[str]) -> tuple[tuple[str, str | None], ...]:
    return tuple(("lowerdir+", os.path.join(folder, DIFF)) for folder in folders)


def _others(folder: str, settings: Settings) -> tuple[tuple[str, str | None], ...]:
    return (("lock", os.path.join(folder, SERVED)), *settings.mount_options())
