"""``graphdriver images``, ``history``, ``tag`` and ``rmi``."""

from collections.abc import Iterator

import attrs
import click

from graphdrivers import errors
from graphdrivers.api.images import Image, full_reference
from graphdrivers.api.store import Store
from graphdrivers.cli import completing, described, output, stores, times
from graphdrivers.cli.each import each
from graphdrivers.cli.settings import Settings, global_options
from graphdrivers.images.history import HistoryRow
from graphdrivers.images.history import rows as history_rows
from graphdrivers.images.reference import Reference

_NONE = "<none>"
_BY_MAX = 38
"""Characters of a build step that a table shows."""


@click.command("images", epilog="Example: graphdriver images -q | xargs graphdriver inspect")
@click.argument("name", metavar="[NAME[:TAG]]", required=False, shell_complete=completing.images)
@click.option("--no-trunc", is_flag=True, help="Show IDs in full.")
@global_options
@click.pass_obj
def list_images(settings: Settings, name: str | None, *, no_trunc: bool) -> None:
    """List the images, newest first; with -q only their IDs.

    With NAME only those that are called so, with any tag or with TAG.
    """
    with stores.opened(settings) as store:
        found = store.images()
    if name is not None:
        found = [chosen for image in found if (chosen := _called(image, name)).names]
    if settings.json:
        output.document([described.image_summary(image) for image in found])
        return
    if settings.verbosity < 0:
        for image in found:
            click.echo(image.image_id if no_trunc else described.short(image.image_id))
        return
    rows = [row for image in found for row in _rows(image, no_trunc=no_trunc)]
    output.table(["repository", "tag", "image id", "created", "size"], rows, right=[4])


def _called(image: Image, name: str) -> Image:
    """Leave an image only those of its names that are asked for: a repository, or one with a tag.

    Raises:
        InvalidReference: no image can be called so.
    """
    asked = Reference.parse(name)
    any_tag = name.rfind(":") <= name.rfind("/") and asked.digest is None
    names = (one for one in image.names if one == str(asked) or any_tag)
    return attrs.evolve(image, names=tuple(one for one in names if Reference.parse(one).repository == asked.repository))


def _rows(image: Image, *, no_trunc: bool) -> Iterator[list[str]]:
    """Give a row for each name of an image."""
    shown = image.image_id if no_trunc else described.short(image.image_id)
    created = times.ago(times.parse(image.config.fields.get("created")))
    for name in image.names or (None,):
        repository, tag = _NONE, _NONE
        if name is not None:
            reference = Reference.parse(name)
            tag = reference.tag or _NONE
            repository = attrs.evolve(reference, tag=None).familiar
        yield [repository, tag, shown, created, output.human_size(image.size)]


@click.command(epilog="Example: graphdriver history --no-trunc debian:12")
@click.argument("image", shell_complete=completing.images)
@click.option("--no-trunc", is_flag=True, help="Show IDs and steps in full.")
@global_options
@click.pass_obj
def history(settings: Settings, image: str, *, no_trunc: bool) -> None:
    """Show how IMAGE was made, the last step first; what it says of itself."""
    with stores.opened(settings) as store:
        steps = _steps(store.image(image))[::-1]
    if settings.json:
        output.document(
            [
                {
                    "Id": step.diff_id,
                    "Created": step.created or None,
                    "CreatedBy": step.created_by,
                    "Size": step.size,
                    "Comment": step.comment,
                }
                for step in steps
            ]
        )
        return
    rows = [
        [
            "-" if step.diff_id is None else step.diff_id if no_trunc else described.short(step.diff_id),
            times.ago(times.parse(step.created)),
            output.human_size(step.size),
            _cut(output.one_line(step.created_by or step.comment), full=no_trunc),
        ]
        for step in steps
    ]
    output.table(["layer", "created", "size", "created by"], rows, right=[2])


def _steps(image: Image) -> tuple[HistoryRow, ...]:
    """Give the steps with their layers, lowest first; what is no step by its shape counts as one that says nothing."""
    told = image.config.fields.get("history")
    steps = [step if isinstance(step, dict) else {} for step in told] if isinstance(told, list) else []
    config = attrs.evolve(image.config, fields={**image.config.fields, "history": steps})
    return history_rows(config, [layer.content_size or 0 for layer in image.layers])


def _cut(text: str, *, full: bool) -> str:
    return text if full or len(text) <= _BY_MAX else text[: _BY_MAX - 3] + "..."


@click.command(epilog="Example: graphdriver tag debian:12 example.org/base:stable")
@click.argument("source", shell_complete=completing.images)
@click.argument("name")
@global_options
@click.pass_obj
def tag(settings: Settings, source: str, name: str) -> None:
    """Let NAME mean the image SOURCE from now on. An image may have many names."""
    with stores.opened(settings) as store:
        store.tag(source, name)
        image = store.image(name)
    if settings.json:
        output.document(described.image_summary(image))


@click.command(epilog="Example: graphdriver rmi debian:12")
@click.argument("names", nargs=-1, required=True, metavar="NAME...", shell_complete=completing.images)
@click.option("-f", "--force", is_flag=True, help="By ID: all its names. Of an image in use: the name alone.")
@global_options
@click.pass_obj
def rmi(settings: Settings, names: tuple[str, ...], *, force: bool) -> None:
    """Remove images by name or ID.

    One of several names is only taken away; the last one takes the image
    with it, and the layers that nothing else needs. An image that containers
    stand on stays.
    """
    with stores.opened(settings) as store:
        each(settings, names, lambda name: _remove(settings, store, name, force=force))


def _remove(settings: Settings, store: Store, name: str, *, force: bool) -> dict[str, list[str]]:
    image = store.image(name)
    full = full_reference(name)
    by_name = full in image.names
    if not by_name and len(image.names) > 1 and not force:
        names = ", ".join(image.familiar_names)
        error = errors.ImageInUse(name, f"the image has several names: {names}")
        error.add_note("--force removes it with all of them")
        raise error
    if by_name and full is not None and (len(image.names) > 1 or (force and _users(store, image))):
        store.untag(full)
        untagged, deleted = [Reference.parse(full).familiar], []
    else:
        untagged = list(image.familiar_names)
        chains = {layer.name: str(layer.chain_id) for layer in image.layers}
        try:
            collected = store.remove_image(image)
        except errors.ImageInUse as error:  # in the words that were used
            raise errors.ImageInUse(name, error.reason) from None
        deleted = [str(image.image_id), *(chains.get(layer, layer) for layer in collected.removed)]
        stores.tell_resisted(settings, collected.resisted)
    if not settings.json:
        for one in untagged:
            click.echo(f"Untagged: {one}")
        for one in deleted:
            click.echo(f"Deleted: {one}")
    return {"Untagged": untagged, "Deleted": deleted}


def _users(store: Store, image: Image) -> bool:
    return any(container.image_id == image.image_id for container in store.containers())
