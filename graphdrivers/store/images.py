"""Images as the ledger keeps them: documents, the layer they end with, and the names that people use.

Documents are bytes here, names are references written in full; what they mean
is known one floor up, in ``graphdrivers.images``.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence

import attrs

from graphdrivers import errors
from graphdrivers.store import collect
from graphdrivers.store.database import Row, Step
from graphdrivers.store.site import Site

_DIGESTS = frozenset({"sha256", "sha512"})
_COLUMNS = "image_id, config, manifest, manifest_type, manifest_digest, layer, created"
_PUT_BLOB = "INSERT OR REPLACE INTO blobs (digest, diff_id, size, media_type, origin) VALUES (?, ?, ?, ?, ?)"


@attrs.frozen
class ImageRecord:
    """One image."""

    image_id: str
    """Digest of the configuration."""
    config: bytes
    manifest: bytes | None
    manifest_type: str
    manifest_digest: str | None
    layer: str | None
    """The top layer; ``None`` for an image without any."""
    created: int
    """When it came here, in ns since the epoch."""


@attrs.frozen
class BlobRecord:
    """A blob that a layer came here as."""

    digest: str
    diff_id: str
    size: int
    media_type: str
    origin: str
    """Where it was seen: a repository, or a path."""


def put(
    site: Site,
    image: ImageRecord,
    references: Sequence[str] = (),
    *,
    blobs: Sequence[BlobRecord] = (),
    lease: str | None = None,
) -> None:
    """Record an image, and names that mean it from now on (and no other any more). Durable, atomic, idempotent.

    The blobs that its layers came as are remembered, and the lease that held its layers until now ends.
    """
    with site.database.write(durable=site.is_durable) as step:
        step.execute(
            f"INSERT OR IGNORE INTO images ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)",  # noqa: S608 - constants
            attrs.astuple(image),
        )
        if image.manifest is not None:
            step.execute(
                "UPDATE images SET manifest = ?, manifest_type = ?, manifest_digest = ? WHERE image_id = ?",
                (image.manifest, image.manifest_type, image.manifest_digest, image.image_id),
            )
        step.executemany(_PUT_BLOB, map(attrs.astuple, blobs))
        for reference in references:
            step.execute("INSERT OR REPLACE INTO tags (reference, image_id) VALUES (?, ?)", (reference, image.image_id))
        if lease is not None:
            step.execute("DELETE FROM leases WHERE lease = ?", (lease,))


def falsified(image: ImageRecord) -> Iterator[str]:
    """Tell in one line of each document of an image that is not what its digest says."""
    told = [("configuration", image.config, image.image_id)]
    if image.manifest is not None and image.manifest_digest is not None:
        told.append(("manifest", image.manifest, image.manifest_digest))
    for what, text, digest in told:
        kind, _, wanted = str(digest).partition(":")
        if not isinstance(text, bytes) or kind not in _DIGESTS or hashlib.new(kind, text).hexdigest() != wanted:
            yield f"the {what} of image {digest!r:.200} is not what its digest says"


def everything(site: Site) -> list[ImageRecord]:
    """Give all images, newest first."""
    query = f"SELECT {_COLUMNS} FROM images ORDER BY created DESC, image_id"  # noqa: S608 - constants
    return [ImageRecord(*row) for row in site.database.read(query)]


def find(site: Site, name: str, reference: str | None) -> ImageRecord:
    """Give an image by a reference in full, its ID, or the beginning of its ID.

    Args:
        site: the store.
        name: what the person wrote.
        reference: the same as a reference in full, where it can be one.

    Raises:
        ImageNotFound, AmbiguousName
    """
    rows: list[Row] = []
    query = f"SELECT {_COLUMNS} FROM images WHERE image_id "  # noqa: S608 - constants
    if reference is not None:
        tagged = "IN (SELECT image_id FROM tags WHERE reference = ?)"
        rows = site.database.read(query + tagged, (reference,))
    digits = name.removeprefix("sha256:")
    if not rows and digits and all(char in "0123456789abcdef" for char in digits):
        rows = site.database.read(query + "GLOB ?", (f"sha256:{digits}*",))
    if not rows and name.startswith("sha256:") and name.isascii():
        served = "IN (SELECT image_id FROM images WHERE manifest_digest = ?)"
        rows = site.database.read(query + served, (name,))
    if not rows:
        raise errors.ImageNotFound(name, "")
    if len(rows) > 1:
        raise errors.AmbiguousName(name, f"{len(rows)} images have an ID that begins so")
    return ImageRecord(*rows[0])


def references_of(site: Site, image_id: str) -> list[str]:
    """Give the names of an image, sorted."""
    query = "SELECT reference FROM tags WHERE image_id = ? ORDER BY reference"
    return [row[0] for row in site.database.read(query, (image_id,))]


def tag(site: Site, image_id: str, reference: str) -> None:
    """Let a name mean this image from now on. Durable, atomic, idempotent.

    Raises:
        ImageNotFound: it was removed.
    """
    with site.database.write(durable=site.is_durable) as step:
        refuse_missing(step, image_id)
        step.execute("INSERT OR REPLACE INTO tags (reference, image_id) VALUES (?, ?)", (reference, image_id))


def untag(site: Site, reference: str) -> None:
    """Take a name away; the image stays. Durable, atomic, idempotent."""
    with site.database.write(durable=site.is_durable) as step:
        step.execute("DELETE FROM tags WHERE reference = ?", (reference,))


def remove(site: Site, image_id: str) -> collect.Collected:
    """Remove an image with all its names, and the layers that only it needs.

    It is gone, durably, before the first layer is deleted.

    Raises:
        ImageInUse: containers stand on it.
        ImageNotFound: another process was faster.
    """
    with site.database.write(durable=site.is_durable) as step:
        refuse_missing(step, image_id)
        users = [row[0] for row in step.execute("SELECT name FROM containers WHERE image_id = ?", (image_id,))]
        if users:
            raise errors.ImageInUse(image_id, f"the image is used by container {', '.join(map(repr, users[:5]))}")
        own = step.execute("SELECT layer, init FROM images WHERE image_id = ?", (image_id,)).fetchone()
        step.execute("DELETE FROM tags WHERE image_id = ?", (image_id,))
        step.execute("DELETE FROM images WHERE image_id = ?", (image_id,))
        marked = collect.mark_unused(step, [layer for layer in own if layer is not None])
    return collect.sweep(site, marked)


def refuse_missing(step: Step, image_id: str) -> None:
    """Raise ImageNotFound where there is no such image (any more)."""
    if not step.execute("SELECT 1 FROM images WHERE image_id = ?", (image_id,)).fetchone():
        raise errors.ImageNotFound(image_id, "")


def put_blob(site: Site, blob: BlobRecord) -> None:
    """Remember as which blob a layer came. Idempotent; a power cut may forget it."""
    with site.database.write() as step:
        step.execute(_PUT_BLOB, attrs.astuple(blob))


def blobs_of(site: Site, diff_id: str) -> list[BlobRecord]:
    """Give the blobs that a layer is known as."""
    query = "SELECT digest, diff_id, size, media_type, origin FROM blobs WHERE diff_id = ? ORDER BY digest"
    return [BlobRecord(*row) for row in site.database.read(query, (diff_id,))]


def init_of(site: Site, image_id: str) -> str | None:
    """Give the init layer that the image's containers share, once there is one."""
    row = site.database.one("SELECT init FROM images WHERE image_id = ?", (image_id,))
    return None if row is None else row[0]


