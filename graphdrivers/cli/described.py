"""Images, containers and layers as documents, with Docker's names for what Docker knows."""

from collections.abc import Mapping, Sequence

from graphdrivers import errors
from graphdrivers.api.containers import Container
from graphdrivers.api.images import Image
from graphdrivers.api.store import Store
from graphdrivers.cli import times
from graphdrivers.driver import Driver, Tells
from graphdrivers.images.reference import Reference
from graphdrivers.model import LayerRecord, validate_digest
from graphdrivers.store.holders import Holder
from graphdrivers.store.ledger import Layer
from graphdrivers.store.mounted import Held

SHORT = 12
"""Hex digits of an ID that people are shown."""


def short(digest: str) -> str:
    """Give the beginning of a digest or ID that people are shown."""
    return digest.removeprefix("sha256:")[:SHORT]


def image_summary(image: Image) -> dict[str, object]:
    """Give what a list of images tells of one."""
    return {
        "Id": image.image_id,
        "RepoTags": list(image.familiar_names),
        "RepoDigests": digests_of(image),
        "Created": _created(image),
        "Size": image.size,
    }


def image(store: Store, image: Image) -> dict[str, object]:
    """Give all that is known of an image."""
    fields = image.config.fields
    return {
        **image_summary(image),
        "Imported": times.stamp(image.created),
        "Author": fields.get("author") or "",
        "Architecture": image.config.platform.architecture,
        "Variant": image.config.platform.variant,
        "Os": image.config.platform.os,
        "Config": image.settings,
        "RootFS": {"Type": "layers", "Layers": list(image.config.diff_ids)},
        "ManifestDigest": image.manifest_digest,
        "MediaType": image.manifest_type or None,
        "GraphDriver": _graph_driver(store.driver, image.top),
    }


def digests_of(image: Image) -> list[str]:
    """Give ``NAME@DIGEST`` for each repository that an image with a manifest is called by."""
    if image.manifest_digest is None:
        return []
    digest = validate_digest(image.manifest_digest)
    found = (Reference.parse(name) for name in image.names)
    return list(dict.fromkeys(Reference(one.host, one.path, None, digest).familiar for one in found))


def container_summary(
    container: Container, image: Image | None, holders: Sequence[Held] | None = None
) -> dict[str, object]:
    """Give what a list of containers tells of one; who has it mounted is asked unless ``holders`` says it."""
    held = container.mounts() if holders is None else holders
    return {
        "Id": container.container_id,
        "Name": container.name,
        "Image": container.image_id,
        "ImageName": called(image),
        "Created": times.stamp(container.created),
        "Mounts": [_mount(one.target, one.holder, writable=one.writable) for one in held],
    }


def container(store: Store, container: Container) -> dict[str, object]:
    """Give all that is known of a container."""
    return {
        **container_summary(container, image_of(store, container)),
        "SizeLimit": container.size_limit,
        "Branches": branches(container),
        "Checkpoints": points(container),
        "GraphDriver": _graph_driver(store.driver, container.record().layer),
    }


def branches(container: Container) -> list[dict[str, object]]:
    """Give a container's layers, top first, each with its part in the union mount."""
    record = container.record()
    kind = "checkpoint"
    found: list[dict[str, object]] = []
    for number, layer in enumerate(container.layers()):
        if number == 0:
            named = "writable"
        elif layer.name == record.init:
            named, kind = "init", "image"
        else:
            named = kind
        role = "ro+wh" if number else "rw"
        found.append({"layer": layer.name, "role": role, "kind": named, "init": named == "init", **_digests(layer)})
    return found


def points(container: Container) -> list[dict[str, object]]:
    """Give a container's checkpoints, oldest first."""
    return [
        {"Point": one.point, "Layer": one.layer, "Created": times.stamp(one.created)} for one in container.checkpoints()
    ]


def layer(store: Store, record: LayerRecord, owner: str | None) -> dict[str, object]:
    """Give all that is known of a layer."""
    return {
        "Name": record.name,
        "Parent": record.parent,
        "Sealed": record.sealed,
        "Owner": owner,
        "GraphDriver": _graph_driver(store.driver, record.name),
    }


def image_of(store: Store, container: Container) -> Image | None:
    """Give the image that a container is of, where it is known."""
    if container.image_id is None:
        return None
    try:
        return store.image(container.image_id)
    except errors.ImageNotFound:
        return None


def called(image: Image | None) -> str:
    """Give what people call an image: its first name, else the beginning of its ID."""
    if image is None:
        return ""
    return image.familiar_names[0] if image.names else short(image.image_id)


def _graph_driver(driver: Driver, name: str | None) -> dict[str, object]:
    return {"Name": driver.name, "Data": {} if name is None else _facts(driver, name)}


def _facts(driver: Driver, name: str) -> Mapping[str, str]:
    """Give what the driver tells of a layer, else the directories that a view of it is made of."""
    if isinstance(driver, Tells):
        return dict(driver.facts(name))
    found: dict[str, str] = {}
    for mount in driver.mounts(name, view=True):
        lowers = [value for key, value in mount.options if key == "lowerdir+" and value is not None]
        if mount.type == "bind":
            found["Dir"] = mount.source
        elif lowers:
            found.update(UpperDir=lowers[0], LowerDir=":".join(lowers[1:]))
    return found


def _mount(target: str, holder: Holder | None, *, writable: bool) -> dict[str, object]:
    return {"Target": target, "Writable": writable, "Process": None if holder is None else holder.pid}


def _digests(layer: Layer) -> dict[str, object]:
    return {} if layer.diff_id is None else {"diff_id": layer.diff_id, "chain_id": layer.chain_id}


def _created(image: Image) -> str | None:
    created = image.config.fields.get("created")
    return created if isinstance(created, str) else None
