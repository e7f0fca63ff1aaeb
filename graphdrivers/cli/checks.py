"""What ``graphdriver doctor`` looks at. Every check only looks, or tries in a scratch folder that it removes."""

import contextlib
import enum
import os
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterator, Sequence

import attrs

from graphdrivers import errors, loading
from graphdrivers.cli import output
from graphdrivers.driver import Driver
from graphdrivers.linux import durable, filesystems, mountinfo, namespaces, probe, quota

LITTLE = 1 << 30
"""Free bytes below which a file system counts as nearly full."""

_MARKS = "unfinished"
_SCRATCH = "graphdriver-bench-"


class State(enum.StrEnum):
    """How a check ended."""

    OK = "ok"
    NOTE = "note"
    PROBLEM = "problem"


@attrs.frozen
class Check:
    """One thing looked at."""

    subject: str
    state: State
    message: str
    fix: str = ""


def machine() -> Iterator[Check]:
    """Look at the kernel, the caller and the tools."""
    yield _kernel()
    if namespaces.has_capability("CAP_SYS_ADMIN"):
        yield Check("user", State.OK, f"{namespaces.describe()}, can mount")
    else:
        yield _unprivileged()


def _kernel() -> Check:
    """Tell the mount API in use, where the caller may mount at all: the kernel says nothing to others."""
    release = probe.kernel_release()
    if not namespaces.has_capability("CAP_SYS_ADMIN"):
        return Check("kernel", State.OK, release)
    if probe.has_lowerdir_append():
        return Check("kernel", State.OK, f"{release}, new mount API, long stacks")
    text = f"{release}: its mount API (or a sandbox) limits the length of stacks"
    return Check("kernel", State.NOTE, text, "Linux 6.5 or newer")


def _unprivileged() -> Check:
    """Say what a user who cannot mount can do about it."""
    who = f"{namespaces.describe()}, cannot mount"
    if shutil.which("unshare") is None:
        return Check("user", State.NOTE, f"{who}, and there is no 'unshare'", "run as root, or install util-linux")
    command = ["unshare", "--user", "--map-root-user", "--mount", "true"]
    tried = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    if tried.returncode == 0:
        return Check("user", State.NOTE, who, "run as root, or below 'unshare --user --map-root-user --mount'")
    why = os.fsdecode(tried.stderr).strip() or "no reason given"
    fix = "run as root, or permit user namespaces (sysctl user.max_user_namespaces, AppArmor, container runtime)"
    return Check("user", State.NOTE, f"{who}, and user namespaces are forbidden ({why})", fix)


def root_folder(root: str) -> Iterator[Check]:
    """Look at the folder that everything lies below, and at its file system."""
    folder = root
    while not os.path.isdir(folder):
        folder = os.path.dirname(folder)
    if folder != root:
        yield Check("root", State.OK, f"{root!r} does not exist yet; its file system is that of {folder!r}")
    elif stat.S_IMODE(os.stat(root).st_mode) & 0o077:
        text = f"{root!r} is open to other users, who could run set-uid programs of the layers"
        yield Check("root", State.PROBLEM, text, f"chmod 700 {root}")
    else:
        yield Check("root", State.OK, f"{root!r}")
    yield _filesystem(folder)


def _filesystem(folder: str) -> Check:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        free = filesystems.free_bytes(descriptor)
        text = f"{filesystems.fs_type(descriptor)}, {output.human_size(free)} free"
    finally:
        os.close(descriptor)
    if not os.access(folder, os.W_OK | os.X_OK):
        return Check(
            "file system", State.PROBLEM, f"{text}, not writable for you", "use a --root of your own, or be root"
        )
    features, lacking = _features(folder)
    text = f"{text}; {', '.join(features)}"
    if free < LITTLE:
        return Check("file system", State.PROBLEM, text, "free some space, or use another --root")
    if lacking:
        return Check("file system", State.PROBLEM, f"{text}; lacks {lacking}", "use a --root on another file system")
    return Check("file system", State.OK, text)


