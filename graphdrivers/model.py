"""Frozen values that pass between the rooms of the library, and the checks on names.

Names inside layers are ``str`` with ``surrogateescape`` (so any byte survives);
they become bytes below, in ``graphdrivers.archive`` and ``graphdrivers.linux``.
Sizes are bytes, times are nanoseconds since the epoch, modes are permission bits.
"""

import enum
import os
import re
from collections.abc import Callable
from typing import NewType

import attrs

from graphdrivers import errors

DiffID = NewType("DiffID", str)
"""Digest of a layer's uncompressed tar, ``sha256:`` and 64 hex digits."""

ChainID = NewType("ChainID", str)
"""Digest of a whole stack (OCI image-spec, ``config.md``, heading *Layer ChainID*)."""

Digest = NewType("Digest", str)
"""Digest of bytes as they are served or stored."""

Progress = Callable[[int], None]
"""Called with the bytes consumed or produced so far; raise from it to cancel."""

NAME_MAX = 200
"""Longest layer name in bytes; leaves room for suffixes below the kernel's 255."""

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}")


def validate_layer_name(name: str) -> str:
    """Return ``name`` if it can be a layer's, both on the way in and when read back from disk.

    Raises:
        InvalidName: empty, ``.``, ``..``, with ``/`` or NUL, or over 200 bytes.
    """
    if not isinstance(name, str) or not name:
        raise errors.InvalidName(str(name), "it is empty")
    if name in {".", ".."}:
        raise errors.InvalidName(name, "it means a directory")
    if "/" in name or "\0" in name:
        raise errors.InvalidName(name, "it contains '/' or NUL")
    try:
        length = len(os.fsencode(name))
    except UnicodeEncodeError:
        raise errors.InvalidName(name, "it cannot be encoded as a file name") from None
    if length > NAME_MAX:
        raise errors.InvalidName(name, f"it has {length} bytes")
    return name


def validate_digest(digest: str) -> Digest:
    """Return ``digest`` if it is a well-formed sha256 or sha512 digest.

    Raises:
        InvalidName: anything else; nothing else may become part of a path.
    """
    if not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
        raise errors.InvalidName(str(digest), "it is not a sha256 or sha512 digest")
    return Digest(digest)


class ChangeKind(enum.StrEnum):
    """What happened to a path between a layer's parent and the layer."""

    ADDED = "added"
    MODIFIED = "modified"
    DELETED = "deleted"

    @property
    def letter(self) -> str:
        """Docker's letter for it: ``A``, ``C`` or ``D``."""
        return {"added": "A", "modified": "C", "deleted": "D"}[self.value]


@attrs.frozen
class Change:
    """One changed path, absolute inside the layer (``/etc/motd``)."""

    path: str
    kind: ChangeKind


class Profile(enum.StrEnum):
    """How much of a tree a produced diff carries."""

    OCI = "oci"
    """What Docker would make: whole-second times, of the xattrs only ``security.capability``, no holes."""

    FULL = "full"
    """Everything: nanosecond times, all xattrs including POSIX ACLs, holes (PAX 1.0 sparse)."""


@attrs.frozen
class Mount:
    """One mount to perform, as a value; ``graphdrivers.linux.mounts`` acts on it.

    A plan with one writable ``bind`` needs no mount at all: its ``source`` is the tree.
    """

    type: str
    """A kernel file-system type, or ``bind``, or ``fuse.PROGRAM`` (see ``graphdrivers.linux.fuse_mount``)."""

    source: str
    """What is mounted: a directory, a device, or a label for file systems without a source."""

    options: tuple[tuple[str, str | None], ...] = ()
    """Key and value in the order they are set (``lowerdir+`` repeats, nearest parent first); ``None`` for flags."""

    readonly: bool = False

    target: str = ""
    """Where below the mount target; empty for the target itself."""


@attrs.frozen
class LayerRecord:
    """One layer as it is recorded on disk."""

    name: str
    parent: str | None
    sealed: bool


@attrs.frozen
class LayerSpec:
    """What a new layer is asked to be, beyond its name and parent."""

    size: int | None = None
    """Upper limit of the layer's own content in bytes; needs the ``quota`` capability.

    Counted is what the layer takes on disk beyond its parents, the file system's own blocks for directories and
    whatever an unfinished change needs included; the limit is rounded up as the file system does. Who passes it
    gets ``EDQUOT`` or ``ENOSPC``. It is neither changed by sealing nor handed on to children.
    """


@attrs.frozen
class Usage:
    """What one layer holds by itself, parents not included; each inode counted once."""

    bytes: int
    """Sum of the apparent sizes of the regular files."""

    inodes: int
    """Files, directories and everything else, the layer's root and whiteouts not counted."""

    disk: int
    """Bytes allocated on disk (512-byte blocks times 512)."""


@attrs.frozen
class Applied:
    """What applying one tar did."""

    diff_id: DiffID
    size: int
    """Sum of the sizes of the regular files written."""

    entries: int
    """Members read, whiteouts included."""

    notes: tuple[str, ...] = ()
    """What could not be kept exactly (owners for an unprivileged user), one line per kind, with counts."""


