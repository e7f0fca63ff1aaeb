"""Drivers that try out the plugin: what they declare, and whether it is so."""

import itertools
from collections.abc import Iterator, Mapping
from typing import ClassVar

import attrs

from graphdrivers import errors
from graphdrivers.backends.vfs import VfsDriver
from graphdrivers.model import Change, Deviation, LayerSpec, Support

LINK = "https://bugs.example/7"
AGREEMENT = "test_agreement.py::test_the_same_edits_give_the_same_bytes"
EXISTING = "test_lifecycle.py::test_an_existing_name_is_left_untouched"


class Plain(VfsDriver):
    """A sound driver."""

    name: ClassVar[str] = "plain"


class Once(VfsDriver):
    """Can be probed once in a process."""

    name: ClassVar[str] = "once"
    tried: ClassVar[list[str]] = []

    @classmethod
    def probe(cls, home: str, options: Mapping[str, str]) -> Support:
        """Refuse a second time."""
        cls.tried.append(home)
        if len(cls.tried) > 1:
            raise errors.NotSupported(cls.name, "it was probed before", "open it with what was found then")
        return super().probe(home, options)


class Undeclared(VfsDriver):
    """Creates over an existing layer, and says nothing about it."""

    name: ClassVar[str] = "undeclared"

    def create(self, layer: str, parent: str | None = None, spec: LayerSpec = LayerSpec()) -> None:
        """Remove first."""
        self.remove(layer)
        super().create(layer, parent, spec)


class _Declaring(VfsDriver):
    """Declares a deviation."""

    check: ClassVar[str]
    link: ClassVar[str] = LINK
    sometimes: ClassVar[bool] = False

    @classmethod
    def probe(cls, home: str, options: Mapping[str, str]) -> Support:
        """Add it to what is so."""
        declared = Deviation(cls.check, "its store overwrites", cls.link, cls.sometimes)
        return attrs.evolve(super().probe(home, options), deviations=(declared,))


class Declared(_Declaring, Undeclared):
    """Creates over an existing layer, and says so."""

    name: ClassVar[str] = "declared"
    check = EXISTING.replace("existing", "*")


class Reformed(_Declaring):
    """Declares a deviation that is none any more."""

    name: ClassVar[str] = "reformed"
    check = EXISTING


class Racing(_Declaring):
    """Declares a deviation that depends on who is faster."""

    name: ClassVar[str] = "racing"
    check = EXISTING
    sometimes = True


class RacingLost(Racing, Undeclared):
    """Loses the race."""

    name: ClassVar[str] = "racing-lost"


class Pointless(_Declaring):
    """Declares a deviation from a check that does not exist."""

    name: ClassVar[str] = "pointless"
    check = "test_lifecycle.py::test_an_exsiting_name*"


class Void(_Declaring):
    """Declares a deviation from a check that is gated for it."""

    name: ClassVar[str] = "void"
    check = "test_lifecycle.py::test_a_size_that_is_claimed_holds"


class Unexplained(_Declaring):
    """Declares a deviation without a link."""

    name: ClassVar[str] = "unexplained"
    check = EXISTING
    link = ""


class Blind(Undeclared):
    """Cannot even be looked at when something has failed."""

    name: ClassVar[str] = "blind"

    def create(self, layer: str, parent: str | None = None, spec: LayerSpec = LayerSpec()) -> None:
        """Go bad from the second layer on."""
        super().create(layer, parent, spec)
        self.home = "/nonexistent"


class Forgetful(_Declaring):
    """Lists no changes, and says so: no other driver is to blame for that."""

    name: ClassVar[str] = "forgetful"
    check = AGREEMENT + "*"

    def changes(self, layer: str) -> Iterator[Change]:
        """Forget all of them."""
        yield from itertools.islice(super().changes(layer), 0)


class Unavailable(VfsDriver):
    """Works nowhere, and says so."""

    name: ClassVar[str] = "nowhere"

    @classmethod
    def probe(cls, home: str, options: Mapping[str, str]) -> Support:
        """Refuse."""
        del home, options
        raise errors.PrerequisiteMissing(cls.name, "the moon is not full", "wait for it")


DRIVERS = (
    Plain,
    Once,
    Undeclared,
    Declared,
    Reformed,
    Racing,
    RacingLost,
    Pointless,
    Void,
    Unexplained,
    Blind,
    Unavailable,
)
