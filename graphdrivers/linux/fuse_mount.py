"""FUSE file systems: a mount of the kernel's, and the program that serves it.

A plan names them ``fuse.PROGRAM``, as mount(8) and fstab(5) do. The mount comes
first: detached where the kernel can, so that nobody sees it before it is put
somewhere. Then the program is started on the open device, which it takes in
place of a mount point, ``/dev/fd/N``. It becomes a daemon by itself and ends when
the mount is gone, wherever that was: unmounted, or its last descriptor closed.

Source: fuse(4); mount.fuse3(8), option *drop_privileges*, which hands the device
over in the same way; libfuse 3.3, ``fuse_session_mount``.
"""

import contextlib
import errno
import os
import shutil
import stat
from collections.abc import Iterator, Sequence

from graphdrivers import errors
from graphdrivers.errors import SyscallError
from graphdrivers.linux import mountapi
from graphdrivers.linux.libc import c_string
from graphdrivers.linux.locks import FileLock

PREFIX = "fuse."

DEVICE = "/dev/fuse"

PROGRAM = "program"
"""An option for us: path of the program, where it is not the one of that name in `FOLDERS`."""

LOCK = "lock"
"""An option for us: a file on which the program holds a `FileLock` for as long as it lives.

In `WRITER`, exclusively, or for a read-only mount in `READER`, shared: a
directory is written to by one program at a time. Who gets a lock on all of the
file knows that none serves or finishes anything any more, in no mount namespace.
"""

WRITER, READER = 0, 1
"""Slots of that lock."""

FOLDERS = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""Where programs are looked for, and what they are given as ``PATH``: a caller's own could lead anywhere."""

KERNEL_OPTIONS = frozenset({"default_permissions", "allow_other", "max_read", "blksize"})
"""Options that are the kernel's; the program gets all others. Source: Linux, fs/fuse/inode.c."""

_DIRECTORIES = frozenset({"lowerdir+", "upperdir", "workdir"})
"""Options whose value is a directory, with overlay's names: ``lowerdir+`` repeats and becomes one ``lowerdir``."""

_SEPARATORS = frozenset(":,\\\n")
_NAMED = 64 << 10
"""Bytes of directory names that a command line is given; one argument takes 128 KiB (execve(2))."""

_SCRATCH = "/tmp"  # noqa: S108 - a new directory of mode 0700 is made in it
_PLACE = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC

_PATIENCE = 5.0
"""Seconds to wait for a program whose mount is gone and that has not ended yet."""

Settings = Sequence[tuple[str, str | None]]


def is_fuse(fs_type: str) -> bool:
    """Say whether a type of file system is one that a program serves."""
    return fs_type.startswith(PREFIX)


def find_program(fs_type: str, settings: Settings = ()) -> str | None:
    """Give the path of the program that serves a type; ``None`` where it is not installed."""
    chosen = dict(settings).get(PROGRAM)
    return shutil.which(chosen or fs_type.removeprefix(PREFIX), path=FOLDERS)


def detached(fs_type: str, source: str, settings: Settings, attributes: int) -> int:
    """Give a served, detached mount as a descriptor.

    Args:
        fs_type: ``fuse.PROGRAM``.
        source: what the mount table shows.
        settings: options, without those that belong to the mount.
        attributes: ``MOUNT_ATTR_*`` of the mount.

    Raises:
        SyscallError: ``ENOENT``, no such program or no device; ``EBUSY``, another one has the lock; ``EIO`` with the
            program's own words; or the kernel's.
    """
    program = _program(fs_type, settings)
    with _device() as device:
        context = mountapi.fsopen("fuse")
        try:
            mountapi.fsconfig_set_string(context, "source", c_string(source or fs_type))
            mountapi.fsconfig_set_string(context, "subtype", c_string(fs_type.removeprefix(PREFIX)))
            for key, value in _kernel_options(device, settings):
                if value is None:
                    mountapi.fsconfig_set_flag(context, key)
                else:
                    mountapi.fsconfig_set_string(context, key, c_string(value))
            if attributes & mountapi.MOUNT_ATTR_RDONLY:
                mountapi.fsconfig_set_flag(context, "ro")
            mountapi.fsconfig_create(context)
            mount_fd = mountapi.fsmount(context, attributes)
        finally:
            os.close(context)
        try:
            _serve(program, settings, device, shared=bool(attributes & mountapi.MOUNT_ATTR_RDONLY))
        except BaseException:
            os.close(mount_fd)
            raise
        return mount_fd


def mount(fs_type: str, source: str, place: str, flags: int, settings: Settings) -> None:
    """Mount with ``mount(2)`` at ``place``, served; see `detached`."""
    program = _program(fs_type, settings)
    with _device() as device:
        options = (key if value is None else f"{key}={value}" for key, value in _kernel_options(device, settings))
        mountapi.mount(source or fs_type, place, fs_type, flags, ",".join(options).encode())
        # A descriptor is on the directory below the new mount; its name leads to the top.
        top = os.readlink(place) if place.startswith("/proc/self/fd/") else place
        try:
            _serve(program, settings, device, shared=bool(flags & mountapi.MS_RDONLY))
        except BaseException:
            mountapi.umount2(top, mountapi.MNT_DETACH | mountapi.UMOUNT_NOFOLLOW)
            raise


def _program(fs_type: str, settings: Settings) -> str:
    program = find_program(fs_type, settings)
    if program is None:
        name = dict(settings).get(PROGRAM) or fs_type.removeprefix(PREFIX)
        raise _failed(errno.ENOENT, name, "there is no such program")
    return program


