"""Find, choose and open drivers: the only door to the backends, ours and other people's.

A distribution offers a driver with an entry point in the group
``graphdrivers.drivers``, named like the driver::

    [options.entry_points]
    graphdrivers.drivers =
        zfs = graphdrivers_zfs.driver:ZfsDriver

Loading one by name imports that one only. A *home* belongs to one driver; a
*root* holds one home per driver, named like it, and is what the automatic
choice works on: ``load_driver("overlay", home)`` takes ``home`` as given,
``load_driver("auto", root)`` opens ``root/<the driver chosen>``.

This module imports stevedore, which is slow to start: import it where it is
needed, as the package root does.
"""

import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import attrs

from graphdrivers import errors, offers
from graphdrivers.driver import Driver
from graphdrivers.model import Capabilities, Deviation, Support
from graphdrivers.offers import Offer

AUTO = offers.AUTO
"""The name that stands for the best driver that works; no driver can have it."""

NO_OPTIONS: Mapping[str, str] = MappingProxyType({})


class FallbackWarning(UserWarning):
    """The automatic choice fell back to a driver that copies whole trees; the text says why."""


@attrs.frozen
class DriverInfo:
    """One offered driver and what became of trying it."""

    name: str
    distribution: str
    version: str
    target: str = ""
    """What the entry point names, ``MODULE:CLASS``."""

    usable: bool | None = None
    """Whether its probe passed; ``None`` when it was not asked to try."""

    reason: str = ""
    """Why it is not usable."""

    fix: str = ""
    """What would make it usable."""

    engine: str = ""
    notes: tuple[str, ...] = ()
    capabilities: Capabilities | None = None
    deviations: tuple[Deviation, ...] = ()
    error: str = ""
    """What is wrong with its distribution, in one line; empty when nothing is."""

    details: tuple[str, ...] = ()
    """Lines of the traceback that led to ``error``, for its author."""


def load_driver(
    name: str,
    home: str | os.PathLike[str],
    options: Mapping[str, str] = NO_OPTIONS,
    *,
    support: Support | None = None,
) -> Driver:
    """Probe and open a driver.

    With ``auto``, ``home`` is a root. The driver whose layers are there already
    is taken, whatever its rank; else the drivers are tried by rank, highest
    first, and only a `DriverUnavailable` moves on to the next. What was refused
    is kept in the attribute ``refused`` of the driver returned (a tuple of
    errors, each with reason and fix; empty for a driver asked for by name).
    Choosing a driver that copies whole trees because better ones were refused
    gives a `FallbackWarning`.

    Args:
        name: a driver's name, or ``auto``.
        home: the driver's own folder; with ``auto`` the root, made (mode 0700) where missing.
        options: what the driver understands; see its documentation.
        support: what its probe found a moment ago for another home on this file system, with these options: it is
            not probed again. Not for ``auto``.

    Raises:
        DriverNotFound: no such driver, or its distribution is broken: the metadata, the import, the contract (which
            version it was built for too), or a probe or constructor that raises what it may not.
        DriverConflict: two distributions offer this name.
        DriverUnavailable: it does not work here; with ``auto``: none does, each one's reason in the text.
        PriorDriverState: ``auto`` found layers of two drivers, or the home is another driver's.
        InvalidOption: a key or value that the driver does not know.
    """
    folder = os.path.abspath(os.fspath(home))
    installed = offers.installed()
    if name == AUTO:
        return _automatic(folder, options, installed)
    chosen, offer = offers.driver_class(name, installed.get(name, ()))
    if support is not None:
        return _made(chosen, offer, folder, options, support)
    return _opened(chosen, offer, folder, options)


def list_drivers(
    home: str | os.PathLike[str] | None = None,
    options: Mapping[str, str] = NO_OPTIONS,
    *,
    only: str = AUTO,
    progress: Callable[[str], None] | None = None,
) -> list[DriverInfo]:
    """Describe every driver that an installed distribution offers, sorted by name.

    One that cannot be loaded is listed with its ``error``; a name that two
    distributions offer is listed once for each. Every package is imported,
    which can take a while.

    Args:
        home: the root below which each driver is tried in its own folder; where
            it is missing, its nearest existing parent. Without it none is tried.
        options: passed to every probe; one that refuses them is not usable.
        only: the name of the one driver to look at; no other is imported.
        progress: called with the name of each driver before its turn.
    """
    root = None if home is None else _existing_parent(os.path.abspath(os.fspath(home)))
    listed = []
    for name, same in sorted(offers.installed().items()):
        if only not in {AUTO, name}:
            continue
        if progress is not None:
            progress(name)
        for offer in same:
            target = offer.point.value if offer.point else ""
            blank = DriverInfo(name, offer.distribution, offer.version, target)
            listed.append(_described(blank, same, root, options))
    return listed


