"""A ledger that was changed by hand: told in one line; nothing outside of the store is unmounted or removed."""

import contextlib
import os
import pathlib
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence

import pytest
from stage import isolated, put_canary, state
from storetools import layout_of, mounted_in, tar_of

from graphdrivers import Store, errors, open_store
from graphdrivers.linux import mountinfo, mounts
from graphdrivers.linux.boot import boot_id
from graphdrivers.linux.namespaces import mount_namespace
from graphdrivers.model import Mount
from graphdrivers.store.holders import Holder

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")

DEAD = f"{boot_id()}:4194303:1"
"""A process that is gone."""

ESC = "\x1b]0;owned\x07\x1b[2J"
"""What changes the title of a terminal, and clears it."""


@pytest.fixture
def root(tmp_path: pathlib.Path) -> Iterator[pathlib.Path]:
    """Make a store with an image of two layers and a container, and close it."""
    image = layout_of(tmp_path / "image", tar_of({"a": "1"}), tar_of({"b": "2"}))
    with open_store(tmp_path / "store", "overlay", durability="none") as store:
        store.import_image(image, name="web:1")
        store.create("web:1", name="web")
        store.container("web").checkpoint("one")
    yield tmp_path / "store"
    for target in reversed(mounted_in(tmp_path)):
        mounts.detach(target, lazy=True)


def tamper(root: pathlib.Path, *steps: str | tuple[str, Sequence[object]]) -> None:
    """Change the ledger as an editor of SQLite files does."""
    with open_store(root, durability="none") as store:
        store.site.database.read("PRAGMA foreign_keys=OFF")
        store.site.database.read("PRAGMA ignore_check_constraints=ON")
        with store.site.database.write() as step:
            for one in steps:
                step.execute(*((one,) if isinstance(one, str) else one))


def top(root: pathlib.Path) -> str:
    """Give the name of the container's writable layer."""
    with open_store(root, durability="none") as store:
        return store.container("web").record().layer


def row(layer: str, target: str, *, holder: str | None = DEAD, attached: int = 1) -> tuple[str, tuple[object, ...]]:
    """Make a row of a mount that never was."""
    query = "INSERT INTO mounts (layer, target, attached, writable, namespace, boot, holder) VALUES (?,?,?,?,?,?,?)"
    return query, (layer, target, attached, 1, mount_namespace(), boot_id(), holder)


@contextlib.contextmanager
def somebodys_mount(place: pathlib.Path, victim: pathlib.Path) -> Iterator[None]:
    """Mount a folder that has nothing to do with any store."""
    place.mkdir(exist_ok=True)
    mounts.attach((Mount("bind", str(victim)),), str(place))
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            mounts.detach(str(place))


def everything(root: pathlib.Path) -> list[str]:
    """Use each public door of a store; give what they say who do not work."""
    said = []

    def attempt(work: Callable[[Store], object]) -> None:
        try:
            with open_store(root, durability="none") as store:
                work(store)
        except (errors.GraphDriverError, OSError) as error:
            said.append(str(error))

    doors: tuple[Callable[[Store], object], ...] = (
        lambda store: store.images(),
        lambda store: store.image("web:1"),
        lambda store: store.containers(),
        lambda store: [box.layers() for box in store.containers()],
        lambda store: [box.mounts() for box in store.containers()],
        lambda store: store.create("web:1").remove(),
        lambda store: list(store.container("web").changes()),
        lambda store: store.container("web").diff().close(),
        lambda store: store.container("web").unmount(),
        lambda store: store.container("web").mount().release(),
        lambda store: store.container("web").checkpoint("two"),
        lambda store: store.container("web").fork("twin"),
        lambda store: store.container("web").rollback("one"),
        lambda store: store.commit("web", "web:2"),
        lambda store: store.explain("web:1"),
        lambda store: list(store.check(deep=True)),
        lambda store: store.repair(list(store.check())),
        lambda store: store.collect(),
        lambda store: store.container("web").remove(),
        lambda store: store.remove_image("web:1"),
        lambda store: store.collect(),
    )
    for door in doors:
        attempt(door)
    return said


