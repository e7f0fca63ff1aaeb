"""What installed distributions offer as drivers: found, imported, and checked against the contract.

Other people's code runs here: a distribution that is broken in whatever way is
told of in one line, by its name, and keeps nobody from the other drivers.
"""

import errno
import importlib.metadata
import re
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType

import attrs
from stevedore import DriverManager
from stevedore.exception import NoMatches

from graphdrivers import errors
from graphdrivers.driver import CONTRACT_VERSION, Driver
from graphdrivers.model import Support

GROUP = "graphdrivers.drivers"
"""The entry-point group that drivers are offered in."""

AUTO = "auto"
"""The name that stands for the best driver that works; no driver can have it."""

_NAME = re.compile(r"[a-z][a-z0-9_.-]{0,63}")
"""What can be a driver's name: it becomes a folder of the root, and stands on command lines."""

_TARGET = re.compile(r"[\w.]+\s*:\s*[\w.]+\s*(\[.*\])?")
"""What an entry point names. Source: PyPA, *Entry points specification*."""

TAKEN = frozenset({AUTO, "locks", "mounts", "store", "unfinished"})
"""What has a meaning of its own where drivers are named, or below a root."""

_NAMELESS = "a distribution without a name"

_TROUBLE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM})
"""Failed system calls that are the machine's fault, not a driver's."""

_OURS = frozenset({"graphdrivers", "importlib", "stevedore"})
"""Packages whose part in a traceback is no news to a driver's author."""


@attrs.frozen
class Offer:
    """One entry point with the distribution that it came from."""

    name: str
    distribution: str
    version: str
    point: importlib.metadata.EntryPoint | None
    """``None`` where the distribution's metadata cannot be read."""

    @property
    def title(self) -> str:
        """The distribution with its version."""
        return f"{self.distribution} {self.version}".rstrip()

    @property
    def removal(self) -> str:
        """What helps against a broken distribution."""
        return f"upgrade or uninstall {self.distribution}; 'graphdriver drivers -v' shows where it went wrong"


class Foreign:
    """Around other people's code: what it should not have raised becomes a DriverNotFound, with its cause.

    Passed on are Ctrl-C, a process that is asked to end, what is wrong with the
    machine rather than the driver, and the errors that the contract knows.
    """

    def __init__(self, offer: Offer, what: str, knows: tuple[type[BaseException], ...] = ()) -> None:
        self._offer, self._what, self._knows = offer, what, knows

    def __enter__(self) -> None:
        """Nothing is to be done beforehand."""

    def __exit__(
        self, _kind: type[BaseException] | None, failure: BaseException | None, _trace: TracebackType | None
    ) -> None:
        if failure is None or isinstance(failure, self._knows) or _is_of_the_machine(failure):
            return
        reason = f"{self._offer.title} {self._what}: {_in_one_line(failure)}"
        raise errors.DriverNotFound(self._offer.name, reason, self._offer.removal) from failure


def _is_of_the_machine(failure: BaseException) -> bool:
    if isinstance(failure, OSError):
        return failure.errno in _TROUBLE
    if isinstance(failure, SystemExit):  # raised by a handler of SIGTERM, as shells count it
        return isinstance(failure.code, int) and failure.code > 128
    return isinstance(failure, KeyboardInterrupt | GeneratorExit | MemoryError)


def _in_one_line(failure: BaseException) -> str:
    """Name an exception and what it says, wherever its text comes from."""
    if isinstance(failure, SyntaxError):
        return f"{type(failure).__name__}: {failure}"  # with file and line, which the other form has above
    import traceback  # noqa: PLC0415 - slow to import, and most plugins are sound

    return " ".join(traceback.format_exception_only(failure)[0].split())


def traced(failure: BaseException | None) -> tuple[str, ...]:
    """Give the lines of a traceback, from where other people's code begins."""
    if failure is None:
        return ()
    import traceback  # noqa: PLC0415 - as above

    trace = failure.__traceback__
    while trace is not None and trace.tb_frame.f_globals.get("__name__", "").partition(".")[0] in _OURS:
        trace = trace.tb_next
    shown = traceback.format_exception(type(failure), failure, trace or failure.__traceback__)
    return tuple("".join(shown).splitlines())


