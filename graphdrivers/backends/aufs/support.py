"""Which engine works on a home, found out by letting it live through a toy stack.

Nothing is concluded from version numbers: a scratch home gets three layers with
a whiteout and an opaque directory, the engine mounts them (where no other
process sees it), what shows is compared with what must show, the stack is
written to, brought to rest, and what lies on disk then is compared too.
"""

import contextlib
import os
from collections.abc import Iterator, Mapping

import attrs

from graphdrivers import errors
from graphdrivers.archive.whiteouts import OPAQUE_NAME, whiteout_name
from graphdrivers.backends.aufs import native
from graphdrivers.backends.aufs.copied import Copy
from graphdrivers.backends.aufs.engine import Engine, Forms, Plan
from graphdrivers.backends.aufs.home import DIFF, MARKED, NAME, AufsDirs
from graphdrivers.backends.aufs.native import KernelAufs
from graphdrivers.backends.aufs.overlaid import MAX_DEPTH, OverlayShadow
from graphdrivers.backends.aufs.phases import Phase
from graphdrivers.backends.overlay.options import Settings as OverlaySettings
from graphdrivers.backends.overlay.support import explained, mounted_unsynced
from graphdrivers.backends.overlay.support import limits_refused_in as overlay_limits_refused
from graphdrivers.kit import abilities, layerdirs, quotas, recording, roots
from graphdrivers.kit.layerdirs import LayerFile
from graphdrivers.linux import aufs_mount, filesystems, mounts, namespaces, probe
from graphdrivers.model import Capabilities, Support

ENGINES: tuple[type[Engine], ...] = (KernelAufs, OverlayShadow, Copy)
"""In the order in which they are tried."""

_AUTO = "auto"
_ENGINE, _MARKS = "engine", "marks"
_ELSE = ", else "


@attrs.frozen
class Settings:
    """What a home is opened with."""

    engine: str = _AUTO
    user_xattrs: bool = False
    """Overlay's marks are ``user.overlay.*``; decided when a home is made, for content of such names is escaped."""

    def lasting(self, *, recorded: bool) -> dict[str, str]:
        """Give what ``driver.json`` records."""
        marks = "user" if self.user_xattrs else "trusted"
        return {_MARKS: marks, **recording.lasting_options(recorded=recorded)}


def settings_for(driver: str, home: str, options: Mapping[str, str]) -> Settings:
    """Read options and ``driver.json``; a new home is made for what this process may do.

    Raises:
        InvalidOption: an unknown key or engine.
    """
    names = [_AUTO, *(engine.name for engine in ENGINES)]
    for key in options:
        if key != _ENGINE:
            raise errors.InvalidOption(NAME, key, f"it is unknown; known is {_ENGINE}")
        if options[key] not in names:
            raise errors.InvalidOption(NAME, key, f"it is one of {', '.join(names)}, not {options[key]!r}")
    recorded = layerdirs.recorded_options(home, driver)
    if recorded is not None:
        user_xattrs = recorded.get(_MARKS) == "user"
    else:
        privileged = namespaces.in_initial_user_namespace() and namespaces.has_capability("CAP_SYS_ADMIN")
        user_xattrs = not privileged
    return Settings(options.get(_ENGINE, _AUTO), user_xattrs)


def engines_of(support: Support) -> list[str]:
    """Give the names of the engines that a probe chose: the first one, and who takes the stacks that it does not."""
    return support.engine.partition(" (")[0].split(_ELSE)


