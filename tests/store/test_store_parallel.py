"""Layers of one image made several at a time, in processes beside this one: the same layers, and nothing left over."""

import contextlib
import gc
import io
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import BinaryIO

import attrs
import pytest
from storetools import (
    Say,
    all_at_once,
    diff_id,
    forked,
    reopened,
    shown,
    source_of,
    tar_back,
    tar_of,
    unpackers_of,
    whole,
)

from graphdrivers import Store, errors
from graphdrivers.archive import compression
from graphdrivers.backends.overlay.driver import OverlayDriver
from graphdrivers.store import beside, importing, incoming
from graphdrivers.store.incoming import Source, Watch
from graphdrivers.store.ledger import Layer

DRIVERS = [
    "aufs",
    pytest.param("overlay", marks=pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")),
]

LAYERS = [
    {"etc/motd": "welcome", "usr/lib/base": "1", "old/file": "2", "dir/one": "3", "dir/two": "4"},
    {"usr/lib/more": "5", "dir/one": None},
    {"old": None, "etc/motd": "again", "own/file": "6"},
    {"usr/lib/base": None, "etc/other": "7"},
]
TREE = {"etc/motd": "again", "etc/other": "7", "usr/lib/more": "5", "dir/two": "4", "own/file": "6"}


@pytest.fixture(params=DRIVERS)
def store(request: pytest.FixtureRequest, opened: Callable[..., Store]) -> Store:
    """Give a store whose driver fills several layers at a time."""
    return opened(str(request.param))


@pytest.fixture
def tars() -> list[bytes]:
    """Give layers that ask those below for folders, and delete from them."""
    return [tar_of(layer) for layer in LAYERS]


@attrs.frozen(eq=False)
class Meeting(Watch):
    """Sees to it that the lowest layer is made here only after others were begun beside."""

    others: threading.Event = attrs.field(factory=threading.Event)
    told: list[tuple[str, int]] = attrs.field(factory=list)

    def began(self, number: int) -> None:
        """Note it; the second layer is begun by a thread that waits for a process."""
        self.told.append(("began", number))
        if number == 1:
            assert threading.current_thread().name.startswith("graphdrivers-import")
            self.others.set()

    def done(self, number: int, layer: Layer) -> None:  # noqa: ARG002 - the method of a Watch
        """Note it."""
        self.told.append(("done", number))

    def late(self, tar: bytes) -> Callable[[], BinaryIO]:
        """Give what opens a tar once another layer was begun."""

        def opener() -> BinaryIO:
            assert self.others.wait(60), "nothing was begun beside"
            return io.BytesIO(tar)

        return opener

    def sources(self, tars: list[bytes]) -> list[Source]:
        """Give a stack, whose lowest layer waits."""
        return [Source(diff_id(tars[0]), self.late(tars[0])), *map(source_of, tars[1:])]


def bring(store: Store, sources: list[Source], watch: Watch, *, lease: str = "lease") -> list[Layer]:
    """Import a stack with two processes, this one among them."""
    return importing.import_layers(store.site, sources, lease=lease, watch=watch, jobs=2)


@contextlib.contextmanager
def nothing_left(store: Store) -> Iterator[None]:
    """Assert that after the block no process is left, and the store is whole without being opened again."""
    yield
    assert unpackers_of(os.getpid()) == []
    whole(store)


def test_the_same_layers_as_one_after_the_other(store: Store, tars: list[bytes]) -> None:
    """Layers made beside each other are those made in turn: identities, trees, diffs to the byte; told in order."""
    meeting = Meeting()
    with nothing_left(store):
        layers = bring(store, meeting.sources(tars), meeting)
    turn = [store.driver.name]
    for number, tar in enumerate(tars):
        store.driver.create(f"turn{number}", f"turn{number - 1}" if number else None)
        store.driver.apply(f"turn{number}", io.BytesIO(tar))
        store.driver.seal(f"turn{number}")
        with store.driver.diff(f"turn{number}") as one, store.driver.diff(layers[number].name) as other:
            assert one.read() == other.read()
        turn.append(f"turn{number}")

    assert [layer.diff_id for layer in layers] == [diff_id(tar) for tar in tars]
    assert [layer.parent for layer in layers] == [None, *[layer.name for layer in layers[:-1]]]
    assert [tar_back(store, layer) for layer in layers] == tars
    assert shown(store.site, layers[-1].name) == TREE
    assert [number for word, number in meeting.told if word == "done"] == [0, 1, 2, 3]
    assert sorted(number for word, number in meeting.told if word == "began") == [0, 1, 2, 3]
    for layer in reversed(turn[1:]):
        store.driver.remove(layer)


@pytest.mark.parametrize("wrong", [0, 1, 3])
@pytest.mark.parametrize("how", ["another", "torn", "unreadable", "unsafe"])
def test_a_wrong_layer_leaves_those_before_it(store: Store, tars: list[bytes], wrong: int, how: str) -> None:
    """A layer that is another, torn, cannot be read or climbs out is refused; those below stay, nothing else does."""

    def fail() -> BinaryIO:
        raise ConnectionResetError(104, "the other side went away")

    meeting = Meeting()
    sources = meeting.sources(tars)
    promised = sources[wrong].diff_id
    broken = {
        "another": io.BytesIO(tar_of({"another": "layer"})),
        "torn": io.BytesIO(tars[wrong][:700]),
        "unsafe": io.BytesIO(tar_of({"../out": "x"})),
    }
    if how == "unreadable":
        sources[wrong] = Source(promised, fail)
    elif wrong == 0:
        sources[wrong] = Source(promised, meeting.late(broken[how].getvalue()))
    else:
        sources[wrong] = Source(promised, lambda: broken[how])
    expected = {
        "another": errors.DigestMismatch,
        "torn": (errors.ArchiveError, errors.DigestMismatch),
        "unreadable": ConnectionResetError,
        "unsafe": errors.UnsafePath,
    }
    with nothing_left(store), pytest.raises(expected[how]):
        bring(store, sources, meeting)

    assert store.site.database.read("SELECT count(*) FROM layers") == [(wrong,)]
    again = importing.import_layers(store.site, [source_of(tar) for tar in tars], lease="again")
    assert shown(store.site, again[-1].name) == TREE


def test_an_interrupt(store: Store, tars: list[bytes]) -> None:
    """Ctrl-C while another process is at work ends that too; nothing is left of what was not acknowledged."""
    meeting = Meeting()

    def interrupted() -> BinaryIO:
        assert meeting.others.wait(60)
        raise KeyboardInterrupt

    with nothing_left(store), pytest.raises(KeyboardInterrupt):
        bring(store, [Source(diff_id(tars[0]), interrupted), *map(source_of, tars[1:])], meeting)
    assert store.site.database.read("SELECT count(*) FROM layers") == [(0,)]


def test_who_watches_can_end_it(store: Store, tars: list[bytes]) -> None:
    """What a watch raises comes out of the import, also from where it is told of a process beside."""

    class Cancelled(Exception):
        """Somebody had enough."""

    class Cancelling(Meeting):
        """Ends the import as soon as something is begun beside."""

        def began(self, number: int) -> None:
            """End it."""
            super().began(number)
            if number:
                raise Cancelled

    meeting = Cancelling()
    with nothing_left(store), pytest.raises(Cancelled):
        bring(store, meeting.sources(tars), meeting)


@attrs.frozen(eq=False)
class Killing(Meeting):
    """Kills the process beside before it has its first job."""

    def began(self, number: int) -> None:
        """Kill it; the second layer is begun by the thread that is about to send it."""
        if number == 1:
            _kill_unpacker()
        Meeting.began(self, number)


def _kill_unpacker() -> None:
    """Kill the one process beside, and wait until it holds nothing open any more."""
    (pid,) = unpackers_of(os.getpid())
    os.kill(pid, signal.SIGKILL)
    with contextlib.suppress(ChildProcessError):  # the import has waited for it already
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)


