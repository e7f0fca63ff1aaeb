"""Bounded storms inside a mount: deep, wide, and from several threads at once; each has one right end."""

import concurrent.futures
import hashlib
import os
import random
import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

from graphdrivers.conformance.observe import assert_same
from graphdrivers.conformance.workbench import Workbench
from graphdrivers.edits import (
    Chmod,
    Create,
    Edit,
    Link,
    Mkdir,
    Punch,
    Remove,
    Rename,
    Symlink,
    Write,
    replay,
)

_THREADS = 8

_Result = TypeVar("_Result")


def _storm(work: Callable[[int], _Result]) -> list[_Result]:
    """Run the same work in threads that all begin at once; give what each returned."""
    start = threading.Barrier(_THREADS)

    def run(number: int) -> _Result:
        start.wait()
        return work(number)

    with concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
        return list(pool.map(run, range(_THREADS)))


def _compared(bench: Workbench, *rounds: Sequence[Edit]) -> None:
    """Make a stack, one layer per round, and compare each layer with the flat directory."""
    parent = None
    for number, changes in enumerate(rounds):
        parent = bench.layer(f"layer{number}", parent, changes)
        assert_same(bench.flat_tree(bench.flat(*rounds[: number + 1])), bench.tree(parent))


def test_two_hundred_levels(bench: Workbench) -> None:
    """At the bottom of 200 directories files are changed, removed and made again, layer by layer."""
    levels = ["/".join(["d"] * depth) for depth in range(1, 201)]
    bottom = levels[-1]
    base: list[Edit] = [*(Mkdir(path) for path in levels), Create(f"{bottom}/old", b"1"), Create(f"{bottom}/gone")]
    changed: list[Edit] = [Write(f"{bottom}/old", b"2"), Remove(f"{bottom}/gone"), Create(f"{levels[99]}/middle")]
    cut: list[Edit] = [Remove(levels[150]), Mkdir(levels[150]), Create(f"{levels[150]}/new")]

    _compared(bench, base, changed, cut, [Remove(levels[0])])


def test_five_thousand_names(bench: Workbench) -> None:
    """In a directory of 5,000 names some are rewritten, removed, renamed and linked, and no other changes."""
    names = [f"wide/{number:05}" for number in range(5000)]
    base: list[Edit] = [Mkdir("wide")]
    child: list[Edit] = []
    for number in range(0, 5000, 40):
        base += [Create(name, name.encode()) for name in names[number : number + 6]]
        base += [Link(names[number + 5], name) for name in names[number + 6 : number + 40]]
        child += [Write(names[number], b"new"), Remove(names[number + 1]), Rename(names[number + 2], f"wide/r{number}")]
        child += [Link(names[number + 3], f"wide/l{number}"), Chmod(names[number + 4], 0o600)]
    bench.layer("base", None, base)
    bench.layer("child", "base", child)

    assert_same(bench.flat_tree(bench.flat(base, child)), bench.tree("child"))


def test_a_storm_in_many_directories(bench: Workbench) -> None:
    """Threads that each make, change, move and remove in their own directory do what one after another does."""
    base: list[Edit] = []
    for number in range(_THREADS):
        base += [Mkdir(f"t{number}"), *(Create(f"t{number}/{name}", b"of the parent") for name in "abcdef")]
    storms = [_edits(number) for number in range(_THREADS)]
    bench.layer("base", None, base)
    bench.driver.create("child", "base")
    with bench.writing("child") as root:
        # Copied up one by one: of several copy-ups in one directory at once none restores its time for sure.
        replay([Chmod(f"t{number}", 0o755) for number in range(_THREADS)], root)
        _storm(lambda number: replay(storms[number], root))
    bench.driver.seal("child")

    flat = bench.flat(base)
    for storm in storms:
        replay(storm, flat)
    assert_same(bench.flat_tree(flat), bench.tree("child"))


