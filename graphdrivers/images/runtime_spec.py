"""The runtime configuration of a container: its image's settings, what was asked for, and defaults for the rest.

The defaults are those of Docker where it has some: what images are written
for. A seccomp or AppArmor profile is not among them.

Source: OCI runtime-spec 1.0.2 ``config.md`` and ``config-linux.md``.
"""

from typing import Any

import attrs

from graphdrivers import errors
from graphdrivers.images.accounts import Account, read_account
from graphdrivers.images.conversion import Settings, places_for_volumes, read_settings
from graphdrivers.images.manifests import ImageConfig
from graphdrivers.images.run_options import IdMapping, Network, RunMount, RunOptions, maps

VERSION = "1.0.2"
"""Of the runtime specification; everything here is in it, and runtimes of later ones take it."""

PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

CAPABILITIES = (
    "CAP_AUDIT_WRITE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_MKNOD",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_RAW",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
)
"""What root in a container may do: Docker's list."""

MASKED = (
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
)
"""Paths that show or change the host; those that a kernel does not have are passed over."""

READONLY = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")

_SAFE = ("nosuid", "noexec", "nodev")
_TTY_GROUP = 5
_DEVPTS = ("nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620")
_VOLUME = ("nosuid", "nodev", "mode=0755")

Json = dict[str, Any]


@attrs.frozen(eq=False)
class RuntimeSpec:
    """A runtime configuration, ready to be written."""

    fields: Json
    """The document; its ``root.path`` is ``rootfs``, beside it."""
    withheld: tuple[str, ...]
    """Labels of the image that are no annotations here, because runtimes would obey them; worth telling people."""


def runtime_spec(config: ImageConfig, root: int, options: RunOptions, source: str) -> RuntimeSpec:
    """Make the runtime configuration of a container.

    Args:
        config: of its image.
        root: descriptor of the root directory of the container's merged tree, whose users and groups count.
        options: what was asked for.
        source: the image, for messages.

    Raises:
        InvalidManifest: the image's configuration, or its ``/etc/passwd`` or ``/etc/group``, cannot be used.
        UserNotFound: the image has no such user or group.
        InvalidRunOption: there is no command to run, or the user does not exist in the user namespace.
        OSError: the tree could not be read.
    """
    settings = read_settings(config, source)
    account = read_account(root, settings.user if options.user is None else options.user, source)
    fields = {
        "ociVersion": VERSION,
        "process": _process(settings, account, options),
        "root": {"path": "rootfs", "readonly": options.readonly},
        "hostname": options.hostname,
        "mounts": [_mount(mount) for mount in _mounts(settings, options, source)],
        "annotations": dict(sorted(settings.annotations.items())),
        "linux": _linux(options),
    }
    return RuntimeSpec(fields, settings.withheld)


def _process(settings: Settings, account: Account, options: RunOptions) -> Json:
    return {
        "terminal": options.terminal,
        "user": _user(account, options),
        "args": _args(settings, options),
        "env": _env(settings, account, options),
        "cwd": settings.cwd if options.cwd is None else options.cwd,
        "capabilities": _capabilities(account),
        "noNewPrivileges": options.no_new_privileges,
    }


def _user(account: Account, options: RunOptions) -> Json:
    """Give the user; groups that a user namespace does not have are left out, as they could give nothing there."""
    for kind, number, mappings in (
        ("uid", account.uid, options.uid_mappings),
        ("gid", account.gid, options.gid_mappings),
    ):
        if not maps(mappings, number):
            raise errors.InvalidRunOption("user", f"{kind} {number} does not exist in the user namespace")
    user: Json = {"uid": account.uid, "gid": account.gid}
    additional = [gid for gid in account.additional_gids if maps(options.gid_mappings, gid)]
    if additional:
        user["additionalGids"] = additional
    return user


def _args(settings: Settings, options: RunOptions) -> list[str]:
    """Join entry point and arguments as Docker does: a new entry point makes the image's arguments meaningless."""
    if options.entrypoint is None:
        entrypoint, args = settings.entrypoint, settings.cmd
    else:
        entrypoint, args = options.entrypoint, ()
    command = [*entrypoint, *(args if options.args is None else options.args)]
    if not command or not command[0]:
        raise errors.InvalidRunOption("args", "the image names no command to run: give one")
    return command


