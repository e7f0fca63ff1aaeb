"""The ledger's file: made, brought up to date, shared, refused and full."""

import errno
import os
import pathlib
import signal
import sqlite3
import threading
import time
from collections.abc import Iterator

import pytest
from storetools import all_at_once, in_child, layout_of, whole

from graphdrivers import Store, errors, open_store
from graphdrivers.linux import filesystems, mounts
from graphdrivers.model import Mount
from graphdrivers.store import database, room, schema
from graphdrivers.store.database import FILE, Database


@pytest.fixture
def ledger(tmp_path: pathlib.Path) -> Iterator[Database]:
    """Open a new ledger."""
    opened = Database(str(tmp_path))
    yield opened
    opened.close()


def put(ledger: Database, key: str) -> None:
    """Record one fact."""
    with ledger.write() as step:
        step.execute("INSERT INTO facts (key, value) VALUES (?, 'x')", (key,))


def keys(ledger: Database) -> list[str]:
    """Give the facts."""
    return [row[0] for row in ledger.read("SELECT key FROM facts ORDER BY key")]


def test_a_new_ledger(ledger: Database) -> None:
    """It is in WAL mode, private, of the present version and sound."""
    assert ledger.journal == "wal"
    assert os.stat(ledger.path).st_mode & 0o777 == 0o600
    assert ledger.read("PRAGMA user_version") == [(schema.VERSION,)]
    assert ledger.read("PRAGMA foreign_keys") == [(1,)]
    assert ledger.is_sound() == []


def test_an_empty_file_is_a_new_ledger(tmp_path: pathlib.Path) -> None:
    """A process that died between making the file and the tables leaves an empty one; the next goes on."""
    (tmp_path / FILE).touch()
    ledger = Database(str(tmp_path))
    assert keys(ledger) == []
    ledger.close()


