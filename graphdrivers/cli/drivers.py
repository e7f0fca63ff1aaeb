"""``graphdriver drivers``: what is installed, what works here, and what each can do."""

import attrs
import click

from graphdrivers import errors, loading
from graphdrivers.cli import output
from graphdrivers.cli.settings import Settings, global_options
from graphdrivers.model import Capabilities


@click.command()
@global_options
@click.pass_obj
def drivers(settings: Settings) -> None:
    """List every known driver: where it comes from, whether it works on this root, what it can.

    With --driver only that one is looked at. One whose distribution is broken
    is listed with what is wrong; -v adds the traceback, for its author.
    """
    with output.progress(settings, "looking at drivers", None, as_bytes=False) as show, output.aside():
        found = loading.list_drivers(
            settings.root, settings.options, only=settings.driver, progress=lambda name: show(0, name)
        )
    if not found and settings.driver != loading.AUTO:
        raise errors.DriverNotFound(settings.driver)
    if settings.json:
        output.document([as_document(info) for info in found])
        return
    _show(found, settings)


def as_document(info: loading.DriverInfo) -> dict[str, object]:
    """Give what scripts read about one driver; lists and flags, no text to parse."""
    return {
        "name": info.name,
        "distribution": info.distribution,
        "version": info.version,
        "target": info.target or None,
        "usable": bool(info.usable),
        "reason": info.reason or None,
        "fix": info.fix or None,
        "error": info.error or None,
        "details": list(info.details),
        "engine": info.engine or None,
        "notes": list(info.notes),
        "capabilities": None if info.capabilities is None else attrs.asdict(info.capabilities),
        "deviations": [attrs.asdict(deviation) for deviation in info.deviations],
    }


def _show(found: list[loading.DriverInfo], settings: Settings) -> None:
    rows = [
        [info.name, f"{info.distribution} {info.version}", "yes" if info.usable else "no", info.engine or "-"]
        for info in found
    ]
    output.table(["name", "distribution", "usable", "engine"], rows)
    for info in found:
        click.echo()
        if info.usable and info.capabilities is not None:
            output.paragraph(info.name, can(info.capabilities))
        else:
            output.paragraph(f"{info.name} cannot be used", info.reason)
            if info.fix:
                output.paragraph("fix", info.fix, margin="  ")
        for note in info.notes:
            output.paragraph(f"{info.name} note", note)
        if settings.verbosity > 0:
            _show_more(info)


def _show_more(info: loading.DriverInfo) -> None:
    """Print what its author wants to know."""
    if info.target:
        output.paragraph(f"{info.name} is", info.target)
    for deviation in info.deviations:
        how = "deviates at times" if deviation.sometimes else "deviates"
        output.paragraph(f"{info.name} {how}", f"{deviation.check}: {deviation.reason}, {deviation.link}")
    for line in info.details:
        click.echo(output.one_line(f"    {line}"))


def can(capabilities: Capabilities) -> str:
    """Name what a driver can do, its limits last."""
    values = attrs.asdict(capabilities)
    words = [name.replace("_", " ") for name, value in values.items() if value is True]
    if capabilities.max_depth is not None:
        words.append(f"stacks of up to {capabilities.max_depth} layers")
    words.append(f"names of up to {capabilities.name_max} bytes")
    return ", ".join(words)
