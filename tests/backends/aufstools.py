"""Homes of the aufs driver for its tests: as Docker left them, cut by SIGKILL, and what a stack must show."""

import builtins
import contextlib
import ctypes
import hashlib
import os
import pathlib
import signal
import stat
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence

import attrs

from graphdrivers.backends.aufs.driver import AufsDriver
from graphdrivers.conformance import observe
from graphdrivers.linux import durable, mounts
from graphdrivers.model import Mount, Support

ENGINES = ("overlay-shadow", "copy")

Opener = Callable[..., AufsDriver]
"""Opens a home with an engine, without trying it again."""

_NOBODY = 65534
_PR_SET_DUMPABLE = 4
_CLONE_NEWNS, _CLONE_NEWUSER = 0x00020000, 0x10000000

_CHANGING = (
    *("chmod", "chown", "fchmod", "fchown", "fsync", "link", "mkdir", "mknod", "removexattr", "rename", "rmdir"),
    *("setxattr", "symlink", "unlink", "utime", "write"),
)


def opener(supports: Mapping[str, Support]) -> Opener:
    """Give a function that opens homes with what probes found out."""

    def opened(home: pathlib.Path | str, engine: str = "overlay-shadow") -> AufsDriver:
        return AufsDriver(str(home), {"engine": engine}, supports[engine])

    return opened


def docker_home(home: pathlib.Path, layers: Sequence[str]) -> list[pathlib.Path]:
    """Make a home as Docker's driver did, each layer the child of the one before; give the folders of ``diff``."""
    for folder in ("layers", "diff", "mnt"):
        (home / folder).mkdir(parents=True, mode=0o710)
    above: list[str] = []
    for layer in layers:
        (home / "layers" / layer).write_text("".join(f"{name}\n" for name in above))
        (home / "diff" / layer).mkdir(mode=0o755)
        (home / "mnt" / layer).mkdir(mode=0o755)
        above.insert(0, layer)
    return [home / "diff" / layer for layer in layers]


def make(root: pathlib.Path, *paths: str) -> None:
    """Make files that contain their own path, or directories where it ends in a slash, with what is above them."""
    for path in paths:
        place = root / path
        place.parent.mkdir(parents=True, exist_ok=True)
        if path.endswith("/"):
            place.mkdir(exist_ok=True)
        else:
            place.write_text(path)


def long_marker(name: str) -> str:
    """Give the name of the marker that deletes a name too long for ``.wh.``."""
    return f".wh..wh.long-{hashlib.sha256(os.fsencode(name)).hexdigest()}"


def names(root: str | pathlib.Path) -> list[str]:
    """Give every path below a directory, sorted."""
    return sorted(path for path in observe.snapshot(str(root)) if path != ".")


def shown(driver: AufsDriver, layer: str) -> dict[str, observe.Item]:
    """Look at what a layer shows, read-only."""
    with mounts.opened(driver.mounts(layer, view=True)) as root:
        return observe.snapshot(root)


def written(driver: AufsDriver, layer: str, act: Callable[[str], object]) -> None:
    """Do something in the writable tree of a layer, and leave the layer live."""
    with mounts.opened(driver.mounts(layer)) as root:
        act(f"/proc/self/fd/{root}")


def whole(home: pathlib.Path) -> None:
    """Assert that a home holds all of each layer and nothing else."""
    known = set(os.listdir(home / "layers"))
    for folder in ("diff", "mnt", "state"):
        assert set(os.listdir(home / folder)) == known, folder
    assert set(os.listdir(home / "phase")) <= known
    assert os.listdir(home / "tmp") == []


def in_child(action: Callable[[], object]) -> None:
    """Do something in a process of its own, which is gone afterwards."""
    assert _status(action) == 0


def killed_before(number: int, action: Callable[[], object]) -> bool:
    """Do something in a process that SIGKILL ends before its call ``number`` (from 1) that changes the file system.

    Returns:
        Whether there was such a call.
    """
    status = _status(lambda: (_arm(number), action()))
    if status == -signal.SIGKILL:
        return True
    assert status == 0
    return False


def calls_of(action: Callable[[], object]) -> int:
    """Count the calls that `killed_before` knows, in a process of its own that does it all."""
    source, sink = os.pipe()

    def counted() -> None:
        counter = _arm(0)
        action()
        os.write(sink, str(counter[0]).encode())

    in_child(counted)
    with open(source, "rb") as answer:
        os.close(sink)
        return int(answer.read())


def _status(action: Callable[[], object]) -> int:
    child = os.fork()
    if not child:
        try:
            action()
        except BaseException:  # noqa: BLE001 - the parent must hear of every failure
            traceback.print_exc(file=sys.__stderr__)
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _arm(number: int) -> list[int]:
    """Wrap, in this process that is not to last, what changes the file system; give the counter."""
    count = [0]

    def wrapped(call: Callable[..., object], counts: Callable[..., bool]) -> Callable[..., object]:
        def run(*args: object, **kwargs: object) -> object:
            if counts(*args, **kwargs):
                count[0] += 1
                if count[0] == number:
                    os.kill(os.getpid(), signal.SIGKILL)
            return call(*args, **kwargs)

        return run

    for name in _CHANGING:
        setattr(os, name, wrapped(getattr(os, name), lambda *_, **__: True))
    os.open = wrapped(os.open, lambda _path, flags, *_, **__: bool(flags & os.O_CREAT))  # type: ignore[assignment]
    builtins.open = wrapped(open, lambda _path, mode="r", *_, **__: mode[0] in "wx")  # type: ignore[assignment]
    for name in ("syncfs", "rename_noreplace"):
        setattr(durable, name, wrapped(getattr(durable, name), lambda *_, **__: True))
    return count