def test_a_file_system_without_wal(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a network file system a rollback journal is used; what was recorded with the other one stays."""
    ledger = Database(str(tmp_path))
    put(ledger, "before")
    ledger.close()
    monkeypatch.setattr(filesystems, "fs_type", lambda _: "nfs")
    ledger = Database(str(tmp_path))
    assert ledger.journal == "delete"
    put(ledger, "after")
    assert keys(ledger) == ["after", "before"]
    ledger.close()


def test_a_newer_ledger_is_left_alone(tmp_path: pathlib.Path) -> None:
    """A version that this release does not know is refused, and not touched."""
    Database(str(tmp_path)).close()
    raw = sqlite3.connect(tmp_path / FILE)
    raw.execute(f"PRAGMA user_version={schema.VERSION + 1}")
    raw.close()
    before = (tmp_path / FILE).read_bytes()
    with pytest.raises(errors.StoreVersion, match=str(schema.VERSION + 1)):
        Database(str(tmp_path))
    assert (tmp_path / FILE).read_bytes() == before


def test_an_older_ledger_is_brought_up_to_date_step_by_step(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each migration runs once; one that fails leaves the ledger as it was."""
    Database(str(tmp_path)).close()
    monkeypatch.setattr(database, "VERSION", schema.VERSION + 2)
    good, bad = "CREATE TABLE more (x TEXT)", "CREATE TABLE facts (x TEXT)"
    monkeypatch.setattr(database, "MIGRATIONS", (*schema.MIGRATIONS, good, bad))
    with pytest.raises(errors.StoreCorrupt):
        Database(str(tmp_path))
    raw = sqlite3.connect(tmp_path / FILE)
    assert raw.execute("PRAGMA user_version").fetchone() == (schema.VERSION,)
    assert raw.execute("SELECT name FROM sqlite_master WHERE name = 'more'").fetchall() == []
    raw.close()
    monkeypatch.setattr(database, "MIGRATIONS", (*schema.MIGRATIONS, good, "CREATE TABLE most (x TEXT)"))
    ledger = Database(str(tmp_path))
    assert ledger.read("SELECT * FROM most") == []
    ledger.close()


def test_a_ledger_of_the_first_version(store: Store, tars: list[bytes], tmp_path: pathlib.Path) -> None:
    """Its containers keep the init layers that they have; the image gets one for those to come."""
    image = store.import_image(layout_of(tmp_path / "image", *tars), name="image")
    box = store.create("image", name="old")
    based, path = box.base(), store.site.database.path
    store.close()
    raw = sqlite3.connect(path)
    for statement in (
        *("DROP TABLE repairs", "DROP INDEX images_of_manifest", "DROP INDEX mounts_of_target"),
        *("DROP INDEX images_of_init", "ALTER TABLE images DROP COLUMN init"),
        "PRAGMA user_version=1",
    ):
        raw.execute(statement)
    raw.close()
    with open_store(store.root) as again:
        whole(again)
        assert again.container("old").base() == based
        assert again.create("image", name="new").base() != based
        for container in again.containers():
            container.remove()
        again.remove_image(image.image_id)
        assert list(again.driver.layers()) == []
        whole(again)


@pytest.mark.parametrize("damage", ["no ledger at all" * 100, "zeros", "torn"])
def test_a_damaged_file(tmp_path: pathlib.Path, damage: str) -> None:
    """What is no ledger, or half of one, is told in one line, as damage."""
    ledger = Database(str(tmp_path))
    for number in range(200):
        put(ledger, f"{number}" * 50)
    ledger.close()
    path = tmp_path / FILE
    content = path.read_bytes()
    whole = {"zeros": content[:4096] + bytes(len(content) - 4096), "torn": content[:5000]}.get(damage, damage.encode())
    path.write_bytes(whole)

    def use() -> None:
        opened = Database(str(tmp_path))
        try:
            keys(opened)
        finally:
            opened.close()

    with pytest.raises(errors.StoreCorrupt) as caught:
        use()
    assert "\n" not in str(caught.value)


def test_a_step_is_all_or_nothing(ledger: Database) -> None:
    """An error of the block takes back what it did, and the next step works."""

    def fail() -> None:
        with ledger.write() as step:
            step.execute("INSERT INTO facts (key, value) VALUES ('a', 'x')")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    put(ledger, "b")
    assert keys(ledger) == ["b"]


def test_a_contradiction_is_told_in_our_words(ledger: Database) -> None:
    """A row that refers to nothing is refused with an error of this library."""
    with pytest.raises(errors.StoreCorrupt, match="contradict"), ledger.write() as step:
        step.execute("INSERT INTO tags (reference, image_id) VALUES ('x', 'missing')")
    put(ledger, "after")


def test_a_full_disk(ledger: Database) -> None:
    """A step that finds no room is taken back, told as ENOSPC, and the next one works when there is room."""
    ledger.read(f"PRAGMA max_page_count={ledger.read('PRAGMA page_count')[0][0] + 2}")

    def fill() -> None:
        with ledger.write() as step:
            values = [(str(number), "x" * 1000) for number in range(1000)]
            step.executemany("INSERT INTO facts (key, value) VALUES (?, ?)", values)

    with pytest.raises(OSError, match="ledger") as caught:
        fill()
    assert caught.value.errno == errno.ENOSPC
    assert not os.path.exists(os.path.join(os.path.dirname(ledger.path), room.FILE))
    ledger.read("PRAGMA max_page_count=100000")
    put(ledger, "after")
    assert keys(ledger) == ["after"]


def test_room_is_kept_and_given_up(tmp_path: pathlib.Path) -> None:
    """Where there is plenty, a little is set aside; it is given up once, and set aside again."""
    place = tmp_path / room.FILE
    for _ in range(2):
        room.set_aside(str(tmp_path))
        assert place.stat().st_size == room.SIZE
        assert place.stat().st_blocks * 512 >= room.SIZE
        room.give_up(str(tmp_path))
        room.give_up(str(tmp_path))
        assert not place.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user")
def test_a_folder_of_somebody_else(tmp_path: pathlib.Path) -> None:
    """A user who may not read it is told so by the operating system's name for that."""
    Database(str(tmp_path)).close()

    def use() -> None:
        os.setresuid(65534, 65534, 65534)
        with pytest.raises(OSError, match=r"denied|Read-only") as caught:
            Database(str(tmp_path))
        assert caught.value.errno in {errno.EACCES, errno.EROFS}

    in_child(use)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
def test_a_file_system_that_is_read_only(tmp_path: pathlib.Path) -> None:
    """It is called by its name, and not a permission that somebody lacks."""
    (tmp_path / "there").mkdir()
    (tmp_path / "shown").mkdir()
    Database(str(tmp_path / "there")).close()
    mounts.attach((Mount("bind", str(tmp_path / "there"), readonly=True),), str(tmp_path / "shown"))
    try:
        with pytest.raises(OSError, match="Read-only file system") as caught:
            Database(str(tmp_path / "shown"))
    finally:
        mounts.detach(str(tmp_path / "shown"))
    assert caught.value.errno == errno.EROFS


def test_another_writer_is_waited_for_and_then_told(ledger: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """A writer that does not end is a LockTimeout; readers read meanwhile."""
    monkeypatch.setattr(database, "BUSY_TIMEOUT", 0.05)
    other = Database(os.path.dirname(ledger.path))
    with ledger.write() as step:
        step.execute("INSERT INTO facts (key, value) VALUES ('a', 'x')")
        assert keys(other) == []
        with pytest.raises(errors.LockTimeout):
            put(other, "b")
    put(other, "b")
    assert keys(other) == ["a", "b"]
    other.close()


def test_an_interrupt_while_another_writer_is_waited_for(ledger: Database) -> None:
    """Ctrl-C is told when the wait is over; the step is taken back then, and the next one works."""
    other = Database(os.path.dirname(ledger.path))
    begun, go = threading.Event(), threading.Event()

    def write() -> None:
        with other.write():
            begun.set()
            go.wait()
            time.sleep(0.1)  # until the other one waits for this step
            os.kill(os.getpid(), signal.SIGINT)

    def wait() -> None:
        go.set()
        put(ledger, "interrupted")

    thread = threading.Thread(target=write)
    thread.start()
    begun.wait()
    with pytest.raises(KeyboardInterrupt):
        wait()
    thread.join()
    put(other, "other")
    put(ledger, "after")
    assert keys(ledger) == ["after", "other"]
    other.close()


def test_a_snapshot_is_of_one_moment(ledger: Database) -> None:
    """What others write while it lasts is not seen in it, and is after."""
    with ledger.snapshot():
        assert keys(ledger) == []
        thread = threading.Thread(target=put, args=(ledger, "a"))
        thread.start()
        thread.join()
        assert keys(ledger) == []
    assert keys(ledger) == ["a"]


def test_processes_that_make_it_at_once(tmp_path: pathlib.Path) -> None:
    """Eight processes make and write the same new ledger: each succeeds, nothing is lost."""

    def work(say: object) -> None:
        opened = Database(str(tmp_path))
        for number in range(5):
            put(opened, f"{os.getpid()}-{number}")
        opened.close()
        del say

    all_at_once([work] * 8)
    ledger = Database(str(tmp_path))
    assert len(keys(ledger)) == 40
    ledger.close()


def test_a_forked_process_has_connections_of_its_own(ledger: Database) -> None:
    """A ledger opened before fork(2) works on both sides, and the child closes nothing of its parent's."""
    put(ledger, "parent")

    def work() -> None:
        put(ledger, "child")
        ledger.close()

    in_child(work)
    put(ledger, "parent again")
    assert keys(ledger) == ["child", "parent", "parent again"]


def test_threads_leave_no_connection(ledger: Database) -> None:
    """A connection lives as long as its thread, and no longer than until the next one is opened."""
    for number in range(20):
        thread = threading.Thread(target=put, args=(ledger, str(number)))
        thread.start()
        thread.join()
    assert len(ledger._all) <= 2
    assert len(keys(ledger)) == 20
