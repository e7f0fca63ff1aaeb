"""The sessions in README.md and in the tutorial run as they are printed."""

import doctest
import os
import pathlib
import re
import subprocess
import sys
import textwrap

import pytest

ROOT = pathlib.Path(__file__).parent.parent
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
DIRECTIVE = re.compile(r"^\.\. code-block:: (\w+)\n\n((?:   .*\n|\n)+)", re.MULTILINE)


def blocks(page: str, language: str) -> list[str]:
    """Give the code blocks of one language, in order, of a Markdown or reStructuredText page."""
    text = (ROOT / page).read_text(encoding="utf-8")
    found = (FENCE if page.endswith(".md") else DIRECTIVE).findall(text)
    return [textwrap.dedent(code) for name, code in found if name == language]


def session(page: str) -> list[tuple[str, str]]:
    """Give each command of the page's console blocks with the output that is printed below it."""
    steps: list[tuple[str, str]] = []
    for line in "".join(blocks(page, "console")).splitlines():
        if line.startswith("$ "):
            steps.append((line[2:], ""))
        elif line.startswith("> "):
            steps[-1] = (f"{steps[-1][0]}\n{line[2:]}", "")
        elif line:
            steps[-1] = (steps[-1][0], f"{steps[-1][1]}{line}\n")
    return steps


def environment(folder: pathlib.Path) -> dict[str, str]:
    """Give an environment with the program on PATH and everything it writes below one folder."""
    programs = os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]])
    return os.environ | {"PATH": programs, "GRAPHDRIVER_ROOT": str(folder / "root"), "HOME": str(folder), "TZ": "UTC"}


@pytest.mark.parametrize("page", ["README.md", "docs/tutorial.rst"])
@pytest.mark.parametrize("driver", ["auto", "vfs"])
def test_session(page: str, driver: str, tmp_path: pathlib.Path) -> None:
    """Each command of the session succeeds and prints what the page shows, whichever driver is used."""
    steps = session(page)
    marked = [f"{{ {command}\n}}\necho '<done>'" for command, _ in steps]

    done = subprocess.run(
        ["sh", "-euc", "\n".join(marked)],
        check=False,
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environment(tmp_path) | {"GRAPHDRIVER_DRIVER": driver},
    )

    assert steps
    assert done.returncode == 0, done.stderr
    for (command, wanted), got in zip(steps, done.stdout.split("<done>\n"), strict=False):
        assert doctest.OutputChecker().check_output(wanted, got, doctest.ELLIPSIS), f"$ {command}\n{got}"


def test_python(tmp_path: pathlib.Path) -> None:
    """The Python code of the README runs."""
    (code,) = blocks("README.md", "python")

    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, cwd=tmp_path, env=environment(tmp_path))


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"])
def test_links(page: str) -> None:
    """Every link into the repository leads somewhere."""
    targets = re.findall(r"\]\((?!https?:)([^)#]+)", (ROOT / page).read_text(encoding="utf-8"))

    assert [target for target in targets if not (ROOT / target).exists()] == []
