"""``graphdriver gc``: layers that nothing needs any more."""

import click

from graphdrivers.cli import output, stores
from graphdrivers.cli.settings import Settings, global_options
from graphdrivers.store.collect import Collected


@click.command(epilog="Example: graphdriver gc --dry-run")
@click.option("--dry-run", is_flag=True, help="Only tell what would go.")
@global_options
@click.pass_obj
def gc(settings: Settings, *, dry_run: bool) -> None:
    """Remove the layers that no image, container, checkpoint, mount or running import needs.

    Such as remain of interrupted imports, and of images that were removed while
    they were mounted. Images and containers stay, also nameless ones.
    """
    with stores.opened(settings) as store:
        names = store.unused()
        sizes: dict[str, int | None] = dict(store.site.database.read("SELECT name, content_size FROM layers"))
        done = Collected(tuple(names)) if dry_run else store.collect()
    size = sum(sizes.get(name) or 0 for name in done.removed)
    if settings.json:
        left = [{"layer": layer, "reason": reason} for layer, reason in done.resisted]
        output.document({"removed": list(done.removed), "resisted": left, "bytes": size, "dry_run": dry_run})
        return
    for name in done.removed:
        click.echo(f"{'Would delete' if dry_run else 'Deleted'}: {name}")
    for layer, reason in done.resisted:
        output.message(settings, f"graphdriver: layer {layer!r} is out of use, but could not be deleted: {reason}")
    click.echo(f"{'Space to reclaim' if dry_run else 'Total reclaimed space'}: {output.human_size(size)}")
