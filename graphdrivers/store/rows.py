"""Rows of a ledger that no store writes: somebody has changed the file by hand, or a disk has.

SQLite finds a file that is damaged; what stands in it may still be nonsense.
Nothing is done on the word of such a row: names are checked before a path is
made, circles end, and only what is ours is unmounted. Here they are told.
"""

import json
import os
import re
from collections.abc import Iterator

from graphdrivers import errors
from graphdrivers.model import validate_digest, validate_layer_name
from graphdrivers.store import images, ledger, names
from graphdrivers.store.holders import Holder
from graphdrivers.store.site import Site

_CONTAINER_ID = re.compile(r"[0-9a-f]{64}")
_REFERENCE = re.compile(
    r"(?:[a-zA-Z0-9.-]+|\[[a-fA-F0-9:]+\])(?::[0-9]+)?(?:/[a-z0-9][a-z0-9._-]*)+:\w[\w.-]*", re.ASCII
)
_NUMBERS = (
    ("layers", "name", ("tar_size", "content_size", "entries", "created")),
    ("images", "image_id", ("created",)),
    ("containers", "name", ("size", "created")),
    ("blobs", "digest", ("size",)),
)


def impossible(site: Site) -> Iterator[str]:
    """Tell of each row that cannot be true, in one line; changes nothing. To be read at one moment."""
    if not site.database.one("SELECT 1 FROM facts WHERE key = 'driver'"):
        yield "it does not say with which driver the store was made"
    yield from _layers(site)
    yield from _stacks(site)
    yield from _containers(site)
    yield from _images(site)
    yield from _digests(site)
    yield from _holders(site)
    for table, name, columns in _NUMBERS:
        for column in columns:
            query = f"SELECT {name} FROM {table} WHERE {column} < 0 OR typeof({column}) NOT IN ('integer', 'null')"  # noqa: S608 - constants
            for (which,) in site.database.read(query):
                yield f"{column} of {which!r:.200} in {table} is no number of anything"


def _layers(site: Site) -> Iterator[str]:
    parents = {}
    for name, parent in site.database.read("SELECT name, parent FROM layers"):
        try:
            validate_layer_name(name)
        except errors.InvalidName as error:
            yield f"a layer cannot be called {name!r:.200}: {error.reason}"
        parents[name] = parent
    grounded: set[str | None] = {None}
    for name in parents:
        way: dict[str | None, None] = {}
        at: str | None = name
        while at not in grounded and at not in way and at in parents:
            way[at] = None
            at = parents[at]
        if at in way and at not in grounded:
            yield f"layer {at!r:.200} is its own ancestor"
        grounded.update(way)


def _stacks(site: Site) -> Iterator[str]:
    """Hold states, digests and sizes of layers against each other."""
    query = """
        SELECT layers.name, layers.state, layers.holder, layers.diff_id, layers.chain_id, layers.tar_size,
        layers.parent IS NULL OR below.chain_id IS NOT NULL, below.chain_id
        FROM layers LEFT JOIN layers AS below ON below.name = layers.parent"""
    for name, state, holder, diff_id, chain_id, size, judged, below in site.database.read(query):
        if state != "ready" and holder is None:
            yield f"layer {name!r:.200} is {state} by nobody"
        elif len({value is None for value in (diff_id, chain_id, size)}) > 1:
            yield f"layer {name!r:.200} has not all of DiffID, ChainID and size"
        elif diff_id is not None and judged and chain_id != names.chain_id(below, diff_id):
            yield f"the ChainID of layer {name!r:.200} is not that of its stack"


def _containers(site: Site) -> Iterator[str]:
    for container_id, name in site.database.read("SELECT container_id, name FROM containers"):
        if not isinstance(container_id, str) or not _CONTAINER_ID.fullmatch(container_id):
            yield f"a container cannot have the ID {container_id!r:.200}"
        yield from _name(name)
    for (point,) in site.database.read("SELECT point FROM checkpoints"):
        yield from _name(point)


def _name(name: str) -> Iterator[str]:
    try:
        names.validate_container_name(name)
    except errors.InvalidContainerName as error:
        yield f"a container or checkpoint cannot be called {name!r:.200}: {error.reason}"


def _images(site: Site) -> Iterator[str]:
    for record in images.everything(site):
        wrong = list(images.falsified(record))
        yield from wrong or _other_layers(site, record)
    for (reference,) in site.database.read("SELECT reference FROM tags"):
        if not isinstance(reference, str) or not _REFERENCE.fullmatch(reference):
            yield f"no image can be called {reference!r:.200}"


def _other_layers(site: Site, image: images.ImageRecord) -> Iterator[str]:
    """Tell where an image does not end with the layers that its configuration names; that is what its digest says."""
    document = json.loads(image.config)
    rootfs = document.get("rootfs") if isinstance(document, dict) else None
    said = rootfs.get("diff_ids") if isinstance(rootfs, dict) else None
    try:
        stack = ledger.stack_of(site.database, image.layer)
    except errors.StoreCorrupt:
        return  # the layer below that is missing is told by itself
    if (said or []) != [layer.diff_id for layer in reversed(stack)]:
        yield f"the layers of image {image.image_id!r:.200} are not those that its configuration names"


def _digests(site: Site) -> Iterator[str]:
    query = """
        SELECT image_id FROM images UNION SELECT manifest_digest FROM images UNION SELECT digest FROM blobs
        UNION SELECT diff_id FROM blobs UNION SELECT diff_id FROM layers UNION SELECT chain_id FROM layers"""
    for (digest,) in site.database.read(query):
        try:
            if digest is not None:
                validate_digest(digest)
        except errors.InvalidName:
            yield f"{digest!r:.200} is no digest"


def _holders(site: Site) -> Iterator[str]:
    query = "SELECT holder FROM layers UNION SELECT holder FROM leases UNION SELECT holder FROM mounts"
    for (holder,) in site.database.read(query):
        try:
            if holder is not None:
                Holder.parse(holder)
        except errors.StoreCorrupt as error:
            yield error.reason
    for (target,) in site.database.read("SELECT DISTINCT target FROM mounts"):
        if not isinstance(target, str | bytes) or not os.path.isabs(target) or "\0" in os.fsdecode(target):
            yield f"nothing can be mounted at {target!r:.200}"
