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

import importlib.metadata
import os
import warnings
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import attrs
from stevedore import DriverManager
from stevedore.exception import NoMatches

from graphdrivers import errors
from graphdrivers.driver import CONTRACT_VERSION, Driver
from graphdrivers.model import Capabilities, Deviation

GROUP = "graphdrivers.drivers"
"""The entry-point group that drivers are offered in."""

AUTO = "auto"
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
    """Why it could not even be loaded; empty when it could."""


@attrs.frozen
class _Offer:
    """One entry point with the distribution that it came from."""

    point: importlib.metadata.EntryPoint
    distribution: str
    version: str


class _Found(DriverManager[Driver]):
    """A stevedore manager over the entry points that are installed now.

    Stevedore's own list is cached for the process and in ``~/.cache``, keyed by
    times that are rounded to minutes: it misses a driver installed a moment
    ago, writes into root's home, and forgets the distributions.
    """

    def __init__(self, name: str, points: Sequence[importlib.metadata.EntryPoint], failures: list[Exception]) -> None:
        self._points = list(points)

        def keep(_manager: object, _point: object, failure: BaseException) -> None:
            failures.append(RuntimeError(f"{type(failure).__name__}: {failure}"))

        super().__init__(GROUP, name, on_load_failure_callback=keep, on_missing_entrypoints_callback=None)

    def list_entry_points(self) -> list[importlib.metadata.EntryPoint]:
        """Give the entry points that this manager was made with."""
        return self._points


