"""Every error this library raises on purpose, in one tree.

Catch ``GraphDriverError`` for everything but failed system calls; those are
``SyscallError`` (an ``OSError``, errno kept) or a plain ``OSError``::

    GraphDriverError
    ├── DriverUnavailable
    │   ├── NotSupported             the kernel or this driver cannot do it
    │   ├── PrerequisiteMissing      a program, module or permission is absent
    │   └── IncompatibleFilesystem   the backing file system lacks a feature
    ├── DriverNotFound               no such driver, or its package fails to import
    ├── DriverConflict               two distributions offer the same name
    ├── PriorDriverState             the home holds another driver's (or two drivers') layers
    ├── InvalidName, InvalidOption, InvalidDeviation, InvalidRunOption
    ├── LayerError
    │   └── LayerNotFound, LayerExists, LayerInUse, LayerSealed, LayerNotSealed,
    │       LayerHasChildren, ChainTooDeep, ReservedNameError
    ├── ArchiveError
    │   ├── MalformedArchive         not a tar, truncated, or a lying field
    │   ├── UnsafePath               a name that climbs out of the layer
    │   ├── UnsupportedEntry         legal, but this target cannot hold it
    │   ├── LimitExceeded
    │   └── FileChanged              written to while a diff read it
    ├── DigestMismatch
    ├── StoreError
    │   └── LockTimeout, StoreCorrupt, StoreVersion
    └── ImageError
        └── InvalidReference, InvalidManifest, BlobNotFound, RegistryError, UserNotFound
    OSError
    └── SyscallError                 raised only by ``graphdrivers.linux``

Only the three below ``DriverUnavailable`` let automatic selection go on to the
next driver. Each class has a ``template`` (what happened), a ``remedy`` (what
to do), an ``exit_code`` for command lines, and typed fields; each pickles.
"""

import os
from typing import ClassVar

import attrs


@attrs.define(eq=False)
class GraphDriverError(Exception):
    """Base of every deliberate error; its text is one line: what, then what to do."""

    template: ClassVar[str] = "graph driver error"
    remedy: ClassVar[str] = ""
    exit_code: ClassVar[int] = 1

    def fields(self) -> dict[str, object]:
        """Return the typed fields by name, as a command line's JSON shows them."""
        return attrs.asdict(self, recurse=False)

    @property
    def message(self) -> str:
        """What happened, in one line."""
        return self.template.format(**self.fields())

    @property
    def fix(self) -> str:
        """What to do about it, in one line; empty where nothing general can be said."""
        return self.remedy.format(**self.fields())

    def __str__(self) -> str:
        """Join what happened and what to do; one line, whatever bytes a name in it has."""
        text = f"{self.message}; {self.fix}" if self.fix else self.message
        return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


@attrs.define(eq=False)
class DriverUnavailable(GraphDriverError):
    """A driver cannot work here; ``advice`` says how to change that."""

    driver: str
    reason: str
    advice: str = ""

    template: ClassVar[str] = "driver {driver}: {reason}"
    remedy: ClassVar[str] = "{advice}"
    exit_code: ClassVar[int] = 10


@attrs.define(eq=False)
class NotSupported(DriverUnavailable):
    """The kernel, or the driver itself, cannot do what was asked."""

    exit_code: ClassVar[int] = 11


@attrs.define(eq=False)
class PrerequisiteMissing(DriverUnavailable):
    """A program, a kernel module, a device or a permission is absent."""

    exit_code: ClassVar[int] = 12


@attrs.define(eq=False)
class IncompatibleFilesystem(DriverUnavailable):
    """The file system below the home lacks something that the driver needs."""

    exit_code: ClassVar[int] = 13


@attrs.define(eq=False)
class DriverNotFound(GraphDriverError):
    """No installed distribution offers this driver, or its import failed."""

    driver: str
    reason: str = "no installed distribution offers it"

    template: ClassVar[str] = "driver {driver!r} cannot be loaded: {reason}"
    remedy: ClassVar[str] = "'graphdriver drivers' lists what is installed"
    exit_code: ClassVar[int] = 14


