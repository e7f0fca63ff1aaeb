"""The layer between an image and a container: what runtimes mount on, where the image lacks it.

A runtime that finds no ``/etc/hosts`` or ``/dev/pts`` makes one, in the
container's own layer, where it looks like a change of the user's and is
committed with it; and on a read-only root it cannot. So these names are there
before: as empty files and directories, in a layer of their own.

The names are Docker's, without ``/.dockerenv``. Unlike Docker's, this layer
never replaces what the image has, whatever it is.
"""

import errno
import io
import os
from collections.abc import Iterable, Iterator, Sequence

from graphdrivers import errors
from graphdrivers.archive.entries import DIRECTORY, REGULAR, SYMLINK
from graphdrivers.archive.whiteouts import PREFIX
from graphdrivers.archive.writer import TarWriter
from graphdrivers.images.run_options import path_problem
from graphdrivers.linux import resolve

_DIRECTORIES = (b"dev", b"dev/pts", b"dev/shm", b"etc", b"proc", b"sys")
_FILES = (b"dev/console", b"etc/hostname", b"etc/hosts", b"etc/resolv.conf")
_LINKS = {b"etc/mtab": b"/proc/mounts"}
_MODES = {DIRECTORY: 0o755, REGULAR: 0o644, SYMLINK: 0o777}

_PLACE = os.O_PATH | os.O_CLOEXEC
_NOT_THERE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG})
"""It is absent, or something on the way to it is no directory."""

Member = tuple[bytes, bytes]
"""Name, without a slash at its end, and type flag of a member."""


def init_tar(root: int, directories: Sequence[str] = ()) -> bytes:
    """Make the layer for an image: an uncompressed tar with what the image lacks, and nothing else.

    Depends on the image and ``directories`` alone, not on the time or the
    caller, so it can be made once per image. A name is looked for as a process
    inside would look (links on the way are followed, inside the root). Where a
    file, or a link that leads nowhere, stands in the place of a directory, what
    would be below it is left out.

    Args:
        root: descriptor of the root directory of the image's merged tree.
        directories: more directories to make with their parents, absolute (a ``WorkingDir``); like all of them
            they belong to root, with mode 0755.

    Raises:
        InvalidRunOption: one of ``directories`` is no plain absolute path, or has a name that means a deletion.
        OSError: the tree could not be read.
    """
    tar = io.BytesIO()
    writer = TarWriter(tar.write)
    for name, kind in sorted(_members(root, directories)):
        shown = name + b"/" if kind == DIRECTORY else name
        writer.header(shown, kind, (_MODES[kind], 0, 0), 0, 0, linkname=_LINKS.get(name, b""))
    writer.close()
    return tar.getvalue()


def _members(root: int, directories: Iterable[str]) -> Iterator[Member]:
    """Give what is lacking, each directory before what is in it."""
    made: dict[bytes, bytes] = {}
    wanted = [(name, DIRECTORY) for name in _DIRECTORIES]
    wanted += [(name, REGULAR) for name in _FILES] + [(name, SYMLINK) for name in _LINKS]
    wanted += [(name, DIRECTORY) for path in directories for name in _with_parents(path)]
    for name, kind in wanted:
        if name not in made and _lacks(root, name) and _can_hold(root, name.rpartition(b"/")[0], made):
            made[name] = kind
            yield name, kind


def _lacks(root: int, name: bytes) -> bool:
    """Tell whether nothing has the name, not even a link that leads nowhere."""
    return not _there(root, name, _PLACE | os.O_NOFOLLOW)


def _can_hold(root: int, directory: bytes, made: dict[bytes, bytes]) -> bool:
    """Tell whether a directory is there, or is going to be."""
    if directory in made:
        return made[directory] == DIRECTORY
    return not directory or _there(root, directory, _PLACE | os.O_DIRECTORY)


def _there(root: int, name: bytes, flags: int) -> bool:
    """Tell whether a path leads to something that can be opened so."""
    try:
        os.close(resolve.open_in_root(root, name, flags))
    except OSError as error:
        if error.errno not in _NOT_THERE:
            raise
        return False
    return True


def _with_parents(path: str) -> list[bytes]:
    """Give a directory's parents, topmost first, and itself."""
    if reason := path_problem(path):
        raise errors.InvalidRunOption("directory", f"{path!r} {reason}")
    parts = [part for part in os.fsencode(path).split(b"/") if part not in {b"", b"."}]
    if any(part.startswith(PREFIX) for part in parts):
        raise errors.InvalidRunOption("directory", f"{path!r} has a name that means a deletion in layers")
    return [b"/".join(parts[: end + 1]) for end in range(len(parts))]