def probed(driver: str, home: str, options: Mapping[str, str]) -> Support:
    """Try engines in order on the file system of ``home``; see `driver.Driver.probe`."""
    settings = settings_for(driver, home, options)
    # Kernel aufs shows some stacks wrong: it needs another engine at its side.
    wanted = [engine for engine in ENGINES if settings.engine in {_AUTO, KernelAufs.name, engine.name}]
    refused: list[tuple[str, errors.DriverUnavailable]] = []
    works: list[tuple[type[Engine], Capabilities]] = []
    with abilities.scratch(driver, home) as folder:
        files = os.path.join(folder, "files")
        os.mkdir(files)
        found = abilities.tried(files)
        recorded = recording.records_owners(driver, home, found, layerdirs.recorded_options(home, driver))
        found = attrs.evolve(found, ownership=found.ownership and not recorded, recorded_owners=recorded)
        views = abilities.views_are_readonly(files)
        for engine in wanted:
            if works and works[0][0] is not KernelAufs:
                break
            try:
                capabilities = _capabilities(engine, found, views=views)
                stable = _try(engine, os.path.join(folder, engine.name), settings, capabilities)
            except errors.DriverUnavailable as error:
                refused.append((engine.name, error))
                if engine.name == settings.engine:
                    raise
                continue
            limits = not works and limits_refused_in(engine, folder, settings) is None
            works.append((engine, attrs.evolve(capabilities, stable_inodes=stable, quota=limits)))
    if not works:
        raise refused[-1][1]
    engine, capabilities = works[0]
    names = _ELSE.join(one.name for one, _ in works[:2])
    described = f"{names} ({_described(engine, settings, found)})"
    return Support(capabilities, described, _notes(engine, refused, capabilities))


def limits_refused(engine: type[Engine], home: str, settings: Settings) -> quotas.Refusal | None:
    """Say why the size of layers cannot be limited with an engine on a home; ``None`` where it can."""
    with abilities.scratch(NAME, home) as folder:
        return limits_refused_in(engine, folder, settings)


def limits_refused_in(engine: type[Engine], folder: str, settings: Settings) -> quotas.Refusal | None:
    """Try the same in a scratch folder."""
    if not engine.limits:
        fix = "use engine=overlay-shadow, or driver overlay or vfs"
        return quotas.Refusal(f"engine {engine.name} does not limit the size of a layer", fix)
    return overlay_limits_refused(folder, OverlaySettings(user_xattrs=settings.user_xattrs))


def facts(support: Support) -> dict[str, str]:
    """Give the engine in use, and why each preferred one is not."""
    refused = [note for note in support.notes if note.startswith("engine ")]
    return {"engine": engines_of(support)[0], **{f"refused{number}": note for number, note in enumerate(refused)}}


def _try(engine: type[Engine], home: str, settings: Settings, capabilities: Capabilities) -> bool:
    """Let an engine live through the toy stack; say whether files keep their inode numbers in it.

    Raises:
        NotSupported, PrerequisiteMissing, IncompatibleFilesystem: it does not work here.
    """
    if engine is KernelAufs:
        _refuse_without_aufs(home)
    if engine is OverlayShadow and not namespaces.has_capability("CAP_SYS_ADMIN"):
        reason = "mounting needs root, or root in a user namespace of its own"
        fix = "run as root, or under 'unshare --user --map-root-user --mount'; or use engine=copy"
        raise errors.PrerequisiteMissing(NAME, reason, fix)
    os.mkdir(home, 0o700)
    recorded = capabilities.recorded_owners
    dirs = AufsDirs(home, NAME, settings.lasting(recorded=recorded), lasting=False)
    worker = engine(dirs, Forms.of(user_xattrs=settings.user_xattrs, recorded=recorded), capabilities)
    _make_toy(dirs, worker)
    try:
        with _opened(worker.writable("top", ("middle", "bottom"))) as merged:
            stable = _use(f"/proc/self/fd/{merged}", home)
        phase = dirs.phase("top")
        if phase is not None:
            worker.to_rest("top", ("middle", "bottom"), phase)
    except OSError as error:
        if not isinstance(error, errors.SyscallError):  # no mount that the kernel refused
            raise _incompatible(home, f"layers cannot be written in the form of the engine ({error})") from error
        raise explained(NAME, error, home) from error
    left = sorted(os.listdir(dirs.diff("top")))
    if left != [".wh.kept", "linked", "written"]:
        raise _incompatible(home, f"deletions in a mount leave no whiteouts (left: {left})")
    return stable


def _refuse_without_aufs(home: str) -> None:
    if not namespaces.in_initial_user_namespace() or not namespaces.has_capability("CAP_SYS_ADMIN"):
        reason = "aufs is mounted by root outside of user namespaces only"
        raise errors.PrerequisiteMissing(NAME, reason, "run as root, or use engine=overlay-shadow")
    if not filesystems.is_known(aufs_mount.TYPE):
        fix = "build and load it (aufs-standalone, modprobe aufs), or use engine=overlay-shadow"
        raise errors.NotSupported(NAME, "this kernel has no aufs", fix)
    if not aufs_mount.can_be_branch(home):
        raise _incompatible(home, "a path with ',', ':' or '=' cannot be a branch")


