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
    │       LayerHasChildren, LayerOwned, ChainTooDeep, ReservedNameError
    ├── ArchiveError
    │   ├── MalformedArchive         not a tar, truncated, or a lying field
    │   ├── UnsafePath               a name that climbs out of the layer
    │   ├── UnsupportedEntry         legal, but this target cannot hold it
    │   ├── LimitExceeded
    │   └── FileChanged              written to while a diff read it
    ├── DigestMismatch
    ├── StoreError
    │   └── LockTimeout, StoreCorrupt, StoreVersion, UnsafeStore
    ├── UnpackerDied                 a process beside this one that made a layer
    ├── ObjectNotFound               no container, image or layer of a name
    ├── ImageError
    │   └── InvalidReference, InvalidManifest, BlobNotFound, RegistryError, AuthenticationFailed,
    │       ImageNotFound, ImageInUse, AmbiguousName, UserNotFound,
    │       InvalidChange
    └── ContainerError
        └── ContainerNotFound, ContainerExists, ContainerInUse, CheckpointNotFound,
            CheckpointExists, InvalidContainerName
    OSError
    └── SyscallError                 raised only by ``graphdrivers.linux``

Only the three below ``DriverUnavailable`` let automatic selection go on to the
next driver. Each class has a ``template`` (what happened), a ``remedy`` (what
to do), an ``exit_code`` for command lines, and typed fields; each pickles.
"""

import importlib

TYPE_CHECKING = False
"""Type checkers take this name for true; see the package root."""

if TYPE_CHECKING:
    from graphdrivers.errors.archives import (
        ArchiveError,
        DigestMismatch,
        FileChanged,
        LimitExceeded,
        MalformedArchive,
        UnsafePath,
        UnsupportedEntry,
    )
    from graphdrivers.errors.base import (
        GraphDriverError,
        SyscallError,
    )
    from graphdrivers.errors.drivers import (
        DriverConflict,
        DriverNotFound,
        DriverUnavailable,
        IncompatibleFilesystem,
        InvalidDeviation,
        InvalidName,
        InvalidOption,
        InvalidRunOption,
        NotSupported,
        PrerequisiteMissing,
        PriorDriverState,
    )
    from graphdrivers.errors.layers import (
        ChainTooDeep,
        LayerError,
        LayerExists,
        LayerHasChildren,
        LayerInUse,
        LayerNotFound,
        LayerNotSealed,
        LayerOwned,
        LayerSealed,
        ReservedNameError,
    )
    from graphdrivers.errors.stores import (
        AmbiguousName,
        AuthenticationFailed,
        BlobNotFound,
        CheckpointExists,
        CheckpointNotFound,
        ContainerError,
        ContainerExists,
        ContainerInUse,
        ContainerNotFound,
        ImageError,
        ImageInUse,
        ImageNotFound,
        InvalidChange,
        InvalidContainerName,
        InvalidManifest,
        InvalidReference,
        LockTimeout,
        ObjectNotFound,
        RegistryError,
        StoreCorrupt,
        StoreError,
        StoreVersion,
        UnpackerDied,
        UnsafeStore,
        UserNotFound,
    )

_HOMES = {
    "archives": (
        "ArchiveError",
        "DigestMismatch",
        "FileChanged",
        "LimitExceeded",
        "MalformedArchive",
        "UnsafePath",
        "UnsupportedEntry",
    ),
    "base": ("GraphDriverError", "SyscallError"),
    "drivers": (
        "DriverConflict",
        "DriverNotFound",
        "DriverUnavailable",
        "IncompatibleFilesystem",
        "InvalidDeviation",
        "InvalidName",
        "InvalidOption",
        "InvalidRunOption",
        "NotSupported",
        "PrerequisiteMissing",
        "PriorDriverState",
    ),
    "layers": (
        "ChainTooDeep",
        "LayerError",
        "LayerExists",
        "LayerHasChildren",
        "LayerInUse",
        "LayerNotFound",
        "LayerNotSealed",
        "LayerOwned",
        "LayerSealed",
        "ReservedNameError",
    ),
    "stores": (
        "AmbiguousName",
        "AuthenticationFailed",
        "BlobNotFound",
        "CheckpointExists",
        "CheckpointNotFound",
        "ContainerError",
        "ContainerExists",
        "ContainerInUse",
        "ContainerNotFound",
        "ImageError",
        "ImageInUse",
        "ImageNotFound",
        "InvalidChange",
        "InvalidContainerName",
        "InvalidManifest",
        "InvalidReference",
        "LockTimeout",
        "ObjectNotFound",
        "RegistryError",
        "StoreCorrupt",
        "StoreError",
        "StoreVersion",
        "UnpackerDied",
        "UnsafeStore",
        "UserNotFound",
    ),
}
"""Where each class is: a program that meets no error of a family does not pay for its classes."""

__all__ = [
    "AmbiguousName",
    "ArchiveError",
    "AuthenticationFailed",
    "BlobNotFound",
    "ChainTooDeep",
    "CheckpointExists",
    "CheckpointNotFound",
    "ContainerError",
    "ContainerExists",
    "ContainerInUse",
    "ContainerNotFound",
    "DigestMismatch",
    "DriverConflict",
    "DriverNotFound",
    "DriverUnavailable",
    "FileChanged",
    "GraphDriverError",
    "ImageError",
    "ImageInUse",
    "ImageNotFound",
    "IncompatibleFilesystem",
    "InvalidChange",
    "InvalidContainerName",
    "InvalidDeviation",
    "InvalidManifest",
    "InvalidName",
    "InvalidOption",
    "InvalidReference",
    "InvalidRunOption",
    "LayerError",
    "LayerExists",
    "LayerHasChildren",
    "LayerInUse",
    "LayerNotFound",
    "LayerNotSealed",
    "LayerOwned",
    "LayerSealed",
    "LimitExceeded",
    "LockTimeout",
    "MalformedArchive",
    "NotSupported",
    "ObjectNotFound",
    "PrerequisiteMissing",
    "PriorDriverState",
    "RegistryError",
    "ReservedNameError",
    "StoreCorrupt",
    "StoreError",
    "StoreVersion",
    "SyscallError",
    "UnpackerDied",
    "UnsafePath",
    "UnsafeStore",
    "UnsupportedEntry",
    "UserNotFound",
]


def __getattr__(name: str) -> object:
    """Import the family of a class on its first use (PEP 562)."""
    for family, members in _HOMES.items():
        if name in members:
            return getattr(importlib.import_module(f"{__name__}.{family}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
