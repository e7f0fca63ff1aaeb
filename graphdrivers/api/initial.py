"""What the init layers of an image's containers hold."""

import contextlib
import os
import tempfile
from collections.abc import Iterator

from graphdrivers import errors
from graphdrivers.api.images import Image
from graphdrivers.linux import mounts
from graphdrivers.store import images as records
from graphdrivers.store import ledger
from graphdrivers.store.site import Site


def init_tar(site: Site, image: Image) -> bytes:
    """Give what an image lacks of the mount points and files that every container has, as a layer tar.

    Its ``WorkingDir`` is one of them, where that is a plain path. It is found out once for each image.

    Raises:
        ImageNotFound: it was removed meanwhile.
    """
    tar = records.init_tar_of(site, image.image_id)
    if tar is None:
        with _whole(site, image):
            tar = _found_out(site, image)
        records.keep_init_tar(site, image.image_id, tar)
    return tar


def _found_out(site: Site, image: Image) -> bytes:
    from graphdrivers.images import initlayer  # noqa: PLC0415 - asked for once for each image, and slow to import

    working = image.settings.get("WorkingDir")
    wanted = [working] if isinstance(working, str) and working else []
    with _root_of(site, image) as root:
        try:
            return initlayer.init_tar(root, wanted)
        except errors.InvalidRunOption:  # no folder to make; whoever runs the image is told
            return initlayer.init_tar(root)


@contextlib.contextmanager
def _whole(site: Site, image: Image) -> Iterator[None]:
    """Refuse what a block found in an image that was removed meanwhile: half of it may have been gone.

    A layer that is removed is out of the ledger's use before its first file goes, and its name never comes back.
    """
    try:
        yield
    except (OSError, errors.LayerNotFound) as error:
        _refuse_removed(site, image, error)
        raise
    _refuse_removed(site, image)


def _refuse_removed(site: Site, image: Image, cause: Exception | None = None) -> None:
    if image.top is not None:
        try:
            ledger.find_layer(site.database, image.top)
        except errors.LayerNotFound:
            raise errors.ImageNotFound(image.image_id, "") from cause


@contextlib.contextmanager
def _root_of(site: Site, image: Image) -> Iterator[int]:
    """Open the root of an image's merged tree, an empty one for an image without layers."""
    if image.top is not None:
        with mounts.opened(site.driver.mounts(image.top, view=True)) as root:
            yield root
        return
    with tempfile.TemporaryDirectory() as empty:
        root = os.open(empty, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            yield root
        finally:
            os.close(root)
