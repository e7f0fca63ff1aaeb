"""Deep verification names what is wrong with a layer, and nothing that is right."""

import io
import os
import random
import shutil
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from rawtars import END
from verifying import DRIVERS, Stack, directory, entry, two_layers

from graphdrivers import errors
from graphdrivers.archive.verify import Finding, FindingKind


@pytest.fixture(params=list(DRIVERS))
def stack(request: pytest.FixtureRequest, tmp_path: Path) -> Stack:
    """Give a stack of two layers of one driver."""
    return two_layers(tmp_path / "home", request.param)


def told(findings: list[Finding]) -> list[tuple[bytes, FindingKind]]:
    """Leave out the details."""
    return [(finding.path, finding.kind) for finding in findings]


def test_sound_layers_give_no_findings(stack: Stack) -> None:
    """Whatever is in a layer, and whichever driver keeps it: against its restored tar and its own one."""
    for layer, tar in stack.tars.items():
        assert stack.findings(layer) == []
        assert stack.verified(layer, io.BytesIO(tar), []) == []


class Place:
    """One stored entry, to be damaged and made whole again."""

    def __init__(self, root: bytes, path: bytes) -> None:
        """Remember all about ``path`` in the directory ``root``."""
        self.path = path
        self.full = os.path.join(root, path) if path else root
        self.status = os.lstat(self.full)
        self._aside = root + b".aside"
        self._parent = os.path.dirname(self.full)
        self._times = os.lstat(self._parent)
        self._xattrs = {name: os.getxattr(self.full, name, follow_symlinks=False) for name in self.names()}
        self.content = b""
        self._written = False
        if stat.S_ISREG(self.status.st_mode):
            with open(self.full, "rb") as file:
                self.content = file.read()

    def names(self) -> list[str]:
        """List its xattrs."""
        return os.listxattr(self.full, follow_symlinks=False)

    def write(self, content: bytes) -> None:
        """Write other content, and give it the old time."""
        with open(self.full, "r+b") as file:
            file.truncate()
            file.write(content)
        self._written = True

    def take_away(self) -> None:
        """Take it away for a while."""
        os.rename(self.full, self._aside)

    def keep_times(self) -> None:
        """Give it and its directory the old times, unless the damage is about them."""
        if os.path.lexists(self.full) and not os.path.lexists(self._aside):
            self._utime(self.full, self.status)
        if self.path:
            self._utime(self._parent, self._times)

    def undo(self) -> None:
        """Make it as it was."""
        if os.path.lexists(self._aside):
            if os.path.lexists(self.full):
                os.unlink(self.full)
            os.rename(self._aside, self.full)
        elif self._written:
            self.write(self.content)
        os.chown(self.full, self.status.st_uid, self.status.st_gid, follow_symlinks=False)
        if not stat.S_ISLNK(self.status.st_mode):
            os.chmod(self.full, stat.S_IMODE(self.status.st_mode))
        for name in set(self.names()) - self._xattrs.keys():
            os.removexattr(self.full, name, follow_symlinks=False)
        for name, value in self._xattrs.items():
            os.setxattr(self.full, name, value, follow_symlinks=False)
        self.keep_times()

    @staticmethod
    def _utime(path: bytes, status: os.stat_result) -> None:
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns), follow_symlinks=False)


def _flip(place: Place) -> None:
    place.write(place.content[:-1] + bytes([place.content[-1] ^ 1]))


def _replace_by_a_link(place: Place) -> None:
    place.take_away()
    os.symlink(b"/etc/passwd", place.full)


def _replace_by_a_fifo(place: Place) -> None:
    place.take_away()
    os.mkfifo(place.full)


def _set_xattr(place: Place) -> None:
    namespace = "user" if stat.S_IFMT(place.status.st_mode) in {stat.S_IFREG, stat.S_IFDIR} else "trusted"
    os.setxattr(place.full, f"{namespace}.added", b"1", follow_symlinks=False)


DAMAGES: dict[str, tuple[Callable[[Place], object], FindingKind]] = {
    "a bit flipped": (_flip, FindingKind.CONTENT),
    "shorter": (lambda place: place.write(place.content[:-1]), FindingKind.CONTENT),
    "longer": (lambda place: place.write(place.content + b"+"), FindingKind.CONTENT),
    "mode": (lambda place: os.chmod(place.full, stat.S_IMODE(place.status.st_mode) ^ 0o11), FindingKind.ATTRIBUTES),
    "owner": (lambda place: os.chown(place.full, 42, 43, follow_symlinks=False), FindingKind.ATTRIBUTES),
    "xattr": (_set_xattr, FindingKind.ATTRIBUTES),
    "time": (lambda place: os.utime(place.full, ns=(7, 7), follow_symlinks=False), FindingKind.ATTRIBUTES),
    "deleted": (Place.take_away, FindingKind.MISSING),
    "a link now": (_replace_by_a_link, FindingKind.REPLACED),
    "a FIFO now": (_replace_by_a_fifo, FindingKind.REPLACED),
}


