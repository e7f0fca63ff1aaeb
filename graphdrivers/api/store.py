"""A store, opened: images in and out, containers, and upkeep. What most programs import this library for."""

import contextlib
import os
import tempfile
from collections.abc import Iterator, Mapping
from typing import BinaryIO, Self

from graphdrivers import errors, loading
from graphdrivers.api import bringing, images
from graphdrivers.api.containers import Container, Mounted
from graphdrivers.api.images import Image
from graphdrivers.driver import Driver
from graphdrivers.images import image as sources
from graphdrivers.images import initlayer, opening
from graphdrivers.images.descriptors import Platform
from graphdrivers.linux import mounts
from graphdrivers.model import Change, Limits
from graphdrivers.store import collect, containers, differing, mounted, tars
from graphdrivers.store import images as records
from graphdrivers.store.collect import Collected
from graphdrivers.store.holders import Holder
from graphdrivers.store.importing import Watch
from graphdrivers.store.ledger import Layer
from graphdrivers.store.opening import open_site
from graphdrivers.store.recover import Problem
from graphdrivers.store.site import Durability, Site


def open_store(
    root: str | os.PathLike[str],
    driver: str = loading.AUTO,
    *,
    options: Mapping[str, str] = loading.NO_OPTIONS,
    durability: str = "layer",
) -> "Store":
    """Open the store in ``root``, making it where it is missing; the caller closes it (or uses ``with``).

    What a crash left is repaired first; what resists that is in ``problems``.
    Any number of processes and threads may have a store open.

    Args:
        root: everything lies below it.
        driver: how layers are stored; ``auto`` is the one it was made with, else the best that works here.
        options: what the driver understands.
        durability: ``none``, ``layer`` or ``file``; see `Durability`.

    Raises:
        PriorDriverState: the store was made with another driver.
        DriverUnavailable, DriverNotFound, DriverConflict, InvalidOption: see `load_driver`.
        StoreVersion, StoreCorrupt: a newer release wrote it, or its ledger is damaged.
        ValueError: an unknown durability.
    """
    site, problems = open_site(os.fspath(root), driver=driver, options=options, durability=Durability(durability))
    return Store(site, problems)


