"""Whether fuse-overlayfs works on a home, found out with a real toy stack.

A scratch folder gets three layers with a whiteout and an opaque directory. They
are mounted where no other process sees it, compared with what the merged tree
must be, written to, and the upper directory is compared with what must be left
there. What single files can be is tried twice, below and through the mount.
"""

import contextlib
import errno
import os
import re
import stat
import subprocess
from collections.abc import Mapping

import attrs

from graphdrivers import errors
from graphdrivers.kit import abilities
from graphdrivers.linux import filesystems, fuse_mount, locks, mounts, namespaces
from graphdrivers.model import Capabilities, Support
from graphdrivers_fuse_overlayfs import dialect as dialects
from graphdrivers_fuse_overlayfs import layout
from graphdrivers_fuse_overlayfs.deviations import known, warnings
from graphdrivers_fuse_overlayfs.options import NAME, TYPE, Settings, parse

_VERSION = re.compile(r"^fuse-overlayfs: version v?([0-9]+(?:\.[0-9]+)*)", re.MULTILINE)


def probed(home: str, options: Mapping[str, str]) -> Support:
    """Try everything on the file system of ``home``; see `driver.Driver.probe` and `options.parse`."""
    settings = parse(options)
    _refuse_unprivileged()
    program = _program(settings)
    version = version_of(program)
    _refuse_without_device()
    with abilities.scratch(NAME, home) as folder:
        files = os.path.join(folder, "files")
        os.mkdir(files)
        below = abilities.tried(files)
        _refuse_without_xattrs(folder, below, settings)
        through, stable = _try_stack(folder, settings)
    xattrs = "user" if settings.user_xattrs else "trusted"
    engine = f"fuse-overlayfs {'.'.join(map(str, version))}, {xattrs} xattrs"
    return Support(_capabilities(below, through, stable=stable), engine, _notes(version), known(version))


def version_of(program: str) -> tuple[int, ...]:
    """Ask a program for its version.

    Raises:
        PrerequisiteMissing: it cannot be run, or is something else.
    """
    fix = "install fuse-overlayfs from your distribution, or give --opt program=PATH"
    try:
        done = subprocess.run(
            [program, "--version"],
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={"PATH": fuse_mount.FOLDERS},
        )
    except OSError as error:
        reason = f"{program} cannot be run: {os.strerror(error.errno or 0)}"
        raise errors.PrerequisiteMissing(NAME, reason, fix) from error
    found = parse_version(os.fsdecode(done.stdout))
    if found is None:
        raise errors.PrerequisiteMissing(NAME, f"{program} --version names no version of fuse-overlayfs", fix)
    return found


def parse_version(text: str) -> tuple[int, ...] | None:
    """Read what ``--version`` prints (``fuse-overlayfs: version 1.10``); ``None`` where it is something else."""
    found = _VERSION.search(text)
    return tuple(int(part) for part in found[1].split(".")) if found else None


def _refuse_unprivileged() -> None:
    if not namespaces.has_capability("CAP_SYS_ADMIN"):
        raise errors.PrerequisiteMissing(
            NAME,
            "mounting needs root, or root in a user namespace of its own",
            "run as root, or under 'unshare --user --map-root-user --mount'",
        )


def _program(settings: Settings) -> str:
    found = fuse_mount.find_program(TYPE, settings.mount_options())
    if found is None:
        reason = f"there is no program {settings.program or NAME}"
        raise errors.PrerequisiteMissing(NAME, reason, "install the package fuse-overlayfs")
    return found


