"""The store that a command works on, opened."""

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import click

from graphdrivers import errors
from graphdrivers.api import naming
from graphdrivers.api.containers import Container
from graphdrivers.api.images import Image
from graphdrivers.api.store import Store, open_store
from graphdrivers.cli import home, output
from graphdrivers.cli.settings import Settings
from graphdrivers.store import names

_Command = TypeVar("_Command", bound=Callable[..., Any])


@contextlib.contextmanager
def opened(settings: Settings, *, durability: str = "layer") -> Iterator[Store]:
    """Open the store in the root that the settings name, making it where it is missing.

    Raises:
        GraphDriverError: see `open_store`.
    """
    with home.fallback_told(settings):
        store = open_store(settings.root, settings.driver, options=settings.options, durability=durability)
    with store:
        driver = store.driver
        output.message(settings, f"driver {driver.name} ({driver.support.engine}) in {driver.home}", level=1)
        for problem in store.problems:
            output.message(settings, f"graphdriver: {problem.what}: {problem.reason}; see 'graphdriver doctor'")
        try:
            yield store
        except errors.LayerInUse as error:
            _tell_owner(settings, error)
            raise


def tell_resisted(settings: Settings, resisted: Iterable[tuple[str, str]]) -> None:
    """Tell of layers that could not be deleted, and why."""
    for name, reason in resisted:
        what = f"layer {name!r} is out of use, but" if names.is_own(name) else "files of removed layers are"
        output.message(settings, f"graphdriver: {what} not deleted yet: {reason}; 'graphdriver gc' tries again")


def _tell_owner(settings: Settings, error: "errors.LayerInUse") -> None:
    """Add what a layer of the store's own belongs to: its name says nothing to people."""
    from graphdrivers.cli import owners  # noqa: PLC0415 - every command starts with this module; for this error only

    with contextlib.closing(owners.Ledger(settings.root)) as ledger:
        owner = ledger.owner_of(error.layer)
    if owner is not None:
        error.add_note(f"it is a layer of {owner}")


def durability_option(command: _Command) -> _Command:
    """Let a command that writes take ``--durability``."""
    option = click.option(
        "--durability",
        type=click.Choice(["none", "layer", "file"]),
        default="layer",
        show_default=True,
        help="What is on disk when it ends: 'none' trusts the machine, 'file' syncs each file.",
    )
    return option(command)


def layer_of(store: Store, thing: naming.Thing) -> str:
    """Give the layer whose merged tree is the thing's.

    Raises:
        ImageNotFound: an image without layers has no tree.
    """
    if isinstance(thing, Container):
        return thing.record().layer
    return store.layer_of(thing) if isinstance(thing, Image) else thing.name
