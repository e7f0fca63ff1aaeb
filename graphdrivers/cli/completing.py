"""Names for a shell's completion: read straight from the ledger, so that a key press waits for nothing.

Nothing is opened for writing, loaded or repaired; whatever goes wrong means no
candidates.
"""

import os
import sqlite3
from collections.abc import Iterator

import click
from click.shell_completion import CompletionItem

from graphdrivers.cli.settings import Settings

_LEDGER = ("store", "ledger.sqlite")
_WAIT = 0.2
"""Seconds to wait for a writer, where the file system makes readers wait."""

_IMAGES = "SELECT reference FROM tags ORDER BY reference"
_IMAGE_IDS = "SELECT substr(image_id, 8, 12) FROM images ORDER BY created DESC"
_CONTAINERS = "SELECT name FROM containers WHERE ready ORDER BY name"
_CONTAINER_IDS = "SELECT substr(container_id, 1, 12) FROM containers WHERE ready ORDER BY created DESC"
_POINTS = (
    "SELECT point FROM checkpoints JOIN containers USING (container_id) WHERE name = ? ORDER BY checkpoints.created"
)

_FAMILIAR = ("docker.io/library/", "docker.io/")


def containers(context: click.Context, _argument: click.Parameter, typed: str) -> list[CompletionItem]:
    """Offer containers by name, and by ID once hex digits fit no name."""
    return _offered(typed, _read(context, _CONTAINERS)) or _offered(typed, _read(context, _CONTAINER_IDS), typed)


def images(context: click.Context, _argument: click.Parameter, typed: str) -> list[CompletionItem]:
    """Offer images by the names that people write, and by ID once hex digits fit no name."""
    names = [_familiar(name) for name in _read(context, _IMAGES)]
    return _offered(typed, names) or _offered(typed, _read(context, _IMAGE_IDS), typed)


def layers(context: click.Context, _argument: click.Parameter, typed: str) -> list[CompletionItem]:
    """Offer the layers of all drivers of the root."""
    return _offered(typed, sorted(set(_layers(context))))


def mountable(context: click.Context, argument: click.Parameter, typed: str) -> list[CompletionItem]:
    """Offer containers, then images."""
    return [*containers(context, argument, typed), *images(context, argument, typed)]


def things(context: click.Context, argument: click.Parameter, typed: str) -> list[CompletionItem]:
    """Offer containers, images, and layers when something was typed: there are many."""
    return [*mountable(context, argument, typed), *(layers(context, argument, typed) if typed else [])]


def points(context: click.Context, _argument: click.Parameter, typed: str) -> list[CompletionItem]:
    """Offer the checkpoints of the container that was named before."""
    return _offered(typed, _read(context, _POINTS, (context.params.get("name") or "",)))


def _offered(typed: str, names: list[str], needed: str | None = None) -> list[CompletionItem]:
    return [] if needed == "" else [CompletionItem(name) for name in names if name.startswith(typed)]


def _read(context: click.Context, query: str, values: tuple[str, ...] = ()) -> list[str]:
    path = os.path.join(_root(context), *_LEDGER)
    if not os.path.exists(path):
        return []
    try:
        connection = sqlite3.connect(f"file:{_quoted(path)}?mode=ro", uri=True, timeout=_WAIT)
        try:
            return [row[0] for row in connection.execute(query, values)]
        finally:
            connection.close()
    except sqlite3.Error:
        return []


def _layers(context: click.Context) -> Iterator[str]:
    """Give the names in the ``layers`` folders of the homes; names that a terminal would obey are left out."""
    root = _root(context)
    try:
        homes = [entry.path for entry in os.scandir(root) if entry.is_dir(follow_symlinks=False)]
    except OSError:
        return
    for home in homes:
        try:
            yield from (name for name in os.listdir(os.path.join(home, "layers")) if name.isprintable())
        except OSError:
            continue


def _root(context: click.Context) -> str:
    settings: Settings = context.find_root().obj
    return settings.root


def _quoted(path: str) -> str:
    return "".join(
        char if char.isalnum() or char in "/._-" else "".join(f"%{b:02x}" for b in os.fsencode(char)) for char in path
    )


def _familiar(name: str) -> str:
    for beginning in _FAMILIAR:
        if name.startswith(beginning):
            return name.removeprefix(beginning)
    return name
