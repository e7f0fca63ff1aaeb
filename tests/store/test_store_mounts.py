"""Mounts counted by holder: who lets go last unmounts, and what dead processes leave is found."""

import ctypes
import os
import pathlib
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import attrs
import pytest
from storetools import forked, held_child, in_child, layout_of, mounted_in, whole

from graphdrivers import Container, Store, errors
from graphdrivers.linux import mountinfo, mounts
from graphdrivers.model import Mount
from graphdrivers.store import mounted, recover

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")

_CLONE_NEWNS, _MS_PRIVATE_ALL = 0x00020000, (1 << 18) | (1 << 14)


@pytest.fixture
def box(store: Store, tars: list[bytes], tmp_path: pathlib.Path) -> Iterator[Container]:
    """Make a container, which is not mounted at the end."""
    store.import_image(layout_of(tmp_path / "image", *tars), name="image")
    made = store.create("image", name="box")
    yield made
    whole(store)


def rows(store: Store) -> int:
    """Count holders in the ledger."""
    return int(store.site.database.read("SELECT count(*) FROM mounts")[0][0])


def in_namespace(work: Callable[[], object]) -> Callable[[], object]:
    """Do work in a mount namespace of its own."""

    def run() -> object:
        library = ctypes.CDLL(None, use_errno=True)
        assert library.unshare(_CLONE_NEWNS) == 0
        assert library.mount(b"none", b"/", None, _MS_PRIVATE_ALL, None) == 0
        return work()

    return run


def test_the_last_holder_unmounts(store: Store, box: Container) -> None:
    """Two holders share one mount; the first to let go leaves it, the second takes it down with its folder."""
    first, second = box.mount(), box.mount()
    assert first.path == second.path
    (first.path / "file").write_text("x")
    first.release()
    first.release()
    assert (second.path / "file").read_text() == "x"
    second.release()
    assert mounted_in(store.root) == []
    assert rows(store) == 0


def test_a_writable_mount_has_one_place(box: Container, tmp_path: pathlib.Path) -> None:
    """A second place for a writable mount is refused by name; the same place is joined."""
    (tmp_path / "here").mkdir()
    (tmp_path / "there").mkdir()
    with box.mount(tmp_path / "here") as one:
        with pytest.raises(errors.ContainerInUse, match="here"):
            box.mount(tmp_path / "there")
        with box.mount(tmp_path / "here") as other:
            assert other.path == one.path
        assert (one.path / "etc/motd").exists()
    assert mountinfo.mounted_at(str(tmp_path / "here")) is None


def test_views_stand_beside_a_writable_mount(box: Container, tmp_path: pathlib.Path) -> None:
    """Views are as many as wanted and read-only; in the place of a writable mount they are refused."""
    places = [tmp_path / name for name in ("one", "two")]
    for place in places:
        place.mkdir()
    with box.mount(tmp_path / "one") as writable:
        with pytest.raises(errors.ContainerInUse, match="a place of its own"):
            box.mount(places[0], read_only=True)
        with box.mount(places[1], read_only=True) as view:
            (writable.path / "new").write_text("x")
            with pytest.raises(OSError, match="Read-only"):
                (view.path / "no").write_text("x")
        assert (writable.path / "new").read_text() == "x"


def test_one_place_shows_one_layer(store: Store, box: Container, tmp_path: pathlib.Path) -> None:
    """A folder on which a layer is mounted is refused to every other: letting go of one would unmount the other."""
    place = tmp_path / "place"
    place.mkdir()
    with box.mount(place), pytest.raises(errors.LayerInUse, match="place"):
        store.mount_image("image", place)
    with store.mount_image("image", place) as view:
        assert (view.path / "etc/motd").exists()


def test_a_killed_holder_is_found(opened: Callable[..., Store], store: Store, box: Container) -> None:
    """What a process that was killed had mounted is unmounted when the store is opened, or when it is asked for."""
    with held_child(lambda: opened().container("box").mount()) as child:
        assert rows(store) == 1
        with pytest.raises(errors.ContainerInUse, match=str(child.pid)):
            box.remove()
        with pytest.raises(errors.ContainerInUse, match=str(child.pid)):
            box.fork("other")
        with pytest.raises(errors.ContainerInUse, match=str(child.pid)):
            box.unmount()
        child.kill()
        child.wait()
        assert box.mounts() == []
        box.checkpoint()
        assert mounted_in(store.root) == []


