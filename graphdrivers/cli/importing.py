"""``graphdriver import``: an image from a file or folder into the store."""

import contextlib
import sys

import click

from graphdrivers import errors
from graphdrivers.api import images
from graphdrivers.api.images import Image
from graphdrivers.api.store import Store
from graphdrivers.cli import described, output, stores
from graphdrivers.cli.settings import Settings, global_options
from graphdrivers.cli.watching import Lines, watched
from graphdrivers.images import image as sources
from graphdrivers.images import opening

STDIN = "/dev/stdin"


@click.command(
    "import",
    epilog="Example: skopeo copy docker://debian:12 oci:debian:12 && graphdriver import debian",
)
@click.argument("path", type=click.Path(allow_dash=True))
@click.option(
    "--name",
    "names",
    metavar="REF",
    multiple=True,
    help="What to call it, instead of what it is called there; may be repeated.",
)
@click.option("--platform", metavar="OS/ARCH", help="Which one of several; this machine's by default.")
@click.option("--reference", metavar="NAME", help="Which image, by name or digest, where PATH holds several.")
@stores.durability_option
@global_options
@click.pass_obj
def import_image(
    settings: Settings,
    path: str,
    *,
    names: tuple[str, ...],
    platform: str | None,
    reference: str | None,
    durability: str,
) -> None:
    """Bring in the image at PATH; print its ID.

    PATH is an OCI layout or a 'docker save' archive: a folder, a tar of one,
    compressed or not, or - for stdin. Only layers that the store lacks are
    read. An interrupted import leaves whole layers, which the next one goes on
    from and 'gc' removes.
    """
    given = [images.tag_reference(name) for name in names]
    if path == "-" and sys.stdin.isatty():
        raise click.UsageError("refusing to read a tar from the terminal: redirect stdin, or name a file")
    with contextlib.ExitStack() as stack:
        place = STDIN if path == "-" else path
        source = stack.enter_context(
            opening.open_image(place, platform=platform, reference=reference, scratch=settings.scratch)
        )
        store = stack.enter_context(stores.opened(settings, durability=durability))
        bring(settings, store, source, given or None)


def bring(settings: Settings, store: Store, source: sources.Image, names: list[str] | None) -> None:
    """Bring in an image that is open, telling how it goes; print its ID."""
    before = _there(store, source)
    with watched(settings, source) as (opened, told):
        image = store.bring(opened, names, watch=told)
    _show(settings, image, told, fresh=before is None or before.names != image.names)


def _there(store: Store, source: sources.Image) -> Image | None:
    try:
        return store.image(source.config_digest)
    except errors.ImageNotFound:
        return None


def _show(settings: Settings, image: Image, told: Lines, *, fresh: bool) -> None:
    if image.manifest_digest is not None:
        output.message(settings, f"Digest: {image.manifest_digest}")
    name = described.called(image)
    status = f"Loaded image {name}" if fresh else f"Image is up to date for {name}"
    output.message(settings, f"Status: {status}")
    if settings.json:
        layers = [
            {"DiffID": diff_id, "Status": state}
            for diff_id, state in zip(image.config.diff_ids, told.states, strict=True)
        ]
        output.document({**described.image_summary(image), "Status": status, "Layers": layers})
    else:
        click.echo(image.image_id)