def _edits(number: int) -> list[Edit]:
    """Give one thread's work: every kind of edit, again and again, the same for the same number."""
    dice = random.Random(number)  # noqa: S311 - repeatable, not secret
    home = f"t{number}"
    made: list[Edit] = [Rename(f"{home}/a", f"{home}/moved"), Remove(f"{home}/b"), Write(f"{home}/c", b"new")]
    for turn in range(25):
        one, two = f"{home}/{turn}", f"{home}/{turn}-2"
        made += [Create(one, dice.randbytes(dice.randrange(5000))), Chmod(one, 0o600), Link(one, two)]
        made += dice.choice([[Remove(one)], [Remove(two)], [Rename(two, f"{home}/d")], [Write(one, b"again")]])
        made += [Mkdir(f"{one}-dir"), Symlink(f"{one}-dir/link", "target"), Punch(f"{one}-dir/holes", 1 << 17)]
        made += dice.choice([[], [Remove(f"{one}-dir")], [Rename(f"{one}-dir", f"{one}-new")]])
    return made


def test_a_storm_on_the_same_new_names(bench: Workbench) -> None:
    """Of threads that make the same names exactly one makes each, be it a file, a directory or a link."""
    bench.layer("base", None, [Create("0", b"old"), Remove("0")])
    bench.driver.create("child", "base")
    with bench.writing("child") as root:
        places = [os.path.join(root, f"n{number}") for number in range(60)]

        def make(number: int) -> int:
            return sum(_won(_making(place, turn % 3, number), FileExistsError) for turn, place in enumerate(places))

        assert sum(_storm(make)) == len(places)
        assert sorted(os.listdir(root)) == sorted(os.path.basename(place) for place in places)


def _making(place: str, kind: int, number: int) -> Callable[[], None]:
    def make() -> None:
        if kind == 0:
            os.mkdir(place)
        elif kind == 1:
            os.symlink(str(number), place)
        else:
            os.close(os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC))

    return make


def _won(attempt: Callable[[], object], lost: type[OSError]) -> bool:
    try:
        attempt()
    except lost:
        return False
    return True


def test_a_storm_of_removals(bench: Workbench) -> None:
    """Of threads that remove the same files and directories of the parent exactly one removes each."""
    files, directories = [f"f{number}" for number in range(40)], [f"d{number}" for number in range(20)]
    bench.layer("base", None, [*(Create(name) for name in files), *(Mkdir(name) for name in directories)])
    bench.driver.create("child", "base")
    with bench.writing("child") as root:

        def remove(_: int) -> int:
            attempts = [(os.unlink, name) for name in files] + [(os.rmdir, name) for name in directories]
            return sum(_won(partial(call, os.path.join(root, name)), FileNotFoundError) for call, name in attempts)

        assert sum(_storm(remove)) == len(files) + len(directories)
    bench.driver.seal("child")

    assert bench.contents("child") == {}


