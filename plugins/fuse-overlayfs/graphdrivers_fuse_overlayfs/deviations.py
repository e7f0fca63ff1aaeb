"""What is known to be wrong with fuse-overlayfs, by version, as checks of the conformance suite that fail."""

from graphdrivers.model import Deviation

_KNOWN: tuple[tuple[tuple[int, ...], Deviation], ...] = ()
"""Each with the last version that is known to have it."""


def known(version: tuple[int, ...]) -> tuple[Deviation, ...]:
    """Give the checks that a version fails."""
    return tuple(deviation for last, deviation in _KNOWN if version <= last)
