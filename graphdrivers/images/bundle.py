"""The folder that an OCI runtime runs a container from.

Source: OCI runtime-spec, ``bundle.md``.
"""

import contextlib
import errno
import json
import os
import stat
from collections.abc import Callable, Iterator

from graphdrivers import errors
from graphdrivers.images.run_options import path_problem
from graphdrivers.images.runtime_spec import RuntimeSpec
from graphdrivers.linux import durable

CONFIG = "config.json"
ROOTFS = "rootfs"

_TEMPORARY = f".{CONFIG}-"
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


def write_bundle(
    directory: str | os.PathLike[str],
    spec: RuntimeSpec,
    *,
    rootfs: str | None = None,
    mount: Callable[[], object] = bool,
) -> None:
    """Write a bundle; ``crun run --bundle DIRECTORY NAME`` runs it once the root file system is mounted.

    Atomic: the folder is a bundle from the moment on that ``config.json`` is
    there, whole. Durable. What a call that was killed leaves behind is taken
    over, or removed, by the next one.

    Args:
        directory: made unless it is there (its parent has to be); then it has to be empty, and keeps its mode. A new
            one is for its owner alone, 0700; with a user namespace 0711, for root inside may be somebody else outside.
        spec: what to write.
        rootfs: absolute path of the root file system, to be named in the configuration; ``None`` makes an empty
            ``rootfs`` in the folder, for the caller to mount it on.
        mount: called when the folder is ready and has no configuration yet: the time to mount the root file system.

    Raises:
        InvalidRunOption: ``rootfs`` is not an absolute path.
        OSError: ``ENOTEMPTY`` for a folder with something in it (of another bundle, say), left as it is; or the
            file system failed.
    """
    if rootfs is not None and (reason := path_problem(rootfs)):
        raise errors.InvalidRunOption("rootfs", f"{rootfs!r} {reason}")
    with contextlib.suppress(FileExistsError):
        os.mkdir(directory, 0o700)
        os.chmod(directory, 0o711 if _has_user_namespace(spec) else 0o700)
        durable.fsync_directory(os.path.dirname(os.path.abspath(directory)))
    with _opened(os.fspath(directory)) as folder:
        _check_free(folder, os.fspath(directory))
        if rootfs is None:
            with contextlib.suppress(FileExistsError):
                os.mkdir(ROOTFS, 0o755, dir_fd=folder)
        mount()
        _write_config(folder, _document(spec, rootfs or ROOTFS), os.fspath(directory))


def _has_user_namespace(spec: RuntimeSpec) -> bool:
    return "uidMappings" in spec.fields.get("linux", {})


def _document(spec: RuntimeSpec, rootfs: str) -> bytes:
    root = {**spec.fields["root"], "path": rootfs}
    return json.dumps({**spec.fields, "root": root}, indent=2).encode() + b"\n"


def _check_free(folder: int, directory: str) -> None:
    """Refuse a folder with something in it, but for what a killed call left: an empty root, a half-written file."""
    left, others = [], []
    for name in os.listdir(folder):
        if name.startswith(_TEMPORARY):
            left.append(name)
        elif name != ROOTFS or not _is_empty_directory(folder, name):
            others.append(name)
    if others:
        raise OSError(errno.ENOTEMPTY, "a bundle needs a folder of its own, and this one has content", directory)
    for name in left:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=folder)


def _write_config(folder: int, content: bytes, directory: str) -> None:
    """Put the configuration in its place, where nobody else did meanwhile; it may hold secrets, in ``env``."""
    temporary = f"{_TEMPORARY}{os.urandom(8).hex()}"
    opened = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=folder)
    try:
        with os.fdopen(opened, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(opened)
        durable.rename_noreplace(folder, temporary, folder, CONFIG)
    except (FileExistsError, FileNotFoundError) as error:
        raise OSError(errno.ENOTEMPTY, "somebody else makes a bundle of this folder", directory) from error
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary, dir_fd=folder)
    os.fsync(folder)


@contextlib.contextmanager
def _opened(directory: str) -> Iterator[int]:
    folder = os.open(directory, _DIRECTORY)
    try:
        yield folder
    finally:
        os.close(folder)


def _is_empty_directory(folder: int, name: str) -> bool:
    """Tell whether a name is a directory (no link to one) with nothing in it."""
    if not stat.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
        return False
    inner = os.open(name, _DIRECTORY | os.O_NOFOLLOW, dir_fd=folder)
    try:
        return not os.listdir(inner)
    finally:
        os.close(inner)
