"""``graphdriver gc``: layers that nothing needs any more."""

from collections.abc import Sequence

import click

from graphdrivers.api.store import Store
from graphdrivers.cli import output, stores
from graphdrivers.cli.settings import Settings, global_options
from graphdrivers.store import collect
from graphdrivers.store.collect import Collected


@click.command(epilog="Example: graphdriver gc --dry-run")
@click.option("--dry-run", is_flag=True, help="Only tell what would go.")
@global_options
@click.pass_obj
def gc(settings: Settings, *, dry_run: bool) -> None:
    """Remove the layers that no image, container, checkpoint, mount or running import needs.

    Such as remain of interrupted imports, and of images that were removed while
    they were mounted, and what earlier removals could not delete. Images and
    containers stay, also nameless ones.
    """
    with stores.opened(settings) as store:
        names = store.unused()
        sizes: dict[str, int | None] = dict(store.site.database.read("SELECT name, content_size FROM layers"))
        done = _expected(store, names) if dry_run else store.collect()
    size = sum(sizes.get(name) or 0 for name in done.removed)
    if settings.json:
        left = [{"layer": layer, "reason": reason} for layer, reason in done.resisted]
        output.document({"removed": list(done.removed), "resisted": left, "bytes": size, "dry_run": dry_run})
        return
    for name in done.removed:
        click.echo(f"{'Would delete' if dry_run else 'Deleted'}: {name}")
    stores.tell_resisted(settings, done.resisted)
    click.echo(f"{'Space to reclaim' if dry_run else 'Total reclaimed space'}: {output.human_size(size)}")


def _expected(store: Store, names: Sequence[str]) -> Collected:
    """Give what a collection would remove, and of what is out of use already why it is still there."""
    left = collect.abandoned(store.site, "removing")
    return Collected(tuple(names), tuple((one.name, one.reason) for one in left))
