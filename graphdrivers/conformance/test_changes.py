"""Changes: exactly what differs from the parent, as Docker lists it."""

import os
import stat

import pytest

from graphdrivers.conformance.workbench import Workbench
from graphdrivers.edits import (
    Chmod,
    Chown,
    Create,
    Edit,
    Link,
    Mkdir,
    Mknod,
    Remove,
    Rename,
    SetXattr,
    Symlink,
    Utime,
    Write,
    replay,
)


def _changes(bench: Workbench, base: list[Edit], changes: list[Edit]) -> list[tuple[str, str]]:
    bench.layer("base", None, base)
    return bench.changes(bench.layer("child", "base", changes))


def test_nothing_changed(bench: Workbench) -> None:
    """A child that nobody wrote to has no changes, nor has an empty base layer."""
    assert _changes(bench, [Mkdir("dir"), Create("dir/file", b"1"), Symlink("link", "dir")], []) == []
    assert bench.changes(bench.layer("empty")) == []


def test_a_base_layer_is_all_additions(bench: Workbench) -> None:
    """Without a parent everything is added, the root is not listed."""
    bench.layer("base", None, [Mkdir("dir"), Create("dir/file"), Symlink("link", "dir"), Mknod("fifo")])

    assert bench.changes("base") == [("A", "/dir"), ("A", "/dir/file"), ("A", "/fifo"), ("A", "/link")]


def test_the_exact_list(bench: Workbench) -> None:
    """Of twenty files every third is modified, deleted, or gets a new neighbour: the list is exact (moby)."""
    names = [f"file-{number:02}" for number in range(20)]
    changes: list[Edit] = []
    expected = [("C", "/dir")]
    for number, name in enumerate(names):
        if number % 3 == 0:
            changes.append(Write(f"dir/{name}", b"new"))
            expected.append(("C", f"/dir/{name}"))
        elif number % 3 == 1:
            changes.append(Create(f"dir/{name}-new"))
            expected.append(("A", f"/dir/{name}-new"))
        else:
            changes.append(Remove(f"dir/{name}"))
            expected.append(("D", f"/dir/{name}"))
    base: list[Edit] = [Mkdir("dir"), *(Create(f"dir/{name}", b"old") for name in names)]

    assert _changes(bench, base, changes) == sorted(expected, key=lambda change: os.fsencode(change[1]))


def test_parents_of_a_change_are_listed(bench: Workbench) -> None:
    """Directories above a change count as modified, their neighbours and an unchanged subtree do not."""
    base: list[Edit] = [Mkdir("a"), Mkdir("a/b"), Create("a/b/file", b"1"), Mkdir("a/other"), Create("a/x"), Mkdir("z")]

    assert _changes(bench, base, [Write("a/b/file", b"2")]) == [("C", "/a"), ("C", "/a/b"), ("C", "/a/b/file")]


def test_a_deleted_directory_is_one_change(bench: Workbench) -> None:
    """What was below a deleted directory is not listed."""
    base: list[Edit] = [Mkdir("a"), Mkdir("a/b"), Create("a/b/file")]

    assert _changes(bench, base, [Remove("a/b")]) == [("C", "/a"), ("D", "/a/b")]


def test_attributes_alone_are_changes(bench: Workbench) -> None:
    """A new mode, time, owner or xattr of a file or directory is a change; what lies in that directory is not."""
    base: list[Edit] = [Mkdir("dir"), Create("dir/in"), *map(Create, ("mode", "owner", "same", "time", "xattr"))]
    changes: list[Edit] = [Chmod("dir", 0o700), Chmod("mode", 0o600), Utime("time", 12)]
    changes += [Chown("owner", 1, 2)] if bench.can.ownership else []
    changes += [SetXattr("xattr", "user.note", b"new")] if bench.can.user_xattrs else []

    assert _changes(bench, base, changes) == [("C", f"/{path}") for path in sorted(edit.path for edit in changes)]


def test_another_target_or_device(bench: Workbench) -> None:
    """A link that leads elsewhere and a node of another device are changed, although size and time are the same."""

    def nodes(target: str, minor: int) -> list[Edit]:
        made: list[Edit] = [Symlink("link", target), Utime("link", 7)]
        if bench.can.devices:
            made += [Mknod("node", stat.S_IFCHR | 0o644, (1, minor)), Utime("node", 7)]
        return made

    base = nodes("one", 3)
    paths = [edit.path for edit in base if isinstance(edit, Utime)]

    assert _changes(bench, base, [*map(Remove, paths), *nodes("two", 5)]) == [("C", f"/{path}") for path in paths]


