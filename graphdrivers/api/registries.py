"""Images from registries and to them. Apart from the rest, because what speaks HTTP is slow to import."""

from collections.abc import Mapping, Sequence
from typing import TypedDict, Unpack

from graphdrivers.api import bringing, going
from graphdrivers.api.images import Image
from graphdrivers.api.lease import keeping
from graphdrivers.images.descriptors import Platform
from graphdrivers.images.reference import Reference
from graphdrivers.images.registry import pulling, pushing
from graphdrivers.images.registry.compressing import PushCompression
from graphdrivers.images.registry.connection import connect
from graphdrivers.images.registry.credentials import Credentials
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
    names = [f"{wanted.repository}:{wanted.tag}"] if wanted.tag else []
    with pulling.open_remote(wanted, platform=platform, **connection) as opened:
        return bringing.bring(site, opened, names, limits=limits, watch=watch, jobs=jobs)


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
    with keeping(site, [image.top]), connect(wanted, **connection) as connected:
        pushed = pushing.push(
            going.outgoing(site, image, wanted.repository),
            connected,
            compression=method,
            mount_from=mount_from,
            progress=progress,
            jobs=jobs,
        )
    going.remember(site, {layer.diff_id: layer.descriptor for layer in pushed.layers}, wanted.repository)
    return pushed
