"""Whether kernel overlayfs works on a home, found out with a real toy stack.

Nothing is concluded from version numbers: a scratch folder gets three layers
with a whiteout, an opaque directory and an escaped xattr, they are mounted
(detached, so no other process sees it), compared with what the merged tree must
be, written to, and the upper directory is compared with what the kernel must
have left there.
"""

import contextlib
import errno
import os
import stat
from collections.abc import Iterator, Mapping

import attrs

from graphdrivers import errors
from graphdrivers.archive.whiteouts import OVERLAY, OVERLAY_USER, Dialect
from graphdrivers.backends.overlay import layout
from graphdrivers.backends.overlay.options import NAME, Settings, parse
from graphdrivers.kit import abilities, layerdirs, quotas
from graphdrivers.linux import filesystems, mounts, namespaces, probe
from graphdrivers.model import Capabilities, Mount, Support


def settings_for(home: str, options: Mapping[str, str], driver: str = NAME) -> Settings:
    """Read options and ``driver.json``, and choose the xattr namespace for this process.

    Args:
        home: the driver's home.
        options: what was asked for.
        driver: the name of the driver whose home it has to be.

    Raises:
        InvalidOption: see `options.parse`.
        NotSupported: redirects are asked for in a user namespace.
    """
    chosen = parse(options, layerdirs.recorded_options(home, driver))
    if namespaces.in_initial_user_namespace():
        return chosen
    if chosen.redirect_dir or chosen.metacopy:
        reason = "the kernel allows redirect_dir and metacopy only outside of user namespaces"
        raise errors.NotSupported(NAME, reason, "leave these options off, or run as root")
    return attrs.evolve(chosen, user_xattrs=True)


def dialect_of(settings: Settings) -> Dialect:
    """Give the on-disk form of whiteouts that a home's layers have."""
    return OVERLAY_USER if settings.user_xattrs else OVERLAY


def probed(home: str, options: Mapping[str, str], driver: str = NAME) -> Support:
    """Try everything on the file system of ``home``; see `driver.Driver.probe` and `settings_for`."""
    _refuse_unprivileged()
    settings = settings_for(home, options, driver)
    with abilities.scratch(NAME, home) as folder:
        files = os.path.join(folder, "files")
        os.mkdir(files)
        found = abilities.tried(files)
        _refuse_without_xattrs(folder, found, settings)
        seen = _try_stack(folder, settings)
        limits = limits_refused_in(folder, settings) is None
    capabilities = attrs.evolve(_capabilities(found, settings), stable_inodes=seen.stable_inodes, quota=limits)
    return Support(capabilities, _engine(settings), _notes(settings, escapes=seen.escapes))


def undoes_escapes(home: str, settings: Settings) -> bool:
    """Tell whether an overlay mount here shows escaped private xattrs under their own names (Linux 6.7)."""
    with abilities.scratch(NAME, home) as folder:
        return _try_stack(folder, settings).escapes


def limits_refused(home: str, settings: Settings) -> quotas.Refusal | None:
    """Say why the size of layers cannot be limited on a home; ``None`` where it can."""
    with abilities.scratch(NAME, home) as folder:
        return limits_refused_in(folder, settings)


def limits_refused_in(folder: str, settings: Settings) -> quotas.Refusal | None:
    """Try, in a scratch folder, whether limits hold against what is written through an overlay."""

    @contextlib.contextmanager
    def opened(layer: str, tree: str) -> Iterator[int]:
        own = [os.path.join(layer, name) for name in ("lower", "work")]
        for made in own:
            os.mkdir(made)
        lower, work = own
        quotas.keep(NAME, layer, work)
        options = (("lowerdir+", lower), ("upperdir", tree), ("workdir", work), *settings.mount_options())
        with mounted_unsynced(Mount("overlay", "probe", options)) as merged:
            yield merged

    return quotas.refused(NAME, folder, opened)


def _refuse_unprivileged() -> None:
    if not namespaces.has_capability("CAP_SYS_ADMIN"):
        raise errors.PrerequisiteMissing(
            NAME,
            "mounting needs root, or root in a user namespace of its own",
            "run as root, or under 'unshare --user --map-root-user --mount'",
        )


def _refuse_without_xattrs(folder: str, found: Capabilities, settings: Settings) -> None:
    able = found.user_xattrs if settings.user_xattrs else found.trusted_xattrs
    if not able:
        kind = "user" if settings.user_xattrs else "trusted"
        raise _incompatible(folder, f"it stores no {kind}.* xattrs, which opaque directories need")


def _incompatible(folder: str, reason: str) -> "errors.IncompatibleFilesystem":
    fs_type = filesystems.fs_type(folder)
    advice = "put --root on a local file system (ext4, xfs, btrfs, tmpfs), or use driver vfs"
    return errors.IncompatibleFilesystem(NAME, f"{fs_type} below {os.path.dirname(folder)!r}: {reason}", advice)


@attrs.frozen
class _Seen:
    """What the toy stack showed, beside that it works."""

    escapes: bool
    """The kernel undoes escapes of private xattrs."""
    stable_inodes: bool
    """A file keeps its number when it is copied up: in a user namespace the kernel cannot remember where it was."""