def test_what_was_touched_and_put_back_is_no_change(bench: Workbench) -> None:
    """A file whose mode was changed and changed back is as it was."""
    base: list[Edit] = [Mkdir("dir"), Create("dir/file", b"1", 0o640)]

    assert _changes(bench, base, [Chmod("dir/file", 0), Chmod("dir/file", 0o640)]) == []


def test_same_size_and_time_other_content(bench: Workbench) -> None:
    """An edit within the same moment that keeps size and modification time is still found."""
    moment = 1_500_000_000_000_000_000
    base: list[Edit] = [Create("file", b"before"), Utime("file", moment), Create("still", b"before")]

    assert _changes(bench, base, [Write("file", b"after!"), Utime("file", moment)]) == [("C", "/file")]


def test_a_change_right_after_the_creation(bench: Workbench) -> None:
    """An edit in the very tick in which the layer was created is found, many times in a row."""
    moment = 1_500_000_000_000_000_000
    bench.layer("base", None, [Create("file", b"before"), Utime("file", moment)])
    for number in range(20):
        name = f"child{number}"
        bench.driver.create(name, "base")
        with bench.writing(name) as root:
            Write("file", b"after!").perform(root)
            Utime("file", moment).perform(root)
        assert bench.changes(name) == [("C", "/file")]


def test_a_rename_is_a_deletion_and_an_addition(bench: Workbench) -> None:
    """The old name goes, the new name comes."""
    assert _changes(bench, [Create("old", b"1")], [Rename("old", "new")]) == [("A", "/new"), ("D", "/old")]


def test_two_files_that_swap_names(bench: Workbench) -> None:
    """Files of equal size and time that trade places are both changed."""
    base: list[Edit] = [Create("a", b"1"), Create("b", b"2"), Utime("a", 7), Utime("b", 7)]
    swap: list[Edit] = [Rename("a", "c"), Rename("b", "a"), Rename("c", "b")]

    assert _changes(bench, base, swap) == [("C", "/a"), ("C", "/b")]


@pytest.mark.parametrize(("before", "after"), [("file", "directory"), ("directory", "file"), ("directory", "link")])
def test_a_change_of_kind(bench: Workbench, before: str, after: str) -> None:
    """A path that becomes something else is one modification, and new content below it is added."""
    kinds: dict[str, list[Edit]] = {
        "file": [Create("path", b"1")],
        "directory": [Mkdir("path"), Create("path/in")],
        "link": [Symlink("path", "elsewhere")],
    }
    inside = [("A", "/path/in")] if after == "directory" else []

    assert _changes(bench, kinds[before], [Remove("path"), *kinds[after]]) == [("C", "/path"), *inside]


def test_order_is_that_of_path_bytes(bench: Workbench) -> None:
    """Paths are sorted by their bytes: ``a``, ``a-b``, ``a/c``, ``aa`` (continuity's WithDash)."""
    base: list[Edit] = [Mkdir("a"), Create("a/c"), Create("a-b"), Create("aa"), Create("a\udcff"), Create("a b")]
    bench.layer("base", None, base)

    assert [path for _, path in bench.changes("base")] == ["/a", "/a b", "/a-b", "/a/c", "/aa", "/a\udcff"]


def test_other_names_of_a_changed_file(bench: Workbench) -> None:
    """A new name for an old file is one addition; the old name did not change."""
    base: list[Edit] = [Create("old", b"1"), Mkdir("dir")]

    assert _changes(bench, base, [Link("old", "dir/new")]) == [("C", "/dir"), ("A", "/dir/new")]


@pytest.mark.parametrize("depth", range(10))
def test_echo(bench: Workbench, depth: int) -> None:
    """A chain of directories removed at any depth, and made again one layer above, is listed right (containers)."""
    chain = ["/".join(f"d{level}" for level in range(length)) for length in range(1, 11)]
    bench.layer("base", None, [Mkdir(path) for path in chain])
    bench.layer("without", "base", [Remove(chain[depth])])
    bench.layer("again", "without", [Mkdir(path) for path in chain[depth:]])
    above = [("C", f"/{path}") for path in chain[:depth]]

    assert bench.changes("without") == [*above, ("D", f"/{chain[depth]}")]
    assert bench.changes("again") == [*above, *(("A", f"/{path}") for path in chain[depth:])]


def test_changes_of_a_writable_layer(bench: Workbench) -> None:
    """A layer need not be sealed to be looked at, nor at rest."""
    bench.layer("base", None, [Create("file", b"1")])
    bench.driver.create("layer", "base")
    with bench.writing("layer") as root:
        replay([Create("first")], root)
    assert bench.changes("layer") == [("A", "/first")]
    with bench.writing("layer") as root:
        replay([Remove("file"), Create("second")], root)

    assert bench.changes("layer") == [("D", "/file"), ("A", "/first"), ("A", "/second")]