def _possible(damage: str, place: Place) -> bool:
    """Say whether an entry can be damaged in this way, and would be another one then."""
    kind = stat.S_IFMT(place.status.st_mode)
    if damage in {"a bit flipped", "shorter", "longer"}:
        return kind == stat.S_IFREG and (damage == "longer" or place.content != b"")
    if damage in {"deleted", "a link now", "a FIFO now"}:
        same = {stat.S_IFLNK: "a link now", stat.S_IFIFO: "a FIFO now"}
        return kind != stat.S_IFDIR and damage != same.get(kind)
    if damage == "mode":
        return kind != stat.S_IFLNK
    return os.geteuid() == 0 or (damage == "time" or (damage == "xattr" and kind in {stat.S_IFREG, stat.S_IFDIR}))


def stored(root: bytes) -> list[bytes]:
    """List what a layer's directory holds, marks left out."""
    found = [b""]
    for base, folders, files in os.walk(root):
        for name in folders + files:
            status = os.lstat(os.path.join(base, name))
            if not name.startswith(b".wh.") and not (stat.S_ISCHR(status.st_mode) and not status.st_rdev):
                found.append(os.path.relpath(os.path.join(base, name), root))
    return sorted(found)


def _first_name(root: bytes, place: Place) -> bytes:
    """Give the first of the names of one file."""
    if stat.S_ISDIR(place.status.st_mode):
        return place.path
    inode = place.status.st_ino
    return min(path for path in stored(root) if os.lstat(os.path.join(root, path)).st_ino == inode)


@pytest.mark.parametrize("damage", list(DAMAGES))
def test_each_damaged_file_is_named_alone(damage: str, stack: Stack) -> None:
    """Whatever happens to whichever stored file, exactly that one is told, with what kind of damage it is."""
    if damage == "owner" and os.geteuid() != 0:
        pytest.skip("giving files away needs root")
    layer = stack.top or ""
    root = stack.storage(layer)
    act, kind = DAMAGES[damage]
    damaged = 0
    for path in stored(root):
        place = Place(root, path)
        if not _possible(damage, place):
            continue
        expected = _first_name(root, place) if kind in {FindingKind.CONTENT, FindingKind.ATTRIBUTES} else path
        act(place)
        if damage != "time":
            place.keep_times()
        try:
            assert (damage, told(stack.findings(layer))) == (damage, [(expected, kind)])
        finally:
            place.undo()
        damaged += 1
    assert damaged > 3
    assert stack.findings(layer) == []


def test_a_deleted_directory_names_all_that_was_in_it(stack: Stack) -> None:
    """Every path of the tar that is not there any more is named, the directory and what was in it."""
    root = stack.storage(stack.top or "")
    place = Place(root, b"implied")
    place.take_away()
    place.keep_times()
    assert told(stack.findings(stack.top or "")) == [
        (path, FindingKind.MISSING) for path in (b"implied", b"implied/deep", b"implied/deep/file")
    ]


def test_what_was_added_is_named(stack: Stack) -> None:
    """A new directory with a file, a new name of a file, a file that a user of the driver's home left behind."""
    root = stack.storage(stack.top or "")
    place = Place(root, b"")
    os.mkdir(os.path.join(root, b"new"))
    for name in (b"new/file", b"zeros"):
        with open(os.path.join(root, name), "xb") as file:
            file.truncate(1 << 40)
    os.link(os.path.join(root, b"large"), os.path.join(root, b"larger"))
    place.keep_times()

    assert told(stack.findings(stack.top or "")) == [
        (path, FindingKind.ADDED) for path in (b"larger", b"new", b"new/file", b"zeros")
    ]


