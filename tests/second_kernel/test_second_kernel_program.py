"""``scripts/second-kernel`` itself: what goes in arrives, what comes out is passed on, nothing stays behind."""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable

import pytest
from guests import PROGRAM, alive, command_line, gone, run

TELL = """
import json, os, sys
with open("/proc/self/mountinfo") as table:
    mounts = {line.split()[4]: line.split(" - ")[1].split()[0] for line in table}
found = [sys.argv[1:], os.environ["NOTE"], os.getcwd(), sys.executable, mounts["/tmp"]]
json.dump(found, sys.stdout)
"""
ODD = ("two words", "", "new\nline", "'single' \"double\"", "$HOME `id` \\ %s", "--timeout", "\udcff")


@pytest.mark.parametrize(
    ("command", "status"),
    [(("true",), 0), (("sh", "-c", "exit 7"), 7), (("sh", "-c", "kill -9 $$"), 137), (("no-such-program",), 127)],
)
def test_the_exit_status_is_the_commands(command: tuple[str, ...], status: int) -> None:
    """The exit status passes through; a signal, or that there is no such command, is told as by a shell."""
    assert run(*command).returncode == status


def test_what_is_printed_arrives() -> None:
    """Every byte of both streams arrives, apart from each other, also when there is more than pipes hold."""
    script = (
        "import sys; w = sys.stdout.buffer.write; w(bytes(range(256)) * 20000); sys.stderr.buffer.write(b'e\\r\\n')"
    )
    done = subprocess.run(command_line(sys.executable, "-c", script), check=True, capture_output=True)

    assert done.stdout == bytes(range(256)) * 20000
    assert done.stderr == b"e\r\n"


def test_what_is_printed_arrives_at_once() -> None:
    """A line can be read while the command goes on; to end the program then ends the guest."""
    line = command_line("sh", "-c", "echo ready; sleep 1000", options=("--memory", "201M"))
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True) as program:
        assert program.stdout
        assert program.stdout.readline() == "ready\n"
        assert alive("mem=201M")
        program.terminate()

    assert program.returncode == 128 + signal.SIGTERM
    assert alive("mem=201M") == []


def test_arguments_environment_and_directory_are_intact(tmp_path: pathlib.Path) -> None:
    """Arguments and variables of any bytes arrive; the working directory is the same, also one below /tmp."""
    (tmp_path / "a b").mkdir()
    done = run(sys.executable, "-c", TELL, *ODD, directory=tmp_path / "a b", environment={"NOTE": "a\nb\udcff"})

    assert done.stderr == ""
    arguments, note, directory, python, fs_type = json.loads(done.stdout)
    assert tuple(arguments) == ODD
    assert (note, directory, python) == ("a\nb\udcff", str(tmp_path / "a b"), sys.executable)
    assert fs_type == "ext4"


def test_this_machine_is_read_only(tmp_path: pathlib.Path) -> None:
    """The guest sees the files of this machine and can change none, root or not."""
    (tmp_path / "file").write_text("as it was")
    done = run("sh", "-c", "cat file; echo changed >file; rm file; touch /new", directory=tmp_path)

    assert done.stdout == "as it was"
    assert done.stderr.count("Read-only file system") == 3
    assert (tmp_path / "file").read_text() == "as it was"


def test_it_may_be_kept_anywhere(tmp_path: pathlib.Path) -> None:
    """A checkout below a path with spaces, also in /tmp, does as well."""
    folder = tmp_path / "my own=project"
    folder.mkdir()
    for path in (PROGRAM, PROGRAM.with_name("second-kernel-init")):
        shutil.copy(path, folder)
    done = subprocess.run([folder / "second-kernel", "--", "echo", "here"], check=True, capture_output=True, cwd="/")

    assert done.stdout == b"here\n"


def test_a_hanging_command_is_killed(tmp_path: pathlib.Path) -> None:
    """After the time-out the guest is killed; the status and one line say so; no file and no process is left."""
    home, temporary = tmp_path / "home", tmp_path / "temporary"
    home.mkdir()
    temporary.mkdir()
    options = ("--timeout", "8", "--memory", "202M")
    places = {"HOME": str(home), "TMPDIR": str(temporary)}
    done = run("sh", "-c", "sleep 1000 & echo begun; sleep 1000", options=options, environment=places)

    assert done.returncode == 124
    assert done.stderr == "second-kernel: no end after 8 seconds: killed\n"
    assert alive("mem=202M") == []
    assert [*home.iterdir(), *temporary.iterdir()] == []


