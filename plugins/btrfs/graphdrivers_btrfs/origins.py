"""What a layer began as: the record that tells later which files it has changed.

A snapshot keeps inode numbers, and each inode knows the transaction that last
changed it. What is newer than the transaction that made the snapshot is what the
layer changed. This holds only for the very subvolumes that were there then, and
only while nobody has changed the parent: both are checked by what the kernel
says about them, so a home that was copied is compared the slow way.
"""

import json
import os

import attrs

from graphdrivers_btrfs import ioctls

_FILE = "origin"


@attrs.frozen
class Origin:
    """The moment in which a layer was its parent."""

    uuid: str
    """Of the layer's subvolume."""
    parent: str
    """UUID of the parent's subvolume."""
    transaction: int
    """The one that made the layer, or the layer that it is a snapshot of."""
    time: int
    """When that was, in ns."""


def keep(folder: str, parent: ioctls.Subvolume, own: ioctls.Subvolume) -> None:
    """Write down in a layer's folder that its subvolume is a snapshot of its parent's."""
    _write(folder, Origin(own.uuid, parent.uuid, own.made, own.made_ns))


def inherit(source: str, folder: str, own: ioctls.Subvolume) -> None:
    """Write down that a subvolume is a snapshot of the layer in the folder ``source``, and changes what that does."""
    found = _read(source)
    if found is not None:
        _write(folder, attrs.evolve(found, uuid=own.uuid))


def of(folder: str, parent: ioctls.Subvolume, own: ioctls.Subvolume) -> Origin | None:
    """Give the record in a layer's folder; ``None`` where there is none that holds."""
    found = _read(folder)
    if found is None or (found.uuid, found.parent) != (own.uuid, parent.uuid):
        return None
    return found if parent.changed <= found.transaction else None


def _write(folder: str, origin: Origin) -> None:
    with open(os.path.join(folder, _FILE), "x", encoding="ascii") as file:  # the folder is nobody's layer yet
        file.write(json.dumps(attrs.asdict(origin)))


def _read(folder: str) -> Origin | None:
    try:
        with open(os.path.join(folder, _FILE), "rb") as file:
            return Origin(**json.load(file))
    except (FileNotFoundError, ValueError, TypeError):  # none, or torn by a power cut: the slow way is always right
        return None