def _make_toy(dirs: AufsDirs, engine: Engine) -> None:
    contents = {
        "bottom": ("gone", "kept", "hidden/old"),
        "middle": (os.fsdecode(whiteout_name(b"gone")), f"hidden/{os.fsdecode(OPAQUE_NAME)}", "hidden/new"),
        "top": (),
    }
    ancestors: tuple[str, ...] = ()
    for layer, files in contents.items():
        with dirs.making(layer, LayerFile(ancestors), Phase(engine.name, "live") if layer == "top" else None) as made:
            diff = os.path.join(made, DIFF)
            roots.make_root(diff, ownership=False)
            for file in files:
                os.makedirs(os.path.dirname(os.path.join(diff, file)), exist_ok=True)
                os.close(os.open(os.path.join(diff, file), os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644))
        ancestors = (layer, *ancestors)
    dirs.mark("middle", MARKED)
    for layer in ("bottom", "middle"):
        dirs.seal(layer)


@contextlib.contextmanager
def _opened(plan: Plan) -> Iterator[int]:
    opened = mounted_unsynced(plan[0]) if plan[0].type == "overlay" else mounts.opened(plan)
    with opened as merged:
        yield merged


def _use(root: str, home: str) -> bool:
    """Compare what shows with what must show, and write to it; say whether a copied-up file kept its number."""
    shown = {name: sorted(os.listdir(os.path.join(root, name))) for name in ("", "hidden")}
    if shown != {"": ["hidden", "kept"], "hidden": ["new"]}:
        raise _incompatible(home, f"whiteouts have no effect (seen: {shown})")
    with open(os.path.join(root, "written"), "xb"):
        pass
    names = [os.path.join(root, name) for name in ("kept", "linked")]
    os.link(*names)
    stable = os.path.samefile(*names)
    os.unlink(names[0])
    return stable


def _incompatible(folder: str, reason: str) -> "errors.IncompatibleFilesystem":
    fs_type = filesystems.fs_type(folder)
    advice = "put --root on a local file system (ext4, xfs, btrfs, tmpfs), or use engine=copy"
    return errors.IncompatibleFilesystem(NAME, f"{fs_type}: {reason}", advice)


def _capabilities(engine: type[Engine], found: Capabilities, *, views: bool) -> Capabilities:
    """Add what follows from the technique to what single files can be; a device 0:0 is no content for any engine."""
    common = attrs.evolve(found, char_0_0=False, native_diff=True, copy_on_write=True, apply_ahead=True)
    if engine is OverlayShadow:
        return attrs.evolve(common, readonly_views=True, max_depth=MAX_DEPTH)
    if engine is KernelAufs:
        name_max = min(found.name_max, native.NAME_MAX)
        return attrs.evolve(common, readonly_views=True, max_depth=native.MAX_DEPTH, name_max=name_max)
    return attrs.evolve(
        common, mount_free=True, readonly_views=views, rename_directories=True, hard_links_across_layers=True
    )


def _described(engine: type[Engine], settings: Settings, found: Capabilities) -> str:
    if engine is OverlayShadow:
        api = "new mount API" if probe.has_lowerdir_append() else "mount(2)"
        marks = "user" if settings.user_xattrs else "trusted"
        return f"kernel overlayfs over shadow branches, {api}, {marks} xattrs"
    if engine is KernelAufs:
        return "kernel aufs"
    return f"{'shared blocks (FICLONE)' if found.reflink else 'copied blocks'}, no mount"


def _notes(
    engine: type[Engine], refused: "list[tuple[str, errors.DriverUnavailable]]", can: Capabilities
) -> tuple[str, ...]:
    notes = [f"engine {name} is not used: {error.reason}" for name, error in refused]
    if engine is Copy:
        notes.append("mounting a layer copies its merged tree; settling it after the last use folds the changes back")
    else:
        notes.append("hard links between files of a parent are broken when one of them is written to")
        notes.append("renaming a directory that a parent has is refused with EXDEV, tools copy it")
    if not can.readonly_views:
        notes.append("views can be written to: a read-only mount needs root")
    notes.extend(abilities.notes_on_owners(can))
    return tuple(notes)
