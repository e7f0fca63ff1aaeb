"""Drivers that work below roots of ordinary names only."""

import glob
import os
from collections.abc import Iterator, Mapping
from typing import ClassVar

from graphdrivers import errors
from graphdrivers.backends.vfs import VfsDriver
from graphdrivers.driver import Driver
from graphdrivers.model import LayerRecord, Support


class Globbing(VfsDriver):
    """Takes the name of its home for a pattern."""

    name: ClassVar[str] = "globbing"

    def layers(self) -> Iterator[LayerRecord]:
        """List what the shell would."""
        there = {os.path.basename(path) for path in glob.glob(os.path.join(self.home, "layers", "*"))}
        return (record for record in super().layers() if record.name in there)


class Textual(VfsDriver):
    """Takes the name of its home for text."""

    name: ClassVar[str] = "textual"

    @classmethod
    def probe(cls, home: str, options: Mapping[str, str]) -> Support:
        """Refuse what is none."""
        if any(0xDC80 <= ord(char) <= 0xDCFF for char in home):
            raise errors.PrerequisiteMissing(cls.name, f"the name of {home!a} is no text", "choose another --root")
        return super().probe(home, options)


CAUGHT_BY: dict[type[Driver], tuple[str, ...]] = {
    Globbing: ("test_a_small_life_below_an_odd_root",),
    Textual: ("test_a_small_life_below_an_odd_root",),
}
