"""What pages of the documentation show to be run: found in their text, and run in a folder with a small image."""

import doctest
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tarfile
import textwrap

import attrs

sys.path.insert(0, str(pathlib.Path(__file__).parent / "images"))

from layouts import Layout, packed

from graphdrivers.linux import mountinfo, mounts

ROOT = pathlib.Path(__file__).parent.parent
FENCE = re.compile(r"^()```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
DIRECTIVE = re.compile(r"^(\.\. runnable\n\n)?\.\. code-block:: (\w+)\n\n((?:   .*\n|\n)+)", re.MULTILINE)

_BEFORE = """\
import warnings
from graphdrivers.loading import FallbackWarning
warnings.simplefilter("default", FallbackWarning)
"""
"""Without root the library warns that it has to take a driver that copies; any other warning is an error."""


@attrs.frozen
class Block:
    """A code block of a page."""

    language: str
    code: str
    marked: bool
    """The page promises that it runs."""


@attrs.frozen
class Step:
    """One command, and what the page shows it to print."""

    command: str
    output: str


def blocks(page: str) -> list[Block]:
    """Give the code blocks, in order, of a Markdown or reStructuredText page."""
    text = (ROOT / page).read_text(encoding="utf-8")
    found = (FENCE if page.endswith(".md") else DIRECTIVE).findall(text)
    return [Block(language, textwrap.dedent(code), bool(mark)) for mark, language, code in found]


def steps(block: Block) -> list[Step]:
    """Give the commands of a console block; a Python block is one command, and prints what it likes."""
    if block.language == "python":
        return [Step(f"python -W error - <<'END OF PYTHON'\n{_BEFORE}{block.code}\nEND OF PYTHON", "...")]
    found: list[Step] = []
    for line in block.code.splitlines():
        if line.startswith("$ "):
            found.append(Step(line[2:], ""))
        elif line.startswith("> "):
            found[-1] = attrs.evolve(found[-1], command=f"{found[-1].command}\n{line[2:]}")
        elif line:
            found[-1] = attrs.evolve(found[-1], output=f"{found[-1].output}{line}\n")
    return found


def perform(session: list[Step], folder: pathlib.Path, driver: str) -> None:
    """Run commands with the program that is tested, which uses one driver; see `run`."""
    run(session, folder, environment(folder) | {"GRAPHDRIVER_DRIVER": driver})


def run(session: list[Step], folder: pathlib.Path, variables: dict[str, str]) -> None:
    """Run commands one after the other in one shell, and assert that each succeeds and prints what the page shows."""
    script = [f"{{ {step.command}\n}}\necho '<done>'" for step in session]

    try:
        done = subprocess.run(
            ["sh", "-euc", "\n".join(script)],
            check=False,
            capture_output=True,
            text=True,
            cwd=folder,
            env=variables,
        )
    finally:
        for mount in mountinfo.mounted_below(str(folder)):  # of a session that broke off
            mounts.detach(mount.target, lazy=True)

    assert session
    assert done.returncode == 0, done.stdout + done.stderr
    for step, got in zip(session, done.stdout.split("<done>\n"), strict=False):
        matches = doctest.OutputChecker().check_output(step.output, got, doctest.ELLIPSIS)
        assert matches, f"$ {step.command}\n{got}\nis not\n{step.output}\nof\n{done.stdout}"


def environment(folder: pathlib.Path) -> dict[str, str]:
    """Give an environment with the program on PATH and everything it writes below one folder."""
    programs = os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]])
    return os.environ | {"PATH": programs, "GRAPHDRIVER_ROOT": str(folder / "root"), "HOME": str(folder), "TZ": "UTC"}


def make_image(folder: pathlib.Path) -> None:
    """Put the image of the pages into a folder: ``image.tar``, of two layers, the second of which deletes a file."""
    made = folder / "image"
    made.mkdir()
    layout = Layout(made)
    base = layer(folder, {"etc/motd": "welcome\n", "etc/issue": "draft\n", "usr/bin/shop": "#!/bin/sh\n"})
    top = layer(folder, {"etc/.wh.issue": "", "srv/prices": "apples 3\npears 4\n"})
    layout.add(layout.manifest(base, top), "shop:1")
    packed(made)
    shutil.rmtree(made)


def layer(folder: pathlib.Path, files: dict[str, str]) -> bytes:
    """Make a layer tar as GNU tar would, with the directories of the files, all of the user's that runs the tests."""
    tree, tar = folder / "tree", folder / "layer.tar"
    for name, content in files.items():
        path = tree / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
    with tarfile.open(tar, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for path in sorted(tree.iterdir()):
            archive.add(path, path.name)
    shutil.rmtree(tree)
    made = tar.read_bytes()
    tar.unlink()
    return made
