"""``graphdriver import``: an image, or a plain root file system, from a file or folder into the store."""

import contextlib
import os
from collections.abc import Iterator

import attrs
import click

from graphdrivers import errors
from graphdrivers.api import committing, images
from graphdrivers.api.description import Description
from graphdrivers.api.images import Image
from graphdrivers.api.store import Store
from graphdrivers.cli import describing, files, output, stores
from graphdrivers.cli.described import called, image_summary
from graphdrivers.cli.settings import Settings, global_options
from graphdrivers.cli.watching import Lines, watched
from graphdrivers.images import image as sources
from graphdrivers.images import opening
from graphdrivers.images.reference import Reference
from graphdrivers.images.rootfs import Kind, RootFS

_ARCHIVES = ("dir", "docker-archive", "oci", "oci-archive")
"""Transports of containers-transports(5) whose images are files here."""

jobs_option = click.option(
    "--jobs",
    type=click.IntRange(1, 32),
    metavar="N",
    help="Layers at a time, with drivers that can; by default what the processors, or the network, are good for.",
)


@click.command("import", epilog="Example: skopeo copy docker://debian:12 oci:debian:12 && graphdriver import debian")
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
@click.option("--kind", type=click.Choice([str(kind) for kind in Kind]), help="What PATH holds; by default found out.")
@describing.message_option
@describing.change_option
@jobs_option
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
    kind: str | None,
    message: str,
    changes: tuple[str, ...],
    jobs: int | None,
    durability: str,
) -> None:
    """Bring in the image at PATH; print its ID.

    PATH is an OCI layout, a 'docker save' archive or a plain root file system:
    a folder, a tar of one, compressed or not, or - for stdin. Only layers that
    the store lacks are read. An interrupted import leaves whole layers, which
    the next one goes on from and 'gc' removes. --message and --change are for
    root file systems.
    """
    given = [images.tag_reference(name) for name in names]
    with contextlib.ExitStack() as stack:
        place = stack.enter_context(_stdin()) if path == "-" else path
        with _transport_told(path):
            opened = opening.open_source(
                place,
                kind=None if kind is None else Kind(kind),
                platform=platform,
                reference=reference,
                scratch=settings.scratch,
                source_date_epoch=settings.source_date_epoch,
            )
        stack.callback(opened.close)
        if isinstance(opened, RootFS):
            said = describing.description(
                settings, message=message, changes=changes, created_by=f"import {path}", platform=platform
            )
            store = stack.enter_context(stores.opened(settings, durability=durability))
            label = "stdin" if path == "-" else os.path.basename(os.path.abspath(path))
            _bring_tree(settings, store, opened, given, said, label=label)
            return
        if message or changes:
            raise click.UsageError("--message and --change are for root file systems; this is an image")
        store = stack.enter_context(stores.opened(settings, durability=durability))
        if path == "-":  # a bare tag is not completed by the name of a device
            opened = attrs.evolve(opened, source="-")
        bring(settings, store, opened, given or None, fresh="Loaded image", jobs=jobs)


@contextlib.contextmanager
def _transport_told(path: str) -> Iterator[None]:
    """Say what does what is asked for, where a path that does not exist is written as skopeo and podman have it."""
    try:
        yield
    except FileNotFoundError as error:
        transport, colon, _ = path.partition(":")
        if colon and transport in _ARCHIVES:
            error.add_note(f"name the file or folder alone, without '{transport}:'; --reference says which image in it")
        elif colon and not os.path.isabs(path):
            error.add_note("'graphdriver pull' fetches from a registry")
        raise


@contextlib.contextmanager
def _stdin() -> Iterator[str]:
    """Give a path to open stdin by; errors call it by its name."""
    with files.stdin_path() as place:
        try:
            yield place
        except errors.ImageError as error:
            if error.source == place:
                error.source = "stdin"
            raise


def bring(
    settings: Settings,
    store: Store,
    source: sources.Image,
    names: list[str] | None,
    *,
    fresh: str,
    jobs: int | None,
    asked: Reference | None = None,
) -> None:
    """Bring in an image that is open, telling how it goes; print its ID.

    Args:
        settings: how to tell it.
        store: where to.
        source: the image.
        names: references in full; ``None`` for those that it has there.
        fresh: the beginning of the status of an image that was not here before.
        jobs: layers at a time.
        asked: what was asked for; by default the first of the names.
    """
    before = _there(store, source)
    with watched(settings, source) as (opened, told):
        image = store.bring(opened, names, watch=told, jobs=jobs)
    new = before is None or before.names != image.names
    if asked is None and names:
        asked = Reference.parse(names[0])
    name = called(image) if asked is None else asked.familiar
    show(settings, image, told, f"{fresh} {name}" if new else f"Image is up to date for {name}")


def _there(store: Store, source: sources.Image) -> Image | None:
    try:
        return store.image(source.config_digest)
    except errors.ImageNotFound:
        return None


def _bring_tree(
    settings: Settings, store: Store, source: RootFS, names: list[str], said: Description, *, label: str
) -> None:
    told = Lines(settings, [label])
    image = committing.make_image(store.site, None, source.layer, names, said, watch=told)
    name = Reference.parse(names[0]).familiar if names else called(image)
    show(settings, image, told, f"Loaded image {name}")


def show(settings: Settings, image: Image, told: Lines, status: str) -> None:
    """Tell what an image that came is: its digest and status, and its ID on stdout."""
    if image.manifest_digest is not None:
        output.message(settings, f"Digest: {image.manifest_digest}")
    output.message(settings, f"Status: {status}")
    if settings.json:
        layers = [
            {"DiffID": diff_id, "Status": state}
            for diff_id, state in zip(image.config.diff_ids[-len(told.states) :], told.states, strict=False)
        ]
        output.document({**image_summary(image), "Status": status, "Layers": layers})
    else:
        click.echo(image.image_id)
