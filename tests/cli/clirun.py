"""How tests run the command line: in this process, or as a program of its own."""

import io
import json
import os
import pathlib
import subprocess
import sys
import tarfile
import tempfile
from typing import Any

import attrs
from click.testing import CliRunner

from graphdrivers.cli.main import application


@attrs.frozen
class Ran:
    """What a command left: exit code, stdout, stderr."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one document on stdout."""
        return json.loads(self.out)


@attrs.frozen
class CommandLine:
    """The program with a root of its own."""

    root: pathlib.Path
    driver: str = "vfs"

    def __call__(self, *arguments: str, stdin: bytes | None = None, check: bool = True) -> Ran:
        """Run in this process; ``check`` asserts success."""
        with tempfile.TemporaryFile() as given:  # a real file: the program polls it
            given.write(stdin or b"")
            given.seek(0)
            result = CliRunner().invoke(application, [*self.globals, *arguments], input=given)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        ran = Ran(result.exit_code, result.stdout_bytes.decode(errors="surrogateescape"), result.stderr)
        assert not check or ran.code == 0, ran
        return ran

    @property
    def globals(self) -> list[str]:
        """The global options that name the root and the driver."""
        return ["--root", str(self.root), "--driver", self.driver]


NOBODY = 54321
"""A user without privileges, whom nothing on the machine belongs to."""

_AS_NOBODY = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups")
_MAY_READ = ("--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search")
"""The interpreter may lie in a folder of root's; nothing else about the user is special."""


def run_program(
    *arguments: str, nobody: bool = False, env: dict[str, str] | None = None, stdin: bytes = b"", cwd: str = "/"
) -> Ran:
    """Run the program as a process, also as a plain user; its environment is clean but for ``env``."""
    done = subprocess.run(
        [*((*_AS_NOBODY, *_MAY_READ) if nobody else ()), sys.executable, "-m", "graphdrivers", *arguments],
        input=stdin,
        capture_output=True,
        check=False,
        env={"PATH": os.environ["PATH"], **(env or {})},
        cwd=cwd,
    )
    return Ran(done.returncode, done.stdout.decode(errors="surrogateescape"), done.stderr.decode())


def make_tar(files: dict[str, bytes]) -> bytes:
    """Make a tar of regular files, ours."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.uid, member.gid = len(content), os.geteuid(), os.getegid()
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()
