"""The home of the aufs driver: laid out as Docker's was, whole at every moment, and Docker's own taken over."""

import multiprocessing
import os
import pathlib
import stat

import pytest
from aufstools import Opener, docker_home, killed_before, make, names, shown, whole, written

from graphdrivers import errors
from graphdrivers.backends.aufs.driver import AufsDriver
from graphdrivers.backends.vfs import VfsDriver
from graphdrivers.linux import mounts
from graphdrivers.model import LayerRecord

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")

ODD = ["new\nline", "back\\slash", "\\n", ".new-x", "-", "\udcff", " ", "x" * 200, "%", "a:b,c=d"]


def test_the_folders_are_dockers(tmp_path: pathlib.Path, opened: Opener) -> None:
    """``diff``, ``layers`` and ``mnt`` hold what Docker's driver kept there, and all is closed to other users."""
    driver = opened(tmp_path / "home")
    for layer, parent in (("base", None), ("middle", "base"), ("top", "middle")):
        driver.create(layer, parent)
        if layer != "top":
            driver.seal(layer)
    home = tmp_path / "home"

    folders = ["diff", "driver.json", "layers", "lock", "mnt", "phase", "state", "support.json", "tmp"]
    assert sorted(os.listdir(home)) == folders
    assert (home / "layers/base").read_bytes() == b""
    assert (home / "layers/top").read_bytes() == b"middle\nbase\n"
    assert [stat.S_IMODE((home / folder).stat().st_mode) for folder in ("", "diff", "layers", "mnt")] == [0o700] * 4
    assert stat.S_IMODE((home / "diff/base").stat().st_mode) == 0o755
    whole(home)


def test_any_name_will_do(tmp_path: pathlib.Path, opened: Opener, engine: str) -> None:
    """No byte in the name of a layer disturbs its record, its mount, its discovery or its removal."""
    driver = opened(tmp_path / "home", engine)
    parent = None
    for name in ODD:
        driver.create(name, parent)
        written(driver, name, lambda root, name=name: make(pathlib.Path(root), f"{ODD.index(name)}"))  # type: ignore[misc]
        driver.settle(name)
        driver.seal(name)
        parent = name
    again = opened(tmp_path / "home", engine)

    assert [record.name for record in again.layers()] == ODD[::-1]
    assert [record.parent for record in again.layers()] == [*ODD[-2::-1], None]
    assert sorted(path for path in shown(again, ODD[-1]) if path != ".") == [str(n) for n in range(len(ODD))]
    for name in reversed(ODD):
        again.remove(name)
    whole(tmp_path / "home")
    assert list(again.layers()) == []


@pytest.mark.parametrize("name", ["plain", "new\nline", "back\\slash"])
def test_a_mounted_layer_is_found(tmp_path: pathlib.Path, opened: Opener, engine: str, name: str) -> None:
    """While a layer is attached somewhere it is neither removed nor sealed nor brought to rest, whatever its name."""
    driver = opened(tmp_path / "home", engine)
    driver.create("base")
    driver.seal("base")
    driver.create(name, "base")
    (tmp_path / "place").mkdir()
    mounts.attach(driver.mounts(name), str(tmp_path / "place"))
    try:
        for refused in (driver.remove, driver.seal):
            with pytest.raises(errors.LayerInUse):
                refused(name)
        driver.settle(name)
        make(tmp_path / "place", "file")
    finally:
        mounts.detach(str(tmp_path / "place"))
    driver.settle(name)

    assert names(tmp_path / "home/diff" / name) == ["file"]


@pytest.mark.parametrize("gone", ["diff", "mnt"])
@pytest.mark.parametrize("name", ["plain", "new\nline"])
def test_a_folder_that_a_crash_took_is_no_mount(tmp_path: pathlib.Path, opened: Opener, gone: str, name: str) -> None:
    """Between two renames of the copy engine a folder is missing; looking for mounts goes on without it."""
    driver = opened(tmp_path / "home", "copy")
    driver.create(name)
    (tmp_path / "elsewhere" / gone / name).mkdir(parents=True)
    os.rmdir(tmp_path / "home" / gone / name)
    mounts.attach(
        opened(tmp_path / "home").mounts(_other(driver), view=False), str(tmp_path / "elsewhere" / gone / name)
    )
    try:
        driver.remove(name)
    finally:
        mounts.detach(str(tmp_path / "elsewhere" / gone / name))


def _other(driver: AufsDriver) -> str:
    driver.create("other")
    return "other"


