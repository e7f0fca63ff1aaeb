"""The traced program for start-ups: runs one command line, and writes down what was imported and by which line.

    budgetstart.py FILE ARGUMENT...

The interpreter's own start comes before the mark, and does not count. Nor does
which of Python's own modules another of them needs: that differs between
releases. The ones that the library asks for count, loaded already or not.
"""

import builtins
import json
import os
import sys
from collections.abc import Mapping, Sequence
from types import FrameType, ModuleType

_PACKAGE = f"{os.sep}graphdrivers{os.sep}"
_IMPORT = builtins.__import__


class Watcher:
    """Stands in for the import statement, and remembers who asked for what."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self.asked: dict[str, str] = {}
        """Module: the line of the library that asked for it, or led to it."""
        self.direct: set[str] = set()
        """Those that the library asked for by itself."""

    def __call__(
        self,
        name: str,
        globals: Mapping[str, object] | None = None,  # noqa: A002 - the names that callers may use
        locals: Mapping[str, object] | None = None,  # noqa: A002
        fromlist: Sequence[str] | None = (),
        level: int = 0,
    ) -> ModuleType:
        """Import; see `builtins.__import__`."""
        before = set(sys.modules)
        found = _IMPORT(name, globals, locals, fromlist or (), level)
        line = _line(sys._getframe(1))
        for new in set(sys.modules) - before:
            self.asked.setdefault(new, line)
        if str((globals or {}).get("__name__")).startswith("graphdrivers"):
            self.asked.setdefault(name, line)
            self.direct.add(name)
        return found


def _line(frame: FrameType | None) -> str:
    while frame is not None:
        _, inside, rest = frame.f_code.co_filename.rpartition(_PACKAGE)
        if inside:
            return f"{rest}:{frame.f_lineno}"
        frame = frame.f_back
    return "the command"


def counting(watcher: Watcher, loaded: set[str]) -> dict[str, str]:
    """Give the modules that count: all that were loaded of the library and of others, and what it asks Python for."""
    own = {name for name in loaded if name.split(".")[0] not in sys.stdlib_module_names and not name.startswith("_")}
    standard = {name for name in watcher.direct if name.split(".")[0] in sys.stdlib_module_names}
    return {name: watcher.asked.get(name, "") for name in sorted(own | standard)}


def main() -> None:
    """Run the command line."""
    found, *arguments = sys.argv[1:]
    watcher, before = Watcher(), set(sys.modules)
    sys.argv = ["graphdriver", *arguments]
    os.access("/budget/begin/start/0-0-0", os.F_OK)
    builtins.__import__ = watcher
    try:
        from graphdrivers.cli.entry import main as run  # noqa: PLC0415 - what is counted

        run()
    finally:
        builtins.__import__ = _IMPORT
        os.access("/budget/end", os.F_OK)
        with open(found, "w", encoding="utf-8") as file:
            json.dump(counting(watcher, set(sys.modules) - before), file)


if __name__ == "__main__":
    main()
