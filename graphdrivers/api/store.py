"""A store, opened: images in and out, containers, and upkeep. What most programs import this library for."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, BinaryIO, Unpack

from graphdrivers import errors, loading
from graphdrivers.api import images, initial, naming
from graphdrivers.api.containers import Container, Mounted
from graphdrivers.api.description import Description
from graphdrivers.api.images import Image
from graphdrivers.api.lease import Lease
from graphdrivers.api.naming import Named
from graphdrivers.api.opened import Opened
from graphdrivers.images.descriptors import Platform
from graphdrivers.model import Change, Limits, Profile, Progress
from graphdrivers.store import collect, containers, differing, explain, leases, mounted, recover, tars
from graphdrivers.store import images as records
from graphdrivers.store.collect import Collected
from graphdrivers.store.explain import Need
from graphdrivers.store.holders import Holder
from graphdrivers.store.ledger import Layer
from graphdrivers.store.opening import open_site
from graphdrivers.store.site import Durability

if TYPE_CHECKING:
    # Programs start with this module: what only some of its verbs need, and is slow to import, is imported by these.
    from graphdrivers.api.registries import ConnectionOptions
    from graphdrivers.images import image as sources
    from graphdrivers.images.outgoing import OutgoingImage
    from graphdrivers.images.registry.pushing import Pushed, PushProgress
    from graphdrivers.store.check import Fault, Observe
    from graphdrivers.store.incoming import Watch
    from graphdrivers.store.repair import Repaired


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
        UnsafeStore: ``root`` belongs to another user, or others may write to it.
        DriverUnavailable, DriverNotFound, DriverConflict, InvalidOption: see `load_driver`.
        StoreVersion, StoreCorrupt, LockTimeout: its ledger is of a newer release, damaged, or written to for a minute.
        ValueError: an unknown durability.
    """
    site, problems = open_site(os.fspath(root), driver=driver, options=options, durability=Durability(durability))
    return Store(site, problems)


