"""Applies a case with one driver, among canaries, in a process of its own that may take little memory and time."""

import ctypes
import errno
import io
import os
import pickle
import resource
import signal
import stat
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Any

import attrs
from cases import OUTSIDE, Case, Like, Refused, Tree, shown

from graphdrivers import errors
from graphdrivers.conformance import observe
from graphdrivers.driver import Driver
from graphdrivers.linux import mountapi, mountinfo, mounts, trees, xattrs
from graphdrivers.linux.libc import function
from graphdrivers.model import Limits

SECONDS = 20
"""A guard, well below any limit of a build machine; no case takes one of them."""

MEMORY = 192 << 20
"""Bytes that one case may allocate above what the process had."""

_CLONE_NEWNS, _MS_REC, _MS_PRIVATE = 0x20000, 0x4000, 0x40000

TARGET, VICTIM = "target", "victim"


@attrs.frozen
class Outcome:
    """What a driver made of a case: a refusal, or a tree and the diff of the layer."""

    error: type[errors.ArchiveError] | None = None
    member: str = ""
    offset: int = -1
    limit: str = ""
    message: str = ""
    tree: dict[str, observe.Item] = attrs.field(factory=dict)
    shown: dict[str, str] = attrs.field(factory=dict)
    diff: bytes = attrs.field(default=b"", repr=False)


class Broken(AssertionError):
    """Something in the child process failed; its traceback is the text."""


def isolated(
    work: Callable[[], Any], *, seconds: int = SECONDS, memory: int = MEMORY, writable: Sequence[str] = ()
) -> Any:
    """Call ``work`` in a forked process and return its result.

    Args:
        work: what to do; its result is pickled.
        seconds: of processor time, after which it is killed; ten times as long where it waits, for what or for others.
        memory: bytes that it may allocate.
        writable: folders. If there are any, all else of the root file system is
            read-only for it: a layer that breaks out must not break this machine.

    Raises:
        Broken: it failed, allocated more than ``memory`` bytes, or hung.
    """
    source, sink = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(10 * seconds)
            resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
            if writable:
                _shelter(writable)
            limit = _allocated() + memory
            resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
            answer = pickle.dumps((True, work()))
        except BaseException:  # noqa: BLE001 - reported to the parent, which raises it
            _answer(sink, pickle.dumps((False, traceback.format_exc())))
            os._exit(1)
        _answer(sink, answer)
        os._exit(0)
    os.close(sink)
    with open(source, "rb") as stream:
        answer = stream.read()
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        name = signal.Signals(os.WTERMSIG(status)).name
        raise Broken(f"killed by {name} (SIGXCPU, SIGALRM: it took more than {seconds} s, or hung)")
    good, value = pickle.loads(answer)  # noqa: S301 - written by our own child
    if not good:
        raise Broken(value)
    return value


def _shelter(writable: Sequence[str]) -> None:
    """Make the root file system read-only for this process, but for some folders; a container may not be able to."""
    unshare = function("unshare", ctypes.c_int)
    if unshare(_CLONE_NEWNS) and ctypes.get_errno() == errno.EPERM:
        return
    mountapi.mount(None, "/", None, _MS_REC | _MS_PRIVATE, b"")
    for folder in sorted(set(writable)):
        mountapi.mount(folder, folder, None, mountapi.MS_BIND | _MS_REC, b"")
    mountapi.mount(None, "/", None, mountapi.MS_REMOUNT | mountapi.MS_BIND | mountapi.MS_RDONLY, b"")


def _answer(sink: int, answer: bytes) -> None:
    with open(sink, "wb") as stream:
        stream.write(answer)


def _allocated() -> int:
    """Bytes that count against ``RLIMIT_DATA`` (proc(5), *VmData*)."""
    with open("/proc/self/status", encoding="ascii") as status:
        return next(int(line.split()[1]) << 10 for line in status if line.startswith("VmData:"))


def perform(driver: Driver, case: Case) -> Outcome:
    """Apply a case with a driver, check that nothing else changed, and leave the home as it was."""
    return perform_layer(driver, case.tar, case.parents, case.limits)


def perform_layer(driver: Driver, tar: bytes, parents: Sequence[bytes] = (), limits: Limits = Limits()) -> Outcome:
    """Apply a layer above others among canaries; see `perform`."""
    made: list[str] = []
    forget(driver)
    driver.create(VICTIM)
    driver.apply(VICTIM, io.BytesIO(bytes(1024)))
    for number, parent in enumerate(parents):
        driver.create(f"parent{number}", made[-1] if made else None)
        made.append(f"parent{number}")
        driver.apply(made[-1], io.BytesIO(parent))
        driver.seal(made[-1])
    driver.create(TARGET, made[-1] if made else None)
    with canaries(driver.home) as places:
        before = [state(place) for place in places]
        outcome = _applied(driver, tar, limits)
        assert [state(place) for place in places] == before, "something outside of the layer was touched"
    forget(driver)
    assert_clean(driver)
    return outcome


def forget(driver: Driver) -> None:
    """Remove every layer; what a case leaves behind that failed is no reason for the next one to fail."""
    for record in list(driver.layers()):
        driver.remove(record.name)


