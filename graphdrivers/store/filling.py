"""Filling one layer, whose parent may still be filled by another process: what the store and its workers share."""

from collections.abc import Callable
from typing import BinaryIO, cast

import attrs

from graphdrivers.archive.stream import Counted
from graphdrivers.driver import AppliesAhead
from graphdrivers.linux import durable
from graphdrivers.model import Applied, Limits, Progress


@attrs.frozen
class Job:
    """One layer to be filled."""

    layer: str
    parent: str | None
    record: str
    """Path that its header record is to have; nothing is there yet."""
    limits: Limits


@attrs.frozen
class Filled:
    """A layer that is filled."""

    applied: Applied
    tar_size: int
    """Bytes of its uncompressed tar."""


def fill(
    driver: AppliesAhead, job: Job, tar: BinaryIO, ready: Callable[[], object], progress: Progress | None
) -> Filled:
    """Make a layer of its uncompressed tar; for ``ready`` and what is raised see `driver.AppliesAhead`."""
    counted = Counted(tar)
    with durable.created(job.record) as record:
        applied = driver.apply_ahead(
            job.layer,
            job.parent,
            cast("BinaryIO", counted),
            ready=ready,
            headers=record,
            limits=job.limits,
            progress=progress,
        )
    return Filled(applied, counted.count)
