"""Flaws that ``test_breakouts.py`` catches: members that land elsewhere, or nowhere."""

import os
from typing import ClassVar

from broken.flaws import Members, Misreading
from graphdrivers import errors
from graphdrivers.driver import Driver


class Suspicious(Misreading):
    """Refuses every absolute link, also those that mean the inside of the image."""

    name: ClassVar[str] = "suspicious"

    def misread(self, members: Members, root: str) -> Members:
        """Look at the targets."""
        del root
        for header, _ in members:
            if header.issym() and header.linkname.startswith("/"):
                raise errors.UnsafePath("its target is absolute", header.name)
        return members


class Silent(Misreading):
    """Leaves out what it takes for an attack, and says nothing."""

    name: ClassVar[str] = "silent"

    def misread(self, members: Members, root: str) -> Members:
        """Drop it."""
        del root
        return [one for one in members if ".." not in one[0].name.split("/") + one[0].linkname.split("/")]


class Escaping(Misreading):
    """Writes through links of the image as the machine sees them, as far as the folder around its home."""

    name: ClassVar[str] = "escaping"

    def correct(self, members: Members, root: str) -> None:
        """Write again what lies behind a link that leads out."""
        around = os.path.realpath(os.path.dirname(self.home)) + "/"
        ways = {header.name: header.linkname for header, _ in members if header.issym()}
        for header, content in members:
            first, _, rest = header.name.partition("/")
            place = os.path.realpath(os.path.join(ways.get(first, root), rest))
            if header.isreg() and rest and first in ways and place.startswith(around):
                with open(place, "wb") as file:
                    file.write(content)


CAUGHT_BY: dict[type[Driver], tuple[str, ...]] = {
    Suspicious: ("test_members_land_inside",),
    Silent: ("test_members_are_refused",),
    Escaping: ("test_a_true_path_of_the_machine",),
}
