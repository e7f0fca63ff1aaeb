"""The template for plugins: what it makes, and what it refuses to make."""

import configparser
import fcntl
import os
import pathlib
import pty
import re
import struct
import subprocess
import sys
import termios

import pytest

from graphdrivers import offers

ROOT = pathlib.Path(__file__).parent.parent.parent
TEMPLATE = ROOT / "plugins" / "template"
COPIER = [sys.executable, "-m", "copier", "copy", "--quiet"]
BY_HAND = {"README.md"}
"""What in the example is not the template's."""

LEFT_BEHIND = re.compile(r"/(__pycache__|build|dist|\.[^/]*|[^/]*\.egg-info)/")

SETUPS = [ROOT / "setup.cfg", *sorted((ROOT / "plugins").glob("*/setup.cfg"))]


def copied(target: pathlib.Path, *answers: str) -> subprocess.CompletedProcess[str]:
    """Make a plugin without asking."""
    given = [word for answer in answers for word in ("--data", answer)]
    command = [*COPIER, "--defaults", *given, TEMPLATE, target]
    return subprocess.run(command, check=False, capture_output=True, text=True)


def files(folder: pathlib.Path) -> dict[str, bytes]:
    """Give the content of a plugin's folder, without what builds and tests leave there."""
    found = {path.relative_to(folder): path for path in folder.rglob("*") if path.is_file()}
    return {str(name): path.read_bytes() for name, path in found.items() if not LEFT_BEHIND.search(f"/{name}")}


def offered() -> set[str]:
    """Name the drivers of this repository, but for the example."""
    names = set()
    for path in SETUPS:
        setup = configparser.ConfigParser()
        setup.read(path)
        points = setup["options.entry_points"]["graphdrivers.drivers"]
        names |= {line.partition("=")[0].strip() for line in points.splitlines() if line}
    return names - {"example"}


def test_the_example_is_what_it_makes(tmp_path: pathlib.Path) -> None:
    """Nobody has to keep two small drivers right."""
    done = copied(tmp_path / "made", "driver=example")
    made, example = files(tmp_path / "made"), files(ROOT / "plugins" / "example")

    assert done.returncode == 0, done.stderr
    assert made.keys() == example.keys()
    assert {name for name in made if made[name] != example[name]} <= BY_HAND


def test_a_name_of_several_words(tmp_path: pathlib.Path) -> None:
    """Package, class and distribution follow from the name, each in its own spelling, and belong together."""
    done = copied(tmp_path, "driver=thin-pool2", "summary=Layers in a pool")
    setup = configparser.ConfigParser()
    setup.read(tmp_path / "setup.cfg")
    code = "import graphdrivers_thin_pool2.driver as m; print(m.ThinPool2Driver.name, m.ThinPool2Driver.contract)"
    loaded = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True, cwd=tmp_path)

    assert done.returncode == 0, done.stderr
    assert setup["metadata"]["name"] == "graphdrivers-thin-pool2"
    assert setup["metadata"]["description"] == "Layers in a pool"
    target = "thin-pool2 = graphdrivers_thin_pool2.driver:ThinPool2Driver"
    assert setup["options.entry_points"]["graphdrivers.drivers"].strip() == target
    assert loaded.stdout == "thin-pool2 1\n", loaded.stderr
    assert b"{{" not in b"".join(files(tmp_path).values())


@pytest.mark.parametrize("name", sorted(offered() | offers.TAKEN))
def test_a_name_that_is_taken(name: str, tmp_path: pathlib.Path) -> None:
    """A name that a driver of ours has, or that means something else, is refused before anything is made."""
    done = copied(tmp_path / "made", f"driver={name}")

    assert done.returncode != 0
    assert re.search(f'"{name}" is (taken|reserved): choose another$', done.stderr.splitlines()[-1])
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    "name", ["", "Mine", "my_driver", "1st", "-x", "x-", "a--b", "a/b", "..", "a b", "ä", "x" * 41]
)
def test_a_name_that_cannot_be(name: str, tmp_path: pathlib.Path) -> None:
    """What is no folder, no package or no word of a command line is refused, with what can be."""
    done = copied(tmp_path / "made", f"driver={name}")

    assert done.returncode != 0
    assert 'use up to 40 of a-z, 0-9 and single "-"' in done.stderr.splitlines()[-1]
    assert not (tmp_path / "made").exists()


def test_a_summary_of_two_lines(tmp_path: pathlib.Path) -> None:
    """It would be more than the description in the metadata, which is one line."""
    done = copied(tmp_path / "made", "driver=mine", "summary=one\ntwo = three")

    assert done.returncode != 0
    assert "one line of text" in done.stderr
    assert not (tmp_path / "made").exists()


def test_people_are_asked(tmp_path: pathlib.Path) -> None:
    """On a terminal a bad answer is explained beside the question, and the next one counts."""
    here, there = pty.openpty()
    command = [*COPIER, TEMPLATE, tmp_path / "made"]
    variables = {**os.environ, "TERM": "xterm"}
    fcntl.ioctl(there, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    with subprocess.Popen(command, stdin=there, stdout=there, stderr=there, env=variables) as running:
        os.close(there)
        _answer(here, "Name that the driver", b"overlay\r")
        _answer(here, '"overlay" is taken: choose another', b"\x15mine\r")
        _answer(here, "What it is", b"\r")
        _drain(here)
    os.close(here)

    assert running.returncode == 0
    assert (tmp_path / "made" / "graphdrivers_mine" / "driver.py").exists()


def _answer(terminal: int, question: str, answer: bytes) -> None:
    """Wait until a text is on the screen, then type."""
    seen = ""
    while question not in seen:
        seen += re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", os.read(terminal, 4096).decode(errors="replace"))
    os.write(terminal, answer)


def _drain(terminal: int) -> None:
    """Read what is still printed, until nobody prints any more."""
    try:
        while os.read(terminal, 4096):
            pass
    except OSError:  # Linux: EIO when the other side is closed
        return
