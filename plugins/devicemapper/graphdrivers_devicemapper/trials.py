"""What is looked at and tried before the driver is used."""

import contextlib
import errno
import os
from collections.abc import Mapping

import attrs

from graphdrivers import errors
from graphdrivers.kit import abilities, layerdirs, remembering
from graphdrivers.linux import namespaces, probe
from graphdrivers.model import Capabilities, Support
from graphdrivers_devicemapper import dm, filesystems, loop, sizes
from graphdrivers_devicemapper import settings as choices
from graphdrivers_devicemapper.settings import LOUD, NAME, Settings

_LOOP_ROOM = 256 << 20
"""Bytes that must be free where the files of a pool are to be made."""
_TRIAL = {"ext4": 64 << 20, "xfs": 320 << 20}
"""Bytes of the file that a file system is tried in; next to nothing of it is written."""
_ABSENT = frozenset({errno.ENOENT, errno.ENODEV, errno.ENXIO})
_CONFIGURE = "modprobe dm_thin_pool; a kernel without it needs CONFIG_BLK_DEV_DM and CONFIG_DM_THIN_PROVISIONING"


def probed(home: str, options: Mapping[str, str]) -> Support:
    """Find out whether the driver works; see `driver.Driver.probe`.

    Each time it is asked whether there is a device mapper and what it can map;
    what files can be is tried on a file system of its own where this is not
    known for the home yet, under the same kernel and for the same user.
    """
    settings = choices.settings_for(home, options)
    version = _device_mapper()
    choices.refuse_no_device(settings)
    known = remembering.known(home, circumstances(settings))
    capabilities = known.capabilities if known is not None else _found_out(home, settings)
    where = "files on loop devices" if settings.on_files else f"{settings.data} and {settings.metadata}"
    return Support(capabilities, f"thin devices ({version}) with {settings.fs}, pool on {where}", _notes(settings))


def circumstances(settings: Settings) -> dict[str, str]:
    """Give what decides, besides the kernel and the user, what files can be."""
    return {"fs": settings.fs}


def _found_out(home: str, settings: Settings) -> Capabilities:
    """Try what files can be, on a file system of its own."""
    if not probe.has_new_mount_api():
        raise errors.NotSupported(NAME, "this kernel has no new mount API (fsopen)", "use Linux 5.12 or later")
    filesystems.program(settings.fs)
    if settings.on_files and layerdirs.recorded_options(home, NAME) is None:
        _refuse_little_room(home)
    with abilities.scratch(NAME, home) as folder:
        found = _tried(settings.fs, folder)
    return attrs.evolve(
        found,
        readonly_views=True,
        rename_directories=True,
        hard_links_across_layers=True,
        stable_inodes=True,
        copy_on_write=True,
        fork_live=True,
    )


def _notes(settings: Settings) -> tuple[str, ...]:
    notes = [f"each layer's file system has {settings.size >> 20} MiB, its parents' content included (option size)"]
    return (LOUD, *notes) if settings.on_files else tuple(notes)


def _device_mapper() -> str:
    """Give the version of the thin target, after checking that everything is there.

    Raises:
        NotSupported: the kernel has no device mapper, or no thin pools.
        PrerequisiteMissing: it is not for this process.
    """
    if not namespaces.in_initial_user_namespace() or not namespaces.has_capability("CAP_SYS_ADMIN"):
        reason = "the device mapper serves root outside of user namespaces only"
        absent = "" if _is_there() else "; and this kernel has none"
        raise errors.PrerequisiteMissing(NAME, reason + absent, "run as root" if not absent else _CONFIGURE)
    try:
        dm.version()
        versions = [dm.target_version(target) for target in ("thin-pool", "thin")]
    except OSError as error:
        if error.errno in _ABSENT:
            if _is_there():
                fix = f"mknod {dm.CONTROL} c 10 $(awk '/device-mapper/ {{print $1}}' /proc/misc)"
                raise errors.PrerequisiteMissing(NAME, f"{dm.CONTROL} is missing here", fix) from error
            raise errors.NotSupported(NAME, "the kernel has no device mapper", _CONFIGURE) from error
        if error.errno in {errno.EPERM, errno.EACCES}:
            reason = f"the device mapper is not for this process ({error})"
            raise errors.PrerequisiteMissing(NAME, reason, "run as root, with access to devices") from error
        raise
    if None in versions:
        raise errors.NotSupported(NAME, "the kernel's device mapper has no thin pools", _CONFIGURE)
    return "thin-pool " + ".".join(map(str, versions[0] or ()))


def _is_there() -> bool:
    """Say whether this kernel has a device mapper, reachable or not."""
    with contextlib.suppress(OSError), open("/proc/misc", encoding="ascii") as table:
        return any(line.split()[1:] == ["device-mapper"] for line in table)
    return False


def _refuse_little_room(home: str) -> None:
    above = home if os.path.isdir(home) else os.path.dirname(home)
    found = os.statvfs(above)
    free = found.f_bavail * found.f_frsize
    if free < _LOOP_ROOM:
        reason = f"{free >> 20} MiB are free in {above!r}, too little for a thin pool in files"
        fix = f"give it {_LOOP_ROOM >> 20} MiB, or devices with data= and metadata="
        raise errors.IncompatibleFilesystem(NAME, reason, fix)


def _tried(fs: str, folder: str) -> Capabilities:
    """Make a file system in a file and find out what files on it can be.

    Raises:
        PrerequisiteMissing: there are no loop devices.
        NotSupported: the kernel cannot mount it.
    """
    image = os.path.join(folder, "image")
    with open(image, "xb") as file:
        file.truncate(_TRIAL[fs])
    with contextlib.ExitStack() as stack:
        try:
            device = stack.enter_context(loop.attached(image))
        except OSError as error:
            reason = f"there are no loop devices, which the file system is tried on ({error})"
            raise errors.PrerequisiteMissing(NAME, reason, "modprobe loop") from error
        node = os.readlink(f"/proc/self/fd/{device}")
        try:
            filesystems.make(fs, node)
            root = stack.enter_context(filesystems.mounted(filesystems.plan(fs, node)))
        except OSError as error:
            if error.errno not in {errno.ENODEV, errno.EINVAL}:
                raise
            what = "xfs with project quotas" if fs == "xfs" else fs
            raise errors.NotSupported(
                NAME, f"the kernel has no {what}", f"modprobe {fs}, or choose another fs="
            ) from error
        held = fs == "xfs" and sizes.are_enforced(root)
        return attrs.evolve(abilities.tried(f"/proc/self/fd/{root}"), quota=held)
