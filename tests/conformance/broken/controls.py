"""Drivers without a flaw, to compare with, and one that works nowhere."""

from collections.abc import Mapping
from typing import ClassVar

from graphdrivers import errors
from graphdrivers.backends.overlay.driver import OverlayDriver
from graphdrivers.backends.vfs import VfsDriver
from graphdrivers.model import Support


class Sound(VfsDriver):
    """No flaw: the control of drivers that stand in front of vfs."""

    name: ClassVar[str] = "sound"


class SoundOverlay(OverlayDriver):
    """No flaw: the control of drivers that stand in front of overlay."""

    name: ClassVar[str] = "sound-overlay"


class Unavailable(VfsDriver):
    """Works nowhere, and says so."""

    name: ClassVar[str] = "unavailable"

    @classmethod
    def probe(cls, home: str, options: Mapping[str, str]) -> Support:
        """Refuse."""
        del home, options
        raise errors.PrerequisiteMissing(cls.name, "the moon is not full", "wait for it")