@pytest.mark.parametrize("moment", ["before its job", "in its job"])
def test_a_process_beside_is_killed(store: Store, tars: list[bytes], moment: str) -> None:
    """That is told in one line that says what to do; the store is whole, and the next import goes through."""
    meeting = Killing() if moment == "before its job" else Meeting()

    def killing() -> BinaryIO:
        assert meeting.others.wait(60)
        if moment == "in its job":
            _kill_unpacker()
        return io.BytesIO(tars[0])

    with pytest.raises(errors.UnpackerDied, match=r"status -9\).*--jobs 1") as caught:
        bring(store, [Source(diff_id(tars[0]), killing), *map(source_of, tars[1:])], meeting)
    assert "\n" not in str(caught.value)
    del caught
    gc.collect()  # an error is in cycles with its traceback; what they hold has to go without a word
    again = reopened(store)
    whole(again)
    layers = importing.import_layers(again.site, [source_of(tar) for tar in tars], lease="again", jobs=2)
    assert shown(again.site, layers[-1].name) == TREE


def test_killed_with_a_process_beside(store: Store, tars: list[bytes]) -> None:
    """SIGKILL of an import ends the process beside it as well; the next who opens the store finds nothing of it."""

    def work(say: Say) -> None:
        meeting = Meeting()

        def hanging() -> BinaryIO:
            assert meeting.others.wait(60)
            say("ready")
            signal.pause()
            return io.BytesIO(tars[0])

        bring(store, [Source(diff_id(tars[0]), hanging), *map(source_of, tars[1:])], meeting)

    child = forked(work)
    with os.fdopen(child.reader) as said:
        assert said.readline() == "ready\n"
        assert len(unpackers_of(child.pid)) == 1
        child.kill()
        assert child.wait() == -signal.SIGKILL
    whole(reopened(store))


