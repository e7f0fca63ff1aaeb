"""The gate closes: a library that was made worse on purpose is told, with the call and the line."""

import pathlib
import re
import shutil

import attrs
import budgetfile
import budgettrace
import pytest
from budgetrun import COUNTED
from budgetwork import FILES, OPERATIONS, SMALL

import graphdrivers

PACKAGE = pathlib.Path(graphdrivers.__file__).parent


@attrs.frozen
class Worse:
    """A change of the library that costs more."""

    file: str
    before: str
    after: str
    extra: str
    """The line of ``after`` that is too much."""
    operation: str
    grown: str
    """What is told of it."""


WORSE = {
    "a stat for each file": Worse(
        "archive/apply.py",
        "                    os.utime(fd, (mtime, mtime))\n",
        "                    os.utime(fd, (mtime, mtime))\n                    os.stat(fd)\n",
        "                    os.stat(fd)",
        "apply",
        "each more file: stat: 0 -> 1",
    ),
    "a second transaction": Worse(
        "store/mounted.py",
        "def _forget(site: Site, held: Held) -> None:\n",
        "def _forget(site: Site, held: Held) -> None:\n    with site.database.write(): pass\n",
        "    with site.database.write(): pass",
        "container",
        "one: sqlite transactions: ",
    ),
}


@pytest.mark.parametrize("what", WORSE)
def test_growth_is_told(what: str, tmp_path: pathlib.Path) -> None:
    """One call more fails the gate, which names the call and the line that makes it."""
    worse = WORSE[what]
    shutil.copytree(PACKAGE, tmp_path / "graphdrivers", ignore=shutil.ignore_patterns("__pycache__"))
    spoiled = tmp_path / "graphdrivers" / worse.file
    text = spoiled.read_text()
    assert text.count(worse.before) == 1
    spoiled.write_text(text.replace(worse.before, worse.after))
    line = spoiled.read_text().splitlines().index(worse.extra) + 1

    name, driver = worse.operation, COUNTED[budgettrace.users()[0]][0]
    figures = budgettrace.figures(budgettrace.traced(driver, [name], library=str(tmp_path)), name)
    lines = budgettrace.traced(driver, [name], library=str(tmp_path), lines=True)
    budget = budgetfile.read(name)[budgettrace.users()[0]][driver]
    grown = [one for one in budgetfile.changes(budget, figures) if one.grown]
    told = budgetfile.told(grown, lambda one: budgettrace.places(lines, name, one.unit, one.kind))

    assert worse.grown in told
    assert re.search(rf"^ +1 at .*\b{re.escape(worse.file)}:{line}\b", told, re.MULTILINE), told


def test_shrinking_is_no_growth() -> None:
    """What costs less than its budget is found, and is told apart from what costs more."""
    budget = {"one": {"open": 3.0, "stat": 1.0}}
    found = budgetfile.changes(budget, {"one": {"open": 2.0, "stat": 1.0, "sync": 1.0}})

    assert [(str(one), one.grown) for one in found] == [("one: open: 3 -> 2", False), ("one: sync: 0 -> 1", True)]


def test_files_are_read_back(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is written into a file is what is read from it, other subjects are kept, and the text is the same again."""
    monkeypatch.setattr(budgetfile, "FOLDER", tmp_path)
    of_root = budgetfile.Subject("apply", "Unpack.", "root", "aufs-copy")
    first = {"one": {"open of mountinfo": 1.0, "read": 0.063}, "each more file": {"stat": 2.0}}
    budgetfile.update(of_root, first)
    budgetfile.update(attrs.evolve(of_root, user="plain", variant="vfs"), {"one": {}})
    text = (tmp_path / "apply.toml").read_text()

    assert budgetfile.read("apply") == {"root": {"aufs-copy": first}, "plain": {"vfs": {"one": {}}}}
    budgetfile.update(of_root, first)
    assert (tmp_path / "apply.toml").read_text() == text


TRACE = """
10 openat(AT_FDCWD</x>, "/before", O_RDONLY) = 3</before>
10 access("/budget/begin/apply/16-4-3", F_OK) = -1 ENOENT (No such file or directory)
10 access("/budget/at/archive/apply.py:7", F_OK) = -1 ENOENT (No such file or directory)
10 newfstatat(3</home/a>, "", {st_mode=S_IFREG|0644}, AT_EMPTY_PATH) = 0
11 statx(AT_FDCWD</x>, "b", 0, 0,  <unfinished ...>
10 read(5</proc/10/mountinfo>, "22 ..."..., 4096) = 900
11 <... statx resumed>0x7fff) = 0
10 openat(AT_FDCWD</x>, "/proc/self/mountinfo", O_RDONLY) = 5</proc/10/mountinfo>
10 pwrite64(4</home/store/ledger.sqlite-wal>, "..."..., 4096, 0) = 4096
10 fdatasync(4</home/store/ledger.sqlite-wal>) = 0
10 access("/budget/sql/transactions", F_OK) = -1 ENOENT (No such file or directory)
10 mmap(NULL, 4096) = 0x7f
10 access("/budget/end", F_OK) = -1 ENOENT (No such file or directory)
10 access("/budget/begin/apply/80-4-3", F_OK) = -1 ENOENT (No such file or directory)
10 newfstatat(3</home/a>, "", {st_mode=S_IFREG|0644}, AT_EMPTY_PATH) = 0
--- SIGCHLD {si_signo=SIGCHLD} ---
"""


def test_traces_are_read() -> None:
    """Calls count once, in their span, under the name of what they do, with the line that their thread was at."""
    runs = budgettrace.counted(TRACE.splitlines())

    small = runs["apply", SMALL]
    assert small.calls == {"stat": 2, "open of mountinfo": 1, "sync": 1, "sqlite transactions": 1}
    assert small.lines["stat"] == {"archive/apply.py:7": 1, "outside of the library": 1}
    assert runs["apply", FILES].calls == {"stat": 1}


def test_every_file_is_of_an_operation() -> None:
    """No file of budgets is left of an operation that is no more."""
    assert {path.stem for path in budgetfile.FOLDER.iterdir()} == {*OPERATIONS, "start"}
