"""Makes image configurations by hand and small root file systems of this machine's own programs; runs bundles."""

import io
import json
import os
import pathlib
import re
import shutil
import subprocess
import tarfile
from collections.abc import Iterable
from typing import Any

import pytest

from graphdrivers.images.manifests import ImageConfig

Json = dict[str, Any]

SOURCE = "image"

# crun refuses to run where cgroups of both versions are mounted, unless the second's are out of sight.
HIDE_HYBRID = "if mountpoint -q /sys/fs/cgroup/unified; then umount /sys/fs/cgroup/unified; fi"


def image_config(config: object = None, **more: object) -> ImageConfig:
    """Make the configuration of an image without layers."""
    fields = {"os": "linux", "architecture": "amd64", "rootfs": {"type": "layers", "diff_ids": []}, **more}
    if config is not None:
        fields["config"] = config
    return ImageConfig.parse(json.dumps(fields).encode(), SOURCE, "config", 0)


def need(*programs: str) -> None:
    """Fail where a program is missing, or skip where tools were declared optional."""
    for program in programs:
        if shutil.which(program) is None:
            if os.environ.get("GRAPHDRIVERS_OPTIONAL_TOOLS") == "1":
                pytest.skip(f"{program} is not installed")
            pytest.fail(f"{program} is not installed (GRAPHDRIVERS_OPTIONAL_TOOLS=1 skips what needs it)")


def root_tar(programs: Iterable[str], files: dict[str, str]) -> bytes:
    """Pack a root file system: this machine's programs with the libraries they need, and files with given text."""
    paths = {os.path.realpath(program): program for program in map(shutil.which, programs) if program is not None}
    found = {f"bin/{os.path.basename(name)}": path for path, name in paths.items()}
    for path in paths:
        listed = subprocess.run(["ldd", path], check=False, capture_output=True, text=True).stdout
        found |= {library[1:]: library for library in re.findall(r"/\S+", listed) if os.path.exists(library)}
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for name, path in sorted(found.items()):
            member = tarfile.TarInfo(name)
            content = pathlib.Path(path).read_bytes()
            member.size, member.mode = len(content), 0o755
            tar.addfile(member, io.BytesIO(content))
        for name, text in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(text.encode())
            tar.addfile(member, io.BytesIO(text.encode()))
    return packed.getvalue()


def crun(bundle: pathlib.Path, *prefix: str, state: pathlib.Path) -> subprocess.CompletedProcess[str]:
    """Run a bundle by crun, itself run by ``prefix``, in a mount namespace in which crun can work."""
    return _privately('exec "$@"', [*prefix, *_crun(bundle, state)])


def crun_as(uid: int, folder: pathlib.Path) -> subprocess.CompletedProcess[str]:
    """Run the bundle ``folder/bundle`` as a plain user, who may not be able to reach the folder where it is."""
    need("setpriv")
    user = ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups"]
    shown = pathlib.Path("/mnt")
    script = f'mount --bind "$1" {shown}; shift; exec "$@"'
    return _privately(script, [os.fspath(folder), *user, *_crun(shown / "bundle", shown / "state")])


def _crun(bundle: pathlib.Path, state: pathlib.Path) -> list[str]:
    # A name of our own: containers of one name share a control group, and the first to end would end the other.
    name = f"graphdrivers-test-{os.getpid()}"
    return ["crun", "--root", os.fspath(state), "run", "--bundle", os.fspath(bundle), name]


def _privately(script: str, arguments: list[str]) -> subprocess.CompletedProcess[str]:
    need("crun", "unshare", "mountpoint")
    command = ["unshare", "--mount", "sh", "-euc", f"{HIDE_HYBRID}; {script}", "sh", *arguments]
    return subprocess.run(command, check=False, capture_output=True, text=True, stdin=subprocess.DEVNULL)
