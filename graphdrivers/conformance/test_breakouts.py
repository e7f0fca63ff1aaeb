"""Tars that try to leave the layer: every member lands inside the root, or the layer is refused; nothing else happens.

The cases are those of containerd's ``TestBreakouts`` and go-archive's
``testBreakout``; a tree of canaries lies beside the home, and is never touched.
"""

import os
import tarfile
from collections.abc import Iterator

import attrs
import pytest

from graphdrivers import errors
from graphdrivers.conformance.observe import Item, assert_same, snapshot
from graphdrivers.conformance.workbench import Member, Workbench, directory, layer_tar, opaque, whiteout

_SYM = tarfile.SYMTYPE
_HARD = tarfile.LNKTYPE


def _link(name: str, target: str) -> Member:
    return Member(name, kind=_SYM, target=target)


def _hard(name: str, target: str, mode: int = 0o644) -> Member:
    return Member(name, kind=_HARD, target=target, mode=mode)


_ETC: list[Member | str] = ["etc/", Member("etc/passwd", b"inside"), Member("etc/emptied", b"full")]

_Members = list[Member | str]

_NEW = {"etc/new": "1"}

_CONTAINED: dict[str, tuple[_Members, dict[str, str | None]]] = {
    "SymlinkAbsolute": ([_link("l", "/etc"), Member("l/new", b"1")], {"l": "-> /etc", **_NEW}),
    "SymlinkUpAndOut": (
        [directory("dummy"), _link("l", "/dummy/../etc"), Member("l/new", b"1")],
        {"dummy": "/", "l": "-> /dummy/../etc", **_NEW},
    ),
    "SymlinkMultipleAbsolute": (
        [_link("a", "/etc"), _link("b", "/a"), Member("b/new", b"1")],
        {"a": "-> /etc", "b": "-> /a", **_NEW},
    ),
    "SymlinkMultipleRelative": (
        [_link("a", "etc"), _link("b", "./a"), Member("b/new", b"1")],
        {"a": "-> etc", "b": "-> ./a", **_NEW},
    ),
    "SymlinkManyUp": (
        [_link("l", "../../../../../../../etc"), Member("l/new", b"1")],
        {"l": "-> ../../../../../../../etc", **_NEW},
    ),
    "SymlinkEmptyFile": ([_link("l", "/etc"), Member("l/emptied")], {"l": "-> /etc", "etc/emptied": ""}),
    "SymlinkSlashEnded": ([_link("l/", "/etc"), Member("l/new", b"1")], {"l": "-> /etc", **_NEW}),
    "SymlinkParentRelative": (
        [_link("l", "/etc"), directory("etc/sub"), Member("l/sub/../new", b"1")],
        {"l": "-> /etc", "etc/sub": "/", **_NEW},
    ),
    "SymlinkOverrideDirectory": (
        [directory("x"), Member("x/y", b"1"), _link("x", "/etc"), Member("x/new", b"1")],
        {"x": "-> /etc", **_NEW},
    ),
    "SymlinkOverridePath": (
        [_link("p", "/"), Member("p/etc/new", b"1"), directory("p"), Member("p/etc/new", b"2")],
        {"p": "/", "p/etc": "/", "p/etc/new": "2", **_NEW},
    ),
    "HardlinkRelative": ([_hard("h", "etc/../etc/passwd")], {"h": "inside"}),
    "HardlinkDirectAbsolute": ([_hard("h", "/etc/passwd")], {"h": "inside"}),
    "HardlinkAbsolute": ([_link("l", "/etc"), _hard("h", "l/passwd")], {"l": "-> /etc", "h": "inside"}),
    "HardlinkDownAndOut": (
        [directory("d"), _link("d/l", "/etc"), _hard("h", "d/l/passwd")],
        {"d": "/", "d/l": "-> /etc", "h": "inside"},
    ),
    "HardlinkRelativeLong": (
        [_link("l", "../../../../../../../etc"), _hard("h", "l/passwd")],
        {"l": "-> ../../../../../../../etc", "h": "inside"},
    ),
    "HardlinkSymlinkAbsolute": (
        [_link("l", "/etc/passwd"), _hard("h", "l")],
        {"l": "-> /etc/passwd", "h": "-> /etc/passwd"},
    ),
    "HardlinkSymlinkRelative": (
        [_link("l", "../etc/passwd"), _hard("h", "l")],
        {"l": "-> ../etc/passwd", "h": "-> ../etc/passwd"},
    ),
    "HardlinkSymlinkBeforeCreateTarget": (
        [_link("l", "etc/new"), _hard("h", "l"), Member("etc/new", b"1")],
        {"l": "-> etc/new", "h": "-> etc/new", **_NEW},
    ),
    "HardlinkSymlinkChmod": (
        [_link("l", "etc/passwd"), _hard("h", "l", 0o777)],
        {"l": "-> etc/passwd", "h": "-> etc/passwd"},
    ),
    "DirectoryOverrideSymlink": (
        [_link("x", "/etc"), directory("x"), Member("x/passwd", b"other")],
        {"x": "/", "x/passwd": "other"},
    ),
    "DirectoryOverrideSymlinkAndHardlink": (
        [_link("x", "/etc"), _hard("h", "x/passwd"), directory("x"), Member("x/passwd", b"other")],
        {"x": "/", "x/passwd": "other", "h": "inside"},
    ),
    "FileOverrideHardlink": ([_hard("h", "etc/passwd"), Member("h", b"other")], {"h": "other"}),
    "FileOverrideSymlink": ([Member("way", b"1")], {"way": "1"}),
    "WhiteoutSymlink": ([whiteout("way")], {"way": None}),
    "WhiteoutSymlinkPath": ([whiteout("way/passwd")], {"etc/passwd": None}),
    "WhiteoutDirectoryName": ([directory(".wh.none"), Member(".wh.none/x", b"1")], {}),
    "WhiteoutDeadSymlinkParent": ([_link("dead", "no/where"), whiteout("dead/x")], {"dead": "-> no/where"}),
    "WhiteoutRelativePath": ([whiteout("none/../etc")], {"etc": None, "etc/passwd": None, "etc/emptied": None}),
    "OpaqueSymlinkPath": (
        [opaque("way"), Member("way/new", b"1")],
        {"etc/passwd": None, "etc/emptied": None, **_NEW},
    ),
}
"""Members over a base layer that has ``etc`` and ``way -> etc``, and all that they change; ``None`` is gone."""