def _env(settings: Settings, account: Account, options: RunOptions) -> list[str]:
    """Join environments: defaults only for names that nobody sets, the image's as it is, then what was asked for."""
    asked = {entry.partition("=")[0]: entry for entry in options.env}
    image = [entry for entry in settings.env if entry.partition("=")[0] not in asked]
    defaults = [PATH, f"HOME={account.home}", *(["TERM=xterm"] if options.terminal else [])]
    taken = asked.keys() | {entry.partition("=")[0] for entry in image}
    return [*(entry for entry in defaults if entry.partition("=")[0] not in taken), *image, *asked.values()]


def _capabilities(account: Account) -> Json:
    """Give root Docker's capabilities, and everybody else none until a set-user-ID program gives them.

    The inheritable set is empty: programs with inheritable file capabilities
    would come to them without a cause (CVE-2022-24769).
    """
    own = list(CAPABILITIES) if account.uid == 0 else []
    return {
        "bounding": list(CAPABILITIES),
        "effective": own,
        "permitted": own,
        "inheritable": [],
        "ambient": [],
    }


def _mounts(settings: Settings, options: RunOptions, source: str) -> list[RunMount]:
    """List the standard mounts, volumes, and those asked for."""
    tty = (f"gid={_TTY_GROUP}",) if maps(options.gid_mappings, _TTY_GROUP) else ()
    volumes = places_for_volumes(settings, source) if options.tmpfs_volumes else ()
    return [
        RunMount("/proc", "proc", "proc", _SAFE),
        RunMount("/dev", "tmpfs", "tmpfs", ("nosuid", "strictatime", "mode=755", "size=65536k")),
        RunMount("/dev/pts", "devpts", "devpts", _DEVPTS + tty),
        RunMount("/dev/shm", "shm", "tmpfs", (*_SAFE, "mode=1777", "size=65536k")),  # noqa: S108 - inside
        RunMount("/dev/mqueue", "mqueue", "mqueue", _SAFE),
        _sysfs(options),
        RunMount("/sys/fs/cgroup", "cgroup", "cgroup", (*_SAFE, "relatime", "ro")),
        *(RunMount(path, "tmpfs", "tmpfs", _VOLUME) for path in volumes),
        *options.mounts,
    ]


def _sysfs(options: RunOptions) -> RunMount:
    """Show ``/sys``: a new sysfs is refused to a user namespace without a network of its own, so bind the host's."""
    if options.user_namespace and options.network is Network.HOST:
        return RunMount("/sys", "/sys", "bind", ("rbind", "rslave", *_SAFE, "ro"))
    return RunMount("/sys", "sysfs", "sysfs", (*_SAFE, "ro"))


def _mount(mount: RunMount) -> Json:
    return {
        "destination": mount.destination,
        "type": mount.type,
        "source": mount.source,
        "options": list(mount.options),
    }


def _linux(options: RunOptions) -> Json:
    namespaces = ["pid", "ipc", "uts", "mount", "cgroup"]
    if options.network is Network.NONE:
        namespaces.append("network")
    linux: Json = {
        "namespaces": [{"type": kind} for kind in namespaces],
        "maskedPaths": list(MASKED),
        "readonlyPaths": list(READONLY),
    }
    if options.user_namespace:
        linux["namespaces"].append({"type": "user"})
        linux["uidMappings"] = [_mapping(mapping) for mapping in options.uid_mappings]
        linux["gidMappings"] = [_mapping(mapping) for mapping in options.gid_mappings]
    else:
        # Device nodes that an image brings, or that root inside makes, open nothing; runtimes add the harmless ones.
        linux["resources"] = {"devices": [{"allow": False, "access": "rwm"}]}
    return linux


def _mapping(mapping: IdMapping) -> Json:
    return {"containerID": mapping.container, "hostID": mapping.host, "size": mapping.size}
