"""Configurations of new images: of a container's changes upon its image, or of a plain root file system.

Source: OCI image-spec, ``config.md``.
"""

import datetime as dt
from collections.abc import Mapping, Sequence

from graphdrivers.images.changes import apply_changes
from graphdrivers.images.descriptors import Platform
from graphdrivers.images.documents import Document
from graphdrivers.images.manifests import ImageConfig
from graphdrivers.images.writing import encode
from graphdrivers.model import DiffID

_WHAT = "the new configuration"
_OF_THE_BASE = ("author", "comment", "container", "container_config", "docker_version", "id", "parent")
"""Who made the base, and from what: not true of what is made from it."""


def derived(
    base: ImageConfig | None,
    diff_ids: Sequence[DiffID],
    *,
    created: dt.datetime,
    author: str = "",
    comment: str = "",
    created_by: str = "",
    changes: Sequence[str] = (),
    platform: Platform | None = None,
    source: str = "the new image",
) -> bytes:
    """Make the configuration of an image with more layers than its base, or with none but its own.

    All that the base's has is kept, known or not, but what would not be true
    any more: its author, its comment, the container it came from. The history
    gets one entry for each new layer, or an empty one when there is none. Where
    the base's history tells of fewer layers than the base has, empty objects
    stand in for the missing, so that other tools can count. The same arguments
    give the same bytes.

    Args:
        base: what the new image is made from; ``None`` for nothing.
        diff_ids: of the new layers, lowest first.
        created: when, with a time zone; written in UTC.
        author: who made it.
        comment: what a person says about it.
        created_by: what made the layers, for the history.
        changes: see `changes.apply_changes`.
        platform: for which machine; by default the base's, or this one.
        source: what messages call the image.

    Raises:
        InvalidChange: a change is not understood.
        InvalidManifest: a field of the base that has to be changed is not of its type, or the result is too large.
        ValueError: ``created`` has no time zone.
    """
    fields: dict[str, object] = {} if base is None else dict(base.fields)
    document = Document(source, "the base's configuration", fields)
    time = timestamp(created)
    told = _set({"author": author, "comment": comment})
    entry = {**_set({"created": time, "created_by": created_by}), **told}
    known = () if base is None else base.diff_ids
    rootfs = document.child("rootfs").fields if base else {}
    history = [*_history(document, len(known)), *_entries(entry, len(diff_ids))]
    config = apply_changes(document.child("config") if document.has("config") else Document(source, _WHAT, {}), changes)
    made: dict[str, object] = {
        **{key: value for key, value in fields.items() if key not in _OF_THE_BASE},
        **told,
        **_platform(base, platform),
        "created": time,
        "config": config,
        "rootfs": {**rootfs, "type": "layers", "diff_ids": [*known, *diff_ids]},
        "history": history,
    }
    if platform and not platform.variant:
        made.pop("variant", None)
    text = encode(made, source, _WHAT)
    parsed = ImageConfig.parse(text, source, _WHAT, len(known) + len(diff_ids))
    Document(source, _WHAT, parsed.fields).child("config")
    return text


def timestamp(time: dt.datetime) -> str:
    """Write a time as configurations have it: RFC 3339, in UTC, a fraction only where there is one.

    Raises:
        ValueError: it has no time zone.
    """
    if time.tzinfo is None:
        raise ValueError("a time without a time zone is no moment")
    return time.astimezone(dt.UTC).isoformat().replace("+00:00", "Z")


def _history(document: Document, layers: int) -> list[Mapping[str, object]]:
    """Give the base's history, made to account for all its layers."""
    entries = [entry.fields for entry in document.objects("history")]
    told = sum(entry.get("empty_layer") is not True for entry in entries)
    return [*entries, *({} for _ in range(layers - told))]


def _entries(entry: dict[str, object], layers: int) -> list[dict[str, object]]:
    """Give the history of what is new."""
    return [entry] * layers if layers else [{**entry, "empty_layer": True}]


def _set(fields: Mapping[str, object]) -> dict[str, object]:
    """Leave out what is empty."""
    return {key: value for key, value in fields.items() if value}


def _platform(base: ImageConfig | None, platform: Platform | None) -> dict[str, object]:
    """Give the fields that name the platform; none where the base's stay."""
    if base is not None and platform is None:
        return {}
    chosen = platform or Platform.here()
    return _set({"os": chosen.os, "architecture": chosen.architecture, "variant": chosen.variant})
