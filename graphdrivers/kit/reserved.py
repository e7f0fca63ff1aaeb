"""Names beginning with ``.wh.`` that somebody made inside a mount: put aside, because in a layer they mean deletions.

Left where they are they could not be told from whiteouts once the layer is a
tar. They are moved out of the tree, not deleted.
"""

import contextlib
import os
import stat
from collections.abc import Iterator

from graphdrivers.archive.whiteouts import PREFIX
from graphdrivers.linux import trees

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def is_any_in(tree: str) -> bool:
    """Say whether there is such an entry in a tree. Nothing is changed: the tree may be mounted."""
    if not os.listdir(tree):  # what many mounts leave
        return False
    root = os.open(tree, _DIRECTORY)
    try:
        return any(True for _ in found(root))
    finally:
        os.close(root)


def put_aside(tree: str, shelf: str) -> tuple[str, ...]:
    """Move every such entry of ``tree`` to ``shelf/NUMBER/``, which is on the same file system.

    The times of the directories that held them are kept. A killed process
    leaves each entry in one of the two places.

    Returns:
        The paths that they had, absolute inside the tree.
    """
    moved: list[str] = []
    root = os.open(tree, _DIRECTORY)
    try:
        for path, stack, name in found(root):
            if not moved:
                os.makedirs(shelf, mode=0o700, exist_ok=True)
            _move(stack.fd, name, shelf)
            moved.append("/" + os.fsdecode(path))
    finally:
        os.close(root)
    return tuple(moved)


def _move(directory: int, name: bytes, shelf: str) -> None:
    before = os.fstat(directory)
    place = os.path.join(shelf, f"{len(os.listdir(shelf)):04}")
    os.mkdir(place, 0o700)
    target = os.path.join(os.fsencode(place), name)
    try:
        os.rename(name, target, src_dir_fd=directory)
    except PermissionError:  # without privileges, the caller may lack write permission to its own directories
        with _writable(directory, name):
            os.rename(name, target, src_dir_fd=directory)
    os.utime(directory, ns=(before.st_atime_ns, before.st_mtime_ns))


@contextlib.contextmanager
def _writable(directory: int, name: bytes) -> Iterator[None]:
    """Allow the owner to move ``name`` out of a directory; a directory that moves needs the permission itself."""
    mode = stat.S_IMODE(os.fstat(directory).st_mode)
    os.fchmod(directory, mode | stat.S_IRWXU)
    try:
        if stat.S_ISDIR(os.lstat(name, dir_fd=directory).st_mode):
            os.chmod(name, stat.S_IRWXU, dir_fd=directory)
        yield
    finally:
        os.fchmod(directory, mode)


def found(root: int) -> Iterator[tuple[bytes, trees.DirStack, bytes]]:
    """Give path, directory and name of each reserved entry; nothing below one is looked at."""
    with trees.DirStack(root) as stack:
        for inside in stack.visit():
            with os.scandir(stack.fd) as entries:
                listed = [(os.fsencode(entry.name), entry.is_dir(follow_symlinks=False)) for entry in entries]
            for name, _ in listed:
                if name.startswith(PREFIX):
                    yield stack.path(name), stack, name
            inside += [name for name, is_directory in listed if is_directory and not name.startswith(PREFIX)]
