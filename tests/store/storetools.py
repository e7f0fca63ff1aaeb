"""Stores for tests: tiny images to bring in, what has to agree in a store at rest, and processes that die."""

import contextlib
import hashlib
import io
import os
import pathlib
import signal
import sys
import tarfile
import time
import traceback
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import attrs
import pytest
from layouts import Layout

from graphdrivers import Store, open_store
from graphdrivers.linux import mountinfo, mounts
from graphdrivers.model import DiffID
from graphdrivers.store import recover
from graphdrivers.store.incoming import Source
from graphdrivers.store.site import Site

_NAMED = os.environ.get("GRAPHDRIVERS_STORE_DRIVERS", "vfs overlay").split()
DRIVERS = [
    pytest.param(name, marks=pytest.mark.skipif(name != "vfs" and os.geteuid() != 0, reason="mounting needs root"))
    for name in _NAMED
]
"""What the store is tried with; any driver that is installed can be named."""

_WRITE = os.write  # not what a test puts in its place

Tree = dict[str, str]
"""Paths of regular files, and what they contain."""

BASE = {"etc/motd": "welcome", "bin/sh": "#!" * 200, "gone": "soon"}
MIDDLE = {"etc/motd": "welcome again", "gone": None}
TOP = {"app/main": "print()"}


def tar_of(files: Mapping[str, str | None]) -> bytes:
    """Make a layer tar of small files; ``None`` deletes."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for path, text in files.items():
            head, _, name = path.rpartition("/")
            hidden = f"{head}/.wh.{name}" if head else f".wh.{name}"
            member = tarfile.TarInfo(hidden if text is None else path)
            content = (text or "").encode()
            member.size, member.mtime = len(content), 1_700_000_000
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def diff_id(tar: bytes) -> DiffID:
    """Digest of an uncompressed tar."""
    return DiffID(f"sha256:{hashlib.sha256(tar).hexdigest()}")


def source_of(tar: bytes, *, promised: bytes | None = None) -> Source:
    """Give a layer of an import; by default it is what it promises to be."""
    return Source(diff_id(tar if promised is None else promised), lambda: io.BytesIO(tar))


def layout_of(folder: pathlib.Path, *tars: bytes, **config: Any) -> pathlib.Path:
    """Make an OCI layout of one image."""
    folder.mkdir(parents=True)
    layout = Layout(folder)
    layout.add(layout.manifest(*tars, config=layout.config(*tars, **config)), "latest")
    return folder


def tree_of(root: int | str | pathlib.Path) -> Tree:
    """Read all regular files below a directory; those that a container is given empty are left out."""
    top = f"/proc/self/fd/{root}" if isinstance(root, int) else str(root)
    found = {}
    for folder, _, names in os.walk(top):
        for name in names:
            path = os.path.join(folder, name)
            if os.path.isfile(path) and not os.path.islink(path) and os.path.getsize(path):
                found[os.path.relpath(path, top)] = pathlib.Path(path).read_text()
    return found


def shown(site: Site, layer: str) -> Tree:
    """Read what a layer shows."""
    with mounts.opened(site.driver.mounts(layer, view=True)) as root:
        return tree_of(root)


def tar_back(store: Store, layer: Any) -> bytes:
    """Read a layer's tar as the store gives it."""
    with store.open_layer(layer) as tar:
        return tar.read()


def write(store: Store, name: str, files: Mapping[str, str | None]) -> None:
    """Change files of a container through a mount of a moment."""
    with store.container(name).mounted() as place:
        for path, text in files.items():
            target = place / path
            if text is None:
                target.unlink()
            else:
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_text(text)


def mounted_in(root: str | os.PathLike[str]) -> list[str]:
    """Give what is mounted below a store's folder."""
    return sorted(mount.target for mount in mountinfo.mounted_below(os.fspath(root)))


def whole(store: Store) -> None:
    """Assert that ledger, driver, records, mounts and folders agree, and that nothing is half done."""
    site = store.site
    assert site.database.is_sound() == []
    assert recover.compare(site, repair=False) == []
    rows = site.database.read("SELECT name, state, parent, diff_id FROM layers")
    assert [row for row in rows if row[1] != "ready"] == []
    assert site.database.read("SELECT name FROM containers WHERE NOT ready") == []
    there = {layer.name: layer.parent for layer in site.driver.layers()}
    assert there == {row[0]: row[2] for row in rows}
    assert set(os.listdir(os.path.join(site.folder, "records"))) == {row[0] for row in rows if row[3] is not None}
    held = {row[0] for row in site.database.read("SELECT DISTINCT target FROM mounts WHERE attached")}
    inside = {target for target in held if target.startswith(site.root)}
    own = os.path.join(site.driver.home, "mnt", "")  # where a driver whose layers are file systems keeps them
    assert {target for target in mounted_in(site.root) if not target.startswith(own)} == inside
    folder = os.path.join(site.root, "mounts")
    assert {os.path.join(folder, name) for name in os.listdir(folder)} == inside
    tmp = os.path.join(site.driver.home, "tmp")
    assert not os.path.isdir(tmp) or os.listdir(tmp) == []