@attrs.frozen(kw_only=True)
class Limits:
    """What an archive may ask for; each can be raised. Reaching one is ``LimitExceeded``."""

    header_chain: int = 1 << 20
    """Bytes of extension headers (PAX, GNU long names) in front of one member."""

    path: int = 16 << 10
    """Bytes in one path or link target, and in the path that symbolic links lead to."""

    xattrs: int = 1 << 20
    """Bytes of extended attributes of one member."""

    sparse_entries: int = 1 << 17
    """Data regions in one sparse map; a million would need more memory than everything else together."""

    window_log: int = 27
    """Base-2 logarithm of the largest zstd window (27 is 128 MiB)."""

    members: int = 50_000_000
    """Members of one layer, and as many directories besides that no member names."""

    size: int | None = None
    """Bytes of regular files in one layer, holes counted; ``None`` is the free space of the target."""

    ratio: int = 2000
    """Uncompressed bytes per compressed byte, checked from 64 MiB of output on."""


@attrs.frozen(kw_only=True)
class Capabilities:
    """What a driver can do here, found out by its probe. Default: it cannot.

    The same field gates what higher tools ask of the driver and what the
    conformance suite checks: a claimed one must hold, an unclaimed one must be
    refused with ``NotSupported``.
    """

    mount_free: bool = False
    """``mounts`` of a writable layer is one plain directory: no mount, no privilege."""

    ownership: bool = False
    """Files have their owners; else all belong to the caller, and ``Applied.notes`` says how many should not."""

    recorded_owners: bool = False
    """Owners that this process cannot set are recorded beside the file (an xattr) and given back by ``diff`` and
    ``changes``; the mounted tree shows the caller's."""

    devices: bool = False
    """Device nodes can be stored."""

    char_0_0: bool = False
    """A character device 0:0 can be stored as content."""

    user_xattrs: bool = False
    trusted_xattrs: bool = False
    security_xattrs: bool = False
    posix_acls: bool = False

    readonly_views: bool = False
    """A write through ``mounts(view=True)`` fails with ``EROFS``."""

    rename_directories: bool = False
    """``rename(2)`` of a directory with content in a parent works; else it is ``EXDEV``."""

    hard_links_across_layers: bool = False
    """Writing to one name of a parent's hard-linked file changes its other names too."""

    stable_inodes: bool = False
    """In one mount a file keeps its inode number when it is written to, and all its names have the same one."""

    native_diff: bool = False
    """``diff`` and ``changes`` cost O(changes), not O(image)."""

    copy_on_write: bool = False
    """Creating a child costs O(1), not O(parent)."""

    fork_live: bool = False
    """The present state of a writable layer can be branched while it is mounted; see `driver.Snapshots`."""

    apply_ahead: bool = False
    """Layers of one stack can be filled at the same time; see `driver.AppliesAhead`."""

    quota: bool = False
    """``LayerSpec.size`` is enforced."""

    reflink: bool = False
    """File contents are shared on disk where they are copied."""

    max_depth: int | None = None
    """Layers in one stack, the writable one included; ``None`` for no limit."""

    name_max: int = 255
    """Longest file name in bytes inside a mounted layer."""

    time_resolution: int = 1
    """Granularity of modification times in ns."""


@attrs.frozen
class Deviation:
    """One check of the conformance suite that a driver is known to fail, and where that is explained.

    The suite expects the failure; it fails where the check passes after all, unless that is a matter of `sometimes`.

    Raises:
        InvalidDeviation: there is no reason or no link, or the check is no ``FILE::FUNCTION``.
    """

    check: str
    """``FILE::FUNCTION``, or one of several with its ``[PARAMETERS]``; ``*`` and ``?`` match as in the shell."""

    reason: str
    """In one line, for people."""

    link: str
    """Address of the page that says more: the bug, the commit, the manual."""

    sometimes: bool = False
    """It depends on who is faster, a thread or another: the check may pass as well."""

    def __attrs_post_init__(self) -> None:
        """Refuse what nobody could follow up."""
        if not all(self.check.partition("::")):
            raise errors.InvalidDeviation(self.check, "a check is FILE::FUNCTION")
        if not self.reason.strip():
            raise errors.InvalidDeviation(self.check, "it gives no reason")
        if not all(part.strip() for part in self.link.partition("://")):
            raise errors.InvalidDeviation(self.check, f"it gives no link but {self.link!r}")


@attrs.frozen
class Support:
    """The result of a successful probe."""

    capabilities: Capabilities
    engine: str
    """The technique in use, for people (``kernel overlayfs, new mount API, trusted xattrs``)."""

    notes: tuple[str, ...] = ()
    """What a person should know: what is slower or missing here, and why."""

    deviations: tuple[Deviation, ...] = ()
    """Checks of the conformance suite that are known to fail with this engine."""
