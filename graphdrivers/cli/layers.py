"""``graphdriver layer``: the verbs of the driver contract on one layer, for scripts and debugging."""

import contextlib
import os
from collections.abc import Iterable, Sequence

import attrs
import click

from graphdrivers import errors
from graphdrivers.cli import completing, home, output, owners
from graphdrivers.cli.lazy import Lazy, LazyGroup
from graphdrivers.cli.settings import Settings, global_options, size_given
from graphdrivers.driver import Driver
from graphdrivers.model import LayerRecord, LayerSpec, Usage, validate_layer_name

_ELSEWHERE = {
    "apply": Lazy("graphdrivers.cli.tars", "apply", "Unpack a layer tar, compressed or not, into a layer."),
    "diff": Lazy("graphdrivers.cli.tars", "diff", "Write a layer's changes as an OCI layer tar."),
    "inspect": Lazy("graphdrivers.cli.inspecting", "inspect", "What a layer is, and what it is made of on disk."),
    "mount": Lazy("graphdrivers.cli.mounting", "mount", "Mount a layer with its stack; print the path."),
    "umount": Lazy("graphdrivers.cli.mounting", "umount", "Unmount a layer, by its name or a path."),
}


@click.group(cls=LazyGroup, lazy=_ELSEWHERE)
@global_options
def layer() -> None:
    """Work on single layers.

    A layer is created writable, filled (apply, or mount and write), and sealed
    for ever; only a sealed layer can be a parent.
    """


@layer.command(epilog="Example: graphdriver layer create web --parent base")
@click.argument("name")
@click.option(
    "--parent", metavar="LAYER", shell_complete=completing.layers, help="A sealed layer that this one stands on."
)
@click.option(
    "--size",
    metavar="SIZE",
    callback=size_given,
    help="Limit of the layer's own content (10G); needs a driver with quotas.",
)
@global_options
@click.pass_obj
def create(settings: Settings, name: str, parent: str | None, size: int | None) -> None:
    """Create an empty writable layer NAME."""
    spec = LayerSpec(size=size)
    owners.refuse_own(settings.root, name, *([] if parent is None else [parent]))
    with home.opened(settings) as place, place.locked(name, parent=parent):
        place.driver.create(name, parent, spec)
    if settings.json:
        output.document({"name": name, "parent": parent, "sealed": False})


@layer.command(epilog="Example: graphdriver layer seal base")
@click.argument("name", shell_complete=completing.layers)
@global_options
@click.pass_obj
def seal(settings: Settings, name: str) -> None:
    """Make the layer NAME immutable, so that it can be a parent. Sealing again is fine."""
    owners.refuse_own(settings.root, name)
    with home.opened(settings) as place, place.locked(name):
        place.check_filled(name)
        place.driver.seal(name)
    if settings.json:
        output.document({"name": name, "sealed": True})


@layer.command(epilog="Example: graphdriver layer changes web")
@click.argument("name", shell_complete=completing.layers)
@global_options
@click.pass_obj
def changes(settings: Settings, name: str) -> None:
    """List what the layer NAME changes: A added, C changed, D deleted."""
    with home.opened(settings) as place, place.locked(name):
        found = place.driver.changes(name)
        if settings.json:
            output.document([{"path": change.path, "kind": change.kind.value} for change in found])
            return
        for change in found:
            click.echo(f"{change.kind.letter} {output.visible(change.path)}")


@layer.command(
    epilog="Example: graphdriver layer usage base", short_help="Measure what the layer NAME holds by itself."
)
@click.argument("name", shell_complete=completing.layers)
@global_options
@click.pass_obj
def usage(settings: Settings, name: str) -> None:
    """Measure what the layer NAME holds by itself: bytes in files, inodes, bytes on disk."""
    with home.opened(settings) as place, place.locked(name):
        found = place.driver.usage(name)
    if settings.json:
        output.document(attrs.asdict(found))
        return
    rows = [[str(found.bytes), str(found.inodes), str(found.disk)]]
    output.table(["bytes", "inodes", "disk"], rows, right=range(3))


@layer.command("ls", epilog="Example: graphdriver layer ls --json")
@global_options
@click.pass_obj
def list_layers(settings: Settings) -> None:
    """List the layers, children before their parents."""
    with home.opened(settings) as place:
        found = list(_measured(place.driver))
        with contextlib.closing(owners.Ledger(place.root)) as ledger:
            owned = {record.name: ledger.owner_of(record.name) for record, _used in found}
    if settings.json:
        output.document(
            [{**attrs.asdict(record), "size": used.bytes, "owner": owned[record.name]} for record, used in found]
        )
        return
    rows = [
        [
            output.visible(record.name),
            output.visible(record.parent or "-"),
            "sealed" if record.sealed else "writable",
            output.human_size(used.bytes),
            output.one_line(owned[record.name] or "-"),
        ]
        for record, used in found
    ]
    if any(owned.values()):
        output.table(["name", "parent", "state", "size", "owner"], rows, right=[3])
    else:
        output.table(["name", "parent", "state", "size"], [row[:-1] for row in rows], right=[3])


def _measured(driver: Driver) -> Iterable[tuple[LayerRecord, Usage]]:
    """Give every layer with its usage, but for those that another process removes meanwhile."""
    for record in list(driver.layers()):
        try:
            yield record, driver.usage(record.name)
        except errors.LayerNotFound:
            continue


@layer.command("rm", epilog="Example: graphdriver layer rm web base")
@click.argument("names", nargs=-1, required=True, metavar="NAME...", shell_complete=completing.layers)
@global_options
@click.pass_obj
def remove(settings: Settings, names: tuple[str, ...]) -> None:
    """Remove layers, in an order that works whatever the order they are named in.

    Nothing is removed when one of them does not exist or has a child that is
    not named too. Layers of images and containers are the store's.
    """
    owners.refuse_own(settings.root, *names)
    with home.opened(settings) as place:
        ordered = _removal_order(list(place.driver.layers()), names)
        for name in ordered:
            with place.locked(name):
                _check_childless(place.driver.layers(), name, ())
                place.driver.remove(name)
                place.forget(name)
            output.message(settings, f"removed {os.fsencode(name)!r}", level=1)
    if settings.json:
        output.document({"removed": ordered})


def _removal_order(records: Sequence[LayerRecord], names: Sequence[str]) -> list[str]:
    """Sort children first (as `Driver.layers` does) and check that all can go.

    Raises:
        LayerNotFound, LayerHasChildren: for the first name that cannot.
    """
    wanted = {validate_layer_name(name) for name in names}
    known = [record.name for record in records]
    for name in names:
        if name not in known:
            raise errors.LayerNotFound(name)
        _check_childless(records, name, wanted)
    return [name for name in known if name in wanted]


def _check_childless(records: Iterable[LayerRecord], name: str, leaving: Iterable[str]) -> None:
    gone = set(leaving)
    children = sorted(record.name for record in records if record.parent == name and record.name not in gone)
    if children:
        raise errors.LayerHasChildren(name, tuple(children))