def reopened(store: Store) -> Store:
    """Close a store and open it again, without complaints; it is closed when nobody has it any more."""
    durability = store.site.durability
    store.close()
    again = open_store(store.root, durability=durability)
    weakref.finalize(again, again.site.close)
    assert again.problems == ()
    return again


@attrs.frozen(eq=False)
class Child:
    """A forked process."""

    pid: int
    reader: int

    def lines(self) -> list[str]:
        """Read to the end what it said, one line for each acknowledgement."""
        with os.fdopen(self.reader, encoding="utf-8") as file:
            return file.read().splitlines()

    def wait(self) -> int:
        """Give how it ended: 0, or minus the signal; what it had started to unpack beside it is gone then, too."""
        status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        while unpackers_of(self.pid):  # killed with it, they end their last system call
            time.sleep(0.001)
        return status

    def kill(self) -> None:
        """Send it SIGKILL."""
        os.kill(self.pid, signal.SIGKILL)


Say = Callable[[str], None]


def unpackers_of(pid: int) -> list[int]:
    """Give the processes that unpack for a process, whether that still is there or not."""
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            words = pathlib.Path(f"/proc/{name}/cmdline").read_bytes().split(b"\0")
            if any(b"unpacker" in word for word in words) and str(pid).encode() in words:
                found.append(int(name))
    return found


def forked(work: Callable[[Say], object]) -> Child:
    """Begin work in a process of its own; what it says arrives as lines, at once."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid:
        os.close(writer)
        return Child(pid, reader)
    try:
        os.close(reader)
        work(lambda line: _WRITE(writer, f"{line}\n".encode()) and None)
    except BaseException:  # noqa: BLE001 - a forked process must not go on
        traceback.print_exc(file=sys.__stderr__)
        os._exit(1)
    os._exit(0)


def in_child(work: Callable[[], object]) -> None:
    """Do work in a process of its own that must succeed."""
    child = forked(lambda _: work())
    child.lines()
    assert child.wait() == 0, "a process failed; standard error has its traceback"


def all_at_once(works: Sequence[Callable[[Say], object]]) -> list[list[str]]:
    """Do several things in processes that begin together; give what each said."""
    waiting, go = os.pipe()

    def begun(work: Callable[[Say], object]) -> Callable[[Say], object]:
        def run(say: Say) -> None:
            os.close(go)
            os.read(waiting, 1)
            work(say)

        return run

    children = [forked(begun(work)) for work in works]
    os.close(waiting)
    os.close(go)
    said = [child.lines() for child in children]
    statuses = [child.wait() for child in children]
    assert statuses == [0] * len(works), f"{statuses}; standard error has the tracebacks"
    return said


@contextlib.contextmanager
def held_child(work: Callable[[], object]) -> Iterator[Child]:
    """Let a process do something, keep what that gave, and live until the block ends or kills it."""

    def run(say: Say) -> None:
        kept = work()
        say("ready")
        signal.pause()
        del kept

    child = forked(run)
    said = b""
    while not said.endswith(b"ready\n"):
        piece = os.read(child.reader, 1 << 16)
        assert piece, "the process ended before it was ready; standard error has its traceback"
        said += piece
    try:
        yield child
    finally:
        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            child.kill()
            child.wait()
        os.close(child.reader)


@pytest.fixture
def tars() -> list[bytes]:
    """Give the layers of a small image, lowest first."""
    return [tar_of(BASE), tar_of(MIDDLE), tar_of(TOP)]


@pytest.fixture(params=DRIVERS)
def driver(request: pytest.FixtureRequest) -> str:
    """Name each driver that the store's behaviour may depend on."""
    return str(request.param)


@pytest.fixture
def opened(tmp_path: pathlib.Path) -> Iterator[Callable[..., Store]]:
    """Give a function that opens the same store again and again; all are closed and unmounted at the end."""
    stores: list[Store] = []

    def opener(driver: str = "auto", **more: str) -> Store:
        stores.append(open_store(tmp_path / "store", driver, durability=more.get("durability", "none")))
        return stores[-1]

    yield opener
    for store in stores:
        store.close()
    for target in reversed(mounted_in(tmp_path)):
        mounts.detach(target, lazy=True)


@pytest.fixture
def store(opened: Callable[..., Store], driver: str) -> Store:
    """Open a new store with each driver."""
    return opened(driver)
