"""``graphdriver inspect``: all that is known of containers, images and layers."""

import contextlib

import click

from graphdrivers.api import naming
from graphdrivers.api.containers import Container
from graphdrivers.api.images import Image
from graphdrivers.api.store import Store
from graphdrivers.cli import completing, described, output, owners, stores
from graphdrivers.cli.settings import Settings, global_options


@click.command(epilog="Example: graphdriver inspect debian:12 | jq '.[0].RootFS.Layers'")
@click.argument("names", nargs=-1, required=True, metavar="NAME...", shell_complete=completing.things)
@click.option("--type", "kind", type=click.Choice(naming.KINDS), help="Look for nothing else.")
@global_options
@click.pass_obj
def inspect(settings: Settings, names: tuple[str, ...], kind: str | None) -> None:
    """Tell all that is known of each NAME, as a JSON list.

    NAME is a container's name or ID, else an image's name or ID, else a
    layer's name: the first of these that exists.
    """
    kinds = naming.KINDS if kind is None else (kind,)
    with stores.opened(settings) as store:
        found = [naming.find(store.site, name, kinds) for name in dict.fromkeys(names)]
        documents = [_document(store, thing) for thing in found]
    output.document(documents)


def _document(store: Store, thing: naming.Thing) -> dict[str, object]:
    if isinstance(thing, Container):
        return described.container(store, thing)
    if isinstance(thing, Image):
        return described.image(store, thing)
    with contextlib.closing(owners.Ledger(store.root)) as ledger:
        return described.layer(store, thing, ledger.owner_of(thing.name))
