"""What people say about an image that a command makes: options, and the value that they become."""

import datetime as dt
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

from graphdrivers.api.description import Description
from graphdrivers.cli.settings import Settings
from graphdrivers.images.descriptors import Platform

_Command = TypeVar("_Command", bound=Callable[..., Any])


def message_option(command: _Command) -> _Command:
    """Let a command take ``--message``."""
    return click.option("-m", "--message", metavar="TEXT", default="", help="A comment, for the history.")(command)


def change_option(command: _Command) -> _Command:
    """Let a command take ``--change``."""
    option = click.option(
        "-c",
        "--change",
        "changes",
        metavar="INSTRUCTION",
        multiple=True,
        help="A Dockerfile's instruction for the configuration, as 'CMD [\"/bin/sh\"]'; may be repeated.",
    )
    return option(command)


def description(
    settings: Settings,
    *,
    message: str,
    changes: Sequence[str],
    created_by: str = "",
    author: str = "",
    platform: str | None = None,
) -> Description:
    """Make the value; with SOURCE_DATE_EPOCH that is when the image is made, so that the same content gives the same.

    Raises:
        InvalidReference: ``platform`` is none.
    """
    epoch = settings.source_date_epoch
    return Description(
        author=author,
        comment=message,
        created=None if epoch is None else dt.datetime.fromtimestamp(epoch, dt.UTC),
        created_by=created_by,
        changes=changes,
        platform=None if platform is None else Platform.parse(platform),
    )