def keep_init(step: Step, image_id: str, init: str) -> None:
    """Let the image's containers share a layer from now on, until the image goes; the first one that is kept stays."""
    step.execute("UPDATE images SET init = ? WHERE image_id = ? AND init IS NULL", (init, image_id))


def drop_inits(site: Site, layers: Iterable[str]) -> collect.Collected:
    """Let the next container make another init layer in the place of any of these that is one. Atomic, idempotent.

    They are removed, unless a container stands on them.
    """
    with site.database.write(durable=site.is_durable) as step:
        query = "UPDATE images SET init = NULL WHERE init = ?"
        dropped = [layer for layer in layers if step.execute(query, (layer,)).rowcount]
        marked = collect.mark_unused(step, dropped)
    return collect.sweep(site, marked)


def init_tar_of(site: Site, image_id: str) -> bytes | None:
    """Give what containers' init layers hold, if `keep_init_tar` was called for this image."""
    row = site.database.one("SELECT init_tar FROM images WHERE image_id = ?", (image_id,))
    return None if row is None else row[0]


def keep_init_tar(site: Site, image_id: str, tar: bytes) -> None:
    """Keep what containers' init layers hold, so that it is found out once for each image. Idempotent."""
    with site.database.write() as step:
        step.execute("UPDATE images SET init_tar = ? WHERE image_id = ?", (tar, image_id))