def _refuse_without_device() -> None:
    try:
        os.close(os.open(fuse_mount.DEVICE, os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        if error.errno in {errno.ENOENT, errno.ENODEV, errno.ENXIO}:
            reason = f"there is no {fuse_mount.DEVICE}"
            fix = "load the module: modprobe fuse; a container has to be given it: --device /dev/fuse"
        else:
            reason = f"{fuse_mount.DEVICE} cannot be opened: {os.strerror(error.errno or 0)}"
            fix = f"permit it: chmod a+rw {fuse_mount.DEVICE}; a container has to be given it: --device /dev/fuse"
        raise errors.PrerequisiteMissing(NAME, reason, fix) from error


def _refuse_without_xattrs(folder: str, found: Capabilities, settings: Settings) -> None:
    able = found.user_xattrs if settings.user_xattrs else found.trusted_xattrs
    if not able:
        kind = "user" if settings.user_xattrs else "trusted"
        raise _incompatible(folder, f"it stores no {kind}.* xattrs, which opaque directories need")


def _incompatible(folder: str, reason: str) -> errors.IncompatibleFilesystem:
    fs_type = filesystems.fs_type(folder)
    advice = "put --root on a local file system (ext4, xfs, btrfs, tmpfs), or use driver vfs"
    return errors.IncompatibleFilesystem(NAME, f"{fs_type} below {os.path.dirname(folder)!r}: {reason}", advice)


def _try_stack(folder: str, settings: Settings) -> tuple[Capabilities, bool]:
    """Build, mount, check and use the toy stack; give what files can be in it, and whether they keep their numbers."""
    dialect = dialects.at_rest(user_xattrs=settings.user_xattrs)
    bottom, middle, top = (os.path.join(folder, name) for name in ("bottom", "middle", "top"))
    for layer in (bottom, middle, top):
        os.makedirs(os.path.join(layer, layout.DIFF, "hidden"))
    os.mkdir(os.path.join(top, layout.WORK))
    for name in ("gone", "kept", "hidden/old"):
        _write(os.path.join(bottom, layout.DIFF, name))
    changed = os.path.join(middle, layout.DIFF)
    try:
        os.mknod(os.path.join(changed, "gone"), stat.S_IFCHR, os.makedev(0, 0))
    except PermissionError as error:
        raise _without_whiteouts() from error
    os.setxattr(os.path.join(changed, "hidden"), dialect.xattr("opaque"), b"y")
    _write(os.path.join(changed, "hidden/new"))
    os.rmdir(os.path.join(top, layout.DIFF, "hidden"))
    try:
        with mounts.opened(layout.writable(top, [middle, bottom], settings)) as merged:
            return _use(merged, os.path.join(top, layout.DIFF), dialect, folder)
    except OSError as error:
        raise _explained(error, folder) from error
    finally:
        # Its files are deleted next, and the file system may be unmounted.
        with contextlib.suppress(errors.LockTimeout), locks.FileLock(os.path.join(top, layout.SERVED), timeout=5):
            pass


def _without_whiteouts() -> errors.DriverUnavailable:
    if namespaces.in_initial_user_namespace():
        reason = "whiteouts (character devices 0:0) cannot be made"
        return errors.PrerequisiteMissing(NAME, reason, "run with the capability CAP_MKNOD")
    reason = "this kernel makes no whiteouts in user namespaces"
    return errors.NotSupported(NAME, reason, "Linux 5.8 does; or run as root")


def _use(merged: int, upper: str, dialect: dialects.FuseDialect, folder: str) -> tuple[Capabilities, bool]:
    """Compare the mounted toy stack with what it must be, and write to it."""
    root = f"/proc/self/fd/{merged}"
    shown = {name: sorted(os.listdir(os.path.join(root, name))) for name in ("", "hidden")}
    if shown != {"": ["hidden", "kept"], "hidden": ["new"]}:
        raise _incompatible(folder, f"whiteouts have no effect on it (seen: {shown})")
    _write(os.path.join(root, "written"))
    names = [os.path.join(root, name) for name in ("kept", "linked")]
    os.link(*names)
    stable = os.path.samefile(*names)
    os.unlink(names[0])
    left = os.lstat(os.path.join(upper, "kept"))
    if not os.path.isfile(os.path.join(upper, "written")) or not dialect.is_whiteout(left):
        raise _incompatible(folder, "deletions in a mount leave no whiteouts on it")
    files = os.path.join(root, "files")
    os.mkdir(files)
    if os.getxattr(os.path.join(upper, "files"), dialect.xattr("opaque")) != b"y":
        raise _incompatible(folder, "new directories in a mount are not marked opaque")
    return abilities.tried(files), stable


def _explained(error: OSError, folder: str) -> errors.DriverUnavailable:
    """Turn the errno of a refused mount into a reason and a fix."""
    if error.errno == errno.ENODEV:
        return errors.NotSupported(NAME, "this kernel has no FUSE", "load it: modprobe fuse")
    if error.errno in {errno.EPERM, errno.EACCES}:
        return errors.PrerequisiteMissing(
            NAME,
            f"the kernel refuses the mount ({error})",
            "run as root; in a user namespace this needs Linux 4.18 and no seccomp filter against mounts",
        )
    return _incompatible(folder, f"fuse-overlayfs fails on it ({error})")


def _capabilities(below: Capabilities, through: Capabilities, *, stable: bool) -> Capabilities:
    """Join what files can be below the mount and through it, and add what follows from the technique."""
    both = {
        name: getattr(below, name) and getattr(through, name)
        for name in ("ownership", "devices", "user_xattrs", "trusted_xattrs", "security_xattrs", "posix_acls")
    }
    return attrs.evolve(
        below,
        **both,
        time_resolution=max(below.time_resolution, through.time_resolution),
        name_max=min(below.name_max, through.name_max),
        char_0_0=False,
        readonly_views=True,
        stable_inodes=stable,
        native_diff=True,
        copy_on_write=True,
        apply_ahead=True,
        max_depth=layout.MAX_DEPTH,
    )


def _notes(version: tuple[int, ...]) -> tuple[str, ...]:
    return (
        *warnings(version),
        "each mount is served by a process; where that is killed, the mount has to be unmounted and made again",
        "renaming a directory that a parent has is refused with EXDEV, tools copy it",
        "overlay's private xattrs as content of a layer are refused",
    )


def _write(path: str) -> None:
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644))
