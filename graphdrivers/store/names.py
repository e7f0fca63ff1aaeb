"""The names that the store gives to layers, so that its own are told from those made by hand."""

import hashlib
import os
import re

from graphdrivers import errors
from graphdrivers.model import ChainID, DiffID

_OWN = re.compile(r"(?:image|container)\.[0-9a-f]{32}(?:-init|\.[0-9a-f]{8})?")
_CONTAINER = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}", re.ASCII)

INIT = "-init"
"""What ends the name of a layer of mount points and empty files between an image and a container."""


def image_layer() -> str:
    """Make the name of a new layer of an image."""
    return f"image.{os.urandom(16).hex()}"


def init_layer(container_id: str) -> str:
    """Make the name of the init layer of one container."""
    return f"container.{container_id[:32]}{INIT}"


def shared_init_layer() -> str:
    """Make the name of a new init layer that the containers of an image share."""
    return f"{image_layer()}{INIT}"


def container_layer(container_id: str) -> str:
    """Make the name of a new writable layer of a container."""
    return f"container.{container_id[:32]}.{os.urandom(4).hex()}"


def is_of_container(layer: str, container_id: str) -> bool:
    """Say whether a layer is a writable one of this container, or was."""
    return layer.startswith(f"container.{container_id[:32]}.")


def is_own(layer: str) -> bool:
    """Say whether a layer belongs to the store. Others in the same home are left alone."""
    return _OWN.fullmatch(layer) is not None


def validate_container_name(name: str) -> str:
    """Return ``name`` if it can be a container's: Docker's rule.

    Raises:
        InvalidContainerName: it cannot.
    """
    if not isinstance(name, str) or not _CONTAINER.fullmatch(name):
        reason = "it is empty" if not name else "it has other characters, or too many"
        raise errors.InvalidContainerName(str(name), reason)
    return name


def chain_id(parent: ChainID | None, diff_id: DiffID) -> ChainID:
    """Compute the ChainID of a layer on its parent.

    Source: OCI image-spec, ``config.md``, heading *Layer ChainID*.
    """
    if parent is None:
        return ChainID(diff_id)
    return ChainID("sha256:" + hashlib.sha256(f"{parent} {diff_id}".encode()).hexdigest())
