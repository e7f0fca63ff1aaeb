"""What can be chosen, and what a home remembers of it in ``driver.json``."""

import os
import re
import secrets
import stat
from collections.abc import Mapping

import attrs

from graphdrivers import errors
from graphdrivers.kit import layerdirs

NAME = "devicemapper"

LOUD = (
    "the thin pool lies in files of the home, on loop devices: for trying out only. It is slow, and fails when the "
    "disk below it fills up; give it devices of its own with data= and metadata="
)

FILE_SYSTEMS = ("ext4", "xfs")

_SIZE = re.compile(r"([1-9][0-9]{0,15})([KMGT]?)")
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_SMALLEST = {"ext4": 64 << 20, "xfs": 320 << 20}
"""Bytes of the smallest device that the file system is of use on; xfs makes none below 300 MiB."""
_SMALLEST_DATA = 64 << 20
_METADATA = range(4 << 20, (16 << 30) + 1)
"""Sizes in bytes of the metadata; the kernel uses no more than 16 GiB less a little."""
_LASTING = ("fs", "size", "data", "metadata")
_KNOWN = (*_LASTING, "data_size", "metadata_size", "min_free_data", "min_free_metadata")


@attrs.frozen(kw_only=True)
class Settings:
    """How a home works."""

    identity: str
    """In the names of the home's devices: 16 hex digits, drawn when the home was made."""

    fs: str = "ext4"
    size: int = 10 << 30
    """Bytes of each layer's device, of which only what is written takes room."""

    data: str = ""
    metadata: str = ""
    """Block devices of the pool; empty for files in the home, on loop devices."""

    data_size: int | None = None
    metadata_size: int | None = None
    """Bytes of these files when they are made; ``None`` for what fits."""

    min_free_data: int = 10
    min_free_metadata: int = 10
    """Per cent of the pool that has to be free for a layer to be made or unpacked."""

    @property
    def on_files(self) -> bool:
        """Say whether the pool lies in files of the home."""
        return not self.data

    def lasting(self) -> dict[str, str]:
        """Give what ``driver.json`` says."""
        found = {"identity": self.identity, "fs": self.fs, "size": str(self.size)}
        if not self.on_files:
            found |= {"data": self.data, "metadata": self.metadata}
        return found


def settings_for(home: str, options: Mapping[str, str]) -> Settings:
    """Read options, and what the home was made with, if it is.

    Raises:
        InvalidOption: an unknown key, an impossible value, or another one than the home was made with.
        PriorDriverState, StoreVersion, StoreCorrupt: see `layerdirs.recorded_options`.
    """
    for key in options:
        if key not in _KNOWN:
            raise errors.InvalidOption(NAME, key, f"it is unknown; there are {', '.join(_KNOWN)}")
    recorded = layerdirs.recorded_options(home, NAME)
    chosen = _read({key: value for key, value in options.items() if value}, secrets.token_hex(8))
    if recorded is None:
        return chosen
    kept = _read({key: recorded[key] for key in _LASTING if key in recorded}, recorded.get("identity", ""))
    if not re.fullmatch("[0-9a-f]{16}", kept.identity):
        raise errors.StoreCorrupt(home, "driver.json has no identity")
    for key in _LASTING:
        if options.get(key) and getattr(chosen, key) != getattr(kept, key):
            was = getattr(kept, key) or "files in the home"
            raise errors.InvalidOption(NAME, key, f"the home was made with {was}, which cannot be changed")
    lasting = {key: getattr(kept, key) for key in (*_LASTING, "identity")}
    return attrs.evolve(chosen, **lasting)


def _read(options: Mapping[str, str], identity: str) -> Settings:
    fs = options.get("fs", "ext4")
    if fs not in FILE_SYSTEMS:
        raise errors.InvalidOption(NAME, "fs", f"{fs!r} is neither ext4 nor xfs")
    if ("data" in options) != ("metadata" in options):
        raise errors.InvalidOption(NAME, "data", "data and metadata are given together, or neither")
    for key in ("data", "metadata"):
        if not options.get(key, "/").startswith("/"):
            raise errors.InvalidOption(NAME, key, f"{options[key]!r} is no absolute path of a block device")
    if "data" in options and options["data"] == options["metadata"]:
        raise errors.InvalidOption(NAME, "metadata", "it is the same device as data")
    size = _bytes("size", options.get("size", "10G"), _SMALLEST[fs], 1 << 50)
    return Settings(
        identity=identity,
        fs=fs,
        size=size,
        data=options.get("data", ""),
        metadata=options.get("metadata", ""),
        data_size=_bytes("data_size", options["data_size"], _SMALLEST_DATA, 1 << 50)
        if "data_size" in options
        else None,
        metadata_size=_bytes("metadata_size", options["metadata_size"], _METADATA.start, _METADATA.stop - 1)
        if "metadata_size" in options
        else None,
        min_free_data=_percent("min_free_data", options.get("min_free_data", "10")),
        min_free_metadata=_percent("min_free_metadata", options.get("min_free_metadata", "10")),
    )


def refuse_no_device(settings: Settings) -> None:
    """Check that given devices are there.

    Raises:
        PrerequisiteMissing: one is not, or is no block device.
    """
    for path in (settings.data, settings.metadata) if not settings.on_files else ():
        try:
            mode = os.stat(path).st_mode
        except OSError as error:
            reason = f"{path} cannot be found: {error.strerror}"
            raise errors.PrerequisiteMissing(NAME, reason, "make the device available (LVM, a disk)") from error
        if not stat.S_ISBLK(mode):
            raise errors.PrerequisiteMissing(NAME, f"{path} is no block device", "give a disk, partition or volume")


def _bytes(key: str, text: str, least: int, most: int) -> int:
    found = _SIZE.fullmatch(text)
    if not found:
        raise errors.InvalidOption(NAME, key, f"{text!r} is no size such as 512M or 10G")
    size = int(found[1]) * _UNITS[found[2]] >> 20 << 20
    if not least <= size <= most:
        raise errors.InvalidOption(NAME, key, f"{text} is not between {least >> 20}M and {most >> 20}M")
    return size


def _percent(key: str, text: str) -> int:
    if not text.isdecimal() or int(text) > 90:
        raise errors.InvalidOption(NAME, key, f"{text!r} is no whole number of per cent from 0 to 90")
    return int(text)
