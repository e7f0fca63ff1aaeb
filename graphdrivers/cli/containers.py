"""``graphdriver create``, ``ls``, ``rm``, ``fork``, ``checkpoint`` and ``rollback``."""

import contextlib
from collections.abc import Sequence

import click

from graphdrivers import errors
from graphdrivers.api.containers import Container
from graphdrivers.api.store import Store
from graphdrivers.cli import completing, described, output, stores, times
from graphdrivers.cli.each import each
from graphdrivers.cli.settings import Settings, global_options, size_given
from graphdrivers.store import mounted
from graphdrivers.store.mounted import Held


@click.command(epilog="Example: graphdriver create --name web debian:12")
@click.argument("image", shell_complete=completing.images)
@click.option("--name", metavar="NAME", help="What to call it; by default the beginning of its ID.")
@click.option(
    "--size",
    metavar="SIZE",
    callback=size_given,
    help="Limit of what may be written to it (10G); needs a driver with quotas.",
)
@stores.durability_option
@global_options
@click.pass_obj
def create(settings: Settings, image: str, name: str | None, size: int | None, durability: str) -> None:
    """Make a container of IMAGE; print its name.

    A writable layer over an init layer (/etc/hosts, /etc/resolv.conf, mount
    points such as /proc) over the image's layers. 'mount' gives the tree. Nothing
    runs in it here; 'bundle' is told what a runtime is to run, and how.
    """
    with stores.opened(settings, durability=durability) as store:
        container = store.create(image, name=name, size=size)
        summary = described.container_summary(container, described.image_of(store, container))
    _told(settings, container.name, summary)


@click.command("ls", epilog="Example: graphdriver ls --size")
@click.option("-s", "--size", "sized", is_flag=True, help="Measure the writable layers too.")
@click.option("--no-trunc", is_flag=True, help="Show IDs in full.")
@global_options
@click.pass_obj
def list_containers(settings: Settings, *, sized: bool, no_trunc: bool) -> None:
    """List the containers, oldest first; with -q only their IDs."""
    with stores.opened(settings) as store:
        found = store.containers()
        if settings.verbosity < 0 and not settings.json:
            for container in found:
                click.echo(container.container_id if no_trunc else described.short(container.container_id))
            return
        found, summaries = _summaries(store, found, sized=sized)
    if settings.json:
        output.document(summaries)
        return
    columns = ["name", "container id", "image", "created", *(["size"] if sized else []), "mounted"]
    rows = [_row(container, one, no_trunc=no_trunc) for container, one in zip(found, summaries, strict=True)]
    output.table(columns, rows, right=[4] if sized else [])


def _summaries(
    store: Store, found: Sequence[Container], *, sized: bool
) -> tuple[list[Container], list[dict[str, object]]]:
    """Describe containers, but those that are gone by now; each image is asked for once, and all mounts at once."""
    images = {one.image_id: described.image_of(store, one) for one in {one.image_id: one for one in found}.values()}
    held: dict[str, list[Held]] = {}
    for one in mounted.holders_of(store.site):
        held.setdefault(one.layer, []).append(one)
    summaries: dict[Container, dict[str, object]] = {}
    for container in found:
        with contextlib.suppress(errors.ContainerNotFound, errors.LayerNotFound):
            layer = container.record().layer
            size = {"SizeRw": store.driver.usage(layer).bytes} if sized else {}
            summary = described.container_summary(container, images[container.image_id], held.get(layer, ()))
            summaries[container] = {**summary, **size}
    return list(summaries), list(summaries.values())


def _row(container: Container, summary: dict[str, object], *, no_trunc: bool) -> list[str]:
    size = summary.get("SizeRw")
    mounts = summary["Mounts"]
    targets = [str(one["Target"]) for one in mounts] if isinstance(mounts, list) else []
    return [
        container.name,
        container.container_id if no_trunc else described.short(container.container_id),
        str(summary["ImageName"]) or "-",
        times.ago(container.created),
        *([output.human_size(size)] if isinstance(size, int) else []),
        " ".join(map(output.visible, dict.fromkeys(targets))) or "-",
    ]


