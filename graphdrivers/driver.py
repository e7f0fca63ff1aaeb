"""The driver contract: what every storage backend promises, ours and other people's.

Words
=====

A *layer* is an incremental root file system. It has at most one *parent*; a
layer with its ancestors is a *stack*. A layer is born *writable* and becomes
*sealed*, for ever immutable; only a sealed layer can be a parent. A *diff* is
the tar of what a layer changes; a *change* is one changed path. A *view* is a
read-only mount. A driver keeps layers below its *home* directory, and nothing
else is ever put there.

Three lives of a layer
======================

An image is imported::

    driver.create("base")
    driver.apply("base", tar)              # any failure: remove("base"), nothing is half valid
    driver.seal("base")
    driver.create("app", parent="base")    # and so on up the stack

A container runs::

    driver.create("web", parent="app")
    plan = driver.mounts("web")            # values; graphdrivers.linux.mounts acts on them
    ...                                    # mount, work, unmount
    driver.settle("web")                   # after the last unmount
    driver.remove("web")

A container becomes a layer of a new image::

    for change in driver.changes("web"): ...
    with driver.diff("web") as tar: ...
    driver.seal("web")

What holds for every verb
=========================

* Names are checked (`model.validate_layer_name`) before a path is made of them.
* A missing layer is ``LayerNotFound``, a failed system call an ``OSError``.
* Verbs on distinct layers are safe in parallel, from threads and processes. The
  caller serialises verbs on one layer, and knows which layers have children.
* Verbs are atomic against a killed process: `settle` (run once when a home is
  opened) finishes or rolls back what was cut. Power loss is the caller's: it
  calls ``syncfs`` on the home before it acknowledges anything.

A driver never defines ``__len__`` or ``__bool__``: stevedore would hand out the
class in place of a falsy instance.
"""

import abc
from collections.abc import Callable, Iterator, Mapping
from typing import BinaryIO, ClassVar, Protocol, runtime_checkable

from graphdrivers.errors import GraphDriverError
from graphdrivers.model import (
    Applied,
    Change,
    LayerRecord,
    LayerSpec,
    Limits,
    Mount,
    Profile,
    Progress,
    Support,
    Usage,
)

CONTRACT_VERSION = 1
"""Version of this contract; a driver states the one it was built for in ``contract``."""


class Driver(abc.ABC):
    """One storage technique, working below one home directory."""

    name: ClassVar[str]
    """The name it is loaded by, equal to its entry point's."""

    rank: ClassVar[int] = 0
    """Preference in automatic selection, highest first; 0 or less is never chosen by itself."""

    contract: ClassVar[int]
    """The version of this contract that the driver was built for, as a number: `CONTRACT_VERSION` would follow ours."""

    def __init__(self, home: str, options: Mapping[str, str], support: Support) -> None:
        """Open the driver on ``home``, creating it (mode 0700) where it is missing.

        Args:
            home: absolute path of a directory that is this driver's alone.
            options: ``--opt KEY=VALUE`` pairs; an unknown key is ``InvalidOption``.
            support: what `probe` returned for the same home and options.
        """
        self.home = home
        self.options = dict(options)
        self.support = support
        self.refused: tuple[GraphDriverError, ...] = ()
        """Set by automatic selection: why each driver it preferred to this one was not taken."""

    @classmethod
    @abc.abstractmethod
    def probe(cls, home: str, options: Mapping[str, str]) -> Support:
        """Find out whether the driver works on ``home``, by trying in a scratch folder there.

        Leaves nothing behind. ``home`` itself may not exist yet; its parent does.

        Raises:
            NotSupported: the kernel cannot.
            PrerequisiteMissing: something has to be installed or permitted first.
            IncompatibleFilesystem: not on this file system.
            InvalidOption: an unknown key or an impossible value.
        """

    @abc.abstractmethod
    def create(self, layer: str, parent: str | None = None, spec: LayerSpec = LayerSpec()) -> None:
        """Create an empty writable layer over a sealed ``parent``.

        The merged root starts with the parent's root attributes; without a
        parent it is 0755, 0:0, times 0. Atomic: whole or not at all.

        Raises:
            LayerExists: the name is taken (checked first; that layer stays untouched).
            LayerNotFound: there is no such parent.
            LayerNotSealed: the parent is still writable.
            ChainTooDeep: the stack would pass ``capabilities.max_depth``.
            NotSupported: ``spec`` asks for what the driver cannot enforce.
        """

    @abc.abstractmethod
    def seal(self, layer: str) -> None:
        """Make the layer immutable. Atomic, idempotent.

        Raises:
            LayerInUse: it is mounted writable.
        """

    @abc.abstractmethod
    def mounts(self, layer: str, *, view: bool = False) -> tuple[Mount, ...]:
        """Plan how the merged tree is mounted; performs no mount.

        May make the source ready (activate a device), idempotently. At most one
        writable mount of a layer may exist at a time; views of sealed layers
        are unlimited.

        Raises:
            LayerSealed: a sealed layer is asked for without ``view``.
            NotSupported: the layer's size is limited, and the limit cannot be enforced any more.
            OSError: ``EDQUOT``, a limited layer is too full to be mounted; it can be read, sealed and removed.
        """

    @abc.abstractmethod
    def apply(
        self,
        layer: str,
        tar: BinaryIO,
        *,
        headers: BinaryIO | None = None,
        limits: Limits = Limits(),
        progress: Progress | None = None,
    ) -> Applied:
        """Unpack an uncompressed layer tar into a writable, unmounted layer.

        Never reads or writes outside the layer. On failure the layer is garbage
        that only `remove` may be called on; it is never half valid.

        Args:
            layer: where to.
            tar: read to its end, also behind the end-of-archive blocks: the
                DiffID covers every byte.
            headers: receives what is needed, beside the layer's files, to give
                back the identical tar (see ``graphdrivers.archive.headers``).
            limits: what the archive may ask for.
            progress: called with the tar's bytes consumed so far.

        Raises:
            LayerSealed, LayerInUse: not writable now.
            ArchiveError: the tar is refused; the error names the member.
            OSError: there is no room for it, or not within the layer's size; ``LimitExceeded`` where that
                shows beforehand.
        """

    @abc.abstractmethod
    def changes(self, layer: str) -> Iterator[Change]:
        """Give what the layer changes against its parent, sorted by path bytes.

        A directory is ``modified`` when its own attributes or anything below it
        changed, as Docker lists it; the root itself is never listed. A deleted
        directory is one change.
        """

    @abc.abstractmethod
    def diff(self, layer: str, *, profile: Profile = Profile.FULL, source_date_epoch: int | None = None) -> BinaryIO:
        """Give the layer's changes as an uncompressed OCI layer tar.

        Reproducible: the same content gives the same bytes from every driver.
        The caller closes the stream; closing early is fine.

        Args:
            layer: sealed or writable; a writable one should not change meanwhile.
            profile: how much of the tree the tar carries.
            source_date_epoch: in seconds; later modification times become this one
                (the variable ``SOURCE_DATE_EPOCH`` of reproducible-builds.org).
        """

    @abc.abstractmethod
    def usage(self, layer: str) -> Usage:
        """Measure what this layer alone holds."""

    @abc.abstractmethod
    def layers(self) -> Iterator[LayerRecord]:
        """Give every layer as recorded on disk, children before their parents."""

    @abc.abstractmethod
    def remove(self, layer: str) -> None:
        """Remove a layer. Idempotent: a missing layer is no error.

        It disappears atomically (a rename); the deletion of its files follows
        and, if cut short, is finished by `settle`.

        Raises:
            LayerInUse: it is mounted.
        """

    def settle(self, layer: str | None = None) -> None:
        """Bring one layer (after its last unmount) or the whole home (when opened) to rest.

        Idempotent. Finishes or rolls back what a crash left; what other live
        processes are busy with is left alone.
        """

    def close(self) -> None:
        """Let go of what the driver holds open. Idempotent."""


