"""Sets of paths, against sets of bytes."""

import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphdrivers.archive.pathset import PathSet

PATHS = st.lists(st.sampled_from([b"a", b"b", b"c"]), max_size=4).map(b"/".join)
EDITS = st.lists(st.tuples(st.sampled_from(["add", "add", "add", "discard", "discard_tree"]), PATHS), max_size=30)


def above(path: bytes) -> list[bytes]:
    """Give the paths above one, the root first; none above the root."""
    parts = path.split(b"/")
    return [b"/".join(parts[:end]) for end in range(len(parts))] if path else []


@settings(max_examples=300, deadline=None)
@given(EDITS, PATHS)
def test_it_is_a_set(edits: list[tuple[str, bytes]], path: bytes) -> None:
    """After any edits every question has the answer that a plain set of whole paths gives."""
    found, plain = PathSet(), set()
    for edit, edited in edits:
        getattr(found, edit)(edited)
        if edit == "discard_tree":
            plain = {one for one in plain if one != edited and edited not in above(one)}
        else:
            getattr(plain, edit)(edited)
    below = {one for one in plain if path in above(one)}

    assert list(found) == sorted(plain, key=lambda one: one.split(b"/") if one else [])
    assert (bool(found), path in found) == (bool(plain), path in plain)
    assert (set(found.below(path)), found.has_below(path)) == (below, bool(below))
    assert found.covers(path) == any(one in plain for one in above(path))


@pytest.mark.parametrize("edit", ["discard", "discard_tree"])
def test_what_is_empty_is_dropped(edit: str) -> None:
    """Nothing of a deep path stays behind when it is taken out."""
    found = PathSet()
    found.add(b"a/b/c/d")
    getattr(found, edit)(b"a/b/c/d")

    assert not found._root


def test_depth_costs_names_and_not_paths() -> None:
    """All the 8,000 directories on a path of 16 KiB take a few MiB; written out they would take 64."""
    found = PathSet()
    path = b"/".join([b"d"] * 8000)
    tracemalloc.start()
    try:
        for end in range(1, len(path) + 1, 200):
            found.add(path[:end])
        found.add(path)
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()
    assert path in found
    assert sum(1 for _ in found) == 81