@click.command("rm", epilog="Example: graphdriver rm web")
@click.argument("names", nargs=-1, required=True, metavar="NAME...", shell_complete=completing.containers)
@click.option("-f", "--force", is_flag=True, help="Unmount it first.")
@global_options
@click.pass_obj
def remove(settings: Settings, names: tuple[str, ...], *, force: bool) -> None:
    """Remove containers with their checkpoints; print their names.

    A mounted one stays, unless --force unmounts it. Images stay.
    """
    with stores.opened(settings) as store:
        each(settings, names, lambda name: _remove(settings, store, name, force=force))


def _remove(settings: Settings, store: Store, name: str, *, force: bool) -> str:
    container = store.container(name)
    if force:
        container.unmount()
    stores.tell_resisted(settings, container.remove().resisted)
    if not settings.json:
        click.echo(name)
    return container.name


@click.command(epilog="Example: graphdriver fork web experiment")
@click.argument("name", shell_complete=completing.containers)
@click.argument("new")
@global_options
@click.pass_obj
def fork(settings: Settings, name: str, new: str) -> None:
    """Make a second container NEW of the present state of the container NAME; print its name.

    Nothing is copied where the driver can share layers; both are free to
    change from there. NAME may be mounted only where the driver can make
    snapshots ('fork live' in 'graphdriver drivers').
    """
    with stores.opened(settings) as store:
        made = store.container(name).fork(new)
        summary = described.container_summary(made, described.image_of(store, made))
    _told(settings, made.name, summary)


@click.command(epilog="Example: graphdriver checkpoint web before-upgrade")
@click.argument("name", shell_complete=completing.containers)
@click.argument("point", required=False)
@click.option("--list", "listed", is_flag=True, help="List the checkpoints, oldest first.")
@click.option("--delete", metavar="POINT", help="Drop a checkpoint.", shell_complete=completing.points)
@global_options
@click.pass_obj
def checkpoint(settings: Settings, name: str, point: str | None, delete: str | None, *, listed: bool) -> None:
    """Keep the present state of the container NAME as POINT; print that.

    Without POINT it gets the next number. 'rollback' goes back to it. The
    container may be mounted only where the driver can make snapshots
    ('fork live' in 'graphdriver drivers').
    """
    if sum((point is not None, delete is not None, listed)) > 1:
        raise click.UsageError("POINT, --list and --delete exclude each other")
    with stores.opened(settings) as store:
        container = store.container(name)
        if listed:
            _list_points(settings, container)
        elif delete is not None:
            container.forget(delete)
            _told(settings, delete, {"Name": container.name, "Deleted": delete})
        else:
            made = container.checkpoint(point)
            _told(settings, made.point, {"Name": container.name, "Point": made.point, "Layer": made.layer})


def _list_points(settings: Settings, container: Container) -> None:
    found = container.checkpoints()
    if settings.json:
        output.document(described.points(container))
        return
    if settings.verbosity < 0:
        for one in found:
            click.echo(one.point)
        return
    output.table(["point", "created"], [[one.point, times.ago(one.created)] for one in found])


@click.command(epilog="Example: graphdriver rollback web before-upgrade")
@click.argument("name", shell_complete=completing.containers)
@click.argument("point", required=False, shell_complete=completing.points)
@global_options
@click.pass_obj
def rollback(settings: Settings, name: str, point: str | None) -> None:
    """Take the container NAME back to POINT; print its name.

    Without POINT that is the latest checkpoint; 'created' is how it began.
    What was written since is gone; checkpoints stay, later ones too.
    """
    with stores.opened(settings) as store:
        container = store.container(name)
        container.rollback(point)
        summary = described.container_summary(container, described.image_of(store, container))
    _told(settings, container.name, summary)


def _told(settings: Settings, line: str, document: dict[str, object]) -> None:
    if settings.json:
        output.document(document)
    else:
        click.echo(line)
