"""The store's commands for users without privileges: in plain folders, and in a user namespace."""

import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator

import pytest
from clirun import NOBODY, run_program
from storeimages import debian

AS_USER = pathlib.Path(__file__).parents[2] / "scripts" / "as-user"

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user needs root")


@pytest.fixture
def home() -> Iterator[pathlib.Path]:
    """A home of nobody's, with an image in it.

    Not below pytest's own folder: each pytest that starts closes that to others again, and several run at a time.
    """
    with tempfile.TemporaryDirectory(prefix="graphdrivers-home-") as above:
        folder = pathlib.Path(above) / "home"
        folder.parent.chmod(0o711)
        folder.mkdir()
        debian(folder)
        for path in (folder, *folder.rglob("*")):
            os.chown(path, NOBODY, NOBODY)
        yield folder


def test_as_a_plain_user(home: pathlib.Path) -> None:
    """From import to rm: everything but a mount works, and a writable container needs none."""

    def run(*arguments: str, code: int = 0) -> str:
        ran = run_program(*arguments, nobody=True, env={"HOME": str(home), "TMPDIR": str(home)})
        assert ran.code == code, ran
        assert "Traceback" not in ran.err
        return ran.out

    run("import", str(home / "debian"))
    run("create", "debian:12", "--name", "web")
    place = pathlib.Path(run("mount", "web").rstrip("\n"))
    (place / "etc/new").touch()
    os.chown(place / "etc/new", NOBODY, NOBODY)
    run("umount", "web")

    assert run("diff", "web") == "C /etc\nA /etc/new\n"
    run("checkpoint", "web")
    run("fork", "web", "twin")
    run("export", "twin", "-o", str(home / "twin.tar"))
    run("commit", "twin", "example:1")
    run("save", "example:1", "-o", str(home / "example.tar"))
    assert run("diff", "debian:12", "example:1") == "C /etc\nA /etc/new\n"
    assert run("check", "--deep") == ""
    run("rm", "web", "twin")
    run("rmi", "example:1", "debian:12")
    assert run("layer", "ls") == ""
    assert (home / ".local/share/graphdrivers").stat().st_mode & 0o777 == 0o700


def test_in_a_user_namespace(home: pathlib.Path) -> None:
    """Root of a namespace mounts overlays: what is mounted there is seen there, and nothing is left."""
    if shutil.which("unshare") is None:
        pytest.skip("no unshare")
    script = """
        set -e
        run() { python -m graphdrivers --root "$HOME/root" --driver overlay "$@"; }
        run import "$1"
        run create debian:12 --name web
        place=$(run mount web)
        echo new > "$place/etc/new"
        run umount web
        run diff web
        run rm web
    """
    done = subprocess.run(
        [AS_USER, "--namespace", "bash", "-c", script, "bash", home / "debian"],
        env={"PATH": f"{os.path.dirname(sys.executable)}:{os.environ['PATH']}", "TMPDIR": str(home.parent)},
        capture_output=True,
        text=True,
        check=False,
        cwd=AS_USER.parent.parent,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-3:] == ["C /etc", "A /etc/new", "web"]
