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
from graphdrivers.backends import abilities, layerdirs, roots
from graphdrivers.backends.aufs.copied import Copy
from graphdrivers.backends.aufs.engine import Engine, Forms, Plan
from graphdrivers.backends.aufs.home import DIFF, MARKED, AufsDirs
from graphdrivers.backends.aufs.overlaid import MAX_DEPTH, OverlayShadow
from graphdrivers.backends.aufs.phases import Phase
from graphdrivers.backends.layerdirs import LayerFile
from graphdrivers.backends.overlay.support import explained, mounted_unsynced
from graphdrivers.linux import filesystems, mounts, namespaces, probe
from graphdrivers.model import Capabilities, Support

NAME = "aufs"

ENGINES: tuple[type[Engine], ...] = (OverlayShadow, Copy)
"""In the order in which they are tried."""

_AUTO = "auto"
_ENGINE, _MARKS = "engine", "marks"


@attrs.frozen
class Settings:
    """What a home is opened with."""

    engine: str = _AUTO
    user_xattrs: bool = False
    """Overlay's marks are ``user.overlay.*``; decided when a home is made, for content of such names is escaped."""

    def lasting(self) -> dict[str, str]:
        """Give what ``driver.json`` records."""
        return {_MARKS: "user" if self.user_xattrs else "trusted"}


def settings_for(home: str, options: Mapping[str, str]) -> Settings:
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
    recorded = layerdirs.recorded_options(home, NAME)
    if recorded is not None:
        user_xattrs = recorded.get(_MARKS) == "user"
    else:
        privileged = namespaces.in_initial_user_namespace() and namespaces.has_capability("CAP_SYS_ADMIN")
        user_xattrs = not privileged
    return Settings(options.get(_ENGINE, _AUTO), user_xattrs)


def engine_of(support: Support) -> str:
    """Give the name of the engine that a probe chose."""
    return support.engine.partition(" ")[0]


def probed(home: str, options: Mapping[str, str]) -> Support:
    """Try engines in order on the file system of ``home``; see `driver.Driver.probe`."""
    settings = settings_for(home, options)
    wanted = [engine for engine in ENGINES if settings.engine in {_AUTO, engine.name}]
    refused: list[tuple[str, errors.DriverUnavailable]] = []
    with abilities.scratch(NAME, home) as folder:
        files = os.path.join(folder, "files")
        os.mkdir(files)
        found = abilities.tried(files)
        views = abilities.views_are_readonly(files)
        for engine in wanted:
            capabilities = _capabilities(engine, found, views=views)
            try:
                _try(engine, os.path.join(folder, engine.name), settings, capabilities)
            except errors.DriverUnavailable as error:
                refused.append((engine.name, error))
                continue
            return Support(capabilities, _described(engine, settings, found), _notes(engine, refused))
    raise refused[-1][1]


def facts(support: Support, engine: str) -> dict[str, str]:
    """Give the engine in use, and why each preferred one is not."""
    refused = [note for note in support.notes if note.startswith("engine ")]
    return {"engine": engine, **{f"refused{number}": note for number, note in enumerate(refused)}}


def _try(engine: type[Engine], home: str, settings: Settings, capabilities: Capabilities) -> None:
    """Let an engine live through the toy stack.

    Raises:
        NotSupported, PrerequisiteMissing, IncompatibleFilesystem: it does not work here.
    """
    if engine is OverlayShadow and not namespaces.has_capability("CAP_SYS_ADMIN"):
        reason = "mounting needs root, or root in a user namespace of its own"
        fix = "run as root, or under 'unshare --user --map-root-user --mount'; or use engine=copy"
        raise errors.PrerequisiteMissing(NAME, reason, fix)
    os.mkdir(home, 0o700)
    dirs = AufsDirs(home, NAME, settings.lasting(), lasting=False)
    worker = engine(dirs, Forms.of(user_xattrs=settings.user_xattrs), capabilities)
    _make_toy(dirs, worker)
    try:
        with _opened(worker.writable("top", ("middle", "bottom"))) as merged:
            _use(f"/proc/self/fd/{merged}", home)
        phase = dirs.phase("top")
        if phase is not None:
            worker.to_rest("top", ("middle", "bottom"), phase)
    except OSError as error:
        if not isinstance(error, errors.SyscallError):  # no mount that the kernel refused
            raise _incompatible(home, f"layers cannot be written in the form of the engine ({error})") from error
        raise explained(NAME, error, home) from error
    left = sorted(os.listdir(dirs.diff("top")))
    if left != [".wh.kept", "written"]:
        raise _incompatible(home, f"deletions in a mount leave no whiteouts (left: {left})")


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


def _use(root: str, home: str) -> None:
    """Compare what shows with what must show, and write to it."""
    shown = {name: sorted(os.listdir(os.path.join(root, name))) for name in ("", "hidden")}
    if shown != {"": ["hidden", "kept"], "hidden": ["new"]}:
        raise _incompatible(home, f"whiteouts have no effect (seen: {shown})")
    with open(os.path.join(root, "written"), "xb"):
        pass
    os.unlink(os.path.join(root, "kept"))


def _incompatible(folder: str, reason: str) -> errors.IncompatibleFilesystem:
    fs_type = filesystems.fs_type(folder)
    advice = "put --root on a local file system (ext4, xfs, btrfs, tmpfs), or use engine=copy"
    return errors.IncompatibleFilesystem(NAME, f"{fs_type}: {reason}", advice)


def _capabilities(engine: type[Engine], found: Capabilities, *, views: bool) -> Capabilities:
    """Add what follows from the technique to what single files can be; a device 0:0 is no content for any engine."""
    common = attrs.evolve(found, char_0_0=False, native_diff=True, copy_on_write=True)
    if engine is OverlayShadow:
        return attrs.evolve(common, readonly_views=True, max_depth=MAX_DEPTH)
    return attrs.evolve(
        common, mount_free=True, readonly_views=views, rename_directories=True, hard_links_across_layers=True
    )


def _described(engine: type[Engine], settings: Settings, found: Capabilities) -> str:
    if engine is OverlayShadow:
        api = "new mount API" if probe.has_new_mount_api() else "mount(2)"
        marks = "user" if settings.user_xattrs else "trusted"
        return f"{engine.name} (kernel overlayfs over shadow branches, {api}, {marks} xattrs)"
    return f"{engine.name} ({'shared blocks (FICLONE)' if found.reflink else 'copied blocks'}, no mount)"


def _notes(engine: type[Engine], refused: list[tuple[str, errors.DriverUnavailable]]) -> tuple[str, ...]:
    notes = [f"engine {name} is not used: {error.reason}" for name, error in refused]
    if engine is OverlayShadow:
        notes.append("hard links between files of a parent are broken when one of them is written to")
        notes.append("renaming a directory that a parent has is refused with EXDEV, tools copy it")
    else:
        notes.append("mounting a layer copies its merged tree; settling it after the last use folds the changes back")
    return tuple(notes)
