"""The driver's options, and the mount options that follow from them."""

import os
from collections.abc import Mapping

import attrs

from graphdrivers import errors
from graphdrivers.linux import namespaces

NAME = "fuse-overlayfs"

TYPE = f"fuse.{NAME}"
"""Of the mounts."""

_WRITEBACK = "writeback"
"""Its own default is on: then ``write(2)`` succeeds on a full disk, and what was written is lost later."""

_SWITCHES = ("static_nlink", "volatile", _WRITEBACK)
"""Options of fuse-overlayfs itself, each on or off, off by default. Source: fuse-overlayfs(1)."""

_UNSAFE = {
    "noacl": "ACLs would be stored, and bind nobody",
    "timeout": "other times than its own make fuse-overlayfs ignore whiteouts and follow links of parents",
    **dict.fromkeys(
        ("squash_to_root", "squash_to_uid", "squash_to_gid", "uidmapping", "gidmapping", "xattr_permissions"),
        "a mount would show other owners than the layer has",
    ),
}


@attrs.frozen(kw_only=True)
class Settings:
    """How the mounts of one home are made; nothing of it lasts beyond a mount."""

    program: str = ""
    """Path of fuse-overlayfs; empty for the one that is installed."""

    switches: tuple[str, ...] = ()
    """Options that are on."""

    user_xattrs: bool = False
    """Opaque directories are marked as in a user namespace."""

    def mount_options(self) -> tuple[tuple[str, str | None], ...]:
        """Give the options behind the directories.

        Permissions are checked by the kernel, for every user, as fuse-overlayfs has it where it mounts itself.
        """
        chosen = (("program", self.program),) if self.program else ()
        switches = tuple((one, None) for one in self.switches if one != _WRITEBACK)
        writeback = (_WRITEBACK, "1" if _WRITEBACK in self.switches else "0")
        return (*chosen, ("default_permissions", None), ("allow_other", None), writeback, *switches)


def parse(options: Mapping[str, str]) -> Settings:
    """Read the options of a person, for this process.

    Raises:
        InvalidOption: unknown or impossible.
    """
    known = ("program", *_SWITCHES)
    for key, value in options.items():
        if key not in known:
            raise errors.InvalidOption(NAME, key, _UNSAFE.get(key, f"it is unknown; known are {', '.join(known)}"))
        if key in _SWITCHES and value not in {"on", "off"}:
            raise errors.InvalidOption(NAME, key, f"it is on or off, not {value!r}")
        if key == "program" and not os.path.isabs(value):
            raise errors.InvalidOption(NAME, key, f"it is an absolute path, not {value!r}")
    return Settings(
        program=options.get("program", ""),
        switches=tuple(key for key in _SWITCHES if options.get(key) == "on"),
        user_xattrs=not namespaces.in_initial_user_namespace(),
    )