@attrs.frozen
class _Shown:
    layer: int
    item: observe.Item


def merged(layers: Sequence[str | pathlib.Path]) -> dict[str, observe.Item]:
    """Say what raw ``.wh.`` directories, top first, show together, by OCI image-spec ``layer.md`` and nothing else.

    Bottom up: the markers of a layer delete from what the layers below show, then its entries are added.
    """
    tree: dict[str, _Shown] = {}
    for number, layer in enumerate(reversed(layers)):
        raw = observe.snapshot(str(layer))
        for path in raw:
            if _above_is_ordinary(path) and _name(path).startswith(".wh."):
                _delete_by(tree, path, _long_content(layer, path))
        for path, item in raw.items():
            if path == "." or not any(part.startswith(".wh.") for part in path.split("/")):
                if item.kind != stat.S_IFDIR or (path in tree and tree[path].item.kind != stat.S_IFDIR):
                    _delete(tree, path)
                tree[path] = _Shown(number, item)
    return {path: _with_names(tree, one) for path, one in tree.items()}


def visible(tree: Mapping[str, observe.Item]) -> dict[str, observe.Item]:
    """Undo the escape of xattrs in what was read from the layers themselves."""
    return {path: attrs.evolve(item, xattrs=_unescaped(item.xattrs)) for path, item in tree.items()}


def _unescaped(xattrs: Mapping[str, bytes]) -> dict[str, bytes]:
    return {name.replace("trusted.overlay.overlay.", "trusted.overlay."): value for name, value in xattrs.items()}


def _name(path: str) -> str:
    return path.rpartition("/")[2]


def _above_is_ordinary(path: str) -> bool:
    return not any(part.startswith(".wh.") for part in path.split("/")[:-1])


def _long_content(layer: str | pathlib.Path, path: str) -> str:
    """Read the name in the marker of a long name; empty where it is none."""
    if not _name(path).startswith(".wh..wh.long-"):
        return ""
    place = pathlib.Path(layer, path)
    content = place.read_bytes() if place.is_file() and not place.is_symlink() else b""
    return os.fsdecode(content) if long_marker(os.fsdecode(content)) == _name(path) else ""


def _delete_by(tree: dict[str, _Shown], marker: str, long_name: str) -> None:
    directory, _, name = marker.rpartition("/")
    prefix = f"{directory}/" if directory else ""
    if name == ".wh..wh..opq":
        for path in [path for path in tree if path != "." and path.startswith(prefix)]:
            del tree[path]
    elif long_name:
        _delete(tree, prefix + long_name)
    elif not name.startswith(".wh..wh.") and name not in {".wh.", ".wh..", ".wh..."}:
        _delete(tree, prefix + name.removeprefix(".wh."))


def _delete(tree: dict[str, _Shown], path: str) -> None:
    for known in [known for known in tree if known == path or known.startswith(f"{path}/")]:
        del tree[known]


def _with_names(tree: Mapping[str, _Shown], one: _Shown) -> observe.Item:
    """Leave only those names of a file that show."""
    shows = {path for path in one.item.names if path in tree and tree[path].layer == one.layer}
    return attrs.evolve(one.item, names=frozenset(shows))


@contextlib.contextmanager
def tmpfs(place: pathlib.Path) -> Iterator[pathlib.Path]:
    """Give a folder that no disk slows down."""
    place.mkdir()
    mounts.attach((Mount("tmpfs", "tests", (("mode", "0700"),)),), str(place))
    try:
        yield place
    finally:
        mounts.detach(str(place), lazy=True)


def as_plain_user(action: Callable[[], object], *, namespace: bool = False) -> None:
    """Do something in a process of a user without privileges, as root of a user namespace of its own if asked to."""
    in_child(lambda: (_become_plain(namespace=namespace), action()))


def _become_plain(*, namespace: bool) -> None:
    os.setgroups([])
    os.setresgid(_NOBODY, _NOBODY, _NOBODY)
    os.setresuid(_NOBODY, _NOBODY, _NOBODY)
    if namespace:
        library = ctypes.CDLL(None, use_errno=True)
        library.prctl(_PR_SET_DUMPABLE, 1, 0, 0, 0)  # else the files in /proc/self stay root's
        assert library.unshare(_CLONE_NEWUSER | _CLONE_NEWNS) == 0, os.strerror(ctypes.get_errno())
        for file, text in (("setgroups", "deny"), ("uid_map", f"0 {_NOBODY} 1"), ("gid_map", f"0 {_NOBODY} 1")):
            pathlib.Path("/proc/self", file).write_text(text)
