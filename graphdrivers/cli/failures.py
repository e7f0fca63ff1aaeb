"""How every failure is told: one line, an exit code of its own, and the same as a value for JSON."""

import errno

import attrs

from graphdrivers import errors

INTERRUPTED = 130
"""Exit code after Ctrl-C: 128 and SIGINT, as shells have it."""

TERMINATED = 143
"""Exit code after SIGTERM."""

BROKEN_PIPE = 141
"""Exit code when the reader of our output has gone, as if SIGPIPE had ended us."""

USAGE = 2
"""Exit code of a command line that makes no sense."""

SYSTEM = 3
"""Exit code of a failed system call (an ``OSError``)."""

_ADVICE = {
    errno.ENOSPC: "free some space, or write to another place (--root, -o)",
    errno.EDQUOT: "the quota is used up: free some space, or use another --root",
    errno.EACCES: "use a --root of your own, or run as root",
    errno.EPERM: "run as root, or see 'graphdriver doctor' for what works without",
    errno.EROFS: "the file system is read-only: use another --root",
    errno.ENOENT: "check the path",
    errno.ENOTDIR: "check the path: a part of it is no directory",
    errno.EISDIR: "name a file, not a directory",
    errno.EEXIST: "choose another name",
    errno.EBUSY: "something still uses it: 'graphdriver doctor' lists the mounts",
    errno.EMFILE: "raise the limit on open files (ulimit -n)",
    errno.ENFILE: "the system is out of open files: raise fs.file-max",
    errno.ENOMEM: "free some memory",
    errno.EIO: "the disk or file system is failing: see dmesg",
    errno.ENAMETOOLONG: "use a shorter path",
    errno.ENOSYS: "a newer kernel, or a sandbox that allows the call, is needed",
    errno.EXDEV: "both must lie on one file system",
    errno.ESTALE: "the network file system lost the file: mount it again",
    errno.ELOOP: "a symbolic link is in the way",
    errno.ETXTBSY: "a program from there is running",
}


@attrs.frozen
class Failure:
    """One failure as it is told."""

    type: str
    message: str
    fix: str
    exit_code: int
    fields: dict[str, object] = attrs.Factory(dict)

    @property
    def line(self) -> str:
        """What happened, then what to do."""
        return f"{self.message}; {self.fix}" if self.fix else self.message

    def document(self) -> dict[str, object]:
        """Give the ``{error{type, message, fix, ...}}`` that ``--json`` prints."""
        told = {"type": self.type, "message": self.message, "fix": self.fix, "exit_code": self.exit_code}
        return {"error": {**self.fields, **told}}


def of_library(error: errors.GraphDriverError) -> Failure:
    """Tell an error of the tree; its notes (PEP 678) are joined to what to do."""
    advice = [part for part in (error.fix, *getattr(error, "__notes__", ())) if part]
    return Failure(type(error).__name__, error.message, "; ".join(advice), error.exit_code, error.fields())


def of_system(error: OSError) -> Failure:
    """Tell a failed system call: which one where it is known, why, where, and what to do about it."""
    reason = error.strerror or str(error)
    paths = [_text(path) for path in (error.filename, error.filename2) if path is not None]
    where = " -> ".join(repr(path) for path in paths)
    call = error.syscall if isinstance(error, errors.SyscallError) else ""
    message = ": ".join(part for part in (where, f"{reason} ({call})" if call else reason) if part)
    advice = [part for part in (_ADVICE.get(error.errno or 0, ""), *getattr(error, "__notes__", ())) if part]
    fields: dict[str, object] = {
        "errno": errno.errorcode.get(error.errno or 0),
        "syscall": call or None,
        "paths": paths,
    }
    return Failure(type(error).__name__, message, "; ".join(advice), SYSTEM, fields)


def _text(path: object) -> str:
    return path.decode(errors="surrogateescape") if isinstance(path, bytes) else str(path)