def test_processes_that_import_the_same_do_it_once(store: Store, tars: list[bytes]) -> None:
    """Several processes that import one image, each with others beside it, see the same layers."""

    def work(number: int) -> Callable[[Say], None]:
        def run(say: Say) -> None:
            layers = bring(store, [source_of(tar) for tar in tars], Watch(), lease=f"lease{number}")
            say(" ".join(layer.name for layer in layers))

        return run

    said = all_at_once([work(number) for number in range(3)])
    assert said[0] == said[1] == said[2]
    whole(reopened(store))


def test_an_interrupt_while_another_process_makes_a_layer(store: Store, tars: list[bytes]) -> None:
    """Who waits for a layer that somebody else makes waits no longer than the import goes on."""
    meeting = Meeting()

    def interrupted() -> BinaryIO:
        while store.site.lock(f"chain:{chains[0]}").is_free():
            time.sleep(0.01)
        time.sleep(0.1)
        raise KeyboardInterrupt

    chains = incoming.chains_of([diff_id(tar) for tar in tars])
    with nothing_left(store), store.site.lock(f"chain:{chains[1]}"), pytest.raises(KeyboardInterrupt):
        bring(store, [Source(diff_id(tars[0]), interrupted), *map(source_of, tars[1:])], meeting)


def test_a_driver_that_only_this_program_knows(store: Store, tars: list[bytes]) -> None:
    """A class that another process cannot import does all of the work here."""

    class Local(OverlayDriver):
        """Lives in a function."""

    driver = store.site.driver
    local = type("Local", (type(driver),), {}) if not isinstance(driver, OverlayDriver) else Local
    object.__setattr__(store.site, "driver", local(driver.home, driver.options, driver.support))
    layers = bring(store, [source_of(tar) for tar in tars], Watch())
    assert shown(store.site, layers[-1].name) == TREE
    whole(store)


def test_many_imports_keep_few_files_open(store: Store) -> None:
    """Neither descriptors nor processes are left behind."""
    before = None
    for number in range(4):
        bring(store, [source_of(tar_of({name: str(number)})) for name in ("one", "two", "three")], Watch())
        if number == 1:
            before = len(os.listdir("/proc/self/fd"))
    assert before is not None
    assert len(os.listdir("/proc/self/fd")) <= before + 3
    assert unpackers_of(os.getpid()) == []


def test_how_many_processes(store: Store) -> None:
    """One layer, small layers and few processors are not worth another process; layers of a registry sooner are."""
    source = Source(diff_id(b""), io.BytesIO)
    large, small = attrs.evolve(source, size=100 << 20), attrs.evolve(source, size=1 << 20)
    far = attrs.evolve(large, distant=True)
    all_of_them = os.sched_getaffinity(0)
    processors = len(all_of_them)

    def count(*sources: Source, jobs: int | None = None) -> int:
        return beside.count(store.driver, sources, jobs)

    assert count(large) == count(large, jobs=8) == 0
    assert count(*[small] * 8) == 0
    assert count(*[large] * 8) == max(0, min(processors // 2, 4) - 1)
    os.sched_setaffinity(0, {min(all_of_them)})
    try:
        assert count(*[large] * 8) == 0
        assert count(*[far] * 8) == 2
    finally:
        os.sched_setaffinity(0, all_of_them)
    assert count(*[far] * 8) == max(2, count(*[large] * 8))
    assert count(far, small, small) == 0
    assert count(*[small] * 8, jobs=8) == 7
    assert count(*[small] * 3, jobs=8) == 2
    assert count(*[far] * 8, jobs=1) == count(*[far] * 8, jobs=0) == count(*[far] * 8, jobs=-2) == 0
    object.__setattr__(store.driver.support.capabilities, "apply_ahead", False)
    assert count(*[far] * 8, jobs=8) == 0


def test_compressed_layers(store: Store, tars: list[bytes]) -> None:
    """Each process decompresses for itself."""
    import gzip  # noqa: PLC0415 - of this test alone

    sources = [
        Source(diff_id(tar), lambda tar=tar: io.BytesIO(gzip.compress(tar)))  # type: ignore[misc]
        for tar in tars
    ]
    assert compression.detect(gzip.compress(tars[0])[:10]) is compression.Compression.GZIP
    layers = bring(store, sources, Watch())
    assert [tar_back(store, layer) for layer in layers] == tars
