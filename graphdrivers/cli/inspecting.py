"""``graphdriver status`` and ``graphdriver layer inspect``: what is there, and what it is made of."""

import contextlib
from collections.abc import Iterator, Mapping

import attrs
import click

from graphdrivers import loading, naivediff
from graphdrivers.api.store import Store
from graphdrivers.cli import completing, home, output, owners, stores
from graphdrivers.cli.settings import Settings, global_options
from graphdrivers.driver import Driver, Tells
from graphdrivers.linux import filesystems
from graphdrivers.model import LayerRecord
from graphdrivers.store import mounted

_SHOWN = ("root", "driver", "engine", "backing", "images", "containers", "mounts", "layers", "sealed")


@contextlib.contextmanager
def _opened(settings: Settings) -> Iterator[tuple[Driver, Store | None]]:
    """Open the store where there is one (of the driver that was asked for), else the driver alone."""
    with contextlib.closing(owners.Ledger(settings.root)) as ledger:
        made_with = ledger.driver()
    if made_with is None or settings.driver not in {loading.AUTO, made_with}:
        with home.opened(settings) as place:
            yield place.driver, None
        return
    with stores.opened(settings) as store:
        yield store.driver, store


@click.command(epilog="Example: graphdriver status --json | jq .disk")
@global_options
@click.pass_obj
def status(settings: Settings) -> None:
    """Say what the root holds: its driver and engine, why others were not taken, images, containers, layers, disk.

    What opening the store could not repair is told too.
    """
    with _opened(settings) as (driver, store):
        records = list(driver.layers())
        used = sum(driver.usage(record.name).disk for record in records)
        found = {
            "root": settings.root,
            "driver": driver.name,
            "engine": driver.support.engine,
            "backing": filesystems.fs_type(driver.home),
            "images": 0 if store is None else len(store.images()),
            "containers": 0 if store is None else len(store.containers()),
            "mounts": 0 if store is None else len(mounted.holders_of(store.site)),
            "layers": len(records),
            "sealed": sum(record.sealed for record in records),
            "disk": used,
            "notes": list(driver.support.notes),
            "refused": [str(error) for error in driver.refused],
            "facts": _facts(driver),
            "problems": [] if store is None else [attrs.asdict(problem) for problem in store.problems],
        }
    if settings.json:
        output.document(found)
        return
    rows = [[key, str(found[key])] for key in _SHOWN]
    rows.append(["disk", output.human_size(used)])
    _show(rows, _facts(driver))
    for note in (*driver.support.notes, *(str(error) for error in driver.refused)):
        output.paragraph("note", note)


@click.command(epilog="Example: graphdriver layer inspect web")
@click.argument("name", shell_complete=completing.layers)
@global_options
@click.pass_obj
def inspect(settings: Settings, name: str) -> None:
    """Say what the layer NAME is: parent, ancestors, state, and what the driver tells of it.

    Drivers that mount several directories as one list them as br0, br1, ...,
    top first, each with its role: rw, or ro+wh where deletions count.
    """
    with home.opened(settings) as place, place.locked(name):
        driver = place.driver
        record = naivediff.find_record(driver, name)
        ancestors = _ancestors(driver, record)
        mounted = [mount.target for mount in home.mounted(driver, name)]
        facts = _facts(driver, name)
    found = {
        "name": record.name,
        "parent": record.parent,
        "ancestors": ancestors,
        "sealed": record.sealed,
        "driver": driver.name,
        "mounted": mounted,
        "facts": facts,
    }
    if settings.json:
        output.document(found)
        return
    rows = [
        ["name", record.name],
        ["ancestors", " ".join(output.visible(ancestor) for ancestor in ancestors) or "-"],
        ["state", "sealed" if record.sealed else "writable"],
        ["driver", driver.name],
        ["mounted", " ".join(mounted) or "-"],
    ]
    _show(rows, facts)


def _ancestors(driver: Driver, record: LayerRecord) -> list[str]:
    """Give the names of a layer's ancestors, nearest first."""
    parents = {one.name: one.parent for one in driver.layers()}
    found: list[str] = []
    parent = record.parent
    while parent is not None:
        found.append(parent)
        parent = parents.get(parent)
    return found


def _facts(driver: Driver, layer: str | None = None) -> dict[str, str]:
    return dict(driver.facts(layer)) if isinstance(driver, Tells) else {}


def _show(rows: list[list[str]], facts: Mapping[str, str]) -> None:
    for key, value in (*rows, *([key, value] for key, value in facts.items() if key != "engine")):
        output.paragraph(key, output.one_line(value))