def test_a_storm_of_copy_ups(bench: Workbench) -> None:
    """Lines that threads append to the same files of the parent at once all arrive, each whole, behind the old."""
    names = [f"file{number}" for number in range(6)]
    bench.layer("base", None, [Create(name, b"old\n") for name in names])
    bench.driver.create("child", "base")
    with bench.writing("child") as root:

        def append(number: int) -> None:
            for turn in range(20):
                for name in names:
                    fd = os.open(os.path.join(root, name), os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
                    os.write(fd, f"{number} {turn}\n".encode())
                    os.close(fd)

        _storm(append)
    bench.driver.seal("child")
    lines = sorted(f"{number} {turn}" for number in range(_THREADS) for turn in range(20))

    for content in bench.contents("child").values():
        first, *others = content.splitlines()
        assert (first, sorted(others)) == ("old", lines)


def test_a_storm_of_renames(bench: Workbench) -> None:
    """Files of the parent that threads rename onto the same names leave one whole file on each, and no other name."""
    base = [
        Create(f"s{number}-{turn}", f"{number} {turn}".encode()) for number in range(_THREADS) for turn in range(12)
    ]
    bench.layer("base", None, base)
    bench.driver.create("child", "base")
    with bench.writing("child") as root:

        def move(number: int) -> None:
            for turn in range(12):
                os.rename(os.path.join(root, f"s{number}-{turn}"), os.path.join(root, f"t{turn}"))

        _storm(move)
    bench.driver.seal("child")
    shown = bench.contents("child")

    assert sorted(shown) == sorted(f"t{turn}" for turn in range(12))
    assert all(shown[f"t{turn}"].split()[1] == str(turn) for turn in range(12))


def test_a_storm_of_attributes(bench: Workbench) -> None:
    """Modes, times, links, xattrs and lengths set on one parent's file from all sides leave one file with all of it."""
    bench.layer("base", None, [Create("file", b"0123456789" * 100)])
    bench.driver.create("child", "base")
    with bench.writing("child") as root:
        place = os.path.join(root, "file")

        def change(number: int) -> None:
            for turn in range(20):
                os.chmod(place, 0o600 + number)
                os.utime(place, ns=(0, number))
                os.link(place, f"{place}-{number}-{turn}")
                os.truncate(place, 900 + number)
                if bench.can.user_xattrs:
                    os.setxattr(place, f"user.of{number}", str(turn).encode())
                os.unlink(f"{place}-{number}-{turn}") if turn else os.stat(place)

        _storm(change)
        status = os.stat(place)
    bench.driver.seal("child")
    tree = bench.tree("child")

    assert status.st_nlink == _THREADS + 1
    assert tree["file"].names == {"file", *(f"file-{number}-0" for number in range(_THREADS))}
    wanted = {f"user.of{number}": b"19" for number in range(_THREADS)} if bench.can.user_xattrs else {}
    assert tree["file"].xattrs == wanted
    assert (tree["file"].mode - 0o600, tree["file"].size - 900) in {(n, m) for n in range(8) for m in range(8)}


def test_a_storm_of_readers(bench: Workbench) -> None:
    """Readers of a parent's files meet the old content or the new while a writer replaces them, and nothing else."""
    old, new = b"o" * 20_000, b"n" * 30_000
    names = [f"file{number}" for number in range(20)]
    bench.layer("base", None, [Create(name, old) for name in names])
    bench.driver.create("child", "base")
    with bench.writing("child") as root:

        def work(number: int) -> set[bytes]:
            if number:
                return {_content(root, name) for _ in range(5) for name in names}
            for name in names:
                replay([Create("fresh", new), Rename("fresh", name)], root)
            return set()

        seen: set[bytes] = set().union(*_storm(work))
    bench.driver.seal("child")

    assert seen <= {old, new}
    assert set(bench.contents("child").values()) == {new.decode()}


def _content(root: str, name: str) -> bytes:
    with open(os.path.join(root, name), "rb") as file:
        return file.read()


def test_large_files(bench: Workbench) -> None:
    """A file of 32 MiB is kept, and a small change to it in a child leaves all the rest of it."""
    dice = random.Random(7)  # noqa: S311 - repeatable, not secret
    content = bytearray(dice.randbytes(1 << 20) * 32)
    bench.layer("base", None, [Create("large", bytes(content))])
    bench.driver.create("child", "base")
    with bench.writing("child") as root:
        fd = os.open(os.path.join(root, "large"), os.O_RDWR | os.O_CLOEXEC)
        for place in (0, 5_000_001, len(content) - 4):
            os.pwrite(fd, b"mine", place)
        os.close(fd)
    bench.driver.seal("child")
    before = hashlib.sha256(content).hexdigest()
    for place in (0, 5_000_001, len(content) - 4):
        content[place : place + 4] = b"mine"

    assert bench.tree("base")["large"].digest == before
    assert bench.tree("child")["large"].digest == hashlib.sha256(content).hexdigest()


def test_mounted_and_unmounted_again_and_again(bench: Workbench) -> None:
    """Forty mounts of one layer, with deletions and re-creations in each, lose nothing."""
    bench.layer("base", None, [Create(f"old{number}", b"old") for number in range(40)])
    bench.driver.create("child", "base")
    for number in range(40):
        with bench.writing("child") as root:
            os.unlink(os.path.join(root, f"old{number}"))
            replay([Create(f"new{number}", str(number).encode())], root)
            if number:
                replay([Remove(f"new{number - 1}"), Create(f"old{number - 1}", b"again")], root)
    bench.driver.seal("child")

    assert bench.contents("child") == {"new39": "39", **{f"old{number}": "again" for number in range(39)}}
