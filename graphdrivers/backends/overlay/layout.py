"""Mount plans of the overlay driver: which directories of which layers, in which order.

A layer's folder holds ``diff`` (its own content, the upper directory while it
is writable) and, from its first mount until it is sealed, ``work`` (the kernel's
scratch space, which each mount clears). In
a base layer's folder an empty file ``escapes`` says that it may hold xattrs
that only an overlay mount shows right: it is mounted over ``HOME/nothing``.

These are pure functions of paths; nothing here touches the disk.
"""

from collections.abc import Sequence

from graphdrivers.backends.overlay.options import Settings
from graphdrivers.kit import uppers
from graphdrivers.kit.layerdirs import label
from graphdrivers.model import Mount

DIFF = uppers.DIFF
WORK = "work"

MAX_DEPTH = 500
"""Layers in one stack. The kernel takes 500 lower directories; a view of a sealed
stack has all its layers as lowers, so a layer number 501 could never be viewed.

Source: kernel, fs/overlayfs/params.h (``OVL_MAX_STACK``).
"""


def writable(folder: str, lowers: Sequence[str], settings: Settings) -> tuple[Mount, ...]:
    """Plan the read-write mount of a layer.

    Args:
        folder: the layer's own folder; it labels the mount, so that it can be found.
        lowers: folders of its ancestors, nearest first.
        settings: how this home mounts.
    """
    diff = f"{folder}/{DIFF}"
    if not lowers:
        return (Mount("bind", diff),)
    own = (("upperdir", diff), ("workdir", f"{folder}/{WORK}"))
    return (Mount("overlay", label(folder), (*_lower_options(lowers), *own, *settings.mount_options())),)


def view(folder: str, lowers: Sequence[str], settings: Settings) -> tuple[Mount, ...]:
    """Plan the read-only mount of a layer with its ancestors; arguments as for `writable`."""
    if not lowers:
        return (Mount("bind", f"{folder}/{DIFF}", readonly=True),)
    options = (*_lower_options([folder, *lowers]), *settings.mount_options())
    return (Mount("overlay", label(folder), options, readonly=True),)


def _lower_options(folders: Sequence[str]) -> tuple[tuple[str, str | None], ...]:
    return tuple([("lowerdir+", f"{folder}/{DIFF}") for folder in folders])
