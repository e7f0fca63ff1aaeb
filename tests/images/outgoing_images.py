"""Makes images on their way out, as a store would hand them over."""

import hashlib
import io
import json
from typing import Any, BinaryIO, cast

from graphdrivers.archive.digests import VerifiedReader
from graphdrivers.images.outgoing import OutgoingImage, OutgoingLayer
from graphdrivers.model import DiffID


def sha256(text: bytes) -> str:
    """Digest of bytes."""
    return f"sha256:{hashlib.sha256(text).hexdigest()}"


def outgoing_layer(tar: bytes, *, size: int | None = None, now: bytes | None = None) -> OutgoingLayer:
    """Make a layer that verifies itself; ``now`` is what it has become meanwhile, ``size`` what was recorded."""
    diff_id = DiffID(sha256(tar))

    def opener() -> BinaryIO:
        stream = io.BytesIO(tar if now is None else now)
        return cast("BinaryIO", VerifiedReader(stream, diff_id, None, f"layer {diff_id}"))

    return OutgoingLayer(diff_id, len(tar) if size is None else size, opener)


def config_of(*layers: bytes, **more: Any) -> bytes:
    """Make a configuration."""
    rootfs = {"type": "layers", "diff_ids": [sha256(layer) for layer in layers]}
    return json.dumps({"os": "linux", "architecture": "amd64", "rootfs": rootfs, **more}).encode()


def outgoing_image(*layers: bytes, names: tuple[str, ...] = (), **more: Any) -> OutgoingImage:
    """Make an image of layer tars; ``more`` goes into its configuration."""
    config = config_of(*layers, **more)
    return OutgoingImage(config=config, layers=tuple(map(outgoing_layer, layers)), names=names)
