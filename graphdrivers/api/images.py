"""Images of a store, as values."""

from typing import Any

import attrs

from graphdrivers import errors
from graphdrivers.images.manifests import ImageConfig
from graphdrivers.images.reference import Reference
from graphdrivers.model import Digest
from graphdrivers.store import images, ledger
from graphdrivers.store.ledger import Layer
from graphdrivers.store.site import Site


@attrs.frozen(kw_only=True)
class Image:
    """One image of a store, as it was when it was asked for; equal to what is found with the same ID and names."""

    image_id: Digest
    """Digest of its configuration."""
    names: tuple[str, ...]
    """References in full, sorted; none for an image that lost its last one."""
    config: ImageConfig = attrs.field(repr=False, eq=False)  # the ID is its digest
    layers: tuple[Layer, ...] = attrs.field(repr=False, eq=False)  # these are what the configuration says
    """Lowest first."""
    manifest: bytes | None = attrs.field(repr=False)
    """The manifest it came with; ``None`` when there was none."""
    manifest_type: str
    manifest_digest: str | None
    created: int
    """When it came into the store, in ns since the epoch."""

    @property
    def top(self) -> str | None:
        """The name of its top layer in the driver."""
        return self.layers[-1].name if self.layers else None

    @property
    def size(self) -> int:
        """Bytes of the regular files in all its layers; what another image shares counts in full."""
        return sum(layer.content_size or 0 for layer in self.layers)

    @property
    def familiar_names(self) -> tuple[str, ...]:
        """The names as people write them."""
        return tuple(Reference.parse(name).familiar for name in self.names)

    @property
    def settings(self) -> dict[str, Any]:
        """What the image asks of whoever runs it (``Env``, ``Cmd``, ...); content of the image, never obeyed here."""
        found = self.config.fields.get("config")
        return dict(found) if isinstance(found, dict) else {}


def find(site: Site, name: str) -> Image:
    """Give an image by reference, ID, the beginning of its ID, or manifest digest.

    Raises:
        ImageNotFound, AmbiguousName
    """
    with site.database.snapshot():
        return of_record(site, images.find(site, name, full_reference(name)))


def everything(site: Site) -> list[Image]:
    """Give all images, newest first."""
    with site.database.snapshot():
        return [of_record(site, record) for record in images.everything(site)]


def of_record(site: Site, record: images.ImageRecord) -> Image:
    """Make a value of what the ledger has.

    Raises:
        StoreCorrupt: its configuration or manifest is not what its digest says, or it has a name that is none.
    """
    for what in images.falsified(record):
        raise errors.StoreCorrupt(site.root, what)
    layers = tuple(reversed(ledger.stack_of(site.database, record.layer)))
    try:
        config = ImageConfig.parse(record.config, site.root, f"configuration {record.image_id}", len(layers))
    except errors.InvalidManifest as error:
        raise errors.StoreCorrupt(site.root, error.reason) from error
    return Image(
        image_id=Digest(record.image_id),
        names=tuple(_checked(site, name) for name in images.references_of(site, record.image_id)),
        config=config,
        layers=layers,
        manifest=record.manifest,
        manifest_type=record.manifest_type,
        manifest_digest=record.manifest_digest,
        created=record.created,
    )


def _checked(site: Site, name: str) -> str:
    if full_reference(name) != name:
        raise errors.StoreCorrupt(site.root, f"{name!r:.200} cannot be the name of an image")
    return name


def full_reference(name: str) -> str | None:
    """Write a name as a reference in full; ``None`` where it cannot be one."""
    try:
        return str(Reference.parse(name))
    except errors.InvalidReference:
        return None


def tag_reference(name: str) -> str:
    """Check a name that an image is to get, and write it in full.

    Raises:
        InvalidReference: it is no reference, or one with a digest, which cannot be chosen.
    """
    reference = Reference.parse(name)
    if reference.digest is not None:
        raise errors.InvalidReference(name, "a name that is given cannot have a digest")
    return str(reference)