def test_a_deletion_that_was_lost_is_named(stack: Stack) -> None:
    """Where a whiteout or an opaque mark is gone, what shows again is named; in a copied tree, what came back."""
    root = stack.storage(stack.top or "")
    place = Place(root, b"")
    inner = Place(root, b"d")
    if stack.driver.name == "overlay":
        os.unlink(os.path.join(root, b"gone"))
        os.removexattr(os.path.join(root, b"d"), "trusted.overlay.opaque")
    elif stack.driver.name == "aufs":
        os.unlink(os.path.join(root, b".wh.gone"))
        os.unlink(os.path.join(root, b"d/.wh..wh..opq"))
    else:
        base = stack.storage("layer0")
        for name in (b"gone", b"d/x"):
            shutil.copy2(os.path.join(base, name), os.path.join(root, name))
    place.keep_times()
    inner.keep_times()
    expected = [b"d/x", b"gone"] if stack.driver.name == "vfs" else [b"d/s/u", b"d/x", b"gone"]

    assert told(stack.findings(stack.top or "")) == [(path, FindingKind.ADDED) for path in expected]


def test_a_parents_file_that_vanished_is_named(tmp_path: Path) -> None:
    """A tree that is a full copy may lose or change what only the parents' tars describe."""
    stack = two_layers(tmp_path / "home", "vfs")
    root = stack.storage(stack.top or "")
    lost, changed = Place(root, b"usr/lib"), Place(root, b"lib")
    shutil.rmtree(lost.full)
    lost.keep_times()
    os.unlink(changed.full)
    os.symlink(b"usr/lib64", changed.full)
    changed.keep_times()

    assert told(stack.findings(stack.top or "")) == [
        (b"lib", FindingKind.CONTENT),
        (b"usr/lib", FindingKind.MISSING),
        (b"usr/lib/so", FindingKind.MISSING),
    ]


def test_links_that_broke_or_appeared_are_named(stack: Stack) -> None:
    """A copy in place of a second name, and a second name in place of an equal file."""
    root = stack.storage(stack.top or "")
    place = Place(root, b"h2")
    place.take_away()
    shutil.copy2(root + b".aside", place.full)
    place.keep_times()
    assert told(stack.findings(stack.top or "")) == [(b"h2", FindingKind.REPLACED)]
    place.undo()
    twin = Place(root, b"empty")
    twin.take_away()
    os.link(os.path.join(root, b"early"), twin.full)
    twin.keep_times()
    assert told(stack.findings(stack.top or "")) == [(b"empty", FindingKind.REPLACED)]


def test_details_are_for_people(tmp_path: Path) -> None:
    """One line says all that is wrong with a path."""
    stack = two_layers(tmp_path / "home", "vfs")
    path = os.path.join(stack.storage(stack.top or ""), b"large")
    os.truncate(path, 1000)
    os.chmod(path, 0o600)
    os.utime(path, ns=(0, 1_500_000_000))
    (finding,) = stack.findings(stack.top or "")

    assert finding.detail == (
        "it is shorter than it was, byte 1000; 1000 bytes instead of 300000; mode 0600 instead of 0644; "
        "time 1.500000000 instead of 1700000000.123456789"
    )


def _random_tar(rng: random.Random) -> bytes:
    """Make a layer of any members in any order, as no sane tool would."""
    names = [b"a", b"b", b"c"]
    pick = lambda: b"/".join(rng.choices(names, k=rng.randint(1, 3)))  # noqa: E731
    members = []
    for number in range(rng.randint(1, 12)):
        path = rng.choice([b"", b"./", b"/"]) + pick()
        kind = rng.choice("ddddffffffsslww>o")
        head, _, base = path.rpartition(b"/")
        if kind == "d":
            members.append(directory(path + b"/", mode=rng.choice([b"0000755\0", b"0001777\0"])))
        elif kind == "f":
            members.append(entry(path, b"%d" % number))
        elif kind == "s":
            members.append(entry(path, kind=b"2", link=rng.choice([b"a", b"/b", b"../c", b"a/b", b".", b"nowhere"])))
        elif kind == "l":
            members.append(entry(path, kind=b"1", link=pick()))
        elif kind == "w":
            members.append(entry(os.path.join(head, b".wh." + base)))
        elif kind == "o":
            members.append(entry(os.path.join(path, b".wh..wh..opq")))
        else:
            members.append(directory(b"./"))
    return b"".join(members) + END


@pytest.mark.parametrize("kind", list(DRIVERS))
def test_random_layers_are_sound(kind: str, tmp_path: Path) -> None:
    """What unpacking makes of any stack of tars is what verification expects of it: no false alarm."""
    if os.geteuid() != 0 and kind == "overlay":
        pytest.skip("overlay needs root")
    rng = random.Random(5)
    stack = Stack(tmp_path / "home", kind)
    applied = 0
    for _ in range(150):
        try:
            layer = stack.add(_random_tar(rng))
        except errors.ArchiveError:
            continue
        applied += 1
        assert stack.findings(layer) == []
        if applied % 4 == 0:
            stack.top = None
    assert applied > 60
