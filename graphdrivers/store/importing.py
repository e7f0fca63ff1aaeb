"""The layers of one image, lowest first, made or found: each stack once, whoever else imports it at the same time.

Several are made at a time where the driver can and it is worth it, else one after the other.
"""

import contextlib
from collections.abc import Sequence
from typing import BinaryIO

from graphdrivers import errors
from graphdrivers.model import Limits
from graphdrivers.store import beside, incoming, making
from graphdrivers.store.incoming import Source, Wanted, Watch
from graphdrivers.store.ledger import Layer
from graphdrivers.store.onebyone import OneByOne
from graphdrivers.store.site import Site

OF_A_CONTAINER = 2
"""Layers that a container has at least on those of its image: its init layer, and the writable one."""


def import_layers(
    site: Site,
    sources: Sequence[Source],
    *,
    lease: str,
    limits: Limits = Limits(),
    watch: Watch | None = None,
    jobs: int | None = None,
) -> list[Layer]:
    """Make the stack of ``sources`` (lowest first) or find what is there of it; give its layers, lowest first.

    Each layer is acknowledged (see `making.acknowledge`) on its own: after an
    error or a crash those before it stay, held by the lease while this process
    lives, and the next import goes on from there.

    Args:
        site: the store.
        sources: where the layers come from.
        lease: what holds them until an image does.
        limits: what each may ask for.
        watch: told how it goes.
        jobs: layers at a time, for drivers that can (``apply_ahead``); see `beside.count`.

    Raises:
        ChainTooDeep: no container could stand on so many layers; nothing was read.
        DigestMismatch: a layer is not the one that was promised.
        ArchiveError, OSError: see `driver.Driver.apply`.
        UnpackerDied: a process that made one was killed.
    """
    _refuse_too_deep(site, sources)
    wanted = Wanted(site, sources, lease, limits, watch or Watch())
    present = incoming.hold(site, wanted.chains, lease)
    for number, layer in enumerate(present):
        wanted.told.found(number, layer)
    if len(present) == len(sources):
        return present
    others = beside.count(site.driver, sources[len(present) :], jobs)
    with contextlib.ExitStack() as stack:
        if others:
            # What starts processes takes 30 ms to be imported, and small images do without.
            from graphdrivers.store.parallel import Parallel  # noqa: PLC0415 - see above

            return [*present, *Parallel(wanted, present, stack, others=others).layers()]
        return [*present, *OneByOne(wanted, stack).layers(present)]


def import_tar(
    site: Site,
    parent: Layer | None,
    tar: BinaryIO,
    *,
    lease: str,
    limits: Limits = Limits(),
    watch: Watch | None = None,
) -> Layer:
    """Make one layer of an uncompressed tar whose DiffID nobody knows yet."""
    told = watch or Watch()
    told.began(0)
    made = making.making(site, parent, tar, limits=limits, progress=lambda size: told.consumed(0, size))
    with made as layer, site.lock(f"chain:{layer.chain_id}"):
        done = making.acknowledge(site, layer, lease)
    told.done(0, done)
    return done


def _refuse_too_deep(site: Site, sources: Sequence[Source]) -> None:
    """Raise ChainTooDeep where the driver has no room for the layers of an image and for those of a container."""
    limit = site.driver.support.capabilities.max_depth
    if limit is not None and len(sources) + OF_A_CONTAINER > limit:
        raise errors.ChainTooDeep(sources[-1].diff_id, len(sources), limit - OF_A_CONTAINER)
