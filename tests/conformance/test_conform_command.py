"""``graphdriver conform``: the suite from the command line, its exit codes and its JSON."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import sysconfig
import time

import pytest
from plugin_drivers import EXISTING, LINK
from pluginrun import environment, make_site, run

import graphdrivers

QUICK = "test_trees.py::test_an_empty_layer"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder with a distribution that offers drivers to try the plugin out."""
    return make_site(tmp_path_factory.mktemp("site"))


def conform(site: str, folder: pathlib.Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run ``graphdriver conform`` with homes below ``folder``, where nothing is left afterwards."""
    root = folder / "root"
    done = run(site, folder, "conform", "--root", str(root), *arguments, module="graphdrivers")
    assert not root.exists() or os.listdir(root) == []
    return done


def test_a_sound_driver(site: str, tmp_path: pathlib.Path) -> None:
    """A driver that passes gives 0 and the counts; pytest's arguments choose the checks; nothing is written here."""
    done = conform(site, tmp_path, "plain", "--", "-k", "test_an_empty_layer or test_a_size_that_is_claimed")

    assert done.returncode == 0, done.stdout + done.stderr
    assert "graphdriver plain: 1 gated, plain does not claim quota" in done.stdout
    assert "graphdriver plain: 1 checks ran, 0 failed, 1 gated" in done.stdout
    assert sorted(os.listdir(tmp_path)) == ["root"]


def test_a_broken_driver(site: str, tmp_path: pathlib.Path) -> None:
    """A driver that fails a check gives 1; with --json the counts are the only thing on stdout."""
    done = conform(site, tmp_path, "--json", "undeclared", "--", EXISTING)
    counts = json.loads(done.stdout)

    assert done.returncode == 1
    assert (counts["ok"], counts["driver"], counts["failed"], counts["whole"]) == (
        False,
        "undeclared",
        [EXISTING],
        False,
    )
    assert "DID NOT RAISE" in done.stderr


def test_a_declared_deviation(site: str, tmp_path: pathlib.Path) -> None:
    """A driver that deviates as it declares gives 0, and --json explains the deviation."""
    done = conform(site, tmp_path, "declared", "--json", "--", EXISTING)

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["expected"] == {EXISTING: f"its store overwrites, {LINK}"}


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["ghost"], 14, "driver 'ghost' cannot be loaded"),
        (["nowhere"], 12, "the moon is not full; wait for it"),
        (["plain", "--opt", "no=1"], 21, "option 'no' of driver vfs"),
        (["unexplained"], 22, "it gives no link but ''"),
        (["plain", "--", "-k", "no_such_check"], 2, "no check was chosen"),
        (["plain", "--", "--no-such-option"], 2, "pytest made nothing of these arguments"),
        ([], 2, "Missing argument 'NAME'"),
    ],
)
def test_what_makes_no_sense(site: str, tmp_path: pathlib.Path, arguments: list[str], code: int, message: str) -> None:
    """A driver that cannot be had, an option it does not know, and checks that do not exist end in one line."""
    done = conform(site, tmp_path, *arguments)
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("graphdriver: ")]

    assert message in line
    assert done.returncode == code, line


def test_the_configuration_around_has_no_say(site: str, tmp_path: pathlib.Path) -> None:
    """A pytest configuration or conftest.py in the current folder changes nothing."""
    (tmp_path / "pytest.ini").write_text("[pytest]\npython_functions = nothing_*\naddopts = --no-such-option\n")
    (tmp_path / "conftest.py").write_text("raise SystemExit('read')\n")
    done = conform(site, tmp_path, "plain", "--", QUICK)

    assert done.returncode == 0, done.stdout + done.stderr


def test_an_ended_run_leaves_nothing(site: str, tmp_path: pathlib.Path) -> None:
    """SIGTERM ends the checks in order: the exit code says so, and the scratch folder is gone."""
    root = tmp_path / "root"
    command = [sys.executable, "-m", "graphdrivers", "conform", "plain", "--root", str(root)]
    with subprocess.Popen(command, cwd=tmp_path, env=environment(site), stdout=subprocess.PIPE, text=True) as program:
        assert program.stdout is not None
        while "test_changes.py" not in program.stdout.readline():
            assert program.poll() is None
        time.sleep(0.3)  # so that a check is under way, most likely
        program.send_signal(signal.SIGTERM)
        rest = program.stdout.read()

    assert program.returncode == 128 + signal.SIGTERM, rest
    assert "KeyboardInterrupt" in rest
    assert os.listdir(root) == []


def test_without_pytest(tmp_path: pathlib.Path) -> None:
    """Where pytest or hypothesis is missing, one line says what to install."""
    for name in os.listdir(sysconfig.get_path("purelib")):
        if not name.startswith(("pytest", "_pytest", "hypothesis", "_hypothesis")):
            os.symlink(os.path.join(sysconfig.get_path("purelib"), name), tmp_path / name)
    if not (tmp_path / "graphdrivers").exists():  # installed as a link to the checkout
        os.symlink(os.path.dirname(graphdrivers.__file__), tmp_path / "graphdrivers")
    done = subprocess.run(
        [sys.executable, "-S", "-m", "graphdrivers", "conform", "vfs"],
        check=False,
        capture_output=True,
        text=True,
        cwd="/",
        env={"PYTHONPATH": str(tmp_path), "PATH": os.environ["PATH"]},
    )
    missing = "pytest and hypothesis are not installed; pip install 'graphdrivers[conformance]'"

    assert done.stderr == f"graphdriver: {missing}\n"
    assert done.returncode == 1


def test_drivers_tells_deviations(site: str, tmp_path: pathlib.Path) -> None:
    """``graphdriver drivers`` shows what a driver declares: with -v for people, always in JSON."""
    asked = ["drivers", "--driver", "declared", "--root", str(tmp_path)]
    told = run(site, tmp_path, *asked, "-v", module="graphdrivers").stdout
    (document,) = json.loads(run(site, tmp_path, *asked, "--json", module="graphdrivers").stdout)

    assert " ".join(told.split()).endswith(
        f"declared deviates: {document['deviations'][0]['check']}: its store overwrites, {LINK}"
    )
    assert document["deviations"][0] == {
        "check": EXISTING.replace("existing", "*"),
        "reason": "its store overwrites",
        "link": LINK,
        "sometimes": False,
    }
