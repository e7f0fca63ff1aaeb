"""Choosing one of several images by name and by platform, with errors that list what there is."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Generic, TypeVar

import attrs

from graphdrivers import errors
from graphdrivers.images.descriptors import Platform
from graphdrivers.images.reference import matches

Item = TypeVar("Item")

LISTED_MAX = 20
"""Names that an error lists."""


@attrs.frozen(eq=False)
class Offer(Generic[Item]):
    """One image that a source holds."""

    names: tuple[str, ...]
    items: Mapping[str, Item]
    """What it is read from, by digest; several where it is for several platforms."""

    @property
    def label(self) -> str:
        """Its names, or its digests when it has none."""
        return " = ".join(_shown(name) for name in self.names or self.items)


def choose(source: str, offers: Sequence[Offer[Item]], reference: str | None) -> Offer[Item]:
    """Return the one image that ``reference`` means, or the only one there is.

    Args:
        source: the image's path, for messages.
        offers: what there is.
        reference: a name, a digest, or ``NAME@DIGEST``; see `reference.matches`.

    Raises:
        InvalidReference: none fits, or several do.
    """
    fitting = [offer for offer in offers if reference is None or matches(reference, offer.names, offer.items)]
    if not offers:
        raise errors.InvalidReference(source, "it holds no image")
    if not fitting:
        raise errors.InvalidReference(source, f"no image in it is called {reference!r}; it holds {_listed(offers)}")
    if len(fitting) > 1:
        raise errors.InvalidReference(source, f"it holds several images, name one of them: {_listed(fitting)}")
    digest = (reference or "").rpartition("@")[2]
    chosen = fitting[0]
    return attrs.evolve(chosen, items={digest: chosen.items[digest]}) if digest in chosen.items else chosen


def choose_platform(source: str, platforms: Sequence[Platform], wanted: Platform) -> int:
    """Return the position of the platform that runs best on ``wanted``; of equals the first.

    Raises:
        InvalidReference: none runs there.
    """
    fitness = [platform.fitness(wanted) for platform in platforms]
    best = max(fitness)
    if best < 0:
        there = ", ".join(dict.fromkeys(str(platform) for platform in platforms))
        raise errors.InvalidReference(source, f"there is no image for {wanted} in it, only for {there}")
    return fitness.index(best)


def _listed(offers: Iterable[Offer[Item]]) -> str:
    labels = [offer.label for offer in offers]
    more = f" and {len(labels) - LISTED_MAX} more" if len(labels) > LISTED_MAX else ""
    return ", ".join(labels[:LISTED_MAX]) + more


def _shown(name: str) -> str:
    """Keep what a stranger wrote from steering a terminal."""
    return name if name.isprintable() else repr(name)
