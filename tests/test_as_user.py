"""The way in to a plain user's rights that the tests themselves take: ``scripts/as-user``."""

import os
import pathlib
import subprocess
import sys

import pytest

SCRIPT = str(pathlib.Path(__file__).parents[1] / "scripts" / "as-user")

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user needs root")


def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the script, with this Python as ``python3``."""
    path = os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]])
    environment = {**os.environ, "PATH": path, **variables}
    return subprocess.run([SCRIPT, *arguments], check=False, capture_output=True, text=True, env=environment)


def test_no_privilege_is_left() -> None:
    """The command has another user and group, no further groups, and no capability now or ever."""
    done = run("sh", "-c", "id -u; id -g; id -G; grep -E 'Cap(Inh|Prm|Eff|Bnd|Amb)' /proc/self/status")
    ids, capabilities = done.stdout.split()[:3], done.stdout.split()[4::2]

    assert ids == ["64999"] * 3, done.stderr
    assert capabilities == ["0" * 16] * 5


@pytest.mark.parametrize(
    ("option", "maps"),
    [("--namespace", [["0", "64999", "1"]]), ("--namespace=all", [["0", "64999", "1"], ["1", "300000", "65535"]])],
)
def test_namespaces(option: str, maps: list[list[str]]) -> None:
    """In a user namespace of its own it is root over one id, or over a range besides."""
    done = run(option, "sh", "-c", "id -u; cat /proc/self/uid_map; echo; cat /proc/self/gid_map; mount -t tmpfs x /mnt")
    uid, *lines = (line.split() for line in done.stdout.splitlines())

    assert (uid, lines) == (["0"], [*maps, [], *maps])
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("option", ["", "--namespace", "--namespace=all"])
def test_a_folder_of_its_own(option: str, tmp_path: pathlib.Path) -> None:
    """TMPDIR and HOME are an empty folder on the disk of the caller's TMPDIR, closed or not, and gone at the end."""
    tmp_path.chmod(0o700)
    script = 'cd "$TMPDIR"; pwd; [ "$HOME" = "$TMPDIR" ]; ls -A; stat -c %d .; mkdir shut; chmod 0 shut'
    done = run(*filter(None, [option]), "sh", "-ec", script, TMPDIR=str(tmp_path))
    folder, *listed, device = done.stdout.splitlines()

    assert (os.path.dirname(folder), listed) == (str(tmp_path), [])
    assert int(device) == tmp_path.stat().st_dev
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("option", ["", "--namespace"])
def test_the_exit_status_is_the_commands(option: str) -> None:
    """So a failure is seen."""
    assert [run(*filter(None, [option]), "sh", "-c", f"exit {n}").returncode for n in (0, 1, 77)] == [0, 1, 77]


def test_this_python_works(tmp_path: pathlib.Path) -> None:
    """The interpreter and the project are reachable, wherever they are; what else is closed stays closed."""
    secret = tmp_path / "shut"
    secret.mkdir(mode=0o700)
    (secret / "file").touch()
    script = f"import graphdrivers, os; print(graphdrivers.__file__, os.path.exists({str(secret / 'file')!r}))"
    done = run(sys.executable, "-c", script)

    assert done.stdout.endswith("__init__.py False\n"), done.stderr


@pytest.mark.parametrize("option", ["", "--namespace"])
def test_a_plain_user_stays_who_it_is(option: str) -> None:
    """Started by somebody who is not root it needs no root."""
    done = run(SCRIPT, *filter(None, [option]), "sh", "-c", 'id -u; cat /proc/self/uid_map; [ -w "$TMPDIR" ]; exit 7')
    uid, inside, outside, *_ = done.stdout.split()

    assert (uid, inside, outside) == (("0", "0", "64999") if option else ("64999", "0", "0")), done.stderr
    assert done.returncode == 7


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "usage: as-user"),
        (["--unknown", "true"], "unknown option '--unknown'"),
        (["no-such-program"], "no-such-program: no such program"),
        ([SCRIPT, "--namespace=all", "true"], "in /etc/subuid"),
    ],
)
def test_errors_say_what_is_wrong(arguments: list[str], said: str) -> None:
    """One line of the script's own, and a status that no command is likely to have."""
    done = run(*arguments)

    assert done.returncode == 125
    assert said in done.stderr.splitlines()[-1]
