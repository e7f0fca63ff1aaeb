"""Drivers that cannot be had, and names and options that cannot be."""

from typing import ClassVar

import attrs

from graphdrivers.errors.base import GraphDriverError


@attrs.define(eq=False)
class DriverUnavailable(GraphDriverError):
    """A driver cannot work here; ``advice`` says how to change that."""

    driver: str
    reason: str
    advice: str = ""

    template: ClassVar[str] = "driver {driver}: {reason}"
    remedy: ClassVar[str] = "{advice}"
    exit_code: ClassVar[int] = 10


@attrs.define(eq=False)
class NotSupported(DriverUnavailable):
    """The kernel, or the driver itself, cannot do what was asked."""

    exit_code: ClassVar[int] = 11


@attrs.define(eq=False)
class PrerequisiteMissing(DriverUnavailable):
    """A program, a kernel module, a device or a permission is absent."""

    exit_code: ClassVar[int] = 12


@attrs.define(eq=False)
class IncompatibleFilesystem(DriverUnavailable):
    """The file system below the home lacks something that the driver needs."""

    exit_code: ClassVar[int] = 13


@attrs.define(eq=False)
class DriverNotFound(GraphDriverError):
    """No installed distribution offers this driver, or the one that does is broken; ``advice`` says what helps."""

    driver: str
    reason: str = "no installed distribution offers it"
    advice: str = "'graphdriver drivers' lists what is installed"

    template: ClassVar[str] = "driver {driver!r} cannot be loaded: {reason}"
    remedy: ClassVar[str] = "{advice}"
    exit_code: ClassVar[int] = 14


@attrs.define(eq=False)
class DriverConflict(GraphDriverError):
    """Two installed distributions offer a driver of the same name."""

    driver: str
    distributions: tuple[str, ...]

    template: ClassVar[str] = "driver {driver!r} is offered by more than one distribution: {names}"
    remedy: ClassVar[str] = "uninstall all but one of them"
    exit_code: ClassVar[int] = 15

    @property
    def message(self) -> str:
        """Name both distributions."""
        return self.template.format(driver=self.driver, names=", ".join(self.distributions))


@attrs.define(eq=False)
class PriorDriverState(GraphDriverError):
    """The folder already holds layers of other drivers, which choosing this one would hide."""

    home: str
    found: tuple[str, ...]
    wanted: str

    template: ClassVar[str] = "{home!r} already holds layers of {names}, not of {wanted!r}"
    remedy: ClassVar[str] = "name the driver that made them, or use another --root"
    exit_code: ClassVar[int] = 16

    @property
    def message(self) -> str:
        """Name the drivers whose layers are there."""
        names = " and ".join(repr(name) for name in self.found)
        return self.template.format(home=self.home, names=names, wanted=self.wanted)


@attrs.define(eq=False)
class InvalidName(GraphDriverError):
    """A name that cannot be a layer's: it is checked before any path is made from it."""

    name: str
    reason: str

    template: ClassVar[str] = "invalid name {name!r}: {reason}"
    remedy: ClassVar[str] = "use 1 to 200 bytes without '/' and NUL, not '.' or '..'"
    exit_code: ClassVar[int] = 20


@attrs.define(eq=False)
class InvalidOption(GraphDriverError):
    """A driver option that is unknown or has an impossible value."""

    driver: str
    option: str
    reason: str

    template: ClassVar[str] = "option {option!r} of driver {driver}: {reason}"
    remedy: ClassVar[str] = "options are given as --opt KEY=VALUE"
    exit_code: ClassVar[int] = 21


@attrs.define(eq=False)
class InvalidDeviation(GraphDriverError):
    """A driver declares that it fails a conformance check, in a way that nobody could follow up."""

    check: str
    reason: str

    template: ClassVar[str] = "invalid deviation {check!r}: {reason}"
    remedy: ClassVar[str] = "its driver has to give FILE::FUNCTION, a reason, and a link to where it is explained"
    exit_code: ClassVar[int] = 22


@attrs.define(eq=False)
class InvalidRunOption(GraphDriverError):
    """What was asked of a container's runtime configuration is impossible."""

    option: str
    reason: str

    template: ClassVar[str] = "{option}: {reason}"
    remedy: ClassVar[str] = "correct it and ask again; nothing was written"
    exit_code: ClassVar[int] = 23