def _features(folder: str) -> tuple[list[str], str]:
    """Try what drivers need; give what works (and what does not but need not), and what is missing badly."""
    with tempfile.TemporaryDirectory(prefix=".graphdriver-doctor-", dir=folder) as scratch:
        descriptor = os.open(scratch, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            tried = {
                "user xattrs": filesystems.supports_xattr(descriptor, "user"),
                "trusted xattrs": filesystems.supports_xattr(descriptor, "trusted"),
                "reflinks": filesystems.supports_reflink(descriptor),
                "project quotas": _enforces_limits(scratch),
            }
        finally:
            os.close(descriptor)
        types = _gives_types(scratch)
    features = [name if works else f"no {name}" for name, works in tried.items()]
    return features, "" if types else "file types in directory listings (d_type; on xfs: ftype=1)"


def _enforces_limits(scratch: str) -> bool:
    """Tell whether a driver may limit the size of layers; a sandbox may forbid to ask."""
    with contextlib.suppress(OSError):
        return quota.is_enforced(scratch)
    return False


def _gives_types(scratch: str) -> bool:
    """Tell whether listings carry file types: without them, asking about an entry that is gone says no."""
    path = os.path.join(scratch, "folder")
    os.mkdir(path)
    with os.scandir(scratch) as entries:
        (entry,) = entries
    os.rmdir(path)
    return entry.is_dir(follow_symlinks=False)


def drivers(found: Sequence[loading.DriverInfo]) -> Iterator[Check]:
    """Tell which drivers work here."""
    for info in found:
        if info.usable:
            yield Check(f"driver {info.name}", State.OK, info.engine)
        else:
            state = State.PROBLEM if info.error else State.NOTE
            yield Check(f"driver {info.name}", state, f"cannot be used: {info.reason}", info.fix)
    if not any(info.usable for info in found):
        yield Check("drivers", State.PROBLEM, "none works here", "see the reasons above")


def left_behind(root: str, found: Sequence[loading.DriverInfo]) -> Iterator[Check]:
    """Look for what killed processes left in the root: half-filled layers, half-deleted folders, mounts."""
    if not os.path.isdir(root) or not os.access(root, os.R_OK | os.X_OK):
        return
    known: set[str] = set()
    for info in found:
        home = os.path.join(root, info.name)
        if info.usable and os.path.isdir(home):
            yield from _home(home, info.name, known)
    yield from _unfinished(root)
    yield from _mounts(root, known)


def _home(home: str, name: str, known: set[str]) -> Iterator[Check]:
    """Read one driver's layers into ``known``; report what cannot be read and what was half deleted."""
    try:
        with contextlib.closing(loading.load_driver(name, home)) as driver:
            layers = _layer_names(driver)
    except (errors.GraphDriverError, OSError) as error:
        yield Check(f"layers of {name}", State.PROBLEM, str(error))
        return
    known |= layers
    yield Check(f"layers of {name}", State.OK, f"{len(layers)}")
    temporary = os.path.join(home, "tmp")
    left = len(list(durable.Staging.leftovers(temporary))) if os.path.isdir(temporary) else 0
    if left:
        text = f"{left} half made or half deleted folder(s) of processes that died in {temporary!r}"
        yield Check(f"leftovers of {name}", State.PROBLEM, text, "any 'graphdriver layer' command removes them")


def _layer_names(driver: Driver) -> set[str]:
    return {record.name for record in driver.layers()}


def _unfinished(root: str) -> Iterator[Check]:
    with contextlib.suppress(FileNotFoundError):
        for mark in sorted(os.listdir(os.path.join(root, _MARKS))):
            name = mark.removesuffix(".apply")
            text = f"layer {name!r} is half filled: an apply failed or is still running"
            yield Check("unfinished layer", State.PROBLEM, text, f"graphdriver layer rm {name}")


def _mounts(root: str, known: set[str]) -> Iterator[Check]:
    """Report mounts below the root: those of existing layers at their place are fine."""
    place = os.path.join(root, "mounts")
    kept = 0
    for mount in mountinfo.mounted_below(root):
        parts = os.path.relpath(mount.target, place).split("/")
        if parts[0] in known:
            kept += 1
            continue
        text = f"a leaked mount ({mount.fs_type}) at {mount.target!r}"
        yield Check("mounts", State.PROBLEM, text, f"umount {mount.target}")
    yield Check("mounts", State.OK, f"{kept} of existing layers")


def scratch_folders(parent: str) -> Iterator[Check]:
    """Report folders of benchmarks that were killed."""
    with contextlib.suppress(OSError):
        for name in sorted(os.listdir(parent)):
            process = name.removeprefix(_SCRATCH).partition("-")[0]
            if name.startswith(_SCRATCH) and not os.path.exists(f"/proc/{process}"):
                path = os.path.join(parent, name)
                yield Check("benchmark", State.PROBLEM, f"{path!r} was left by a killed benchmark", f"rm -r {path}")
