"""Every failure is one line with advice, an exit code of its own, and a value for JSON."""

import errno
import json

import click
import pytest
from clirun import CommandLine, run_program

from graphdrivers import errors
from graphdrivers.cli import failures, main, output


def end(error: click.ClickException | errors.GraphDriverError | OSError, *, as_json: bool = False) -> int:
    """Let the program end with an error; give its exit code."""
    return main._end(error, as_json=as_json)


def test_library_errors_keep_their_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    """An error of the tree is its own sentence, advice behind a semicolon, and its class's exit code."""
    assert end(errors.LayerNotFound("x")) == errors.LayerNotFound.exit_code
    assert capsys.readouterr().err == (
        "graphdriver: layer 'x' does not exist; 'graphdriver layer ls' lists those that do\n"
    )


def test_notes_are_told() -> None:
    """What was added to an error on its way up is part of what to do."""
    error = errors.MalformedArchive("cut short")
    error.add_note("remove the layer")

    assert failures.of_library(error).line.endswith("; fetch or make the archive again; remove the layer")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.EIO])
def test_system_errors_say_what_where_and_what_to_do(number: int) -> None:
    """A failed system call names the reason, the path and the call, and gives advice."""
    told = failures.of_system(errors.SyscallError(number, "openat2", b"/some/where"))

    assert "'/some/where'" in told.message
    assert "(openat2)" in told.message
    assert told.fix
    assert told.exit_code == failures.SYSTEM


def test_errors_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    """With --json the error is a document on stdout, fields included, and the line still goes to stderr."""
    assert end(errors.LayerHasChildren("base", ("web",)), as_json=True) == 36
    captured = capsys.readouterr()

    told = json.loads(captured.out)["error"]
    assert (told["type"], told["layer"], told["children"]) == ("LayerHasChildren", "base", ["web"])
    assert told["message"]
    assert told["fix"]
    assert captured.err.startswith("graphdriver: ")


def test_messages_are_one_safe_line() -> None:
    """A newline or an escape sequence in a name neither breaks the line nor reaches the terminal."""
    assert output.one_line("a\nb\x1b[31m\udcff") == "a\\x0ab\\x1b[31m\\xff"


def test_visible_names_are_unambiguous() -> None:
    r"""A name with a real newline and one with a backslash and an n look different."""
    assert output.visible("a\nb") == r"a\x0ab"
    assert output.visible(r"a\x0ab") == r"a\\x0ab"
    assert output.visible("gr\u00fc\u00df") == "gr\u00fc\u00df"


@pytest.mark.parametrize(
    "arguments",
    [
        ["bogus"],
        ["--bogus"],
        ["layer", "bogus"],
        ["layer", "create"],
        ["layer", "create", "x", "--size", "big"],
        ["--opt", "novalue", "drivers"],
        ["-v", "-q", "drivers"],
        ["drivers", "-q", "-v"],
        ["completion", "tcsh"],
        ["bench", "no-such-workload"],
        ["layer", "diff", "x", "--json"],
    ],
)
def test_usage_errors(arguments: list[str], cli: CommandLine) -> None:
    """A command line that makes no sense is one line on stderr, and 2."""
    ran = cli(*arguments, check=False)

    assert ran.code == failures.USAGE
    assert ran.err.startswith("graphdriver: ")
    assert ran.err.count("\n") == 1


def test_a_group_alone_shows_its_help(cli: CommandLine) -> None:
    """Without a command the help goes to stderr, as a mistake."""
    ran = cli("layer", check=False)

    assert (ran.code, ran.out) == (failures.USAGE, "")
    assert "umount" in ran.err


def test_unknown_driver(cli: CommandLine) -> None:
    """A driver that nobody offers is told with the command that lists the others."""
    ran = cli("--driver", "nonesuch", "layer", "ls", check=False)

    assert ran.code == errors.DriverNotFound.exit_code
    assert "graphdriver drivers" in ran.err


def test_interrupt(cli: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C ends with 130 and without a word of Python."""

    def interrupt(*_arguments: object, **_options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("graphdrivers.loading.list_drivers", interrupt)
    ran = cli("drivers", check=False)

    assert ran.code == failures.INTERRUPTED
    assert "Traceback" not in ran.err


def test_full_disk_is_told() -> None:
    """Output that does not fit is an error, not a lost line."""
    with open("/dev/full", "wb") as full:
        import subprocess  # noqa: PLC0415 - only this test needs a special stdout
        import sys  # noqa: PLC0415 - as above

        done = subprocess.run(
            [sys.executable, "-m", "graphdrivers", "--help"], stdout=full, stderr=subprocess.PIPE, check=False
        )

    assert done.returncode == failures.SYSTEM
    assert done.stderr.startswith(b"graphdriver: No space left on device; ")
    assert b"Traceback" not in done.stderr


def test_a_file_in_the_way() -> None:
    """A root that is a file is one clear line."""
    ran = run_program("--root", "/dev/null", "layer", "ls")

    assert ran.code == failures.SYSTEM
    assert ran.err.startswith("graphdriver: '/dev/null'")
    assert ran.err.count("\n") == 1
