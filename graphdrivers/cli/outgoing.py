"""``graphdriver commit`` and ``save``: images of containers, and images in files."""

import contextlib

import click

from graphdrivers.api import images
from graphdrivers.cli import completing, describing, files, importing, output, stores, tars
from graphdrivers.cli.described import called
from graphdrivers.cli.settings import Settings, global_options
from graphdrivers.cli.watching import Lines
from graphdrivers.images import saving
from graphdrivers.model import Profile


@click.command(epilog="Example: graphdriver commit -c 'CMD [\"nginx\"]' web example.org/web:1")
@click.argument("container", metavar="NAME", shell_complete=completing.containers)
@click.argument("reference", metavar="[REF]", required=False)
@click.option("-a", "--author", metavar="TEXT", default="", help="Who made it.")
@describing.message_option
@describing.change_option
@tars.profile_option
@stores.durability_option
@global_options
@click.pass_obj
def commit(
    settings: Settings,
    container: str,
    reference: str | None,
    *,
    author: str,
    message: str,
    changes: tuple[str, ...],
    profile: str,
    durability: str,
) -> None:
    """Make an image of the container NAME: its image and one layer more, what 'diff NAME' lists; print its ID.

    REF is what to call it. The container stays as it is, mounted or not;
    where it is written to meanwhile, nothing is made. With SOURCE_DATE_EPOCH
    the same content gives the same image.
    """
    name = None if reference is None else images.tag_reference(reference)
    said = describing.description(settings, author=author, message=message, changes=changes)
    with stores.opened(settings, durability=durability) as store:
        told = Lines(settings, [container], done="Layer complete")
        image = store.commit(
            container,
            name,
            description=said,
            profile=Profile(profile),
            source_date_epoch=settings.source_date_epoch,
            watch=told,
        )
    importing.show(settings, image, told, f"Committed {called(image)}")


@click.command(epilog="Example: graphdriver save debian:12 -o debian.tar && docker load -i debian.tar")
@click.argument("names", nargs=-1, required=True, metavar="IMAGE...", shell_complete=completing.images)
@click.option("-o", "--output", "target", default="-", metavar="FILE", help="Where to; - (the default) is stdout.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["oci", "docker"]),
    default="oci",
    show_default=True,
    help="An OCI layout, which Docker 25 and newer load too, or the older archive of 'docker save'.",
)
@click.option(
    "--compress",
    type=click.Choice(["none", "gzip", "zstd"]),
    default="none",
    show_default=True,
    help="Of the layers of an OCI layout.",
)
@global_options
@click.pass_obj
def save(settings: Settings, names: tuple[str, ...], target: str, form: str, compress: str) -> None:
    """Write images into one tar that podman, docker, skopeo and 'import' read.

    Each layer is the tar that was imported, to the byte; what several images
    share is there once. FILE appears when it is complete.
    """
    tars.refuse_json_on_stdout(settings, target)
    if form == "docker" and compress != "none":
        raise click.UsageError("--format docker has no compressed layers: leave --compress away, or take --format oci")
    with contextlib.ExitStack() as stack:
        store = stack.enter_context(stores.opened(settings))
        total = saving.bytes_to_read([store.outgoing(name) for name in names])
        sink = stack.enter_context(files.writing(target))
        report = stack.enter_context(output.progress(settings, f"save {names[0]}", total))
        store.save(
            names,
            sink,
            form=form,
            compression=compress,
            source_date_epoch=settings.source_date_epoch,
            progress=report,
        )
    if settings.json:
        output.document({"path": target, "images": list(names), "format": form})
