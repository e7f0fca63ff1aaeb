"""Odd places: a driver works below a root of any name, as long as the kernel takes it."""

import errno
import os

import pytest

from graphdrivers import loading
from graphdrivers.conformance.observe import assert_same
from graphdrivers.conformance.workbench import Workbench
from graphdrivers.edits import Create, Mkdir, Remove, Write, replay

_LONG = os.path.join("d" * 200, "e" * 200, "f" * 200)

_ODD = {
    "colon": "a:b",
    "comma": "lowerdir=a,b",
    "space": " a b ",
    "newline": "a\nb",
    "backslash": "a\\b\\040",
    "quotes": "a\"b'c",
    "bytes": "a\udcff\udc80",
    "percent": "%s%n",
    "pattern": "a[b]*?",
    "long": _LONG,
}


@pytest.mark.parametrize("name", sorted(_ODD))
def test_a_small_life_below_an_odd_root(bench: Workbench, fresh_root: str, name: str) -> None:
    """Every verb works there, the home is found again, and at the end nothing is left in it."""
    root = os.path.join(fresh_root, _ODD[name])
    try:
        os.makedirs(os.path.join(root, "flat"))
    except OSError as error:
        if error.errno != errno.EILSEQ:
            raise
        pytest.skip("gated: this file system refuses such names")
    home = os.path.join(root, "home")
    odd = Workbench(loading.load_driver(bench.driver.name, home, bench.driver.options), os.path.join(root, "flat"))
    try:
        _live(odd)
    finally:
        odd.forget()

    assert list(loading.load_driver(bench.driver.name, home, bench.driver.options).layers()) == []


def _live(bench: Workbench) -> None:
    first, second = [Mkdir("dir"), Create("dir/old", b"1"), Create("kept", b"2")], [Remove("dir/old"), Mkdir("dir/new")]
    bench.layer("base", None, first)
    bench.layer("child", "base", second, seal=False)
    with bench.writing("child") as root:
        replay([Write("kept", b"3")], root)
    bench.driver.seal("child")
    expected = bench.flat_tree(bench.flat(first, second, [Write("kept", b"3")]))

    assert_same(expected, bench.tree("child"))
    assert bench.changes("child") == [("C", "/dir"), ("A", "/dir/new"), ("D", "/dir/old"), ("C", "/kept")]
    assert_same(expected, bench.tree(bench.applied("twin", "base", bench.diff("child"))))
    bench.driver.settle()
    assert [record.name for record in bench.driver.layers()][-1:] == ["base"]
