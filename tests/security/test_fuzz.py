"""Mutated layers: a fixed number of them in the usual run, any number and random ones with GRAPHDRIVERS_FUZZ_EXAMPLES.

A failure prints the tar (zlib, base64); what is found becomes a case of the corpus.
"""

import base64
import os
import zlib

import pytest
from fuzzing import TARS, check_apply, check_drivers, check_reader
from hypothesis import HealthCheck, given, note, settings

from graphdrivers.driver import Driver

WANTED = int(os.environ.get("GRAPHDRIVERS_FUZZ_EXAMPLES", "0"))

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="owners and devices need root")


def rounds(examples: int, share: int) -> settings:
    """Run a fixed set of examples, or the share that one kind of check has of those that were asked for."""
    return settings(
        max_examples=max(1, WANTED // share) if WANTED else examples,
        derandomize=not WANTED,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )


def show(tar: bytes) -> None:
    """Print the tar if it turns out to be one that fails."""
    note(f"tar = zlib.decompress(base64.b64decode({base64.b64encode(zlib.compress(tar, 9))!r}))")


@rounds(2000, 1)
@given(TARS)
def test_reading_any_tar(tar: bytes) -> None:
    """Nothing but an ``ArchiveError`` comes out of the reader."""
    show(tar)
    check_reader(tar)


@rounds(400, 4)
@given(TARS)
def test_unpacking_any_tar(tar: bytes) -> None:
    """Nothing but an ``ArchiveError`` comes out, nothing goes outside, and the diff of what was made makes it again."""
    show(tar)
    check_apply(tar)


@rounds(100, 10)
@given(tar=TARS)
def test_any_tar_on_every_driver(drivers: list[Driver], tar: bytes) -> None:
    """All drivers refuse it at the same member, or show the same tree and give the same diff."""
    show(tar)
    check_drivers(tar, drivers)
