"""Broken plugins, all of them installed at once: each is one clear line, and nobody is kept from the other drivers."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from typing import Any

import attrs
import broken_plugins
import pytest
from broken_plugins import COLLAPSING, NOISY, SLOW, TOOLLESS, UNLOADABLE, UNREADABLE, Plugin

from graphdrivers import errors
from graphdrivers.cli import output

TWINS = (Plugin("twin", ""), Plugin("twin", ""))

LOAD = """
import json, sys
from graphdrivers import errors, loading
told = {}
for name in json.loads(sys.argv[1]):
    try:
        loading.load_driver(name, sys.argv[2])
    except errors.GraphDriverError as error:
        told[name] = [type(error).__name__, str(error)]
print(json.dumps(told))
"""


@attrs.frozen
class Place:
    """Where plugins are installed."""

    folder: pathlib.Path

    @property
    def site(self) -> pathlib.Path:
        """What stands on the path of Python."""
        return self.folder / "site"

    @property
    def imported(self) -> set[str]:
        """Modules of plugins that were imported since `forget`."""
        return set(os.listdir(self.folder / "imported"))

    def forget(self) -> None:
        """Begin anew to look which plugins are imported."""
        for mark in (self.folder / "imported").iterdir():
            mark.unlink()

    def python(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run Python where all of these plugins are installed."""
        command = [sys.executable, *arguments]
        done = subprocess.run(command, check=False, capture_output=True, text=True, env=self.environment)
        assert not check or done.returncode == 0, done
        return done

    def graphdriver(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run the program."""
        return self.python("-m", "graphdrivers", "--root", str(self.folder / "root"), *arguments, check=check)

    @property
    def environment(self) -> dict[str, str]:
        """What makes the plugins installed."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("GRAPHDRIVER_")}
        return {**kept, "PYTHONPATH": str(self.site), "IMPORTED": str(self.folder / "imported")}


def installed(folder: pathlib.Path, *plugins: Plugin) -> Place:
    """Install plugins in a folder of their own."""
    place = Place(folder)
    (folder / "imported").mkdir()
    place.site.mkdir()
    for plugin in plugins:
        plugin.put(place.site)
    return place


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """All of them at once."""
    return installed(tmp_path_factory.mktemp("all"), *UNLOADABLE, UNREADABLE, *TWINS, TOOLLESS, COLLAPSING, NOISY, SLOW)


@pytest.fixture(scope="module")
def listed(everything: Place) -> dict[str, dict[str, Any]]:
    """What ``graphdriver drivers --json`` says, by the drivers' names."""
    return {one["name"]: one for one in json.loads(everything.graphdriver("drivers", "--json").stdout)}


@pytest.fixture(scope="module")
def shown(everything: Place) -> list[str]:
    """The paragraphs of ``graphdriver drivers -v``, each in one line."""
    text = everything.graphdriver("drivers", "-v").stdout.replace("\n    ", " ")
    return [" ".join(line.split()) for line in text.splitlines()]


@pytest.fixture(scope="module")
def loaded(everything: Place, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[str, str]]:
    """What `load_driver` raises, by the drivers' names."""
    names = json.dumps([row(plugin) for plugin in (*UNLOADABLE, COLLAPSING, *TWINS)])
    home = str(tmp_path_factory.mktemp("homes") / "home")
    told = everything.python("-c", LOAD, names, home).stdout.splitlines()[-1]
    return {name: (kind, text) for name, (kind, text) in json.loads(told).items()}


def row(plugin: Plugin) -> str:
    """Name the row of a plugin: its distribution where nobody can read what it offers."""
    return plugin.title if plugin.points != attrs.fields(Plugin).points.default else plugin.name


every = pytest.mark.parametrize("plugin", UNLOADABLE, ids=lambda plugin: plugin.name.replace("/", "-")[:20])


@every
def test_it_is_listed_with_what_is_wrong(listed: dict[str, dict[str, Any]], plugin: Plugin) -> None:
    """JSON says that it is not usable, why, whose fault it is, and what to do."""
    told = listed[row(plugin)]

    assert told["usable"] is False
    assert told["error"] == told["reason"]
    assert plugin.says in told["reason"]
    assert told["reason"].isprintable()
    assert plugin.helps in told["fix"]
    assert plugin.metadata != "Name: {title}" or plugin.title in told["reason"]


@every
def test_people_see_it_too(shown: list[str], plugin: Plugin) -> None:
    """The table names it, and one paragraph says what is wrong and what to do."""
    (told,) = [line for line in shown if line.startswith(f"{row(plugin)} cannot be used: ")]

    assert plugin.says in told
    assert shown[shown.index(told) + 1].startswith("fix: ")


@every
def test_it_cannot_be_loaded(loaded: dict[str, tuple[str, str]], plugin: Plugin) -> None:
    """Python gets one typed error with the same line, however the plugin failed."""
    if plugin.name == "auto":
        return  # asks for the choice
    kind, text = loaded[row(plugin)]

    assert kind == "DriverNotFound"
    assert plugin.says in text
    assert text.isprintable()


def test_one_that_cannot_be_opened(listed: dict[str, dict[str, Any]], loaded: dict[str, tuple[str, str]]) -> None:
    """A constructor that raises is found when the driver is opened, and told like the others."""
    assert listed["collapsing"]["usable"] is True
    assert loaded["collapsing"][0] == "DriverNotFound"
    assert COLLAPSING.says in loaded["collapsing"][1]


def test_one_that_lacks_a_program(listed: dict[str, dict[str, Any]]) -> None:
    """An error of the system from a probe is shown as it is; whose fault it is nobody can tell."""
    assert TOOLLESS.says in listed["toolless"]["reason"]
    assert listed["toolless"]["error"] is None


def test_one_name_in_two_distributions(everything: Place, loaded: dict[str, tuple[str, str]]) -> None:
    """Both are listed, each with the other's name, and neither is imported."""
    found = json.loads(everything.graphdriver("drivers", "--json", "--driver", "twin").stdout)

    assert [one["distribution"] for one in found] == [twin.title for twin in TWINS]
    assert all(f"{twin.title} 1.0" in one["reason"] for twin in TWINS for one in found)
    assert loaded["twin"][0] == "DriverConflict"
    assert not {twin.module for twin in TWINS} & everything.imported


def test_the_other_drivers_are_as_they_were(listed: dict[str, dict[str, Any]], tmp_path: pathlib.Path) -> None:
    """What is said of sound drivers does not depend on the broken ones beside them."""
    found = json.loads(installed(tmp_path).graphdriver("drivers", "--json").stdout)
    alone = [one for one in found if one["usable"]]  # the reasons of others name the place that they were tried in

    assert {"overlay", "vfs"} <= {one["name"] for one in alone}
    assert [listed[one["name"]] for one in alone] == alone


def test_authors_see_where(shown: list[str]) -> None:
    """With -v the traceback is there, from where the plugin's own code begins."""
    (begin,) = [number for number, line in enumerate(shown) if line.startswith("raises is: ")]

    assert "Traceback (most recent call last)" in shown[begin]
    assert "ValueError: odd" in shown[begin]
    assert "stevedore" not in shown[begin]


def test_without_v_there_is_no_traceback(everything: Place) -> None:
    """People who only choose a driver are spared it."""
    assert "Traceback" not in everything.graphdriver("drivers").stdout


@pytest.mark.parametrize("command", [("layer", "create", "base"), ("drivers",), ("layer", "ls"), ("conform", "-h")])
def test_asked_for_by_name_no_other_is_imported(everything: Place, command: tuple[str, ...]) -> None:
    """Whoever names a driver gets that one, and no code of another runs: a slow one costs nothing."""
    everything.forget()

    everything.graphdriver("--driver", "vfs", *command)

    assert everything.imported == set()


def test_python_imports_no_other(everything: Place, tmp_path: pathlib.Path) -> None:
    """The same from Python, for each driver that this library has."""
    everything.forget()
    code = "import sys, graphdrivers; graphdrivers.load_driver(sys.argv[1], sys.argv[2])"

    for name in ("vfs", "aufs", "overlay"):
        everything.python("-c", code, name, str(tmp_path / name), check=name == "vfs")

    assert everything.imported == set()


def test_the_automatic_choice_goes_on(everything: Place, tmp_path: pathlib.Path) -> None:
    """It takes what it would have taken without them, though some of them have the highest rank."""
    alone = installed(tmp_path).graphdriver("status", "--json")
    beside = everything.graphdriver("--root", str(tmp_path / "chosen"), "status", "--json")

    assert json.loads(beside.stdout)["driver"] == json.loads(alone.stdout)["driver"]


def test_what_it_passed_over_is_kept(everything: Place, tmp_path: pathlib.Path) -> None:
    """Each broken plugin is among the refusals of the driver that is taken."""
    code = "import sys, graphdrivers; print(*graphdrivers.load_driver('auto', sys.argv[1]).refused, sep='\\n')"

    told = everything.python("-W", "ignore", "-c", code, str(tmp_path / "root")).stdout

    for plugin in (*UNLOADABLE, TOOLLESS, COLLAPSING):
        assert plugin in broken_plugins.PROBES or plugin.says in told, plugin


def test_one_that_cannot_be_read_is_not_there(listed: dict[str, dict[str, Any]]) -> None:
    """Bytes that are no text in one distribution's entry points hide that one, and nothing else."""
    assert "unreadable" not in listed
    assert {"slow", "noisy", "vfs"} <= listed.keys()
    assert all(listed[name]["usable"] for name in ("slow", "noisy", "vfs"))


def test_prints_go_aside() -> None:
    """What is printed meanwhile, also by programs that are started, is on stderr; afterwards stdout is back."""
    code = """
        import subprocess
        from graphdrivers.cli import output
        print("before")
        with output.aside():
            print("inside")
            subprocess.run(["echo", "started"], check=True)
        print("after")
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True, capture_output=True, text=True)

    assert done.stdout == "before\nafter\n"
    assert sorted(done.stderr.split()) == ["inside", "started"]


def test_prints_go_aside_without_files(capsys: pytest.CaptureFixture[str]) -> None:
    """The same where stdout is an object of somebody's."""
    with output.aside():
        print("inside")  # noqa: T201 - as a plugin would

    assert capsys.readouterr() == ("", "inside\n")


@pytest.mark.parametrize("command", [("drivers",), ("layer", "ls"), ("doctor",), ("status",)])
def test_what_is_printed_is_no_document(tmp_path: pathlib.Path, command: tuple[str, ...]) -> None:
    """A plugin that prints, warns, and starts programs that print, does not get between a script and its JSON."""
    place = installed(tmp_path, NOISY)

    done = place.graphdriver("--driver", "noisy", "--json", *command)

    assert json.loads(done.stdout) is not None
    assert {"printed", "echoed", "probed"} <= set(done.stderr.split())
    assert "warned" in done.stderr


def test_a_pipe_gets_paths_alone(tmp_path: pathlib.Path) -> None:
    """What a shell reads from stdout is what was asked for, beside a plugin that prints."""
    place = installed(tmp_path, NOISY)
    place.graphdriver("--driver", "noisy", "layer", "create", "base")

    done = place.graphdriver("--driver", "noisy", "-q", "layer", "ls")

    assert "base" in done.stdout
    assert not {"printed", "echoed", "probed", "opened"} & set(done.stdout.split())


@pytest.fixture
def waiting(tmp_path: pathlib.Path) -> Iterator[subprocess.Popen[str]]:
    """A program that is at importing a plugin which takes for ever."""
    endless = Plugin("endless", "", top="import time\ntime.sleep(3600)")
    place = installed(tmp_path, endless)
    command = [sys.executable, "-m", "graphdrivers", "--root", str(tmp_path / "root"), "drivers"]
    with subprocess.Popen(command, env=place.environment, stdout=-1, stderr=-1, text=True) as running:
        while not place.imported:
            assert running.poll() is None
            time.sleep(0.01)
        yield running
        running.kill()


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_an_import_can_be_broken_off(waiting: subprocess.Popen[str], sent: signal.Signals, code: int) -> None:
    """Who asks the program to end is not answered that a plugin failed to import."""
    waiting.send_signal(sent)
    out, _ = waiting.communicate()

    assert waiting.returncode == code
    assert out == ""


def test_a_driver_that_nobody_offers(tmp_path: pathlib.Path) -> None:
    """To ask about an unknown driver is a mistake, not an empty list."""
    done = installed(tmp_path).graphdriver("drivers", "--driver", "zsf", check=False)

    assert done.returncode == errors.DriverNotFound.exit_code
    assert "no installed distribution offers it" in done.stderr