class _Found(DriverManager[Driver]):
    """A stevedore manager over the entry points that are installed now.

    Stevedore's own list is cached for the process and in ``~/.cache``, keyed by
    times that are rounded to minutes: it misses a driver installed a moment
    ago, writes into root's home, and forgets the distributions.
    """

    def __init__(self, point: importlib.metadata.EntryPoint) -> None:
        """Load what the entry point names.

        Raises:
            BaseException: whatever the import raised.
        """
        self._points = [point]
        failures: list[BaseException] = []

        def keep(_manager: object, _point: object, failure: BaseException) -> None:
            failures.append(failure)

        try:
            super().__init__(GROUP, point.name, on_load_failure_callback=keep, on_missing_entrypoints_callback=None)
        except NoMatches as nothing:
            raise (failures[0] if failures else nothing) from None

    def list_entry_points(self) -> list[importlib.metadata.EntryPoint]:
        """Give the entry points that this manager was made with."""
        return self._points


def installed() -> dict[str, list[Offer]]:
    """Group what is installed by name, distributions in order; of one that is there twice the first counts."""
    found: dict[str, list[Offer]] = {}
    seen: set[str] = set()
    for distribution in importlib.metadata.distributions():
        offers = list(dict.fromkeys(_offered(distribution)))
        title = offers[0].distribution if offers else _NAMELESS
        if title not in seen:
            seen |= {title} - {_NAMELESS}
            for offer in offers:
                found.setdefault(offer.name, []).append(offer)
    return {name: sorted(same, key=lambda offer: (offer.distribution, offer.version)) for name, same in found.items()}


def _offered(distribution: importlib.metadata.Distribution) -> Iterator[Offer]:
    """Give what one distribution offers. One whose entry points cannot be read offers itself, without one."""
    try:
        text = distribution.read_text("entry_points.txt")
    except (OSError, UnicodeDecodeError):
        return  # whatever it offers, nobody can tell
    if text is None or GROUP not in text:
        return
    title, version = _named(distribution)
    try:
        points = distribution.entry_points.select(group=GROUP)
    except (TypeError, ValueError, AttributeError, KeyError):
        yield Offer(title, title, version, None)
        return
    for point in points:
        yield Offer(point.name, title, version, point)


def _named(distribution: importlib.metadata.Distribution) -> tuple[str, str]:
    """Give name and version; what is missing is no reason to fail, or to warn, as ``Distribution.name`` does.

    Each stands in a line of its own above the first empty one; ``email``, which is how the standard library reads
    them, takes longer to import and to parse the rest than everything else here.
    Source: PyPA, *Core metadata specifications*.
    """
    try:
        about = distribution.read_text("METADATA") or distribution.read_text("PKG-INFO") or ""
    except (OSError, UnicodeDecodeError):
        return _NAMELESS, ""
    lines = (line.partition(":") for line in reversed(about.partition("\n\n")[0].splitlines()))
    fields = {key.lower(): value.strip() for key, _, value in lines}
    return fields.get("name") or _NAMELESS, fields.get("version", "")