def _described(blank: DriverInfo, same: Sequence[Offer], root: str | None, options: Mapping[str, str]) -> DriverInfo:
    try:
        chosen, offer = offers.driver_class(blank.name, same)
        if root is None:
            return blank
        support = offers.probed(chosen, offer, os.path.join(root, blank.name), options)
    except errors.DriverNotFound as error:
        known = attrs.evolve(blank, usable=False, reason=error.reason, fix=error.advice, error=error.reason)
        return attrs.evolve(known, details=offers.traced(error.__cause__))
    except errors.DriverConflict as error:
        return attrs.evolve(blank, usable=False, reason=error.message, fix=error.fix, error=error.message)
    except errors.DriverUnavailable as error:
        return attrs.evolve(blank, usable=False, reason=error.reason, fix=error.advice)
    except (errors.GraphDriverError, OSError) as error:
        return attrs.evolve(blank, usable=False, reason=str(error))
    return attrs.evolve(
        blank,
        usable=True,
        engine=support.engine,
        notes=support.notes,
        capabilities=support.capabilities,
        deviations=support.deviations,
    )


def _opened(chosen: type[Driver], offer: Offer, home: str, options: Mapping[str, str]) -> Driver:
    return _made(chosen, offer, home, options, offers.probed(chosen, offer, home, options))


def _made(chosen: type[Driver], offer: Offer, home: str, options: Mapping[str, str], support: Support) -> Driver:
    with offers.Foreign(offer, "cannot be opened", (errors.GraphDriverError, OSError)):
        return chosen(home, options, support)


def _automatic(root: str, options: Mapping[str, str], installed: Mapping[str, Sequence[Offer]]) -> Driver:
    os.makedirs(root, mode=0o700, exist_ok=True)
    homes = sorted(os.listdir(root))
    found = tuple(name for name in homes if _holds_layers(os.path.join(root, name), offered=name in installed))
    if len(found) > 1:
        raise errors.PriorDriverState(root, found, AUTO)
    if found:
        chosen, offer = offers.driver_class(found[0], installed.get(found[0], ()))
        return _opened(chosen, offer, os.path.join(root, found[0]), options)
    return _best(root, options, installed)


def _best(root: str, options: Mapping[str, str], installed: Mapping[str, Sequence[Offer]]) -> Driver:
    """Open the first driver by rank that works; one that cannot be loaded has no rank, so it is refused first."""
    refused: list[errors.GraphDriverError] = []
    candidates = []
    for name in sorted(installed):
        try:
            candidates.append(offers.driver_class(name, installed[name]))
        except (errors.DriverNotFound, errors.DriverConflict) as error:
            refused.append(error)
    for chosen, offer in sorted(candidates, key=lambda one: -one[0].rank):
        if chosen.rank <= 0:
            continue
        home = os.path.join(root, chosen.name)
        try:
            # Here an OSError too is only this driver's: a program that it lacks is no reason to have none.
            support = offers.probed(chosen, offer, home, options, (errors.GraphDriverError,))
            opened = _made(chosen, offer, home, options, support)
        except (errors.DriverUnavailable, errors.DriverNotFound) as error:
            refused.append(error)
            continue
        opened.refused = tuple(refused)
        if refused and not opened.support.capabilities.copy_on_write:
            warnings.warn(_fallback(chosen.name, refused), FallbackWarning, stacklevel=4)
        return opened
    nothing = errors.DriverUnavailable(AUTO, f"no driver works on {root!r}: {_reasons(refused)}")
    raise nothing from (ExceptionGroup("refused drivers", refused) if refused else None)


def _reasons(refused: Sequence[errors.GraphDriverError]) -> str:
    """Join the refusals in one line, each with its fix."""
    return "; ".join(str(error) for error in refused) or "none is installed"


def _fallback(name: str, refused: Sequence[errors.GraphDriverError]) -> str:
    return f"using driver {name}, which copies the whole parent for each layer, because: {_reasons(refused)}"


def _holds_layers(home: str, *, offered: bool) -> bool:
    """Say whether a folder of a root is a driver's home with layers in it.

    Every home of a known driver that is not empty counts, but for the usual
    layout (``driver.json``, ``layers/``) with no layer in it. A folder named for
    no installed driver counts when it has that layout: its package is missing.
    """
    try:
        entries = set(os.listdir(home))
    except (NotADirectoryError, FileNotFoundError):
        return False
    # A regular file: a layer of that name may be mounted in a folder beside the homes.
    if os.path.isfile(os.path.join(home, "driver.json")):
        return "layers" in entries and bool(os.listdir(os.path.join(home, "layers")))
    return offered and bool(entries)


def _existing_parent(folder: str) -> str:
    """Give the folder itself, or the nearest one above it that exists."""
    while not os.path.isdir(folder):
        folder = os.path.dirname(folder)
    return folder
