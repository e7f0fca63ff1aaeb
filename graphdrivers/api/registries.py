"""Images from registries and to them. Apart from the rest, because what speaks HTTP is slow to import."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import TypedDict, Unpack

from graphdrivers.api import bringing, going
from graphdrivers.api.images import Image
from graphdrivers.api.lease import keeping
from graphdrivers.images import image as sources
from graphdrivers.images.descriptors import Platform
from graphdrivers.images.reference import Reference
from graphdrivers.images.registry import pulling, pushing
from graphdrivers.images.registry.compressing import PushCompression
from graphdrivers.images.registry.connection import connect
from graphdrivers.images.registry.credentials import Credentials
from graphdrivers.images.registry.interrupts import ending
from graphdrivers.images.registry.patience import Patience
from graphdrivers.images.registry.pushing import Pushed, PushProgress
from graphdrivers.model import Limits
from graphdrivers.store.incoming import Watch
from graphdrivers.store.site import Site


class ConnectionOptions(TypedDict, total=False):
    """How to talk to a registry; each is what `registry.connection.connect` takes under its name."""

    credentials: Credentials
    insecure: bool | None
    patience: Patience
    ca_file: str | None
    cert_dir: str | None
    proxies: Mapping[str, str]


def pull(
    site: Site,
    reference: str,
    *,
    platform: str | Platform | None = None,
    limits: Limits = Limits(),
    watch: Watch | None = None,
    jobs: int | None = None,
    **connection: Unpack[ConnectionOptions],
) -> Image:
    """Bring an image in; see ``Store.pull``."""
    wanted = Reference.parse(reference)
    with opened(wanted, platform, **connection) as source:
        return bringing.bring(site, source, pulled_names(wanted), limits=limits, watch=watch, jobs=jobs)


@contextlib.contextmanager
def opened(
    wanted: Reference, platform: str | Platform | None, **connection: Unpack[ConnectionOptions]
) -> Iterator[sources.Image]:
    """Open an image in a registry, to bring it in during the block; a signal that ends it is not kept waiting.

    Raises:
        InvalidReference, ImageError: see `registry.pulling.open_remote`.
    """
    chosen = Platform.parse(platform) if isinstance(platform, str) else platform
    with connect(wanted, **connection) as connected, ending(connected.abort):
        yield pulling.read_image(connected, chosen)


def pulled_names(wanted: Reference) -> list[str]:
    """Give what an image is called that was pulled as ``wanted``.

    With a digest nothing: nobody has looked what the tag beside it means in the registry.
    """
    return [] if wanted.digest else [str(wanted)]


def push(
    site: Site,
    image: Image,
    reference: str,
    *,
    compression: str = "gzip",
    mount_from: Sequence[str] = (),
    progress: PushProgress | None = None,
    jobs: int = 3,
    **connection: Unpack[ConnectionOptions],
) -> Pushed:
    """Send an image; see ``Store.push``."""
    wanted = Reference.parse(reference)
    method = PushCompression(compression)
    others = going.relatives(site, image, wanted.repository)
    with keeping(site, [image.top]), connect(wanted, **connection) as connected, ending(connected.interrupt):
        pushed = pushing.push(
            going.outgoing(site, image, wanted.repository),
            connected,
            compression=method,
            mount_from=list(dict.fromkeys([*mount_from, *others])),
            progress=progress,
            jobs=jobs,
        )
    going.remember(site, {layer.diff_id: layer.descriptor for layer in pushed.layers}, wanted.repository)
    return pushed