class Store:
    """An open store; a context manager."""

    def __init__(self, site: Site, problems: list[Problem]) -> None:
        """Take over what `opening.open_site` gave; see `open_store`."""
        self.site = site
        """The floor below, for tools that need more than is offered here."""
        self.problems = tuple(problems)
        """What opening could not repair."""

    @property
    def root(self) -> str:
        """Where everything lies."""
        return self.site.root

    @property
    def driver(self) -> Driver:
        """The driver in use; its layers are the store's, to be looked at only."""
        return self.site.driver

    def import_image(
        self,
        source: str | os.PathLike[str],
        *,
        name: str | None = None,
        platform: str | Platform | None = None,
        reference: str | None = None,
        limits: Limits = Limits(),
        watch: Watch | None = None,
    ) -> Image:
        """Bring an image in from a path: an OCI layout or a ``docker save`` archive, in a folder or a tar.

        Durable when it returns. Layers that are there already are not read; what
        an error or a crash left complete is not read again.

        Args:
            source: the path.
            name: what to call it; by default what it is called there.
            platform: which one of several; by default this machine's.
            reference: which image, when the source holds several.
            limits: what the image may ask for.
            watch: told how it goes.

        Raises:
            InvalidManifest, InvalidReference, BlobNotFound, DigestMismatch, ArchiveError: see `opening.open_image`.
        """
        names = None if name is None else [images.tag_reference(name)]
        with opening.open_image(source, platform=platform, reference=reference, limits=limits) as opened:
            return self.bring(opened, names, limits=limits, watch=watch)

    def bring(
        self,
        source: sources.Image,
        names: list[str] | None = None,
        *,
        limits: Limits = Limits(),
        watch: Watch | None = None,
    ) -> Image:
        """Bring in an image that is open already; ``names`` are references in full."""
        chosen = bringing.names_for(source) if names is None else names
        return bringing.bring(self.site, source, chosen, limits=limits, watch=watch)

    def images(self) -> list[Image]:
        """Give all images, newest first."""
        return images.everything(self.site)

    def image(self, name: str) -> Image:
        """Give an image by reference, ID, the beginning of its ID, or manifest digest.

        Raises:
            ImageNotFound, AmbiguousName
        """
        return images.find(self.site, name)

    def tag(self, image: str | Image, name: str) -> None:
        """Let ``name`` mean this image from now on, and no other. Durable, atomic, idempotent."""
        records.tag(self.site, self._image(image).image_id, images.tag_reference(name))

    def untag(self, name: str) -> None:
        """Take a name away; the image stays. Durable, atomic, idempotent."""
        records.untag(self.site, images.tag_reference(name))

    def remove_image(self, image: str | Image) -> Collected:
        """Remove an image with all its names, and the layers that only it needs. Durable, atomic.

        Raises:
            ImageInUse: containers stand on it.
        """
        return records.remove(self.site, self._image(image).image_id)

    def create(self, image: str | Image, *, name: str | None = None, size: int | None = None) -> Container:
        """Make a container: a writable layer over an init layer over the image. Durable, atomic.

        Args:
            image: which, or its name.
            name: 1 to 128 letters, digits, ``_``, ``.`` and ``-``; by default the beginning of its ID.
            size: limit of the writable layer in bytes; needs ``capabilities.quota``.

        Raises:
            ContainerExists, InvalidContainerName, ImageNotFound
            NotSupported: this driver cannot limit sizes here.
        """
        chosen = self._image(image)
        tar = records.init_tar_of(self.site, chosen.image_id)
        if tar is None:
            tar = self._init_tar(chosen)
            records.keep_init_tar(self.site, chosen.image_id, tar)
        made = containers.create(self.site, name, image_id=chosen.image_id, parent=chosen.top, init_tar=tar, size=size)
        return Container(self.site, made)

    def containers(self) -> list[Container]:
        """Give all containers, oldest first."""
        return [Container(self.site, record) for record in containers.everything(self.site)]

    def container(self, name: str) -> Container:
        """Give a container by its name, its ID or the beginning of its ID.

        Raises:
            ContainerNotFound, AmbiguousName
        """
        return Container(self.site, containers.find(self.site, name))

    def mount_image(
        self, image: str | Image, target: str | os.PathLike[str] | None = None, *, keep: bool = False
    ) -> Mounted:
        """Mount a read-only view of an image; see `Container.mount`.

        Raises:
            ImageNotFound: there is no such image, or it has no layers.
        """
        layer = self.layer_of(image)
        where = None if target is None else os.fspath(target)
        holder = None if keep else Holder.here()
        return Mounted(self.site, mounted.attach(self.site, layer, view=True, target=where, holder=holder))

    def diff(self, before: str | None, after: str) -> Iterator[Change]:
        """Give what makes the tree of ``after`` of that of ``before``: layers by their names in the driver."""
        return differing.changes(self.site, before, after)

    def open_layer(self, layer: Layer) -> BinaryIO:
        """Open the identical uncompressed tar that a layer of an image was made of; verified while it is read."""
        return tars.open_tar(self.site, layer)

    def unused(self) -> list[str]:
        """Give the layers that `collect` would remove."""
        return collect.unused(self.site)

    def collect(self) -> Collected:
        """Remove the layers that no image, container, checkpoint, mount or lease needs."""
        return collect.drop_unused(self.site, collect.unused(self.site))

    def close(self) -> None:
        """Let go of the driver and the ledger. Idempotent."""
        self.site.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def layer_of(self, image: str | Image) -> str:
        """Give the name of an image's top layer in the driver.

        Raises:
            ImageNotFound: there is no such image, or it has no layers.
        """
        chosen = self._image(image)
        if chosen.top is None:
            raise errors.ImageNotFound(chosen.image_id, ", for it has no layers: nothing to see")
        return chosen.top

    def _image(self, image: str | Image) -> Image:
        return image if isinstance(image, Image) else self.image(image)

    def _init_tar(self, image: Image) -> bytes:
        """Find out what the image lacks of the mount points and files that every container has."""
        working = image.settings.get("WorkingDir")
        wanted = [working] if isinstance(working, str) and working else []
        with self._root_of(image) as root:
            try:
                return initlayer.init_tar(root, wanted)
            except errors.InvalidRunOption:  # no folder to make; whoever runs the image is told
                return initlayer.init_tar(root)

    @contextlib.contextmanager
    def _root_of(self, image: Image) -> Iterator[int]:
        """Open the root of an image's merged tree, an empty one for an image without layers."""
        if image.top is not None:
            with mounts.opened(self.site.driver.mounts(image.top, view=True)) as root:
                yield root
            return
        with tempfile.TemporaryDirectory() as empty:
            root = os.open(empty, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                yield root
            finally:
                os.close(root)