_REFUSED: dict[str, _Members] = {
    "DotDot": [Member("..", b"1")],
    "DotDotFile": [Member("../victim/new", b"1")],
    "SlashDotDot": [Member("/../victim/new", b"1")],
    "DeepDotDot": [Member("etc/../../victim/new", b"1")],
    "HardlinkDotDot": [_hard("h", "../victim/hello")],
    "HardlinkSlashDotDot": [_hard("h", "/../victim/hello")],
    "HardlinkUpAndOut": [_hard("h", "dummy/../../victim/hello")],
    "HardlinkSibling": [_hard("h", "../home-evil/secret")],
    "HardlinkDirectory": [_hard("h", "etc")],
    "WhiteoutParent": [Member("etc/.wh...", b"")],
    "WhiteoutRootParent": [Member(".wh...", b"")],
    "WhiteoutRoot": [Member(".wh..", b"")],
    "WhiteoutCurrentDirectory": [Member("etc/.wh..", b"")],
    "WhiteoutDotDotPath": [Member("../.wh.victim", b"")],
    "SymlinkParentDirectory": [_link("..", "/etc")],
    "SymlinkLoop": [_link("l", "m"), _link("m", "l"), Member("l/new", b"1")],
    "BelowAFile": [_hard("h", "etc/passwd/x")],
    "EmptyName": [Member("", b"1")],
}


@attrs.frozen
class _Victim:
    """What lies beside the home."""

    folder: str
    before: dict[str, Item]

    def check(self) -> None:
        """It is as it was."""
        assert_same(self.before, snapshot(self.folder))
        assert self.before["hello"].names == {"hello"}
        assert os.stat(os.path.join(self.folder, "hello")).st_nlink == 1


@pytest.fixture
def victim(bench: Workbench, fresh_root: str) -> Iterator[_Victim]:
    """A directory beside the home, with a file in it, untouched at the end; and the base layer."""
    folder = os.path.join(fresh_root, "victim")
    os.mkdir(folder)
    with open(os.path.join(folder, "hello"), "wb") as file:
        file.write(b"world")
    bench.applied("base", None, layer_tar([*_ETC, _link("way", "etc")]))
    found = _Victim(folder, snapshot(folder))
    yield found
    found.check()


@pytest.mark.parametrize("case", _CONTAINED)
@pytest.mark.usefixtures("victim")
def test_members_land_inside(bench: Workbench, case: str) -> None:
    """Links lead to where they lead for a process whose root is the layer, and nothing but the named changes."""
    members, changes = _CONTAINED[case]
    expected = {**bench.contents("base"), **changes}

    shown = bench.contents(bench.applied("layer", "base", layer_tar(members)))
    assert shown == {path: text for path, text in expected.items() if text is not None}


@pytest.mark.parametrize("case", _REFUSED)
def test_members_are_refused(bench: Workbench, victim: _Victim, case: str) -> None:
    """What can mean nothing inside the root refuses the layer by name; lower layers stay as they are."""
    before = bench.tree("base")
    with pytest.raises(errors.ArchiveError) as caught:
        bench.applied("bad", "base", layer_tar(_REFUSED[case]))

    assert caught.value.member in {_name(member) for member in _REFUSED[case]}
    victim.check()
    bench.driver.remove("bad")
    assert_same(before, bench.tree("base"))


def _name(member: Member | str) -> str:
    return member if isinstance(member, str) else member.name


@pytest.mark.parametrize("case", ["write", "link", "link a link", "delete", "empty", "replace", "opaque"])
def test_a_true_path_of_the_machine(bench: Workbench, victim: _Victim, case: str) -> None:
    """A link with the whole path of a directory outside leads nowhere near it, whatever is done through it."""
    way = _link("w", victim.folder)
    through: dict[str, _Members] = {
        "write": [way, Member("w/new", b"1")],
        "link": [way, _hard("h", "w/hello"), Member("h", b"1")],
        "link a link": [_link("w", f"{victim.folder}/hello"), _hard("h", "w", 0o777), Member("h/x", b"1")],
        "delete": [way, whiteout("w/hello")],
        "empty": [way, Member("w/hello", b"")],
        "replace": [way, Member("w/hello", kind=_SYM, target="x"), directory("w/hello")],
        "opaque": [way, opaque("w")],
    }
    try:
        bench.applied("bad", "base", layer_tar(through[case]))
    except errors.ArchiveError as error:
        assert error.member  # noqa: PT017 - refusing it is as good as containing it
    victim.check()
    assert bench.contents("base")["etc/passwd"] == "inside"