def _try_stack(folder: str, settings: Settings) -> _Seen:
    """Build, mount, check and use the toy stack."""
    dialect = dialect_of(settings)
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
        raise _without_whiteouts(folder) from error
    os.setxattr(os.path.join(changed, "hidden"), dialect.xattr("opaque"), b"y")
    _write(os.path.join(changed, "hidden/new"))
    _write(os.path.join(changed, "marked"))
    os.setxattr(os.path.join(changed, "marked"), dialect.escape(dialect.xattr("opaque")), b"y")
    os.rmdir(os.path.join(top, layout.DIFF, "hidden"))
    (plan,) = layout.writable(top, [middle, bottom], settings)
    try:
        with mounted_unsynced(plan) as merged:
            return _use(merged, os.path.join(top, layout.DIFF), dialect, folder)
    except OSError as error:
        raise explained(NAME, error, folder) from error


def _without_whiteouts(folder: str) -> "errors.DriverUnavailable":
    """Say why a character device 0:0 could not be made: the file system, the user, or the kernel forbids it."""
    if filesystems.fs_type(folder) in {"overlay", "aufs", "fuse"}:
        return _incompatible(folder, "it takes no whiteouts (character devices 0:0)")
    if namespaces.in_initial_user_namespace():
        reason = "whiteouts (character devices 0:0) cannot be made"
        return errors.PrerequisiteMissing(NAME, reason, "run with the capability CAP_MKNOD")
    return errors.NotSupported(
        NAME, "this kernel makes no whiteouts in user namespaces", "Linux 5.8 does; or run as root"
    )


@contextlib.contextmanager
def mounted_unsynced(plan: Mount) -> Iterator[int]:
    """Open an overlay whose unmount need not be durable (Linux 5.10; before, it is all the same).

    Else the unmount writes all dirty pages of the file system below to disk, ours or not.
    """
    unsynced = attrs.evolve(plan, options=(*plan.options, ("volatile", None)))
    with contextlib.ExitStack() as stack:
        try:
            merged = stack.enter_context(mounts.opened((unsynced,)))
        except OSError as error:
            if error.errno != errno.EINVAL:  # what an unknown option is
                raise
            merged = stack.enter_context(mounts.opened((plan,)))
        yield merged


def _use(merged: int, upper: str, dialect: Dialect, folder: str) -> _Seen:
    """Compare the mounted toy stack with what it must be, and write to it."""
    root = f"/proc/self/fd/{merged}"
    shown = {name: sorted(os.listdir(os.path.join(root, name))) for name in ("", "hidden")}
    if shown != {"": ["hidden", "kept", "marked"], "hidden": ["new"]}:
        raise _incompatible(folder, f"whiteouts have no effect on it (seen: {shown})")
    _write(os.path.join(root, "written"))
    names = [os.path.join(root, name) for name in ("kept", "linked")]
    os.link(*names)
    stable = os.path.samefile(*names)
    os.unlink(names[0])
    left = os.lstat(os.path.join(upper, "kept"))
    if not os.path.isfile(os.path.join(upper, "written")) or not dialect.is_whiteout(left):
        raise _incompatible(folder, "deletions in a mount leave no whiteouts on it")
    return _Seen(dialect.xattr("opaque") in os.listxattr(os.path.join(root, "marked")), stable)


def explained(driver: str, error: OSError, folder: str) -> "errors.DriverUnavailable":
    """Turn the errno of a refused overlay mount into a reason and a fix."""
    if error.errno == errno.ENODEV:
        return errors.NotSupported(driver, "this kernel has no overlayfs", "load it: modprobe overlay")
    if error.errno in {errno.EPERM, errno.EACCES}:
        return errors.PrerequisiteMissing(
            driver,
            f"the kernel refuses the mount ({error})",
            "run as root; in a user namespace this needs a mount namespace of its own ('unshare --user --map-root-user"
            " --mount'), Linux 5.11 and no seccomp filter against mounts",
        )
    return _incompatible(folder, f"overlayfs refuses it as its upper directory ({error})")


def _capabilities(found: Capabilities, settings: Settings) -> Capabilities:
    """Add what follows from the technique to what single files can be."""
    return attrs.evolve(
        found,
        char_0_0=False,
        readonly_views=True,
        rename_directories=settings.redirect_dir,
        native_diff=True,
        copy_on_write=True,
        apply_ahead=True,
        max_depth=layout.MAX_DEPTH,
    )


def _engine(settings: Settings) -> str:
    api = "new mount API" if probe.has_lowerdir_append() else "mount(2)"
    return f"kernel overlayfs, {api}, {'user' if settings.user_xattrs else 'trusted'} xattrs"


def _notes(settings: Settings, *, escapes: bool) -> tuple[str, ...]:
    notes = ["hard links between files of a parent are broken when one of them is written to"]
    if not settings.redirect_dir:
        notes.append("renaming a directory that a parent has is refused with EXDEV, tools copy it; see redirect_dir=on")
    if not escapes:
        notes.append("overlay's private xattrs as content of a layer are refused: the kernel is older than 6.7")
    return tuple(notes)


def _write(path: str) -> None:
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644))
