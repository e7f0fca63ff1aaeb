"""All mounts of a store, whatever they show."""

from graphdrivers.store import mounted
from graphdrivers.store.mounted import Held
from graphdrivers.store.site import Site


def everything(site: Site) -> list[Held]:
    """Give who holds what mounted now."""
    layers = [row[0] for row in site.database.read("SELECT DISTINCT layer FROM mounts ORDER BY layer")]
    return [held for layer in layers for held in mounted.holders_of(site, layer)]
