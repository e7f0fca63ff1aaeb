"""A layer cut anywhere: refused, or all that stands before the cut, on every driver alike, and never left half done."""

import os

import pytest
from cases import Refused, file, folder, hardlink, layer, symlink, whiteout
from rawtars import member, pax
from stage import Outcome, isolated, perform_layer

from graphdrivers.conformance.observe import assert_same
from graphdrivers.driver import Driver
from graphdrivers.errors import MalformedArchive

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="owners and whiteouts need root")

LOWER = layer(file(b"gone"), file(b"low"))
PARTS = {
    "dir": folder(b"dir"),
    "small": file(b"small", b"s" * 700),
    "long": member(b"l", b"n" * 150 + b"\0", kind=b"L") + file(b"x", b"long"),
    "marker": whiteout(b"gone"),
    "pax": pax((b"path", b"paxed"), (b"mtime", b"1.5")) + file(b"x", b"c" * 513),
    "global": pax((b"comment", b"c" * 600), kind=b"g"),
    "link": symlink(b"link", b"small"),
    "skipped": file(b".wh..wh.aufs", b"r" * 1500),
    "hard": hardlink(b"hard", b"low"),
    "sparse": pax((b"GNU.sparse.major", b"1"), (b"GNU.sparse.minor", b"0"), (b"GNU.sparse.realsize", b"5000"))
    + file(b"holes", b"2\n0\n3\n4000\n1000\n".ljust(512, b"\0") + b"abc" + b"d" * 1000),
    "large": file(b"large", b"l" * 70_000),
}
"""Every kind of header and payload; the last member's padding may be missing, as Go's reader has it."""

WHOLE = b"".join(PARTS.values())
BOUNDARIES = {sum(len(part) for part in list(PARTS.values())[:end]) for end in range(len(PARTS) + 1)}
"""Between members: there a cut tar is a shorter tar, as GNU tar and Go read it."""


def cuts() -> list[int]:
    """Give every block's start, and within each of the first blocks its first, a middle and its last byte."""
    blocks = range(0, len(WHOLE) + 1, 512)
    return sorted({*blocks[:40], *blocks[40::20], *(at + step for at in blocks[:24] for step in (1, 200, 511))})


def is_padding(cut: int) -> bool:
    """Tell whether only the padding of a member's payload is missing; an extension header has to be whole."""
    start = 0
    for name, part in PARTS.items():
        end = start + len(part)
        if start < cut < end:
            return name != "global" and end - cut < 512 and not WHOLE[cut:end].strip(b"\0") and len(part) > 512
        start = end
    return False


def performed(drivers: list[Driver], tar: bytes) -> Outcome:
    """Apply with every driver, and return what they agree on."""
    first, *others = [perform_layer(driver, tar, (LOWER,)) for driver in drivers]
    for other in others:
        assert (first.error, first.member, first.offset) == (other.error, other.member, other.offset)
        assert_same(first.tree, other.tree)
        assert first.diff == other.diff
    return first


@pytest.mark.parametrize("share", range(4))
def test_cut_layer(share: int, drivers: list[Driver]) -> None:
    """Cut between members it is a shorter layer, and cut in a last padding whole; anywhere else it is refused."""

    def work() -> None:
        for cut in cuts()[share::4]:
            outcome = performed(drivers, WHOLE[:cut])
            if cut in BOUNDARIES or is_padding(cut):
                assert outcome.error is None, (cut, outcome.message)
            else:
                assert outcome.error is MalformedArchive, (cut, outcome.shown)
                assert "ends" in outcome.message

    isolated(work, seconds=60)


def test_cut_names_the_member(drivers: list[Driver]) -> None:
    """A layer that ends within a file's content names that file."""
    start = len(WHOLE) - len(PARTS["large"])
    outcome = isolated(lambda: performed(drivers, WHOLE[: start + 512 + 1000]))

    assert Refused(MalformedArchive, "large") == Refused(outcome.error, outcome.member)
    assert outcome.offset == start


def test_whole_layer(drivers: list[Driver]) -> None:
    """Not cut at all it is what its members say: what is refused above was refused for the cut."""
    outcome = isolated(lambda: performed(drivers, WHOLE))

    assert sorted(outcome.shown) == sorted(
        ["dir", "hard", "holes", "large", "link", "low", "n" * 150, "paxed", "small"],
    )