def test_of_two_holders_one_is_killed(opened: Callable[..., Store], store: Store, box: Container) -> None:
    """The mount stays for the one that lives."""
    mine = box.mount()
    with held_child(lambda: opened().container("box").mount()) as child:
        assert len(box.mounts()) == 2
        child.kill()
        child.wait()
        opened().close()
        assert len(box.mounts()) == rows(store) == 1
        assert (mine.path / "etc/motd").exists()
    mine.release()


def test_a_zombie_holds_nothing(opened: Callable[..., Store], box: Container) -> None:
    """A process that ended, and whose parent has not looked yet, holds nothing."""
    child = forked(lambda say: (opened().container("box").mount(), say("mounted")))
    assert child.lines() == ["mounted"]
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert box.mounts() == []
    box.checkpoint()
    child.wait()


def test_a_kept_mount_outlives_its_process(opened: Callable[..., Store], store: Store, box: Container) -> None:
    """A mount for nobody stays until it is unmounted; then its places are told, and a second time nothing."""
    in_child(lambda: opened().container("box").mount(keep=True))
    opened().close()
    (held,) = box.mounts()
    assert held.holder is None
    with pytest.raises(errors.ContainerInUse, match="mounted at"):
        box.remove()
    assert box.unmount() == [held.target]
    assert box.unmount() == []
    assert mounted_in(store.root) == []


def test_unmounted_by_hand(box: Container, tmp_path: pathlib.Path) -> None:
    """A mount that somebody took away with umount(8) counts no more."""
    (tmp_path / "place").mkdir()
    held = box.mount(tmp_path / "place")
    mounts.detach(str(tmp_path / "place"))
    assert box.mounts() == []
    box.checkpoint()
    held.release()


@pytest.mark.parametrize("keep", [True, False])
def test_a_folder_above_is_renamed(
    opened: Callable[..., Store], store: Store, box: Container, tmp_path: pathlib.Path, *, keep: bool
) -> None:
    """The mount is followed: it counts, nobody mounts it again or removes what it shows, and it is unmounted there."""
    before, place = tmp_path / "before" / "place", tmp_path / "after" / "place"
    before.mkdir(parents=True)
    held = box.mount(before, keep=keep)
    before.parent.rename(place.parent)
    (place / "new").write_text("x")

    assert [one.target for one in box.mounts()] == [str(place)]
    assert opened().problems == ()
    for attempt in (box.mount, box.remove, box.rollback, lambda: box.fork("fork")):
        with pytest.raises(errors.ContainerInUse, match="after"):
            attempt()
    before.mkdir(parents=True)
    with store.mount_image("image", before) as view:  # the old place is free
        assert not (view.path / "new").exists()
    if keep:
        assert box.unmount() == [str(place)]
    else:
        held.release()
    assert mountinfo.mounted_at(str(place)) is None
    assert rows(store) == 0
    assert {change.path for change in box.changes()} == {"/new"}


def test_a_kept_mount_that_is_gone(opened: Callable[..., Store], store: Store, box: Container) -> None:
    """A mount for nobody that was taken away, by hand or by a release that died half way, goes when the store opens."""
    held = box.mount(keep=True)
    if held.attached:
        mounts.detach(str(held.path))
        opened().close()
        assert rows(store) == 0
        whole(store)
    held.release()


def test_an_earlier_boot_counts_no_more(store: Store, box: Container) -> None:
    """Rows of before a restart of the machine are dropped, whoever they name."""
    held = box.mount()
    held.release()
    with store.site.database.write() as step:
        step.execute(
            "INSERT INTO mounts (layer, target, attached, writable, namespace, boot) VALUES (?, '/x', 1, 1, 'n', 'b')",
            (box.record().layer,),
        )
    assert box.mounts() == []
    box.checkpoint()
    assert rows(store) == 0


def test_a_busy_mount_is_held_as_before(store: Store, box: Container, driver: str) -> None:
    """While a file in it is open letting go fails with EBUSY and changes nothing; lazily it works."""
    held = box.mount(keep=True)
    if driver == "vfs":
        held.release()
        return
    with open(held.path / "etc/motd", encoding="ascii"):
        with pytest.raises(OSError, match="busy"):
            box.unmount()
        assert len(box.mounts()) == 1
        assert box.unmount(lazy=True) == [str(held.path)]
    assert mounted_in(store.root) == []