def test_a_killed_program_takes_its_guest_along(tmp_path: pathlib.Path) -> None:
    """SIGKILL, which no program can answer, leaves no process and no file either."""
    line = command_line("sh", "-c", "echo ready; sleep 1000", options=("--memory", "203M"))
    environment = {**os.environ, "TMPDIR": str(tmp_path), "HOME": str(tmp_path)}
    with subprocess.Popen(line, stdout=subprocess.PIPE, env=environment) as program:
        assert program.stdout
        assert program.stdout.readline() == b"ready\n"
        program.kill()

    assert gone("mem=203M")
    assert list(tmp_path.iterdir()) == []


def test_interrupted() -> None:
    """Ctrl-C in a terminal ends the program, and the guest with it."""
    line = command_line("sh", "-c", "echo ready; sleep 1000", options=("--memory", "204M"))
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as program:
        assert program.stdout
        assert program.stderr
        assert program.stdout.readline() == b"ready\n"
        program.send_signal(signal.SIGINT)
        assert program.stderr.read() == b""

    assert program.returncode == 128 + signal.SIGINT
    assert alive("mem=204M") == []


def test_disks_that_are_brought_stay(tmp_path: pathlib.Path) -> None:
    """A file given to the guest is a disk there, and keeps what was written to it."""
    disks = [tmp_path / "first,a", tmp_path / "second"]
    for number, disk in enumerate(disks):
        disk.write_bytes(b"%d" % number + bytes((1 << 20) - 1))
    script = "head -c1 /dev/ubdb; head -c1 /dev/ubdc; printf new | dd of=/dev/ubdc bs=3 seek=100 2>/dev/null"
    done = run("sh", "-c", script, options=("--attach", str(disks[0]), "--attach", str(disks[1])))

    assert (done.stdout, done.returncode) == ("01", 0)
    assert disks[1].read_bytes()[300:303] == b"new"
    assert disks[1].stat().st_size == 1 << 20


def test_modules_are_loaded_after_what_they_need() -> None:
    """A module is loaded with those that it depends on, whichever of - and _ its name is written with."""
    done = run("cat", "/proc/modules", options=("--modules", "overlay,dm_thin-pool"))
    loaded = {line.split()[0] for line in done.stdout.splitlines()}

    assert {"overlay", "dm_thin_pool", "dm_persistent_data", "dm_mod"} <= loaded


def without_user_mode_linux(tmp_path: pathlib.Path) -> dict[str, str]:
    """Give a PATH on which the kernel is not."""
    return {"PATH": str(tmp_path)}


def with_nothing(_tmp_path: pathlib.Path) -> dict[str, str]:
    """Change nothing."""
    return {}


@pytest.mark.parametrize(
    ("options", "command", "change", "words"),
    [
        ((), "true", without_user_mode_linux, "linux.uml is not installed; on Debian: apt-get install user-mode-linux"),
        (("--memory", "900000G"), "true", with_nothing, "MiB of memory are needed"),
        (("--disk", "1K"), "true", with_nothing, "the disk could not be made"),
        (("--modules", "nonsense"), "true", with_nothing, "this kernel has no such module: 'nonsense'"),
        (("--attach", "/no/such"), "true", with_nothing, "cannot attach '/no/such': No such file or directory"),
        ((), "echo c >/proc/sysrq-trigger", with_nothing, "the guest died: Kernel panic - not syncing: sysrq"),
        ((), "echo o >/proc/sysrq-trigger; sleep 1000", with_nothing, "the guest died: "),
    ],
)
def test_failures_are_told_in_a_line(
    tmp_path: pathlib.Path,
    options: tuple[str, ...],
    command: str,
    change: Callable[[pathlib.Path], dict[str, str]],
    words: str,
) -> None:
    """What is missing, and a guest that dies, are one line with the reason, and a status of their own."""
    done = run("sh", "-c", command, options=options, environment=change(tmp_path))

    assert done.returncode == 125
    assert done.stderr.startswith("second-kernel: ")
    assert words in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("text", ["1", "G", "-1G", "1.5G", "1T", "1M"])
def test_sizes_that_are_none(text: str) -> None:
    """A memory size without a unit, or too small to boot in, is refused before anything is started."""
    done = run("true", options=("--memory", text))

    assert done.returncode == 2
    assert "argument --memory" in done.stderr
