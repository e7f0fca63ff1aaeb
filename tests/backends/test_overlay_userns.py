"""The overlay driver as root of a plain user's namespace: what only the real root may write is done another way."""

import os
import pathlib
import subprocess
import sys

import pytest

SCRIPT = str(pathlib.Path(__file__).parents[2] / "scripts" / "as-user")

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user needs root")

_PROGRAM = """
import io, os, sys, tarfile
from graphdrivers.backends.overlay.driver import OverlayDriver
from graphdrivers.linux import mounts
home = sys.argv[1]
driver = OverlayDriver(home, {}, OverlayDriver.probe(home, {}))
print(driver.support.engine)
print(driver.support.capabilities.ownership)
for layer, names in (("base", ("d/old", "gone")), ("child", ("d/.wh..wh..opq", "d/new", ".wh.gone"))):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name in names:
            tar.addfile(tarfile.TarInfo(name))
    buffer.seek(0)
    driver.create(layer, None if layer == "base" else "base")
    driver.apply(layer, buffer)
    driver.seal(layer)
plan = driver.mounts("child", view=True)
print(("userxattr", None) in plan[0].options)
print(os.listxattr(os.path.join(home, "layers", "child", "diff", "d")))
with mounts.opened(plan) as root:
    print(sorted(os.listdir(root)), os.listdir(f"/proc/self/fd/{root}/d"))
"""


@pytest.mark.parametrize(("option", "owners"), [("--namespace", "False"), ("--namespace=all", "True")])
def test_user_xattrs_are_used(option: str, owners: str) -> None:
    """The engine says so, the mount has ``userxattr``, marks are ``user.overlay.*``; a range of ids keeps owners."""
    command = [SCRIPT, option, "sh", "-c", 'exec "$0" -c "$1" "$TMPDIR/home"', sys.executable, _PROGRAM]
    path = os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]])
    done = subprocess.run(command, check=False, capture_output=True, text=True, env={**os.environ, "PATH": path})
    engine, *lines = done.stdout.splitlines() or [""]

    assert engine.startswith("kernel overlayfs"), done.stderr
    assert engine.endswith(", user xattrs")
    assert lines == [owners, "True", "['user.overlay.opaque']", "['d'] ['new']"]