def _applied(driver: Driver, tar: bytes, limits: Limits) -> Outcome:
    try:
        driver.apply(TARGET, io.BytesIO(tar), limits=limits)
    except errors.ArchiveError as error:
        limit = error.limit if isinstance(error, errors.LimitExceeded) else ""
        return Outcome(type(error), error.member, error.offset, limit, str(error))
    driver.seal(TARGET)
    with closing(driver.diff(TARGET)) as stream:
        diff = b"".join(iter(lambda: stream.read(1 << 20), b""))
    with mounts.opened(driver.mounts(TARGET, view=True)) as root:
        tree = observe.snapshot(root)
        regular = [path for path, item in tree.items() if item.kind == stat.S_IFREG and item.size < 1000]
        content = {path: _content(f"/proc/self/fd/{root}/{path}") for path in regular}
    looks = {path: shown(path, item, content) for path, item in tree.items() if path != "."}
    return Outcome(tree=tree, shown=looks, diff=diff)


def _content(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def assert_clean(driver: Driver) -> None:
    """Check that a home without layers holds nothing of them."""
    driver.settle()
    assert list(driver.layers()) == []
    # What lies directly in the home is about the home itself (driver.json, a lock).
    below = [(folder, names) for folder, _, names in os.walk(driver.home) if folder != driver.home]
    left = [os.path.join(folder, name) for folder, names in below for name in names]
    assert left == []
    assert mountinfo.mounted_below(driver.home) == []


@contextmanager
def canaries(home: str) -> Iterator[list[str]]:
    """Put canaries outside the home, into it, and beside the layer's tree where the driver has room; give all places.

    The layer ``victim``, which has to exist, is one as well.
    """
    inner = [path for path, _, names in os.walk(home) if os.path.basename(path) == TARGET and "layer.json" in names]
    folders = [os.path.dirname(home), home, *inner]
    made = [os.fsdecode(OUTSIDE), *(os.path.join(folder, VICTIM) for folder in folders)]
    made += [os.path.join(folder, "dest-evil") for folder in inner]
    beside = [path for path, names, _ in os.walk(home) if TARGET in names and path not in {home, *inner}]
    made += [os.path.join(folder, f"{TARGET}-evil") for folder in beside if os.path.basename(folder) != "layers"]
    layers = [path for path, _, _ in os.walk(home) if os.path.basename(path) == VICTIM and path not in made]
    try:
        for place in made:
            put_canary(place)
        yield made + layers
    finally:
        for place in made:
            _delete(place)


def put_canary(place: str) -> None:
    """Make a folder of things that a layer might read, write, link to, chmod or delete."""
    os.mkdir(place)
    os.mkdir(os.path.join(place, "empty"), 0o1750)
    for name, mode in (("hello", 0o640), ("setuid", 0o4755), ("secret", 0o600)):
        path = os.path.join(place, name)
        with open(path, "w", encoding="ascii") as file:
            file.write(f"{name} of the host")
        os.chown(path, 1234, 1234)
        os.chmod(path, mode)
        os.utime(path, ns=(10**18, 10**18))
    os.symlink("hello", os.path.join(place, "link"))
    os.link(os.path.join(place, "hello"), os.path.join(place, "other"))


def state(place: str) -> dict[str, tuple[object, ...]]:
    """Everything about a canary that nobody may change: also link counts, mtime and ctime."""
    found: dict[str, tuple[object, ...]] = {}
    for folder, folders, files in os.walk(place):
        for path in (folder, *(os.path.join(folder, name) for name in (*folders, *files))):
            facts = os.lstat(path)
            content: object = b""
            if stat.S_ISREG(facts.st_mode):
                content = _content(path)
            elif stat.S_ISLNK(facts.st_mode):
                content = os.readlink(path)
            numbers = (facts.st_ino, facts.st_mode, facts.st_uid, facts.st_gid, facts.st_nlink, facts.st_size)
            marks = tuple(sorted(xattrs.read_all(os.fsencode(path)).items()))
            found[path] = (*numbers, facts.st_mtime_ns, facts.st_ctime_ns, content, marks)
    return found


def _delete(place: str) -> None:
    parent = os.open(os.path.dirname(place), os.O_RDONLY | os.O_DIRECTORY)
    try:
        trees.remove_tree(parent, os.fsencode(os.path.basename(place)))
    finally:
        os.close(parent)


def expected_of(case: Case, driver: Driver) -> Refused | Tree:
    """Give the right outcome of a case for a driver: the same for all, but for what one of them cannot hold."""
    if case.needs and not getattr(driver.support.capabilities, case.needs):
        return Refused(errors.UnsupportedEntry, case.lacking)
    return case.outcome


def assert_outcome(expected: Refused | Tree, outcome: Outcome, who: str) -> None:
    """Fail where an outcome is not the expected one."""
    if isinstance(expected, Refused):
        assert outcome.error is not None, f"{who} accepted it: {outcome.shown}"
        found = Refused(outcome.error, outcome.member, outcome.limit)
        assert found == expected, f"{who}: {outcome.message}"
        return
    assert outcome.error is None, f"{who} refused it: {outcome.message}"
    wanted = {path: look.shown if isinstance(look, Like) else look for path, look in expected.items()}
    assert outcome.shown == wanted, who
    for path, look in expected.items():
        for key, value in look.attributes.items() if isinstance(look, Like) else ():
            assert getattr(outcome.tree[path], key) == value, f"{who}: {path} {key}"
