"""The base of every error, and failed system calls."""

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