def test_what_a_dead_process_mounted_and_others_use(
    opened: Callable[..., Store], store: Store, box: Container, tmp_path: pathlib.Path
) -> None:
    """A mount of a dead process with open files stays known: it is not forked under, and is unmounted later."""
    (tmp_path / "place").mkdir()
    in_child(lambda: opened().container("box").mount(tmp_path / "place"))
    with open(tmp_path / "place/etc/motd", encoding="ascii"):
        opened().close()
        assert rows(store) == 1
        with pytest.raises(errors.ContainerInUse):
            box.fork("other")
        with pytest.raises(errors.ContainerInUse):
            box.remove()
    assert box.fork("other").name == "other"
    assert mountinfo.mounted_at(str(tmp_path / "place")) is None


@pytest.mark.usefixtures("box")
def test_a_process_that_dies_between_row_and_mount(
    opened: Callable[..., Store], store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    """Killed just before or just after the mount call, it leaves nothing behind once the store is opened."""
    attach = mounts.attach
    (tmp_path / "place").mkdir()

    for number, target in enumerate([None, tmp_path / "place"] * 2):

        def doomed(plan: tuple[Mount, ...], where: str, number: int = number) -> None:
            if number < 2:
                attach(plan, where)
            os.kill(os.getpid(), 9)

        def work(_say: object, target: pathlib.Path | None = target) -> None:
            monkeypatch.setattr(mounts, "attach", doomed)
            opened().container("box").mount(target, read_only=True, keep=True)

        child = forked(work)
        child.lines()
        assert child.wait() == -9
        assert rows(store) == 1
        opened().close()
        assert rows(store) == 0
        assert mounted_in(tmp_path) == []


def test_a_mount_that_fails_leaves_nothing(store: Store, box: Container, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the kernel or the disk refuses, no mount, no folder and no row stay."""

    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(mounts, "attach", refuse)
        with pytest.raises(OSError, match="No space"):
            store.mount_image("image")
    assert rows(store) == 0
    whole(store)
    missing = os.path.join(store.root, "missing")
    with pytest.raises(FileNotFoundError):
        box.mount(missing)
    assert rows(store) == 0


@pytest.mark.parametrize("where", ["own", "target"])
def test_an_interrupt_when_it_is_mounted(
    store: Store, box: Container, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """Ctrl-C that is told when the kernel has mounted leaves no mount, no folder and no row."""
    attach = mounts.attach
    target = tmp_path / "target"
    target.mkdir()

    def interrupted(*args: Any) -> None:
        attach(*args)
        raise KeyboardInterrupt

    monkeypatch.setattr(mounts, "attach", interrupted)
    with pytest.raises(KeyboardInterrupt):
        box.mount(target, keep=True) if where == "target" else store.mount_image("image", keep=True)
    monkeypatch.undo()

    assert rows(store) == 0
    assert mounted_in(tmp_path) == []
    whole(store)


def test_another_mount_namespace(opened: Callable[..., Store], store: Store, box: Container, driver: str) -> None:
    """What is mounted in another namespace is not there for us: no empty folder is given for it, nor is it undone."""
    work = in_namespace(lambda: opened().container("box").mount(keep=True))
    with held_child(work) as child:
        (held,) = box.mounts()
        if driver == "vfs":  # its own folder, the same in every namespace
            with box.mount() as mine:
                assert str(mine.path) == held.target
            box.unmount()
            return
        assert mounted_in(store.root) == []
        with pytest.raises(errors.ContainerInUse):
            box.mount()
        with pytest.raises(errors.ContainerInUse, match="another mount namespace"):
            box.unmount()
        with box.mount(read_only=True) as view:
            assert (view.path / "etc/motd").exists()
        with pytest.raises(errors.ContainerInUse):
            box.remove()
        child.kill()
        child.wait()
        assert box.mounts() == []
        with box.mount() as mine:
            assert (mine.path / "etc/motd").exists()


def test_what_died_in_a_namespace_that_lives(
    opened: Callable[..., Store], box: Container, tmp_path: pathlib.Path
) -> None:
    """A holder that died in a namespace that others live in leaves its mount there: it is not written beside it."""
    (tmp_path / "place").mkdir()
    work = in_namespace(lambda: in_child(lambda: opened().container("box").mount(tmp_path / "place")))
    with held_child(work):
        with pytest.raises(errors.ContainerInUse):
            box.mount(tmp_path / "place")
        with pytest.raises(errors.ContainerInUse):
            box.fork("other")
    assert box.fork("other").name == "other"


ELSEWHERE = """
import sys
import graphdrivers
with graphdrivers.open_store(sys.argv[1]) as store, store.container("box").mounted():
    print("held", flush=True)
    sys.stdin.read()
"""


def test_another_pid_namespace(store: Store, box: Container) -> None:
    """A holder whose process has another number here, or none, is seen by the lock that it holds on the store."""
    command = [
        "unshare",
        "--mount-proc",
        "--pid",
        "--fork",
        "--kill-child",
        sys.executable,
        "-c",
        ELSEWHERE,
        store.root,
    ]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"held\n"
        (held,) = box.mounts()
        assert held.holder is not None
        assert not held.holder.is_alive()
        assert store.site.is_alive(held.holder)
        with pytest.raises(errors.ContainerInUse):
            box.remove()
        child.kill()
        child.communicate()
    while store.site.is_alive(held.holder):  # the kernel ends the processes of the namespace one after the other
        time.sleep(0.01)
    assert box.mounts() == []
    with box.mount() as mine:
        assert (mine.path / "etc/motd").exists()


def test_a_removed_layer_is_not_mounted(store: Store, box: Container) -> None:
    """A layer that is out of use cannot be mounted any more, even if its files are still there."""
    layer = store.image("image").layers[-1].name
    with store.site.database.write() as step:
        step.execute("UPDATE layers SET state = 'removing' WHERE name = ?", (layer,))
    with pytest.raises(errors.LayerNotFound):
        mounted.attach(store.site, layer, view=True)
    assert mounted_in(store.root) == []
    with store.site.database.write() as step:
        step.execute("UPDATE layers SET state = 'ready' WHERE name = ?", (layer,))
    assert box.mounts() == []


def test_a_reaper_waits_for_a_mount_in_the_making(
    store: Store, box: Container, monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    """A row without its mount yet is left alone by whoever opens the store meanwhile."""
    (tmp_path / "place").mkdir()
    attach = mounts.attach
    layer = box.record().layer
    threads = []

    def slow(plan: tuple[Mount, ...], where: str) -> None:
        threads.append(threading.Thread(target=mounted.reap, args=(store.site, layer)))
        threads[0].start()
        threads[0].join(0.3)
        assert rows(store) == 1
        attach(plan, where)

    monkeypatch.setattr(mounts, "attach", slow)
    with box.mount(tmp_path / "place"):
        threads[0].join()
        assert len(box.mounts()) == 1
        assert recover.recover(store.site) == []
        assert len(box.mounts()) == 1


def test_holders_differ(store: Store, box: Container) -> None:
    """A number that a later process got, another boot, and a dead process are told apart from who holds a mount."""
    with box.mount():
        (held,) = box.mounts()
        assert held.holder is not None
        for other in (
            attrs.evolve(held.holder, started=held.holder.started + 1),
            attrs.evolve(held.holder, boot="00000000-0000-0000-0000-000000000000"),
            attrs.evolve(held.holder, pid=2**22 + 1),
        ):
            assert not other.is_alive()
            assert type(other).parse(str(other)) == other
            assert mounted.is_over(store.site, attrs.evolve(held, holder=other))
        assert held.holder.is_alive()
    assert rows(store) == 0


def test_the_mount_table_is_read_once_for_all(
    opened: Callable[..., Store], store: Store, box: Container, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To open and to check a store with many mounted containers reads the mount table as often as with one."""
    table, reads = mountinfo.unparsed, [0]

    def counted() -> bytes:
        reads[0] += 1
        return table()

    def cost() -> list[int]:
        found = []
        for work in (lambda: opened().close(), lambda: list(store.check()), lambda: mounted.holders_of(store.site)):
            reads[0] = 0
            work()
            found.append(reads[0])
        return found

    box.mount(keep=True)
    monkeypatch.setattr(mountinfo, "unparsed", counted)
    alone = cost()
    more = [store.create("image", name=f"more{number}") for number in range(4)]
    for container in more:
        container.mount(keep=True)

    assert cost() == alone
    assert len(mounted.holders_of(store.site)) == 5
    for container in (box, *more):
        container.unmount()