@pytest.mark.parametrize("holder", [DEAD, None])
@pytest.mark.parametrize("attached", [0, 1])
def test_a_row_about_the_mount_of_somebody_else(
    root: pathlib.Path, tmp_path: pathlib.Path, holder: str | None, attached: int
) -> None:
    """A row that claims a disk of the user's: opening, unmounting, removing and collecting leave it mounted."""
    victim, place = tmp_path / "victim", tmp_path / "disk"
    put_canary(str(victim))
    before = state(str(victim))
    with somebodys_mount(place, victim):
        tamper(root, row(top(root), str(place), holder=holder, attached=attached))
        everything(root)
        assert mountinfo.mounted_at(str(place)) is not None
        assert (place / "hello").read_text() == "hello of the host"
        assert state(str(victim)) == before
    assert place.is_dir()


@pytest.mark.parametrize("target", ["/", "/proc", "", "..", "/nowhere", "/\0"])
def test_a_row_about_the_root_of_this_machine(root: pathlib.Path, target: str) -> None:
    """``/``, what is below it, or no path at all: nothing is unmounted, and nothing removed."""
    before = [mountinfo.mounted_at(place) for place in ("/", "/proc", "/dev", "/sys")]
    tamper(root, row(top(root), target, holder=None), row(top(root), target))
    everything(root)
    assert [mountinfo.mounted_at(place) for place in ("/", "/proc", "/dev", "/sys")] == before
    assert before[0] is not None


