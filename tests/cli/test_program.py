"""The program as a process: help, completion, pipes, signals, other users."""

import gc
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest
from clirun import NOBODY, run_program

from graphdrivers.cli import failures
from graphdrivers.linux import mountinfo

STORE_COMMANDS = (
    *("import", "pull", "push", "save", "images", "history", "tag", "rmi"),
    *("create", "ls", "rm", "mount", "umount", "mounts", "fork", "checkpoint", "rollback", "commit", "bundle"),
    *("inspect", "diff", "export", "status", "gc", "check", "explain"),
)

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user needs root")


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["layer"],
        ["drivers"],
        ["doctor"],
        ["bench"],
        ["completion"],
        *(
            ["layer", verb]
            for verb in ("create", "apply", "seal", "mount", "umount", "diff", "changes", "usage", "ls", "rm")
        ),
        *([command] for command in STORE_COMMANDS),
    ],
)
def test_help_fits_80_columns(arguments: list[str]) -> None:
    """Every command explains itself within 80 columns."""
    ran = run_program(*arguments, "--help", env={"COLUMNS": "80"})

    assert ran.code == 0
    assert ran.out.startswith("Usage: graphdriver")
    assert max(len(line) for line in ran.out.splitlines()) <= 80


@pytest.mark.parametrize("command", STORE_COMMANDS)
def test_every_store_command_has_an_example(command: str) -> None:
    """The last thing that its help says is how it is used."""
    told = " ".join(run_program(command, "--help").out.partition("Example: ")[2].split())

    assert f"graphdriver {command}" in told


def test_the_end_looks_for_no_garbage() -> None:
    """What is loaded is kept from the garbage collector when the program ends, and seldom looked through before."""
    told = "atexit.register(lambda: print(gc.get_threshold()[0], gc.get_freeze_count()))"
    program = f"import atexit, gc; {told}; from graphdrivers.cli.entry import main; main()"
    ran = subprocess.run([sys.executable, "-c", program, "--version"], check=True, capture_output=True, text=True)
    threshold, frozen = map(int, ran.stdout.splitlines()[-1].split())

    assert threshold > gc.get_threshold()[0]
    assert frozen > threshold / 10


def test_help_imports_no_command() -> None:
    """--help loads neither the drivers' loader nor rich."""
    code = (
        "import sys\nfrom graphdrivers.cli.main import application\n"
        "try:\n    application.main(['--help'])\nexcept SystemExit:\n    pass\n"
        "print(sorted({'stevedore', 'rich', 'zstandard', 'graphdrivers.loading'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.splitlines()[-1] == "[]"


def test_version() -> None:
    """--version, for people and for programs."""
    assert run_program("--version").out.startswith("graphdriver ")
    assert set(json.loads(run_program("--version", "--json").out)) == {"name", "version"}


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_script(shell: str) -> None:
    """A script for each shell, which asks the program by its variable."""
    ran = run_program("completion", shell)

    assert ran.code == 0
    assert f"_GRAPHDRIVER_COMPLETE={shell}_complete" in ran.out


def test_completion_candidates() -> None:
    """The program answers the script: commands below a group."""
    words = {"COMP_LINE": "graphdriver layer u", "_GRAPHDRIVER_COMPLETE": "bash_complete"}
    ran = run_program(env=words)

    assert ran.out.split() == ["plain,umount", "plain,usage"]


def test_completion_in_bash() -> None:
    """The script is valid bash."""
    script = run_program("completion", "bash").out

    subprocess.run(["bash", "-n"], input=script.encode(), check=True)


def test_reader_that_goes_away(tmp_path: pathlib.Path) -> None:
    """A closed pipe ends the program quietly."""
    root = ["--root", str(tmp_path), "--driver", "vfs"]
    run_program(*root, "layer", "create", "a")
    command = " ".join([sys.executable, "-m", "graphdrivers", *root, "layer", "diff", "a"])
    done = subprocess.run(
        ["bash", "-c", f"{command} | true; echo ${{PIPESTATUS[0]}}"], capture_output=True, check=False, cwd="/"
    )

    assert done.stderr == b""
    assert int(done.stdout) in {0, failures.BROKEN_PIPE}  # 0: all was written before the reader went


def test_terminated_while_it_works(tmp_path: pathlib.Path) -> None:
    """SIGTERM in the middle of an apply ends it with 143; the layer says that it is half filled."""
    root = ["--root", str(tmp_path / "root"), "--driver", "vfs"]
    run_program(*root, "layer", "create", "a")
    with subprocess.Popen(
        [sys.executable, "-m", "graphdrivers", *root, "layer", "apply", "a", "-"],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        cwd="/",
    ) as process:
        mark = tmp_path / "root" / "unfinished" / "a.apply"
        while not mark.exists() and process.poll() is None:
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(60)  # stdin stays open: a writer that hangs must not keep the program
        finally:
            process.kill()
        assert process.stderr is not None
        told = process.stderr.read()

    assert process.returncode == failures.TERMINATED
    assert b"Traceback" not in told
    assert mark.exists()


@needs_root
def test_as_a_plain_user(tmp_path: pathlib.Path) -> None:
    """Without any privilege: the automatic choice says why it is vfs, and everything works in plain folders."""
    home = tmp_path / "home"
    home.mkdir()
    os.chown(home, NOBODY, NOBODY)
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_mode & 0o005 != 0o005 and folder != pathlib.Path("/"):
            folder.chmod(folder.stat().st_mode | 0o055)
    env = {"HOME": str(home), "TMPDIR": str(home)}

    created = run_program("layer", "create", "a", nobody=True, env=env)
    assert created.code == 0
    assert "vfs" in created.err
    path = run_program("layer", "mount", "a", nobody=True, env=env).out.rstrip("\n")
    assert path.startswith(str(home))
    (pathlib.Path(path) / "file").touch()
    assert run_program("layer", "changes", "a", nobody=True, env=env).out == "A /file\n"


@needs_root
def test_a_root_of_somebody_else() -> None:
    """A root that one may not write to is one line with advice."""
    ran = run_program("--root", "/root/x", "layer", "ls", nobody=True)

    assert ran.code == failures.SYSTEM
    assert "--root" in ran.err
    assert ran.err.count("\n") == 1


def test_drivers_table() -> None:
    """Within 80 columns; JSON with what scripts rely on."""
    ran = run_program("--root", "/nonexistent/root", "drivers")
    listed = json.loads(run_program("--root", "/nonexistent/root", "drivers", "--json").out)

    assert ran.out.startswith("NAME")
    assert max(len(line) for line in ran.out.splitlines()) <= 80
    assert {one["name"] for one in listed} >= {"overlay", "vfs"}
    for one in listed:
        assert set(one) >= {
            "name",
            "distribution",
            "version",
            "usable",
            "reason",
            "fix",
            "engine",
            "capabilities",
            "deviations",
        }


def test_doctor(tmp_path: pathlib.Path) -> None:
    """Healthy: exit 0. An open root folder, a half-filled layer: exit 1, each with its fix."""
    root = tmp_path / "root"
    env = {"TMPDIR": str(tmp_path)}
    healthy = run_program("--root", str(root), "doctor", "--json", env=env)
    assert healthy.code == 0, healthy
    assert json.loads(healthy.out)["ok"] is True

    run_program("--root", str(root), "--driver", "vfs", "layer", "create", "a")
    run_program("--root", str(root), "--driver", "vfs", "layer", "apply", "a", "-", stdin=b"garbage" * 100)
    root.chmod(0o755)
    (tmp_path / "graphdriver-bench-999999999-x").mkdir()
    ill = run_program("--root", str(root), "doctor", env=env)
    assert ill.code == 1
    assert max(len(line) for line in ill.out.splitlines() if "/" not in line) <= 80
    problems = [
        check
        for check in json.loads(run_program("--root", str(root), "doctor", "--json", env=env).out)["checks"]
        if check["state"] == "problem"
    ]
    assert {check["subject"] for check in problems} == {"root", "unfinished layer", "benchmark"}
    assert all(check["fix"] for check in problems)


@needs_root
def test_doctor_finds_leaked_mounts(tmp_path: pathlib.Path) -> None:
    """A mount below the root that belongs to no layer is named, with the command that undoes it."""
    root = tmp_path / "root"
    leak = root / "mounts" / "gone"
    run_program("--root", str(root), "--driver", "vfs", "layer", "create", "a")
    leak.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "none", str(leak)], check=True)
    try:
        ran = run_program("--root", str(root), "doctor", env={"TMPDIR": str(tmp_path)})
    finally:
        subprocess.run(["umount", str(leak)], check=True)

    assert ran.code == 1
    assert f"umount {leak}" in " ".join(ran.out.split())
    assert mountinfo.mounted_at(str(leak)) is None


