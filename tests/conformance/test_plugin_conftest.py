"""One line in a conftest.py gives a stranger's tests the whole suite, and takes nothing from them."""

import pathlib
import subprocess

import attrs
import pytest
from pluginrun import make_site, run

LINE = 'pytest_plugins = ["graphdrivers.conformance.plugin"]\n'


@attrs.frozen
class Project:
    """A distribution's checkout with tests of its own."""

    site: str
    root: pathlib.Path

    def pytest(self, *arguments: str, below: str = "") -> subprocess.CompletedProcess[str]:
        """Run pytest in the checkout, or in a folder of it."""
        return run(self.site, self.root / below, "-rA", *arguments)


@pytest.fixture
def project(tmp_path: pathlib.Path) -> Project:
    """A checkout whose tests have the one line, one test that is its own, and one that uses the bench."""
    (tmp_path / "site").mkdir()
    root = tmp_path / "project"
    (root / "tests").mkdir(parents=True)
    (root / "pyproject.toml").write_text(
        '[tool.pytest.ini_options]\ngraphdriver = "declared"\naddopts = "-p no:randomly"\n'
    )
    (root / "tests" / "conftest.py").write_text(LINE)
    own = "def test_own():\n    pass\n\n\ndef test_with_a_bench(bench):\n    assert bench.layer('base') == 'base'\n"
    (root / "tests" / "test_own.py").write_text(own)
    return Project(make_site(tmp_path / "site"), root)


@pytest.mark.parametrize(
    ("below", "arguments"), [("", []), ("tests", []), ("", ["tests"]), ("", ["."]), ("tests", ["../tests"])]
)
def test_plain_pytest_runs_the_suite(project: Project, below: str, arguments: list[str]) -> None:
    """However the folder of tests is asked for, the suite is part of it, and so are its own tests."""
    done = project.pytest(*arguments, "-k", "test_own.py or test_an_empty_layer", below=below)

    assert done.returncode == pytest.ExitCode.OK, done.stdout + done.stderr
    assert "test_own.py::test_own" in done.stdout
    assert "test_own.py::test_with_a_bench" in done.stdout
    assert "graphdriver declared: 1 checks ran, 0 failed, 0 gated" in done.stdout


@pytest.mark.parametrize("asked", ["tests/test_own.py", "tests/test_own.py::test_own"])
def test_a_file_alone_runs_alone(project: Project, asked: str) -> None:
    """Who names a file or a test gets that and no suite."""
    done = project.pytest(asked)

    assert done.returncode == pytest.ExitCode.OK, done.stdout + done.stderr
    assert "test_own.py::test_own" in done.stdout
    assert "graphdriver declared: 0 checks ran" in done.stdout


def test_another_folder_runs_alone(project: Project) -> None:
    """Who names a folder that does not hold the conftest.py gets no suite."""
    (project.root / "other").mkdir()
    (project.root / "other" / "test_other.py").write_text("def test_other():\n    pass\n")
    done = project.pytest("other")

    assert done.returncode == pytest.ExitCode.OK, done.stdout + done.stderr
    assert "1 passed" in done.stdout


def test_one_check_alone(project: Project) -> None:
    """A check is asked for by its name in the suite, wherever that is installed."""
    done = project.pytest("test_trees.py::test_an_empty_layer")

    assert done.returncode == pytest.ExitCode.OK, done.stdout + done.stderr
    assert "1 passed" in done.stdout
    assert "graphdriver declared: 1 checks ran, 0 failed" in done.stdout


def test_what_failed_last_runs_again(project: Project) -> None:
    """``--lf`` runs the checks that failed and no other, and a second driver can be named on the command line."""
    first = project.pytest("--graphdriver", "undeclared", "-k", "test_own.py or test_an_")
    second = project.pytest("--graphdriver", "undeclared", "--lf")

    assert first.returncode == second.returncode == pytest.ExitCode.TESTS_FAILED, second.stdout + second.stderr
    assert "graphdriver undeclared: 1 checks ran, 1 failed" in second.stdout
    assert "1 failed" in second.stdout.splitlines()[-1]


def test_a_shown_name_can_be_run(project: Project) -> None:
    """The name that the last lines give a failed check runs that check."""
    first = project.pytest("--graphdriver", "undeclared", "-k", "test_an_existing")
    (shown,) = [
        line.split()[-1] for line in first.stdout.splitlines() if line.startswith("graphdriver undeclared: failed: ")
    ]
    second = project.pytest("--graphdriver", "undeclared", shown)

    assert "graphdriver undeclared: 1 checks ran, 1 failed" in second.stdout, second.stdout + second.stderr
