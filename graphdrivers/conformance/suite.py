"""Which checks the suite has: each is listed, so that one that gets lost is noticed.

A check's name is ``FILE::FUNCTION``, and ``FILE::FUNCTION[PARAMETERS]`` for one
of several with parameters. ``checks.txt`` lists the functions; after adding one,
write it anew::

    python -m graphdrivers.conformance.suite
"""

import ast
import fnmatch
import glob
import os
from collections.abc import Iterable

FOLDER = os.path.dirname(os.path.abspath(__file__))
"""Where the checks are."""

_LIST = os.path.join(FOLDER, "checks.txt")


def listed() -> list[str]:
    """Give the functions that the suite shall have, sorted."""
    with open(_LIST, encoding="utf-8") as file:
        return file.read().split()


def written() -> list[str]:
    """Give the functions that stand in the files of the suite, sorted; imports none of them."""
    found = []
    for path in glob.glob(os.path.join(glob.escape(FOLDER), "test_*.py")):
        with open(path, encoding="utf-8") as file:
            body = ast.parse(file.read()).body
        names = [node.name for node in body if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")]
        found += [f"{os.path.basename(path)}::{name}" for name in names]
    return sorted(found)


def name_of(path: str | os.PathLike[str], name: str) -> str:
    """Name a collected test as the suite does; empty where its file is not in the suite."""
    folder, file = os.path.split(os.path.abspath(path))
    return f"{file}::{name}" if folder == FOLDER else ""


def located(argument: str) -> str:
    """Turn an argument of pytest's that names a check or a file as the suite does into what it finds anywhere."""
    file = argument.partition("::")[0]
    known = os.path.isfile(os.path.join(FOLDER, file)) and not os.path.exists(file)
    return os.path.join(FOLDER, argument) if known else argument


def function_of(check: str) -> str:
    """Cut the parameters off a check's name."""
    return check.partition("[")[0]


def matches(pattern: str, check: str) -> bool:
    """Say whether a pattern of a `graphdrivers.model.Deviation` means this check."""
    return fnmatch.fnmatchcase(check, pattern.replace("[", "[[]"))


def complaints(collected: Iterable[str]) -> list[str]:
    """Say, a line each, which functions a whole run should have collected and which it should have in its list."""
    found, wanted = {function_of(check) for check in collected}, set(listed())
    lines = []
    if wanted - found:
        lost = ", ".join(sorted(wanted - found))
        lines.append(f"{len(wanted - found)} checks are lost (not installed, or hidden by pytest's options): {lost}")
    if found - wanted:
        new = ", ".join(sorted(found - wanted))
        lines.append(f"checks.txt lacks {new} (renew it: python -m graphdrivers.conformance.suite)")
    return lines


def renew() -> None:
    """Write ``checks.txt`` anew."""
    with open(_LIST, "w", encoding="utf-8") as file:
        file.writelines(f"{check}\n" for check in written())


if __name__ == "__main__":
    renew()