def driver_class(name: str, offers: Sequence[Offer]) -> tuple[type[Driver], Offer]:
    """Import the one offer of a name and check what it gives against the contract.

    Raises:
        DriverNotFound: there is none, or it is broken.
        DriverConflict: there are several.
    """
    if not offers:
        raise errors.DriverNotFound(name, _unknown(name))
    if len(offers) > 1:
        raise errors.DriverConflict(name, tuple(offer.title for offer in offers))
    offer = offers[0]
    if offer.point is None:
        raise errors.DriverNotFound(name, f"the entry points of {offer.title} cannot be read", "install it anew")
    misnamed = _misnamed(name)
    if misnamed:
        raise errors.DriverNotFound(name, f"{offer.title} offers it under a name that {misnamed}", offer.removal)
    if not _TARGET.fullmatch(offer.point.value):
        reason = f"{offer.title} offers it as {offer.point.value!r}, which is no MODULE:CLASS"
        raise errors.DriverNotFound(name, reason, offer.removal)
    with Foreign(offer, "fails to import"):
        found = _Found(offer.point).driver
    complaint, advice = _complaint(offer, found)
    if complaint:
        raise errors.DriverNotFound(name, f"{offer.point.value} of {offer.title} {complaint}", advice or offer.removal)
    return found, offer  # type: ignore[return-value]  # _complaint made sure that it is a class


def _unknown(name: str) -> str:
    if name == AUTO:
        return "this name means the automatic choice"
    return "no installed distribution offers it"


def _misnamed(name: str) -> str:
    """Say why no driver can have this name; empty when one can."""
    if not _NAME.fullmatch(name):
        return "is not made of up to 64 small letters, digits, '-', '_' and '.', a letter first"
    return "means something else" if name in TAKEN else ""


def _complaint(offer: Offer, found: object) -> tuple[str, str]:
    """Say in what way an object is no driver of this contract, and what helps; empty when it is one."""
    if not (isinstance(found, type) and issubclass(found, Driver)):
        return "is not a subclass of graphdrivers.Driver", ""
    mismatch = _mismatch(offer, getattr(found, "contract", None))
    if any(mismatch):
        return mismatch
    missing = sorted(getattr(found, "__abstractmethods__", ()))
    if missing:
        return f"lacks {', '.join(missing)}", ""
    if getattr(found, "name", None) != offer.name:
        return f"calls itself {getattr(found, 'name', None)!r}", ""
    return _oddity(found), ""


def _oddity(found: type[Driver]) -> str:
    """Say what would mislead those who choose between drivers; empty when nothing would."""
    if not isinstance(found.rank, int):
        return f"has the rank {found.rank!r}, which is no whole number"
    falsy = [method for method in ("__bool__", "__len__") if hasattr(found, method)]
    return f"defines {falsy[0]}: a driver that can be false is mistaken for a missing one" if falsy else ""


def _mismatch(offer: Offer, stated: object) -> tuple[str, str]:
    """Compare the version of the contract that a driver was built for with ours; say which of the two to upgrade."""
    if stated is None:
        advice = f"its author has to write 'contract = {CONTRACT_VERSION}' into the class"
        return "does not say for which version of the driver contract it was built", advice
    if not isinstance(stated, int) or isinstance(stated, bool):
        return f"is built for version {stated!r} of the driver contract, which is no whole number", ""
    if stated == CONTRACT_VERSION:
        return "", ""
    what = f"is built for version {stated} of the driver contract; this is version {CONTRACT_VERSION}"
    return what, f"upgrade {offer.distribution if stated < CONTRACT_VERSION else 'graphdrivers'}"


def probed(
    chosen: type[Driver],
    offer: Offer,
    home: str,
    options: Mapping[str, str],
    knows: tuple[type[BaseException], ...] = (errors.GraphDriverError, OSError),
) -> Support:
    """Run a driver's probe.

    Args:
        chosen: the driver.
        offer: where it comes from.
        home: where it is to work.
        options: for the driver.
        knows: what it may raise.

    Raises:
        DriverNotFound: it raised anything else, gave anything else, or claims a method that is not there.
    """
    with Foreign(offer, "has a probe that fails", knows):
        found: object = chosen.probe(home, options)
    if not isinstance(found, Support):
        reason = f"{offer.title} has a probe that gives no Support but {type(found).__name__}"
        raise errors.DriverNotFound(offer.name, reason, offer.removal)
    if found.capabilities.fork_live and not hasattr(chosen, "snapshot"):
        reason = f"{offer.title} claims fork_live and lacks the method snapshot"
        raise errors.DriverNotFound(offer.name, reason, offer.removal)
    return found