@attrs.define(eq=False)
class DriverConflict(GraphDriverError):
    """Two installed distributions offer a driver of the same name."""

    driver: str
    distributions: tuple[str, ...]

    template: ClassVar[str] = "driver {driver!r} is offered by more than one distribution: {names}"
    remedy: ClassVar[str] = "uninstall all but one of them"
    exit_code: ClassVar[int] = 15

    @property
    def message(self) -> str:
        """Name both distributions."""
        return self.template.format(driver=self.driver, names=", ".join(self.distributions))


@attrs.define(eq=False)
class PriorDriverState(GraphDriverError):
    """The folder already holds layers of other drivers, which choosing this one would hide."""

    home: str
    found: tuple[str, ...]
    wanted: str

    template: ClassVar[str] = "{home!r} already holds layers of {names}, not of {wanted!r}"
    remedy: ClassVar[str] = "name the driver that made them, or use another --root"
    exit_code: ClassVar[int] = 16

    @property
    def message(self) -> str:
        """Name the drivers whose layers are there."""
        names = " and ".join(repr(name) for name in self.found)
        return self.template.format(home=self.home, names=names, wanted=self.wanted)


@attrs.define(eq=False)
class InvalidName(GraphDriverError):
    """A name that cannot be a layer's: it is checked before any path is made from it."""

    name: str
    reason: str

    template: ClassVar[str] = "invalid name {name!r}: {reason}"
    remedy: ClassVar[str] = "use 1 to 200 bytes without '/' and NUL, not '.' or '..'"
    exit_code: ClassVar[int] = 20


@attrs.define(eq=False)
class InvalidOption(GraphDriverError):
    """A driver option that is unknown or has an impossible value."""

    driver: str
    option: str
    reason: str

    template: ClassVar[str] = "option {option!r} of driver {driver}: {reason}"
    remedy: ClassVar[str] = "options are given as --opt KEY=VALUE"
    exit_code: ClassVar[int] = 21


@attrs.define(eq=False)
class InvalidDeviation(GraphDriverError):
    """A driver declares that it fails a conformance check, in a way that nobody could follow up."""

    check: str
    reason: str

    template: ClassVar[str] = "invalid deviation {check!r}: {reason}"
    remedy: ClassVar[str] = "its driver has to give FILE::FUNCTION, a reason, and a link to where it is explained"
    exit_code: ClassVar[int] = 22


@attrs.define(eq=False)
class InvalidRunOption(GraphDriverError):
    """What was asked of a container's runtime configuration is impossible."""

    option: str
    reason: str

    template: ClassVar[str] = "{option}: {reason}"
    remedy: ClassVar[str] = "correct it and ask again; nothing was written"
    exit_code: ClassVar[int] = 23


@attrs.define(eq=False)
class LayerError(GraphDriverError):
    """Base of the errors about one layer; ``layer`` is its name."""

    layer: str

    template: ClassVar[str] = "layer {layer!r}"
    exit_code: ClassVar[int] = 30


@attrs.define(eq=False)
class LayerNotFound(LayerError):
    """No layer of this name."""

    template: ClassVar[str] = "layer {layer!r} does not exist"
    remedy: ClassVar[str] = "'graphdriver layer ls' lists those that do"
    exit_code: ClassVar[int] = 31


@attrs.define(eq=False)
class LayerExists(LayerError):
    """The name is taken; the layer that has it is untouched."""

    template: ClassVar[str] = "layer {layer!r} exists already and was left as it is"
    remedy: ClassVar[str] = "choose another name or remove it first"
    exit_code: ClassVar[int] = 32


@attrs.define(eq=False)
class LayerInUse(LayerError):
    """The layer is mounted (or busy in another process)."""

    where: str = ""

    template: ClassVar[str] = "layer {layer!r} is in use {where}"
    remedy: ClassVar[str] = "unmount it first"
    exit_code: ClassVar[int] = 33


