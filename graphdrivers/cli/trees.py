"""``graphdriver diff`` and ``export``: what differs between trees, and a whole tree as a tar."""

import contextlib
from collections.abc import Iterator

import click

from graphdrivers import naivediff
from graphdrivers.api import naming
from graphdrivers.api.containers import Container
from graphdrivers.api.store import Store
from graphdrivers.cli import completing, output, stores, tars
from graphdrivers.cli.settings import Settings, global_options
from graphdrivers.model import Change, LayerRecord, Profile
from graphdrivers.store import differing


@click.command(epilog="Example: graphdriver diff debian:11 debian:12")
@click.argument("a", metavar="A", shell_complete=completing.things)
@click.argument("b", metavar="[B]", required=False, shell_complete=completing.things)
@global_options
@click.pass_obj
def diff(settings: Settings, a: str, b: str | None) -> None:
    """List what a container changed, or what makes B of A: A added, C changed, D deleted.

    A and B are containers, images or layers. A container by itself is
    compared with its image, an image by itself with what its last layer stands
    on, a layer with its parent. Mounts nothing.
    """
    with stores.opened(settings) as store:
        first = naming.find(store.site, a)
        found = _alone(store, first) if b is None else _between(store, first, naming.find(store.site, b))
        if settings.json:
            output.document([{"path": change.path, "kind": change.kind.value} for change in found])
            return
        for change in found:
            click.echo(f"{change.kind.letter} {output.visible(change.path)}")


def _alone(store: Store, thing: naming.Thing) -> Iterator[Change]:
    return thing.changes() if isinstance(thing, Container) else store.driver.changes(stores.layer_of(store, thing))


def _between(store: Store, before: naming.Thing, after: naming.Thing) -> Iterator[Change]:
    lower, upper = stores.layer_of(store, before), stores.layer_of(store, after)
    if lower == upper:
        return iter(())
    if isinstance(after, Container) and lower == _below_init(after):
        return after.changes()  # as 'docker diff': what every container has does not count
    if isinstance(after, LayerRecord):  # the ledger knows no layers made by hand
        return naivediff.listed(differing.differences(store.site, lower, upper))
    return differing.changes(store.site, lower, upper)


def _below_init(container: Container) -> str | None:
    """Give the top layer of the image that a container stands on."""
    base = container.base()
    return next((layer.parent for layer in container.layers() if layer.name == base), None)


@click.command(epilog="Example: graphdriver export web | tar -t")
@click.argument("name", shell_complete=completing.things)
@click.option("-o", "--output", "target", default="-", metavar="FILE", help="Where to; - (the default) is stdout.")
@tars.profile_option
@tars.compress_option
@global_options
@click.pass_obj
def export(settings: Settings, name: str, target: str, profile: str, compress: str) -> None:
    """Write the merged tree of the container, image or layer NAME as one tar.

    No layers and no whiteouts, only what a mount would show. The same tree
    gives the same bytes. Times after SOURCE_DATE_EPOCH, where it is set, become
    that time. FILE appears when it is complete.
    """
    tars.refuse_json_on_stdout(settings, target)
    with contextlib.ExitStack() as stack:
        store = stack.enter_context(stores.opened(settings))
        layer = stores.layer_of(store, naming.find(store.site, name))
        epoch = settings.source_date_epoch
        found = differing.compared(store.site, None, layer, profile=Profile(profile), source_date_epoch=epoch)
        tar = stack.enter_context(found)
        tars.write(settings, tar, target, compress, f"export {name}")
