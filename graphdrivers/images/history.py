"""An image's history in rows, as ``docker history`` shows it."""

from collections.abc import Sequence

import attrs

from graphdrivers.images.documents import Document
from graphdrivers.images.manifests import ImageConfig
from graphdrivers.model import DiffID

_TEXTS = ("created", "created_by", "comment", "author")


@attrs.frozen
class HistoryRow:
    """One step in an image's making."""

    created: str
    """As the configuration has it (RFC 3339, mostly); empty where nothing is said."""
    created_by: str
    comment: str
    author: str
    empty_layer: bool
    """It changed the configuration only."""
    diff_id: DiffID | None
    """Of the layer it made; ``None`` for an empty one, and for one that the image does not have."""
    size: int
    """Bytes of that layer, 0 where there is none."""


def rows(config: ImageConfig, sizes: Sequence[int], source: str = "the image") -> tuple[HistoryRow, ...]:
    """Give the history, oldest first; every layer of the image is in just one row.

    The history is only told, and often wrong: missing altogether, or of other
    steps than there are layers. Steps without a layer left for them have none;
    layers that no step is left for get rows of their own, that say nothing.

    Args:
        config: the image's configuration.
        sizes: of its layers, lowest first, in bytes.
        source: what messages call the image.

    Raises:
        InvalidManifest: the history is not an array of objects.
        ValueError: not as many sizes as layers.
    """
    left = list(zip(config.diff_ids, sizes, strict=True))
    left.reverse()
    found = []
    for entry in Document(source, "configuration", config.fields).objects("history"):
        empty = entry.fields.get("empty_layer") is True
        diff_id, size = (None, 0) if empty or not left else left.pop()
        created, created_by, comment, author = (_text(entry, key) for key in _TEXTS)
        found.append(HistoryRow(created, created_by, comment, author, empty, diff_id, size))
    found += [HistoryRow("", "", "", "", False, diff_id, size) for diff_id, size in reversed(left)]
    return tuple(found)


def _text(entry: Document, key: str) -> str:
    """Give a text; anything else is as good as nothing, for it is only shown."""
    value = entry.fields.get(key)
    return value if isinstance(value, str) else ""