@runtime_checkable
class Tells(Protocol):
    """What a driver may tell people beyond the contract; asked for with ``isinstance``, owed by nobody."""

    def facts(self, layer: str | None = None) -> Mapping[str, str]:
        """Give short facts under short names, in the order in which they are to be shown.

        Args:
            layer: what is true of this layer; ``None`` for the driver itself. A
                layer that is made of several directories gives them as ``br0``,
                ``br1``, ..., top first, each ``PATH=ROLE``.

        Raises:
            LayerNotFound: there is no such layer.
        """


@runtime_checkable
class Snapshots(Protocol):
    """What a driver with the capability ``fork_live`` has beyond the contract."""

    def snapshot(self, layer: str, name: str) -> None:
        """Make the sealed layer ``name`` of the present state of the writable ``layer``, mounted or not. Atomic.

        Its parent is that of ``layer``, which goes on as it is: what has it
        mounted notices nothing, and neither layer needs the other from then on.
        The cost does not depend on their sizes. The state is that of one moment,
        as a power cut would have left it, with all in it that was written before
        the call. A limit on the size of ``layer`` is not handed on. Names
        reserved for whiteouts are not searched for: they stay, and `diff` of the
        snapshot refuses them.

        Raises:
            LayerNotFound, LayerSealed: there is no such writable layer.
            LayerExists: ``name`` is taken.
        """


@runtime_checkable
class AppliesAhead(Protocol):
    """What a driver with the capability ``apply_ahead`` has beyond the contract: its layers are independent folders."""

    def apply_ahead(
        self,
        layer: str,
        parent: str | None,
        tar: BinaryIO,
        *,
        ready: Callable[[], object],
        headers: BinaryIO | None = None,
        limits: Limits = Limits(),
        progress: Progress | None = None,
    ) -> Applied:
        """Create ``layer`` and unpack an uncompressed tar into it, over a ``parent`` that may not be there yet.

        In other processes and threads the layers below are filled at the same
        time. What the tar asks of them (a folder that it does not describe, a
        link to a file of theirs, a deletion) waits for ``ready``. The result is
        that of `Driver.create` and `Driver.apply`. Atomic: until this returns
        there is no such layer, and after an error there never was one. The
        caller has room for the whole stack (``capabilities.max_depth``).

        Args:
            layer: what is made; it is left writable.
            parent: what it will stand on; ``None`` for a base layer.
            tar: as for `Driver.apply`.
            ready: returns when the parent is sealed. Called at most once, in this thread; not for a base layer.
                Whatever it raises ends this.
            headers: as for `Driver.apply`, as is what follows.
            limits: see there.
            progress: see there.

        Raises:
            LayerExists: the name is taken.
            LayerNotFound, LayerNotSealed: the parent is not what it should be, though ``ready`` has returned.
            ArchiveError, OSError: see `Driver.apply`.
        """