def test_what_others_mount_in_our_place_is_theirs(root: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """A user unmounts our mount and mounts a disk there: ``unmount`` forgets ours, and leaves the disk."""
    victim, place = tmp_path / "victim", tmp_path / "mnt"
    put_canary(str(victim))
    place.mkdir()
    with open_store(root, durability="none") as store:
        box = store.container("web")
        box.mount(place, keep=True)
        mounts.detach(str(place))
        with somebodys_mount(place, victim):
            box.unmount()
            assert mountinfo.mounted_at(str(place)) is not None
            assert box.mounts() == []
            box.remove()
            assert (place / "hello").exists()


@pytest.mark.parametrize("options", ["vfs", "overlay", "aufs engine=overlay-shadow", "aufs engine=copy"])
@pytest.mark.parametrize("kind", ["writable", "view"])
def test_our_own_mounts_are_known_again(options: str, kind: str, tmp_path: pathlib.Path) -> None:
    """Wherever it is, also below odd names, and whoever made it: what a store has mounted is unmounted by it."""
    name, *settings = options.split()
    image = layout_of(tmp_path / "image", tar_of({"a": "1"}), tar_of({"b": "2"}))
    chosen = dict(setting.split("=") for setting in settings)
    place = tmp_path / "m\\n o,p:q"
    place.mkdir()
    with open_store(tmp_path / ("s" * 200), name, options=chosen, durability="none") as store:
        store.import_image(image, name="web:1")
        box = store.create("web:1", name="web")
        box.mount(place, read_only=kind == "view", keep=True)
        assert mountinfo.mounted_at(str(place)) is not None
        assert box.unmount() == [str(place)]
        assert mountinfo.mounted_at(str(place)) is None
        box.remove()


LAYER_NAMES = ["../../victim", "..", "x" * 10_000, "a\0b", "", ESC]


@pytest.mark.parametrize("name", LAYER_NAMES)
@pytest.mark.parametrize("state_of", ["ready", "making", "removing"])
def test_a_layer_with_the_name_of_a_path(root: pathlib.Path, tmp_path: pathlib.Path, name: str, state_of: str) -> None:
    """Neither recovery nor a collection removes what such a name leads to, and `check` names it."""
    put_canary(str(tmp_path / "victim"))
    before = state(str(tmp_path / "victim"))
    query = "INSERT INTO layers (name, parent, state, created, holder) VALUES (?, NULL, ?, 1, ?)"
    tamper(root, (query, (name, state_of, None if state_of == "ready" else DEAD)))
    with open_store(root, durability="none") as store:
        faults = [fault.detail for fault in store.check()]
        assert any("cannot be called" in detail for detail in faults) == (name != ESC), faults
        with pytest.raises(errors.StoreCorrupt) if name != ESC else contextlib.nullcontext():
            store.repair(list(store.check()))
    said = everything(root)
    assert all(text.isprintable() for text in said)
    assert state(str(tmp_path / "victim")) == before


def test_a_circle_of_layers(root: pathlib.Path) -> None:
    """A layer that is its own ancestor: no door hangs or eats memory, and those that need the stack say so."""
    layer = top(root)
    tamper(
        root,
        ("UPDATE layers SET parent = ? WHERE parent IS NULL", (layer,)),
        ("UPDATE layers SET state = 'removing', holder = ? WHERE diff_id IS NULL", (DEAD,)),
        ("UPDATE layers SET state = 'ready', holder = NULL WHERE name = ?", (layer,)),
    )
    said = isolated(lambda: everything(root), seconds=120, memory=400 << 20)
    assert any("own ancestor" in text for text in said), said


NONSENSE: dict[str, tuple[str, Sequence[object], type[errors.GraphDriverError]]] = {
    "a lost parent": ("DELETE FROM layers WHERE parent IS NULL", (), errors.StoreCorrupt),
    "another configuration": ("UPDATE images SET config = replace(config, 'amd64', 'amd65')", (), errors.StoreCorrupt),
    "a configuration that is text": ("UPDATE images SET config = 'x'", (), errors.StoreCorrupt),
    "another ID": ("UPDATE images SET image_id = ?", (f"sha256:{'0' * 64}",), errors.StoreCorrupt),
    "an ID that is a path": ("UPDATE images SET image_id = '../../victim'", (), errors.StoreCorrupt),
    "another manifest": ("UPDATE images SET manifest = CAST('{}' AS BLOB)", (), errors.StoreCorrupt),
    "a tag that is none": ("UPDATE tags SET reference = ?", (f"docker.io/library/{ESC}:1",), errors.StoreCorrupt),
    "a tag that climbs": ("UPDATE tags SET reference = '../../../etc/passwd'", (), errors.StoreCorrupt),
}


@pytest.mark.parametrize("name", NONSENSE)
def test_nonsense_in_an_image(root: pathlib.Path, name: str) -> None:
    """What an image says is held against its digests each time that it is read; the error is one line."""
    query, values, error = NONSENSE[name]
    tamper(root, "UPDATE images SET config = CAST(config AS BLOB)", (query, values))
    with open_store(root, durability="none") as store:
        with pytest.raises(error) as caught:
            store.images()
        assert str(caught.value).isprintable()
        assert list(store.check())


NUMBERS = {
    "layers": ("tar_size", "content_size", "entries"),
    "containers": ("size",),
}
HOLDERS = ("nobody", "::", "a:b:c", f"{boot_id()}:-1:0", f"{boot_id()}:{'9' * 5000}:1", "x" * 100_000)


@pytest.mark.parametrize("value", [-1, "many", b"\xff"])
def test_absurd_numbers(root: pathlib.Path, value: object) -> None:
    """Sizes that are none are told by `check`, each with its place."""
    for table, columns in NUMBERS.items():
        for column in columns:
            tamper(root, (f"UPDATE {table} SET {column} = ?", (value,)))  # noqa: S608 - constants
    with open_store(root, durability="none") as store:
        told = "\n".join(fault.detail for fault in store.check())
        assert all(f"{column} of " in told for columns in NUMBERS.values() for column in columns), told
        with pytest.raises(errors.StoreCorrupt):
            store.repair(list(store.check()))


@pytest.mark.parametrize("holder", HOLDERS, ids=range(len(HOLDERS)))
def test_holders_that_are_none(root: pathlib.Path, tmp_path: pathlib.Path, holder: str) -> None:
    """A holder that is no process is told when the store opens, in one line; nothing is taken for dead."""
    place = tmp_path / "mnt"
    place.mkdir()
    with open_store(root, durability="none") as store:
        store.container("web").mount(place, keep=True)
    tamper(root, ("UPDATE mounts SET holder = ?", (holder,)))
    with pytest.raises(errors.StoreCorrupt, match="no process is called") as caught:
        open_store(root)
    assert len(str(caught.value)) < 1000
    assert mountinfo.mounted_at(str(place)) is not None


@pytest.mark.parametrize("driver", ["../victim", "/etc", "..", "", ESC, "\0", "vfs\n"])
def test_a_driver_that_is_a_path(root: pathlib.Path, tmp_path: pathlib.Path, driver: str) -> None:
    """The driver that a ledger names is looked up by name, and makes no path."""
    put_canary(str(tmp_path / "victim"))
    before = state(str(tmp_path / "victim"))
    tamper(root, ("UPDATE facts SET value = ? WHERE key = 'driver'", (driver,)))
    with pytest.raises(errors.GraphDriverError) as caught:
        open_store(root)
    assert str(caught.value).isprintable()
    assert state(str(tmp_path / "victim")) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["image", "store", "victim"]


def test_a_record_that_is_something_else(root: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """Links, folders, FIFOs and strangers' names among the records: told, and what they lead to stays."""
    put_canary(str(tmp_path / "victim"))
    before = state(str(tmp_path / "victim"))
    records = root / "store/records"
    real = next(records.iterdir())
    content = real.read_bytes()
    (records / "folder").mkdir()
    (records / "odd\n\x1b[2J").write_text("x")
    (records / "link").symlink_to(tmp_path / "victim")
    os.mkfifo(records / "pipe")
    assert all(text.isprintable() for text in everything_but_removing(root))
    assert state(str(tmp_path / "victim")) == before
    real.unlink(missing_ok=True)
    real.symlink_to(tmp_path / "victim" / "secret")
    with open_store(root, durability="none") as store:
        faults = list(store.check(deep=True))
        assert faults
        assert not any("of the host" in fault.detail for fault in faults)
    assert content
    assert state(str(tmp_path / "victim")) == before


def everything_but_removing(root: pathlib.Path) -> list[str]:
    """Check and repair a store; give what is told."""
    with open_store(root, durability="none") as store:
        faults = list(store.check(deep=True))
        repaired = store.repair(faults)
        told = [f"{fault.layer!r} {fault.detail}" for fault in faults]
        return told + [f"{name!r}: {reason}" for name, reason in repaired.lost]


COMMANDS = ("images", "ls", "mounts", "check", "doctor", "status", "gc", "history web:1", "checkpoint --list web")


def test_nothing_reaches_the_terminal(root: pathlib.Path) -> None:
    """Whatever stands in a ledger or in an image's documents: no command prints a control character of it."""
    tamper(
        root,
        ("UPDATE containers SET name = ? WHERE name = 'web'", (f"web{ESC}",)),
        ("UPDATE checkpoints SET point = ?", (f"one{ESC}",)),
        row(top(root), f"/mnt/{ESC}", holder=str(Holder.here()), attached=0),
    )
    for command in COMMANDS:
        done = subprocess.run(
            [sys.executable, "-m", "graphdrivers", "--root", str(root), *command.split()],
            check=False,
            capture_output=True,
        )
        assert b"Traceback" not in done.stderr, done
        assert b"\x1b" not in done.stdout + done.stderr, (command, done)