@contextlib.contextmanager
def _device() -> Iterator[int]:
    """Open a connection to the kernel; once the program has it, ours can be closed."""
    try:
        device = os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise SyscallError(error.errno or 0, "open", DEVICE) from error
    try:
        yield device
    finally:
        os.close(device)


def _kernel_options(device: int, settings: Settings) -> Iterator[tuple[str, str | None]]:
    yield "fd", str(device)
    yield "rootmode", f"{stat.S_IFDIR:o}"
    yield "user_id", str(os.geteuid())
    yield "group_id", str(os.getegid())
    yield from ((key, value) for key, value in settings if key in KERNEL_OPTIONS)


def _serve(program: str, settings: Settings, device: int, *, shared: bool) -> None:
    """Start the program and wait until it has become a daemon."""
    import subprocess  # noqa: PLC0415 - slow to import, and most mounts have no program

    with contextlib.ExitStack() as stack:
        passed = [device]
        lock = dict(settings).get(LOCK)
        if lock is not None:
            passed.append(_locked(lock, stack, shared=shared))
        options = _program_options(settings, passed, stack)
        arguments = [program, *(("-o", options) if options else ()), f"/dev/fd/{device}"]
        # Not a pipe: a daemon that keeps it open would never let us see its end.
        words = os.fdopen(os.memfd_create("words"), "w+b")
        stack.enter_context(words)
        done = subprocess.run(
            arguments,
            stdin=subprocess.DEVNULL,
            stdout=words,
            stderr=words,
            check=False,
            cwd="/",
            env={"PATH": FOLDERS},
            pass_fds=passed,
            start_new_session=True,  # what a terminal sends to us is not for the daemon
        )
        if done.returncode:
            words.seek(0)
            raise _failed(errno.EIO, program, _last_line(words.read()) or f"exit status {done.returncode}")


def _locked(path: str, stack: contextlib.ExitStack, *, shared: bool) -> int:
    """Lock a file until ``stack`` ends, and longer in a process that inherits the descriptor."""
    held = FileLock(path, shared=shared, timeout=_PATIENCE, slot=READER if shared else WRITER)
    try:
        stack.enter_context(held)
    except errors.LockTimeout as error:
        raise SyscallError(errno.EBUSY, "lock", path) from error
    return held.fileno()


def _program_options(settings: Settings, passed: list[int], stack: contextlib.ExitStack) -> str:
    """Write the options of the program; directories that cannot be named are opened and ``passed``."""
    settings = _without_colon(settings, stack)
    named = sum(len(os.fsencode(value or "")) + 1 for key, value in settings if key in _DIRECTORIES) <= _NAMED

    def written(key: str, value: str) -> str:
        if key not in _DIRECTORIES:
            return _escaped(value)
        if named and not _SEPARATORS & set(value) and not value.startswith("//"):
            return value
        opened = os.open(value, _PLACE)
        stack.callback(os.close, opened)
        passed.append(opened)
        return f"/proc/self/fd/{opened}"

    lowers = [written(key, value) for key, value in settings if key == "lowerdir+" and value]
    options = [f"lowerdir={':'.join(lowers)}"] if lowers else []
    for key, value in settings:
        if key not in KERNEL_OPTIONS and key not in {PROGRAM, LOCK, "lowerdir+"}:
            options.append(key if value is None else f"{key}={written(key, value)}")
    return ",".join(options)


def _without_colon(settings: Settings, stack: contextlib.ExitStack) -> Settings:
    """Give the upper directory a name without colons until ``stack`` ends, and the work directory one beside it.

    fuse-overlayfs looks up the real path of the upper directory and takes it apart at colons, whatever it was called.
    Both have to be in one mount: it renames from one to the other.
    """
    values = dict(settings)
    upper, work = values.get("upperdir"), values.get("workdir")
    if not upper or not work or ":" not in upper:
        return settings
    common = os.path.commonpath([upper, work])
    if ":" in os.path.relpath(upper, common):
        raise _failed(errno.EINVAL, upper, "fuse-overlayfs takes an upper directory apart at colons")
    place = stack.enter_context(_passing_bind(common))
    moved = {key: os.path.join(place, os.path.relpath(values[key] or "", common)) for key in ("upperdir", "workdir")}
    return [(key, moved.get(key, value)) for key, value in settings]


@contextlib.contextmanager
def _passing_bind(directory: str) -> Iterator[str]:
    """Bind a directory somewhere for a moment; who opens it meanwhile keeps it."""
    place = os.path.join(_SCRATCH, f"graphdrivers-{os.urandom(8).hex()}")
    os.mkdir(place, 0o700)
    try:
        mountapi.mount(directory, place, None, mountapi.MS_BIND, b"")
        try:
            yield place
        finally:
            mountapi.umount2(place, mountapi.MNT_DETACH | mountapi.UMOUNT_NOFOLLOW)
    finally:
        os.rmdir(place)


def _escaped(value: str) -> str:
    """Escape what separates options. Source: libfuse, lib/fuse_opt.c (``add_opt_common``)."""
    return value.replace("\\", "\\\\").replace(",", "\\,")


def _last_line(words: bytes) -> str:
    lines = os.fsdecode(words).strip().splitlines()
    return lines[-1] if lines else ""


def _failed(code: int, program: str, reason: str) -> SyscallError:
    error = SyscallError(code, "exec", program)
    error.strerror = reason
    return error