def _layers(driver: AufsDriver) -> list[LayerRecord]:
    return sorted(driver.layers(), key=lambda record: record.name)


def test_a_killed_create_leaves_all_or_nothing(memory: pathlib.Path, opened: Opener) -> None:
    """SIGKILL before each call of `create`: the layer is there whole or not at all, and can be created again."""
    home = memory / "home"
    driver = opened(home)
    driver.create("base")
    driver.seal("base")
    number = 0
    there = []
    while killed_before(number := number + 1, lambda: driver.create("new", "base")):
        again = opened(home)
        there.append(LayerRecord("new", "base", sealed=False) in list(again.layers()))
        assert len(list(again.layers())) == 1 + there[-1]
        if number % 2:  # else the name is taken again as the dead process left it
            again.settle()
            whole(home)
        if not there[-1]:
            again.create("new", "base")
        written(again, "new", lambda root: make(pathlib.Path(root), "file"))
        again.settle("new")
        assert names(home / "diff/new") == ["file"]
        again.remove("new")
        again.settle()
        whole(home)
    assert number > 10
    assert there == sorted(there), "there once, it stays there"
    assert True in there
    assert False in there


def test_a_killed_remove_leaves_all_or_nothing(memory: pathlib.Path, opened: Opener, engine: str) -> None:
    """SIGKILL before each call of `remove`: the layer is there whole or gone, and settling deletes the rest of it."""
    home = memory / "home"
    driver = opened(home, engine)
    driver.create("base")
    written(driver, "base", lambda root: make(pathlib.Path(root), "dir/file", "gone"))
    driver.settle("base")
    driver.seal("base")

    def layer() -> None:
        driver.create("layer", "base")
        written(driver, "layer", lambda root: (make(pathlib.Path(root), "dir/new"), os.unlink(f"{root}/gone")))
        driver.settle("layer")

    number = 0
    there = []
    layer()
    while killed_before(number := number + 1, lambda: driver.remove("layer")):
        again = opened(home, engine)
        there.append("layer" in [record.name for record in again.layers()])
        if there[-1]:
            driver.seal("layer")
            assert sorted(shown(again, "layer")) == [".", "dir", "dir/file", "dir/new"]
            again.remove("layer")
        again.settle()
        whole(home)
        layer()
    assert there == sorted(there, reverse=True)
    assert there[0]
    assert not there[-1]


def test_one_of_two_creates_a_name(memory: pathlib.Path, opened: Opener) -> None:
    """Of processes that create one name at once one does, the others hear that it exists, and nothing is left."""
    driver = opened(memory / "home")

    def create(start: "multiprocessing.synchronize.Barrier", outcome: "multiprocessing.Queue[str]") -> None:
        start.wait(30)
        try:
            driver.create("name")
            outcome.put("made")
        except errors.LayerExists:
            outcome.put("exists")

    context = multiprocessing.get_context("fork")
    for _ in range(5):
        start, outcome = context.Barrier(3), context.Queue()
        workers = [context.Process(target=create, args=(start, outcome)) for _ in range(3)]
        for worker in workers:
            worker.start()
        found = sorted(outcome.get(timeout=60) for _ in workers)
        for worker in workers:
            worker.join(60)

        assert found == ["exists", "exists", "made"]
        whole(memory / "home")
        driver.remove("name")


def dockers(home: pathlib.Path) -> None:
    """Make a home of Docker's: whiteouts that are hard links, bookkeeping of aufs, markers beside their entries."""
    base, middle, top = docker_home(home, ["base", "middle", "top"])
    make(base, "gone", "kept", "both", "dir/old", "hidden/old", "hidden/older", "file/old", "linked")
    os.chmod(middle, 0o2700)
    (middle / ".wh..wh.aufs").touch(0o444)
    for marker in (".wh.gone", ".wh.both", "hidden/.wh..wh..opq", ".wh.dir"):
        (middle / marker).parent.mkdir(exist_ok=True)
        os.link(middle / ".wh..wh.aufs", middle / marker)
    make(
        middle, "both", "dir/new", "hidden/new", ".wh..wh.orph/stray", ".wh..wh.plnk/", ".wh..wh.kept.03fe/.wh.x", "two"
    )
    os.link(middle / "two", middle / ".wh..wh.plnk/12.34")
    (top / ".wh..wh.aufs").touch(0o444)
    (top / "dir").mkdir()
    for marker in (".wh.dir", "dir/.wh.new", ".wh.kept", ".wh.none"):
        os.link(top / ".wh..wh.aufs", top / marker)
    make(top, "dir/newest", "added", ".wh..wh.plnk/")
    os.link(top / "added", top / ".wh..wh.plnk/56.78")


