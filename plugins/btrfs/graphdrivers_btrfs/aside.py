"""Names reserved for whiteouts, put aside out of a subvolume: no rename leads out of one, so they are copied."""

import os

from graphdrivers.kit import layerdirs, reserved
from graphdrivers.linux import copying, trees
from graphdrivers_btrfs import subvolumes

_SHELF = ".wh..graphdrivers-aside-"


def put_aside(tree: str, shelf: str) -> tuple[str, ...]:
    """Move every entry with a reserved name from a subvolume to a new folder in ``shelf``.

    First all are moved within the subvolume, then copied out of it. A killed process leaves each of them in the tree,
    where the next one finds it, or in both places.

    Returns:
        The paths that they had, absolute inside the tree.
    """
    name = _SHELF + os.urandom(8).hex()
    with layerdirs.directory(tree) as root, subvolumes.times_kept(root):
        moved = reserved.put_aside(tree, os.path.join(tree, name))
        if not moved:
            return ()
        with subvolumes.opened(root, name.encode()) as inside:
            found = _without_unfinished(inside)
            if found:
                _copy(inside, shelf)
        trees.remove_tree(root, name.encode())
    return tuple(path for path in moved if not os.path.basename(path).startswith(subvolumes.UNFINISHED.decode()))


def _without_unfinished(inside: int) -> bool:
    """Delete what `subvolumes.flatten` left when it was killed; say whether there is more."""
    left = False
    for number in os.listdir(inside):
        with subvolumes.opened(inside, number.encode()) as place:
            for name in map(os.fsencode, os.listdir(place)):
                if name.startswith(subvolumes.UNFINISHED):
                    trees.remove_tree(place, name)
                else:
                    left = True
    return left


def _copy(inside: int, shelf: str) -> None:
    os.makedirs(shelf, mode=0o700, exist_ok=True)
    place = os.path.join(shelf, f"{len(os.listdir(shelf)):04}")
    os.mkdir(place, 0o700)
    with layerdirs.directory(place) as target:
        copying.copy_tree(inside, target)