@attrs.define(eq=False)
class LayerSealed(LayerError):
    """The layer is immutable."""

    template: ClassVar[str] = "layer {layer!r} is sealed and never changes again"
    remedy: ClassVar[str] = "create a child of it and change that"
    exit_code: ClassVar[int] = 34


@attrs.define(eq=False)
class LayerNotSealed(LayerError):
    """Only a sealed layer can be a parent."""

    template: ClassVar[str] = "layer {layer!r} is still writable and cannot be a parent"
    remedy: ClassVar[str] = "seal it first"
    exit_code: ClassVar[int] = 35


@attrs.define(eq=False)
class LayerHasChildren(LayerError):
    """Other layers stand on this one."""

    children: tuple[str, ...] = ()

    template: ClassVar[str] = "layer {layer!r} has {count} child layer(s): {names}"
    remedy: ClassVar[str] = "remove them first"
    exit_code: ClassVar[int] = 36

    @property
    def message(self) -> str:
        """Name the first few children."""
        names = ", ".join(repr(child) for child in self.children[:5])
        return self.template.format(layer=self.layer, count=len(self.children), names=names)


@attrs.define(eq=False)
class ChainTooDeep(LayerError):
    """The stack would have more layers than the driver can mount."""

    depth: int
    limit: int

    template: ClassVar[str] = "layer {layer!r} would be number {depth} of its stack; the limit is {limit}"
    remedy: ClassVar[str] = "merge layers, or use a driver without the limit (vfs)"
    exit_code: ClassVar[int] = 37


@attrs.define(eq=False)
class ReservedNameError(LayerError):
    """Files in a writable layer use names that the dialect reserves; they were put aside, not lost."""

    paths: tuple[str, ...] = ()

    template: ClassVar[str] = "layer {layer!r} holds {count} reserved name(s), put aside: {names}"
    remedy: ClassVar[str] = "rename them: names that begin with '.wh.' mean deletions in layers"
    exit_code: ClassVar[int] = 38

    @property
    def message(self) -> str:
        """Name the first few paths."""
        names = ", ".join(repr(path) for path in self.paths[:5])
        return self.template.format(layer=self.layer, count=len(self.paths), names=names)


@attrs.define(eq=False)
class ArchiveError(GraphDriverError):
    """A layer's tar was refused; the layer was rolled back."""

    reason: str
    member: str = ""
    offset: int = -1

    template: ClassVar[str] = "{reason}"
    exit_code: ClassVar[int] = 40

    @property
    def message(self) -> str:
        """Say what is wrong, with the member and the byte offset of its header where known."""
        text = self.template.format(**self.fields())
        if self.member:
            text += f" (member {self.member!r}"
            text += f", byte {self.offset})" if self.offset >= 0 else ")"
        elif self.offset >= 0:
            text += f" (byte {self.offset})"
        return text


@attrs.define(eq=False)
class MalformedArchive(ArchiveError):
    """Not a tar, a truncated one, or one whose fields contradict each other."""

    template: ClassVar[str] = "malformed archive: {reason}"
    remedy: ClassVar[str] = "fetch or make the archive again"
    exit_code: ClassVar[int] = 41


@attrs.define(eq=False)
class UnsafePath(ArchiveError):
    """A member's name, link or whiteout points outside the layer."""

    template: ClassVar[str] = "unsafe path refused: {reason}"
    remedy: ClassVar[str] = "do not trust the origin of this archive"
    exit_code: ClassVar[int] = 42


@attrs.define(eq=False)
class UnsupportedEntry(ArchiveError):
    """A legal member that this driver, kernel or user cannot hold."""

    template: ClassVar[str] = "cannot store a member here: {reason}"
    remedy: ClassVar[str] = "run as root, or use a driver and file system that can hold it"
    exit_code: ClassVar[int] = 43


@attrs.define(eq=False)
class LimitExceeded(ArchiveError):
    """A limit on what an archive may ask for was reached; ``limit`` names the ``Limits`` field."""

    limit: str = ""

    template: ClassVar[str] = "limit reached: {reason}"
    remedy: ClassVar[str] = "if the archive is trusted, raise the limit {limit}"
    exit_code: ClassVar[int] = 44