MIDDLE = ["both", "dir", "dir/new", "file", "file/old", "hidden", "hidden/new", "kept", "linked", "two"]
TOP = ["added", "both", "dir", "dir/newest", "file", "file/old", "hidden", "hidden/new", "linked", "two"]


def check_dockers(driver: AufsDriver, home: pathlib.Path) -> None:
    """Assert that a home of Docker's shows what it must, can be written to, and comes to rest again."""
    assert [(record.name, record.sealed) for record in driver.layers()] == [
        ("top", False),
        ("middle", True),
        ("base", True),
    ]
    middle = shown(driver, "middle")
    assert sorted(middle) == sorted([".", *MIDDLE])
    assert (middle["."].mode, middle["two"].names) == (0o2700, {"two"})
    assert [path for path in sorted(shown(driver, "top")) if path != "."] == TOP
    written(driver, "top", lambda root: os.unlink(f"{root}/two"))
    with mounts.opened(driver.mounts("top")) as root:
        assert os.listdir(f"/proc/self/fd/{root}/dir") == ["newest"]
        os.unlink("dir/newest", dir_fd=root)
        os.rmdir("dir", dir_fd=root)
    driver.settle("top")
    driver.seal("top")
    assert [path for path in sorted(shown(driver, "top")) if path != "."] == [
        path for path in TOP if not path.startswith(("dir", "two"))
    ]
    changed = {change.path: change.kind.letter for change in driver.changes("top")}
    assert changed == {"/added": "A", "/dir": "D", "/kept": "D", "/two": "D"}
    driver.settle()
    whole(home)


def test_dockers_home_is_taken_over(memory: pathlib.Path, opened: Opener, engine: str) -> None:
    """Layers of Docker's driver show what they must, are written to and come to rest, bookkeeping of aufs and all."""
    dockers(memory / "home")

    check_dockers(opened(memory / "home", engine), memory / "home")


def test_taking_over_survives_a_kill(memory: pathlib.Path, opened: Opener) -> None:
    """SIGKILL before each call of taking over: the next one to open the home does it all."""
    number = 0
    while True:
        home = memory / f"home{number}"
        dockers(home)
        if not killed_before(number := number + 1, lambda home=home: opened(home)):  # type: ignore[misc]
            break
        if number % 4 == 0:
            check_dockers(opened(home), home)
        else:
            again = opened(home)
            assert [record.sealed for record in again.layers()] == [False, True, True]
            assert all(again.facts(layer)["dialect"] == "wh" for layer in ("base", "middle", "top"))
            assert len(list((home / "state").glob("*/marked"))) == 3
    assert number > 10


def test_taking_over_is_done_once(memory: pathlib.Path, opened: Opener) -> None:
    """A home that is open already is not taken over again: a leaf that was sealed since, or not, stays so."""
    home = memory / "home"
    dockers(home)
    opened(home).seal("top")
    opened(home).create("child", "top")
    driver = opened(home)

    assert [(record.name, record.sealed) for record in driver.layers()][:2] == [("child", False), ("top", True)]
    assert not (home / "state/child/marked").exists()


def test_dockers_rubbish_goes(memory: pathlib.Path, opened: Opener) -> None:
    """What Docker's driver had begun to remove when it died is deleted."""
    home = memory / "home"
    dockers(home)
    for folder in ("diff/old-removing", "mnt/old-removing", "diff/lost", "mnt/lost"):
        make(home, f"{folder}/deep/file")
    driver = opened(home)
    driver.settle()

    whole(home)
    assert len(list(driver.layers())) == 3


def test_a_record_that_is_none_is_told(tmp_path: pathlib.Path, opened: Opener) -> None:
    """A line in ``layers`` that can be no layer's name is corruption, said with the file's name."""
    driver = opened(tmp_path / "home")
    driver.create("layer")
    (tmp_path / "home/layers/layer").write_bytes(b"..\n")

    with pytest.raises(errors.StoreCorrupt, match="layers/layer"):
        driver.mounts("layer")


def test_another_drivers_home_is_left_alone(tmp_path: pathlib.Path) -> None:
    """A folder of the vfs driver is refused before anything is made in it."""
    home = str(tmp_path / "home")
    VfsDriver(home, {}, VfsDriver.probe(home, {})).create("layer")
    before = names(tmp_path)
    with pytest.raises(errors.PriorDriverState):
        AufsDriver.probe(home, {})

    assert names(tmp_path) == before