def test_a_name_that_is_nearly_a_command() -> None:
    """It is told which one may be meant."""
    ran = run_program("imagse")

    assert ran.code == failures.USAGE
    assert "did you mean 'images'" in ran.err
    assert ran.err.count("\n") == 1


def test_closed_streams(tmp_path: pathlib.Path) -> None:
    """Without stdout and stderr nothing is told, and nothing else is written to the files that are opened."""
    root = tmp_path / "root"
    command = f"{sys.executable} -m graphdrivers --root {root} --driver vfs"
    done = subprocess.run(
        ["bash", "-c", f"{command} images >&- 2>&-; echo $?; {command} import - <&-; echo $?"],
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
    )

    assert done.stdout == "0\n2\n"
    assert done.stderr.startswith("graphdriver: refusing to read a tar from a closed stdin")
    assert (root / "store" / "ledger.sqlite").read_bytes()[:6] == b"SQLite"


def test_a_locale_without_the_characters(tmp_path: pathlib.Path) -> None:
    """What the encoding of stdout lacks is escaped; it was a traceback once."""
    tree = tmp_path / "tree"
    (tree / "etc").mkdir(parents=True)
    (tree / "etc" / "\u65e5\u672c").touch()
    command = ("--root", str(tmp_path / "root"), "--driver", "vfs")
    run_program(*command, "import", str(tree), "--name", "base:1")
    ran = run_program(*command, "diff", "base:1", env={"PYTHONIOENCODING": "latin-1"})

    assert (ran.code, ran.err) == (0, "")
    assert "A /etc/\\u65e5\\u672c" in ran.out.splitlines()


def test_an_interrupt_while_modules_are_imported() -> None:
    """Ctrl-C so early is no traceback either."""
    script = (
        "import os, signal, sys\n"
        "def hit(event, args):\n"
        "    if event == 'import' and args[0] == 'click':\n"
        "        signal.raise_signal(signal.SIGINT)\n"
        "sys.addaudithook(hit)\n"
        "from graphdrivers.cli.entry import main\n"
        "main()\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)

    assert (done.returncode, done.stdout, done.stderr) == (failures.INTERRUPTED, "", "")


def test_doctor_stands_in_columns(tmp_path: pathlib.Path) -> None:
    """What each check is about begins in one column, and continued lines lie deeper."""
    ran = run_program("--root", str(tmp_path / "root"), "doctor")

    for line in ran.out.splitlines():
        assert line[:9] in {"ok       ", "note     ", "PROBLEM  ", " " * 9}
        assert line[9:].startswith("    ") or line[9] != " "
