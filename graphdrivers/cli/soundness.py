"""``graphdriver check`` and ``explain``: what is damaged, and what keeps a thing alive."""

import contextlib
import os
from collections.abc import Sequence

import click

from graphdrivers.api import naming
from graphdrivers.api.images import Image
from graphdrivers.api.store import Store
from graphdrivers.cli import completing, output, stores
from graphdrivers.cli.described import called
from graphdrivers.cli.settings import Settings, global_options
from graphdrivers.images import opening
from graphdrivers.images.image import Image as Source
from graphdrivers.images.reference import Reference
from graphdrivers.model import LayerRecord, Limits
from graphdrivers.store import names
from graphdrivers.store.check import Fault
from graphdrivers.store.explain import Need, needs_of
from graphdrivers.store.repair import Repaired


@click.command(epilog="Example: graphdriver check --deep --repair --from debian.tar")
@click.option("--deep", is_flag=True, help="Read every file of every image, and name each that is not what it was.")
@click.option("--repair", is_flag=True, help="Remove leftovers; make damaged layers anew from what --from names.")
@click.option(
    "--from",
    "origins",
    metavar="PATH|REF",
    multiple=True,
    help="An image that has the layers: a layout or archive here, or a reference at its registry; may be repeated.",
)
@global_options
@click.pass_context
def check(context: click.Context, origins: tuple[str, ...], *, deep: bool, repair: bool) -> None:
    """Look for damage in the store; exit with 1 where there is any.

    Without --repair nothing is changed. A damaged layer is made anew beside the
    old one and then takes its place; what a container wrote itself cannot be
    brought back.
    """
    settings: Settings = context.obj
    if origins and not repair:
        raise click.UsageError("--from is for --repair")
    with stores.opened(settings) as store, contextlib.ExitStack() as stack:
        with output.progress(settings, "checking", None, as_bytes=False) as report:
            found = list(store.check(deep=deep, observe=lambda done, total: report(done, f"layer {done} of {total}")))
        done: Repaired | None = None
        remaining = found
        if repair and found:
            sources = [stack.enter_context(_opened(settings, origin)) for origin in origins]
            new = found
            while new:  # what stood on damage can be judged when that is repaired
                done = _and_also(done, _repair(settings, store, new, sources))
                remaining = list(store.check(deep=deep))
                new = [fault for fault in remaining if fault not in found]
                found += new
    _show(settings, found, done)
    context.exit(1 if remaining else 0)


def _repair(settings: Settings, store: Store, found: Sequence[Fault], sources: Sequence[Source]) -> Repaired:
    def began(layer: str) -> None:
        output.message(settings, f"making {layer} anew")

    return store.repair(found, sources, limits=Limits(), began=began)


def _and_also(before: Repaired | None, now: Repaired) -> Repaired:
    """Put together what became of two rounds; what the second brought back is not lost."""
    if before is None:
        return now
    lost = dict([*before.lost, *now.lost])
    layers = dict.fromkeys([*before.layers, *now.layers])
    return Repaired(tuple(layers), tuple(one for one in lost.items() if one[0] not in now.layers))


def _opened(settings: Settings, origin: str) -> Source:
    """Open what ``--from`` names: a path where there is one, else a reference at its registry."""
    if origin.startswith(("/", ".")) or os.path.lexists(origin):
        return opening.open_image(origin, scratch=settings.scratch)
    from graphdrivers.cli import registry  # noqa: PLC0415 - what speaks HTTP takes a tenth of a second
    from graphdrivers.images.registry import pulling  # noqa: PLC0415 - as above

    wanted = Reference.parse(origin)
    return pulling.open_remote(wanted, **registry.connection(settings, wanted))


def _show(settings: Settings, found: Sequence[Fault], done: Repaired | None) -> None:
    if settings.json:
        faults = [
            {"kind": fault.kind.value, "layer": fault.layer, "path": fault.path, "detail": fault.detail}
            for fault in found
        ]
        repaired = [] if done is None else list(done.layers)
        lost = [] if done is None else [{"layer": layer, "reason": reason} for layer, reason in done.lost]
        output.document({"ok": not found, "faults": faults, "repaired": repaired, "lost": lost})
        return
    for fault in found:
        place = " ".join(part for part in (fault.layer, output.visible(fault.path)) if part)
        click.echo(f"{fault.kind.value}: {place + ': ' if place else ''}{output.one_line(fault.detail)}")
    for layer in () if done is None else done.layers:
        click.echo(f"repaired: {layer}")
    for layer, reason in () if done is None else done.lost:
        click.echo(f"lost: {layer}: {output.one_line(reason)}")
    if not found:
        output.message(settings, "nothing is damaged")


@click.command(epilog="Example: graphdriver explain debian:12")
@click.argument("name", shell_complete=completing.things)
@global_options
@click.pass_obj
def explain(settings: Settings, name: str) -> None:
    """Say what keeps the layers of NAME (a container, image or layer) alive, and through which layers."""
    with stores.opened(settings) as store:
        thing = naming.find(store.site, name)
        own = not isinstance(thing, LayerRecord) or names.is_own(thing.name)
        empty = isinstance(thing, Image) and thing.top is None
        needs = needs_of(store.site, stores.layer_of(store, thing)) if own and not empty else []
        nearest = {(need.kind, need.name): need for need in reversed(needs)}
        rows = [_row(store, need) for need in needs if nearest[need.kind, need.name] is need]
    if settings.json:
        output.document([{"kind": need.kind, "name": need.name, "through": list(need.through)} for need in needs])
        return
    if empty:
        output.message(settings, f"{name!r} has no layers: there is nothing to keep")
    elif not rows:
        remover = "'gc' removes it" if own else "it was made by hand, and 'layer rm' removes it"
        output.message(settings, f"nothing needs {name!r}: {remover}")
    output.table(["kind", "name", "layers above"], rows, right=[2])


def _row(store: Store, need: Need) -> list[str]:
    """Show one need: an image by what people call it, and through how many layers."""
    name = called(store.image(need.name)) if need.kind == "image" else output.visible(need.name)
    return [need.kind, name, str(len(need.through) - 1)]
