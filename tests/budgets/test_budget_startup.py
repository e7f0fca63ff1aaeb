"""No command imports more, or makes more system calls before it is done, than its budget allows."""

import json
import pathlib
import sys
from collections.abc import Callable, Iterator

import budgettrace
import budgetwork
import pytest
from budgetfile import Change, Subject

COMMANDS = {
    "version": ["--version"],
    "help": ["--help"],
    "images": ["--driver", "vfs", "images"],
    "ls": ["--driver", "vfs", "ls"],
}
OWN, OTHERS = "modules of graphdrivers", "import of "
START = ("start", budgetwork.Size(0, 0, 0))


@pytest.fixture(scope="module", params=[user for user in budgettrace.users() if user != "userns"])
def place(request: pytest.FixtureRequest) -> Iterator[tuple[str, pathlib.Path]]:
    """Give a user and a folder of theirs with a store that has an image."""
    with budgettrace.folder_of(request.param) as folder:
        budgetwork.write_image(str(folder))
        command = [sys.executable, "-B", "-m", "graphdrivers", "--root", f"{folder}/store", "--driver", "vfs"]
        budgettrace.started(request.param, folder, [*command, "import", f"{folder}/image", "--name", "image"])
        yield request.param, folder


def started(command: str, user: str, folder: pathlib.Path) -> tuple[budgettrace.Runs, dict[str, str]]:
    """Run a command; give the calls that it made, and what it imported with the line that asked for it."""
    found = folder / "modules"
    program = [f"{budgettrace.HERE}/budgetstart.py", str(found), "--root", f"{folder}/store", *COMMANDS[command]]
    calls = budgettrace.run(user, folder, program)
    return calls, json.loads(found.read_text())


def counts(calls: budgettrace.Runs, modules: dict[str, str]) -> dict[str, float]:
    """Give the figures: system calls, modules of the library, packages of others, modules of Python asked for."""
    figures = {kind: float(count) for kind, count in calls[START].calls.items()}
    figures[OWN] = float(sum(_top(name) == "graphdrivers" for name in modules))
    return figures | {_import(name): 1.0 for name in modules if _top(name) != "graphdrivers"}


def _top(name: str) -> str:
    return name.partition(".")[0]


def _import(name: str) -> str:
    return OTHERS + (name if _top(name) in sys.stdlib_module_names else _top(name))


@pytest.mark.parametrize("command", COMMANDS)
def test_start(command: str, place: tuple[str, pathlib.Path], hold: Callable[..., None]) -> None:
    """A command imports what is in its budget; the line that asked for more is told."""
    calls, modules = started(command, *place)

    def where(grown: Change) -> list[str]:
        own = {name: line for name, line in modules.items() if _top(name) == "graphdrivers"}
        meant = own if grown.kind == OWN else {name: modules[name] for name in modules if _import(name) == grown.kind}
        return [f"{name} from {line}" for name, line in meant.items()]

    hold(Subject("start", "Run a command.", place[0], command), {"one": counts(calls, modules)}, where)
