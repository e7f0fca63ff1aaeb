"""The overlay driver's options, and the mount options that follow from them.

``redirect_dir`` and ``metacopy`` change what is written into the layers, so
they are fixed when a home is made and recorded in its ``driver.json``.
"""

from collections.abc import Mapping

import attrs

from graphdrivers import errors

NAME = "overlay"

_KNOWN = ("redirect_dir", "metacopy")

_SWITCH = {"on": True, "off": False}


@attrs.frozen(kw_only=True)
class Settings:
    """How the overlays of one home are mounted."""

    redirect_dir: bool = False
    """A directory of a lower layer can be renamed; else ``rename(2)`` is ``EXDEV`` and tools copy."""

    metacopy: bool = False
    """A change of attributes alone copies no contents up; needs ``redirect_dir``."""

    user_xattrs: bool = False
    """Private marks are ``user.overlay.*``, as in a user namespace; else ``trusted.overlay.*``."""

    def lasting(self) -> dict[str, str]:
        """Give what ``driver.json`` records."""
        return {"redirect_dir": _word(on=self.redirect_dir), "metacopy": _word(on=self.metacopy)}

    def mount_options(self) -> tuple[tuple[str, str | None], ...]:
        """Give the options behind the directories, each set explicitly: module parameters change the defaults.

        The index is off because it needs layers that never move and leaves its
        data in the work directory. Inode numbers stay those of the layers.

        Source: kernel, Documentation/filesystems/overlayfs.rst (*User xattr*:
        ``redirect_dir`` and ``metacopy`` are refused beside ``userxattr``).
        """
        if self.user_xattrs:
            return (("userxattr", None), ("index", "off"), ("xino", "off"))
        return (
            ("index", "off"),
            ("metacopy", _word(on=self.metacopy)),
            ("redirect_dir", "on" if self.redirect_dir else "nofollow"),
            ("xino", "off"),
        )


def parse(options: Mapping[str, str], recorded: Mapping[str, str] | None) -> Settings:
    """Read the options of a person, completed by those that the home was made with.

    Raises:
        InvalidOption: unknown, impossible, or not what the home was made with.
    """
    for key in options:
        if key not in _KNOWN:
            raise errors.InvalidOption(NAME, key, f"it is unknown; known are {', '.join(_KNOWN)}")
        if options[key] not in _SWITCH:
            raise errors.InvalidOption(NAME, key, f"it is on or off, not {options[key]!r}")
    for key, value in (recorded or {}).items():
        if options.get(key, value) != value:
            raise errors.InvalidOption(NAME, key, f"this home was made with {value!r}, which cannot change")
    wanted = {**(recorded or {}), **options}
    metacopy = _SWITCH.get(wanted.get("metacopy", ""), False)
    # The kernel refuses metacopy without redirects: a moved file could not find its contents.
    redirect_dir = _SWITCH.get(wanted.get("redirect_dir", ""), metacopy)
    if metacopy and not redirect_dir:
        raise errors.InvalidOption(NAME, "metacopy", "it needs redirect_dir=on")
    return Settings(redirect_dir=redirect_dir, metacopy=metacopy)


def _word(*, on: bool) -> str:
    return "on" if on else "off"