def load_driver(name: str, home: str | os.PathLike[str], options: Mapping[str, str] = NO_OPTIONS) -> Driver:
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

    Raises:
        DriverNotFound: no such driver, or its package fails to import or breaks the contract.
        DriverConflict: two distributions offer this name.
        DriverUnavailable: it does not work here; with ``auto``: none does, each one's reason in the text.
        PriorDriverState: ``auto`` found layers of two drivers, or the home is another driver's.
        InvalidOption: a key or value that the driver does not know.
    """
    folder = os.path.abspath(os.fspath(home))
    offers = _offers()
    if name == AUTO:
        return _automatic(folder, options, offers)
    return _opened(_driver_class(name, offers.get(name, ())), folder, options, ())


def list_drivers(
    home: str | os.PathLike[str] | None = None, options: Mapping[str, str] = NO_OPTIONS
) -> list[DriverInfo]:
    """Describe every driver that an installed distribution offers, sorted by name.

    One that cannot be loaded is listed with its ``error``; a name that two
    distributions offer is listed once for each.

    Args:
        home: the root below which each driver is tried in its own folder; where
            it is missing, its nearest existing parent. Without it none is tried.
        options: passed to every probe; one that refuses them is not usable.
    """
    root = None if home is None else _existing_parent(os.path.abspath(os.fspath(home)))
    listed = []
    for name, offers in sorted(_offers().items()):
        for offer in offers:
            blank = DriverInfo(name, offer.distribution, offer.version)
            listed.append(_described(blank, offers, root, options))
    return listed


def _described(blank: DriverInfo, offers: Sequence[_Offer], root: str | None, options: Mapping[str, str]) -> DriverInfo:
    try:
        chosen = _driver_class(blank.name, offers)
    except errors.DriverNotFound as error:
        return attrs.evolve(blank, usable=False, reason=error.reason, error=error.reason)
    except errors.DriverConflict as error:
        return attrs.evolve(blank, usable=False, reason=error.message, fix=error.fix, error=error.message)
    if root is None:
        return blank
    try:
        support = chosen.probe(os.path.join(root, blank.name), options)
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


def _offers() -> dict[str, list[_Offer]]:
    """Group what is installed by name, distributions in order; one seen twice with one target counts once."""
    found: dict[str, list[_Offer]] = {}
    seen = set()
    for point in importlib.metadata.entry_points(group=GROUP):
        owner = point.dist
        offer = _Offer(point, owner.name if owner else "unknown", owner.version if owner else "")
        if (point.name, point.value, offer.distribution) not in seen:
            seen.add((point.name, point.value, offer.distribution))
            found.setdefault(point.name, []).append(offer)
    return {name: sorted(same, key=lambda offer: (offer.distribution, offer.version)) for name, same in found.items()}


def _driver_class(name: str, offers: Sequence[_Offer]) -> type[Driver]:
    """Import the one offer of a name and check what it gives against the contract."""
    if len(offers) > 1:
        raise errors.DriverConflict(name, tuple(f"{offer.distribution} {offer.version}" for offer in offers))
    failures: list[Exception] = []
    try:
        found = _Found(name, [offer.point for offer in offers], failures).driver
    except NoMatches:
        reason = f"its package fails to import: {failures[0]}" if failures else _unknown(name)
        raise errors.DriverNotFound(name, reason) from (failures[0] if failures else None)
    except (AssertionError, SystemExit) as failure:  # stevedore lets these through
        reason = f"its package fails to import: {type(failure).__name__}: {failure}"
        raise errors.DriverNotFound(name, reason) from failure
    complaint = _complaint(name, found)
    if complaint:
        raise errors.DriverNotFound(name, f"{offers[0].point.value} {complaint}")
    return found  # type: ignore[return-value]  # _complaint made sure that it is a class


def _unknown(name: str) -> str:
    if name == AUTO:
        return "this name means the automatic choice"
    return "no installed distribution offers it"


def _complaint(name: str, found: object) -> str:
    """Say in what way an object is no driver of this contract; empty when it is one."""
    if not (isinstance(found, type) and issubclass(found, Driver)):
        return "is not a subclass of graphdrivers.Driver"
    if found.contract != CONTRACT_VERSION:
        return f"is built for version {found.contract} of the driver contract; this is version {CONTRACT_VERSION}"
    missing = sorted(getattr(found, "__abstractmethods__", ()))
    if missing:
        return f"lacks {', '.join(missing)}"
    if getattr(found, "name", None) != name:
        return f"calls itself {getattr(found, 'name', None)!r}"
    falsy = [method for method in ("__bool__", "__len__") if hasattr(found, method)]
    if falsy:
        return f"defines {falsy[0]}: a driver that can be false is mistaken for a missing one"
    return ""


def _opened(
    chosen: type[Driver], home: str, options: Mapping[str, str], refused: tuple[errors.GraphDriverError, ...]
) -> Driver:
    opened = chosen(home, options, chosen.probe(home, options))
    opened.refused = refused
    return opened


def _automatic(root: str, options: Mapping[str, str], offers: Mapping[str, Sequence[_Offer]]) -> Driver:
    os.makedirs(root, mode=0o700, exist_ok=True)
    homes = sorted(os.listdir(root))
    found = tuple(name for name in homes if _holds_layers(os.path.join(root, name), offered=name in offers))
    if len(found) > 1:
        raise errors.PriorDriverState(root, found, AUTO)
    if found:
        chosen = _driver_class(found[0], offers.get(found[0], ()))
        return _opened(chosen, os.path.join(root, found[0]), options, ())
    return _best(root, options, offers)


def _best(root: str, options: Mapping[str, str], offers: Mapping[str, Sequence[_Offer]]) -> Driver:
    """Open the first driver by rank that works; a package that fails to import has no rank, so it is refused first."""
    refused: list[errors.GraphDriverError] = []
    candidates = []
    for name in sorted(offers):
        try:
            candidates.append(_driver_class(name, offers[name]))
        except errors.DriverNotFound as error:
            refused.append(error)
    for chosen in sorted(candidates, key=lambda one: -one.rank):
        if chosen.rank <= 0:
            continue
        try:
            opened = _opened(chosen, os.path.join(root, chosen.name), options, tuple(refused))
        except errors.DriverUnavailable as error:
            refused.append(error)
            continue
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
