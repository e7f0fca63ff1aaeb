"""Images of a store written into one tar; apart from `going`, which a push needs and this does not."""

from collections.abc import Sequence
from typing import BinaryIO

import attrs

from graphdrivers.api import going
from graphdrivers.api.images import Image, full_reference
from graphdrivers.api.lease import keeping
from graphdrivers.images import saving
from graphdrivers.images.outgoing import OutgoingImage
from graphdrivers.model import Progress
from graphdrivers.store.site import Site


def save(
    site: Site,
    chosen: Sequence[tuple[Image, str | None]],
    sink: BinaryIO,
    *,
    form: str,
    compression: str,
    source_date_epoch: int | None,
    progress: Progress | None,
) -> None:
    """Write images, each with the name that it was asked for by, into one tar; see ``Store.save``."""
    found = [_called(going.outgoing(site, image), name) for image, name in chosen]
    epoch = source_date_epoch
    with keeping(site, [image.top for image, _ in chosen]):
        if form == "oci":
            saving.save_oci(
                found, sink, compression=compression, source_date_epoch=epoch, scratch=site.folder, progress=progress
            )
        elif form == "docker" and compression == "none":
            saving.save_docker(found, sink, source_date_epoch=epoch, progress=progress)
        else:
            raise ValueError(f"no form {form!r} with compression {compression!r}")


def _called(found: OutgoingImage, name: str | None) -> OutgoingImage:
    """Let an image that was asked for by one of its references go under that name alone."""
    reference = None if name is None else full_reference(name)
    return attrs.evolve(found, names=(reference,)) if reference in found.names else found
