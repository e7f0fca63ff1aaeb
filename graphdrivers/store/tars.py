"""The tars of layers: the identical one that a layer was imported as, verified while it is read."""

import contextlib
import errno
import os
import stat
from collections.abc import Generator
from typing import TYPE_CHECKING, BinaryIO, cast

from graphdrivers import archive, errors
from graphdrivers.linux import mounts, resolve
from graphdrivers.store.ledger import Layer
from graphdrivers.store.site import Site

if TYPE_CHECKING:
    from graphdrivers.archive.restore import Damages, OpenFile
    from graphdrivers.archive.union import Union

_CHUNK = 1 << 20
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def open_tar(site: Site, layer: Layer, damages: "Damages | None" = None) -> BinaryIO:
    """Open the uncompressed tar that a layer was made of, to the byte; the caller closes it.

    Reading to the end verifies the DiffID, and on the way each file's checksum.
    From any thread; the layer has to stay meanwhile.

    Args:
        site: the store.
        layer: of an image.
        damages: told of each damaged file; then reading goes on behind it, and the DiffID is left to the caller.

    Raises:
        StoreCorrupt: the layer's header record is missing, or it is no layer of an image.

    Raises (while reading):
        ArchiveError: a file of the layer is damaged; it is named.
        DigestMismatch: at the end, the tar is not the one that was imported.
    """
    if layer.diff_id is None or layer.tar_size is None:
        raise errors.StoreCorrupt(site.root, f"layer {layer.name!r} was not made of a tar")
    with contextlib.ExitStack() as stack:
        try:
            record = stack.enter_context(open(site.record_path(layer.name), "rb"))
        except FileNotFoundError:
            raise errors.StoreCorrupt(site.root, f"layer {layer.name!r} has lost its header record") from None
        tar = stack.enter_context(archive.restore.restore(record, _opener(site, layer.name, stack), damages))
        scope = stack.pop_all()
    stream = cast("BinaryIO", archive.stream.ChunkStream(_pieces(tar, scope), scope.close))
    if damages is not None:
        return stream
    return cast("BinaryIO", archive.digests.VerifiedReader(stream, layer.diff_id, layer.tar_size, _what(layer)))


def _opener(site: Site, layer: str, scope: contextlib.ExitStack) -> "OpenFile":
    """Give what opens the files of a layer: through its view, or where this user may not mount as they lie on disk."""
    plan = site.driver.mounts(layer, view=True)
    try:
        root = scope.enter_context(mounts.opened(plan))
    except errors.SyscallError as error:
        branches = archive.planned.branches_of(plan) if error.errno == errno.EPERM else None
        if branches is None:
            raise
    else:
        return lambda path: resolve.open_beneath(root, path, _FILE)
    union = scope.enter_context(archive.union.Union(branches))
    return lambda path: _open_in(union, path)


def _open_in(union: "Union", path: bytes) -> int:
    node = union.find(path)
    if node is None or not stat.S_ISREG(node.stat.st_mode):
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), os.fsdecode(path))
    return node.open()


def _what(layer: Layer) -> str:
    return f"layer {layer.diff_id} as it is stored"


def _pieces(tar: BinaryIO, scope: contextlib.ExitStack) -> Generator[bytes]:
    with scope:
        while piece := tar.read(_CHUNK):
            yield piece