class Store(Opened):
    """An open store; a context manager, which closes it.

    Beside what each verb names, all may raise OSError, LockTimeout and StoreCorrupt (see `open_store`); those that are
    given a name to look up ImageNotFound, ContainerNotFound or AmbiguousName, one to give InvalidReference.

    It may be used from several threads, and in a child of fork(2). A process
    that was not forked from this one opens the root by itself: a store cannot be
    pickled. Whatever is asked of a store that is closed is a ``ValueError``.
    """

    def import_image(
        self,
        source: str | os.PathLike[str],
        *,
        name: str | None = None,
        kind: str | None = None,
        platform: str | Platform | None = None,
        reference: str | None = None,
        description: Description = Description(),
        limits: Limits = Limits(),
        watch: "Watch | None" = None,
        jobs: int | None = None,
    ) -> Image:
        """Bring an image in from a path: an OCI layout, a ``docker save`` archive, or a plain root file system.

        Each in a folder or a tar, which may be compressed. Durable when it
        returns. Layers that are there already are not read; what an error or a
        crash left complete is not read again.

        Args:
            source: the path.
            name: what to call it; by default what it is called there.
            kind: ``image`` or ``rootfs``, where that is known; by default it is found out.
            platform: which one of several; by default this machine's.
            reference: which image, when the source holds several.
            description: what a root file system's new configuration says.
            limits: what the image may ask for.
            watch: told how it goes.
            jobs: layers at a time, where the driver can (``apply_ahead``); by default as the processors allow.

        Raises:
            InvalidManifest, InvalidReference, BlobNotFound, DigestMismatch, ArchiveError: see `opening.open_source`.
            ChainTooDeep, UnpackerDied: see `importing.import_layers`.
            ValueError: an unknown kind.
        """
        from graphdrivers.api import reading  # noqa: PLC0415 - see TYPE_CHECKING above

        return reading.bring_path(
            self.site,
            source,
            names=None if name is None else [images.tag_reference(name)],
            kind=kind,
            platform=platform,
            reference=reference,
            description=description,
            limits=limits,
            watch=watch,
            jobs=jobs,
        )

    def commit(
        self,
        container: str | Container,
        name: str | None = None,
        *,
        description: Description = Description(),
        profile: Profile = Profile.FULL,
        source_date_epoch: int | None = None,
        watch: "Watch | None" = None,
    ) -> Image:
        """Make an image of a container: its image and, as one more layer, what `Container.changes` lists.

        Durable and atomic. The container should not be written to meanwhile; it stays as it is.

        Args:
            container: which, or its name.
            name: what to call the image.
            description: what its configuration says.
            profile: how much of the tree the layer carries.
            source_date_epoch: in seconds; later times in the layer become this one.
            watch: told how it goes.

        Raises:
            ContainerNotFound, InvalidReference, InvalidChange
            FileChanged: it was written to; nothing was made.
        """
        from graphdrivers.api import committing  # noqa: PLC0415 - see TYPE_CHECKING above

        box = container if isinstance(container, Container) else self.container(container)
        names = [] if name is None else [images.tag_reference(name)]
        base = None if box.image_id is None else self.image(box.image_id)
        with self.lease(box.name), box.diff(profile=profile, source_date_epoch=source_date_epoch) as tar:
            return committing.make_image(self.site, base, tar, names, description, watch=watch)

    def bring(
        self,
        source: "sources.Image",
        names: list[str] | None = None,
        *,
        limits: Limits = Limits(),
        watch: "Watch | None" = None,
        jobs: int | None = None,
    ) -> Image:
        """Bring in an image that is open already; ``names`` are references in full."""
        from graphdrivers.api import bringing  # noqa: PLC0415 - see TYPE_CHECKING above

        chosen = bringing.names_for(source) if names is None else names
        return bringing.bring(self.site, source, chosen, limits=limits, watch=watch, jobs=jobs)

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
            ContainerExists, InvalidContainerName, ImageNotFound, ChainTooDeep
            NotSupported: this driver cannot limit sizes here.
        """
        chosen = self._image(image)
        init = records.init_of(self.site, chosen.image_id)
        tar = b"" if init else initial.init_tar(self.site, chosen)
        made = containers.create(
            self.site, name, image_id=chosen.image_id, parent=chosen.top, init=init, init_tar=tar, size=size
        )
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

    def find(self, name: str) -> Named:
        """Find what a name means: a container's name or ID, an image's reference or ID, or a layer's name.

        Raises:
            ObjectNotFound: nothing of this name.
            AmbiguousName: the beginning of several IDs.
        """
        return naming.named(self.site, name)

    def changes(self, name: str, other: str | None = None) -> Iterator[Change]:
        """Give what differs between two trees, each a container, an image or a layer; mounts nothing where it can.

        With one name: what a container changes against its image, what an
        image's top layer changes against those below it. With two: what has to
        be done to the first to make it the second. Sorted by path bytes.

        Raises:
            ObjectNotFound, AmbiguousName: see `find`.
        """
        first = self.find(name)
        before, after = (first.base, first.layer) if other is None else (first.layer, self.find(other).layer)
        return differing.changes(self.site, before, after)

    def export(self, name: str, *, profile: Profile = Profile.FULL, source_date_epoch: int | None = None) -> BinaryIO:
        """Give the whole merged tree of a container, an image or a layer as one uncompressed tar; the caller closes it.

        The same tree gives the same bytes, whichever driver holds it.
        """
        layer = self.find(name).layer
        return differing.diff(self.site, None, layer, profile=profile, source_date_epoch=source_date_epoch)

    def outgoing(self, image: str | Image) -> "OutgoingImage":
        """Describe an image for a destination of your own; see ``graphdrivers.images.saving`` and ``registry``."""
        from graphdrivers.api import going  # noqa: PLC0415 - see TYPE_CHECKING above

        return going.outgoing(self.site, self._image(image))

    def save(
        self,
        names: Sequence[str | Image],
        sink: BinaryIO,
        *,
        form: str = "oci",
        compression: str = "none",
        source_date_epoch: int | None = None,
        progress: Progress | None = None,
    ) -> None:
        """Write images into one tar. The same images give the same bytes; each layer is the tar that was imported.

        Args:
            names: one or more images. One named by a reference gets that name only.
            sink: takes the tar; left open. After an error what it got is garbage.
            form: ``oci`` (an OCI layout that ``docker load`` takes too) or ``docker`` (as before Docker 25).
            compression: of the layers of an OCI layout: ``none``, ``gzip`` or ``zstd``.
            source_date_epoch: the time of every member, in seconds.
            progress: called with the bytes of layers read so far; see `saving.bytes_to_read`.

        Raises:
            ImageNotFound, AmbiguousName
            DigestMismatch, ArchiveError: a layer is damaged; the error names it.
            ValueError: an unknown form or compression.
        """
        from graphdrivers.api import saved  # noqa: PLC0415 - see TYPE_CHECKING above

        found = [(self._image(name), name if isinstance(name, str) else None) for name in names]
        epoch = source_date_epoch
        saved.save(
            self.site, found, sink, form=form, compression=compression, source_date_epoch=epoch, progress=progress
        )

    def pull(
        self,
        reference: str,
        *,
        platform: str | Platform | None = None,
        limits: Limits = Limits(),
        watch: "Watch | None" = None,
        jobs: int | None = None,
        **connection: "Unpack[ConnectionOptions]",
    ) -> Image:
        """Bring an image in from a registry, straight into layers, and only what is missing here.

        Args:
            reference: ``NAME[:TAG][@DIGEST]``.
            platform: which one of several; by default this machine's.
            limits: what the image may ask for.
            watch: told how it goes.
            jobs: layers at a time; see `import_image`.
            **connection: see `registry.connection.connect`.

        Raises:
            InvalidReference: there is no such image.
            AuthenticationFailed, RegistryError: the registry refuses, or cannot be reached.
            DigestMismatch, ArchiveError: it gave something else than it promised.
        """
        from graphdrivers.api import registries  # noqa: PLC0415 - see TYPE_CHECKING above

        return registries.pull(
            self.site, reference, platform=platform, limits=limits, watch=watch, jobs=jobs, **connection
        )

    def push(
        self,
        image: str | Image,
        reference: str,
        *,
        compression: str = "gzip",
        mount_from: Sequence[str] = (),
        progress: "PushProgress | None" = None,
        jobs: int = 3,
        **connection: "Unpack[ConnectionOptions]",
    ) -> "Pushed":
        """Send an image to a registry: only layers that it lacks, and the manifest last.

        Args:
            image: which, or its name.
            reference: ``NAME[:TAG]``, the repository with its host and the tag.
            compression: of what has to be sent: ``gzip``, ``zstd`` or ``none``.
            mount_from: repositories of that registry that may have the layers, beside those known to have had them.
            progress: called while layers are sent.
            jobs: layers at a time.
            **connection: see `registry.connection.connect`.

        Raises:
            ImageNotFound, InvalidReference
            AuthenticationFailed, RegistryError: the registry refuses, or cannot be reached.
            ValueError: an unknown compression.
        """
        from graphdrivers.api import registries  # noqa: PLC0415 - see TYPE_CHECKING above

        return registries.push(
            self.site,
            self._image(image),
            reference,
            compression=compression,
            mount_from=mount_from,
            progress=progress,
            jobs=jobs,
            **connection,
        )

    def open_layer(self, layer: Layer) -> BinaryIO:
        """Open the identical uncompressed tar that a layer of an image was made of; verified while it is read."""
        return tars.open_tar(self.site, layer)

    def unused(self) -> list[str]:
        """Give the layers that `collect` would remove now, children first; leases of the dead do not keep any."""
        return collect.unused(self.site, over=recover.dead_leases(self.site))

    def collect(self) -> Collected:
        """Remove the layers that no image, container, checkpoint, mount or lease needs.

        Those too that an earlier removal, of any process, could not delete (`Collected.resisted`) or did not live to.
        """
        recover.drop_dead_leases(self.site)
        return collect.collect(self.site)

    def lease(self, name: str, *, seconds: float | None = None) -> Lease:
        """Keep the tree that a name means from being collected, even when its image or container is removed.

        Args:
            name: a container, an image or a layer.
            seconds: how long, a century at most, also beyond this process; by default until its end or `Lease.release`.

        Raises:
            ObjectNotFound, AmbiguousName: see `find`.
            ImageNotFound, LayerNotFound: it has no layers, or was removed a moment ago.
            ValueError: ``seconds`` are no length of a lease.
        """
        layer = self.find(name).layer
        if layer is None:
            raise errors.ImageNotFound(name, ", for it has no layers: nothing to keep")
        return Lease(self.site, layer, leases.take(self.site, layer, seconds))

    def explain(self, name: str) -> list[Need]:
        """Give what keeps the top layer of a container, image or layer; empty where nothing does.

        Raises:
            ObjectNotFound, AmbiguousName: see `find`.
        """
        layer = self.find(name).layer
        return [] if layer is None else explain.needs_of(self.site, layer)

    def check(self, *, deep: bool = False, observe: "Observe | None" = None) -> "Iterator[Fault]":
        """Look for damage, and give each; changes nothing.

        Args:
            deep: read every file of every image's layers, and name each that is not what it was.
            observe: told how it goes.
        """
        from graphdrivers.store import check  # noqa: PLC0415 - see TYPE_CHECKING above

        return check.check(self.site, deep=deep, observe=observe)

    def repair(
        self,
        faults: "Sequence[Fault]",
        sources: "Sequence[sources.Image]" = (),
        *,
        limits: Limits = Limits(),
        began: Callable[[str], object] | None = None,
    ) -> "Repaired":
        """Repair what `check` found: leftovers are removed, damaged layers made anew from ``sources``.

        Args:
            faults: what to repair.
            sources: opened images (`opening.open_image`, `registry.pulling.open_remote`) that have the layers.
            limits: what their layers may ask for.
            began: called with the name of each layer that is being made anew.

        Raises:
            StoreCorrupt: the ledger itself is damaged; nothing was done.
        """
        from graphdrivers.api import bringing  # noqa: PLC0415 - see TYPE_CHECKING above
        from graphdrivers.store import repair  # noqa: PLC0415 - see TYPE_CHECKING above

        return repair.repair(self.site, faults, bringing.finder(sources), limits=limits, began=began)

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