@attrs.define(eq=False)
class FileChanged(ArchiveError):
    """A file was written to while it was read for a diff; nothing after it was produced."""

    template: ClassVar[str] = "a file changed while it was read: {reason}"
    remedy: ClassVar[str] = "make the diff again when nothing writes to the layer"
    exit_code: ClassVar[int] = 45


@attrs.define(eq=False)
class DigestMismatch(GraphDriverError):
    """Bytes are not those that the digest promised."""

    what: str
    expected: str
    actual: str

    template: ClassVar[str] = "{what}: expected {expected}, got {actual}"
    remedy: ClassVar[str] = "the source is damaged or was changed: fetch it again"
    exit_code: ClassVar[int] = 50


@attrs.define(eq=False)
class StoreError(GraphDriverError):
    """Base of the errors about the store's own records."""

    root: str
    reason: str

    template: ClassVar[str] = "store {root!r}: {reason}"
    exit_code: ClassVar[int] = 60


@attrs.define(eq=False)
class LockTimeout(StoreError):
    """Another process held the lock for longer than we were told to wait."""

    remedy: ClassVar[str] = "wait for the other process, or look for it with 'graphdriver doctor'"
    exit_code: ClassVar[int] = 61


@attrs.define(eq=False)
class StoreCorrupt(StoreError):
    """Records on disk that cannot be understood."""

    remedy: ClassVar[str] = "'graphdriver doctor' names what is damaged"
    exit_code: ClassVar[int] = 62


@attrs.define(eq=False)
class StoreVersion(StoreError):
    """The records were written by a newer version."""

    remedy: ClassVar[str] = "upgrade graphdrivers"
    exit_code: ClassVar[int] = 63


@attrs.define(eq=False)
class ImageError(GraphDriverError):
    """Base of the errors about images; ``source`` is the path or reference."""

    source: str
    reason: str

    template: ClassVar[str] = "{source}: {reason}"
    exit_code: ClassVar[int] = 70


@attrs.define(eq=False)
class InvalidReference(ImageError):
    """Not an image reference."""

    remedy: ClassVar[str] = "write it as NAME[:TAG][@DIGEST]"
    exit_code: ClassVar[int] = 71


@attrs.define(eq=False)
class InvalidManifest(ImageError):
    """An index, manifest or configuration that breaks its specification."""

    remedy: ClassVar[str] = "make the image again; 'skopeo inspect' may tell more"
    exit_code: ClassVar[int] = 72


@attrs.define(eq=False)
class BlobNotFound(ImageError):
    """The image names a blob that its source does not hold."""

    remedy: ClassVar[str] = "the image is incomplete: copy it again"
    exit_code: ClassVar[int] = 73


@attrs.define(eq=False)
class RegistryError(ImageError):
    """A registry refused, failed or could not be reached."""

    exit_code: ClassVar[int] = 74


@attrs.define(eq=False)
class UserNotFound(ImageError):
    """The user or group that a process is to run as is not in the image."""

    remedy: ClassVar[str] = "give a user that its /etc/passwd has, or UID:GID"
    exit_code: ClassVar[int] = 75


class SyscallError(OSError):
    """A failed system call that names the call and its paths; ``errno`` is kept.

    Raised only in ``graphdrivers.linux``.
    """

    def __init__(self, code: int, syscall: str, path: object = None, path2: object = None) -> None:
        """Keep ``code`` (an errno), the call's kernel name and up to two paths."""
        super().__init__(code, os.strerror(code))
        self.syscall = syscall
        self.filename = path
        self.filename2 = path2

    def __str__(self) -> str:
        """Show it as ``call(path, path2): reason``."""
        paths = ", ".join(repr(p) for p in (self.filename, self.filename2) if p is not None)
        return f"{self.syscall}({paths}): {self.strerror}"

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle by the four constructor arguments."""
        return type(self), (self.errno, self.syscall, self.filename, self.filename2)
