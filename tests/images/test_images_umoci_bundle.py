"""Bundles say the same about the process as those that umoci writes, but where we mean to differ."""

import json
import os
import pathlib
import subprocess
from typing import Any

import pytest
from containers import need
from layouts import Layout

from graphdrivers import errors
from graphdrivers.images.opening import open_image
from graphdrivers.images.run_options import RunOptions
from graphdrivers.images.runtime_spec import runtime_spec

FILES = {
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\nworker:x:1000:1001::/home/worker:/bin/sh\n",
    "etc/group": "root:x:0:\nworker:x:1001:\nstaff:x:50:worker\naudio:x:29:other,worker\n",
}

CONFIGS: dict[str, dict[str, Any]] = {
    "command": {"Cmd": ["a", "b c", ""]},
    "entry point": {"Entrypoint": ["e", "f"]},
    "both": {"Entrypoint": ["e", "f"], "Cmd": ["a", "b"]},
    "environment": {"Cmd": ["a"], "Env": ["B=1", "A=x=y", "EMPTY=", "PATH=/x:/y", "TERM=dumb", "HOME=/h"]},
    "folder": {"Cmd": ["a"], "WorkingDir": "/srv/new/folder"},
    "user": {"Cmd": ["a"], "User": "worker"},
    "user and group": {"Cmd": ["a"], "User": "worker:staff"},
    "user and gid": {"Cmd": ["a"], "User": "worker:7"},
    "uid": {"Cmd": ["a"], "User": "1000"},
    "uid and group": {"Cmd": ["a"], "User": "1000:audio"},
    "uid and gid": {"Cmd": ["a"], "User": "2000:3000"},
    "unknown uid": {"Cmd": ["a"], "User": "2000"},
    "group": {"Cmd": ["a"], "User": ":audio"},
    "labels": {"Cmd": ["a"], "Labels": {"k": "v", "org.opencontainers.image.os": "mine"}, "StopSignal": "SIGINT"},
    "ports": {"Cmd": ["a"], "ExposedPorts": {"80/tcp": {}, "53/udp": {}}},
}


HOMES = {"environment": "HOME=/h", "uid and gid": "HOME=/", "unknown uid": "HOME=/"}
"""Where we mean to differ about ``HOME``, and what it is here."""


def without_home(fields: dict[str, Any]) -> list[str]:
    """Give the environment of a configuration without ``HOME``."""
    return [entry for entry in fields["process"]["env"] if not entry.startswith("HOME=")]


def converted(layout: pathlib.Path, rootfs: pathlib.Path) -> dict[str, Any]:
    """Have umoci make a runtime configuration, for the users that a folder has."""
    need("umoci")
    path = rootfs.parent / "umoci.json"
    command = ["umoci", "raw", "runtime-config", "--image", f"{layout}:it", "--rootfs", rootfs, path]
    subprocess.run(command, check=True, capture_output=True, text=True)
    return dict(json.loads(path.read_bytes()))


@pytest.fixture
def rootfs(tmp_path: pathlib.Path) -> pathlib.Path:
    """A folder with the files of accounts."""
    for name, text in FILES.items():
        (tmp_path / "rootfs" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "rootfs" / name).write_text(text)
    return tmp_path / "rootfs"


@pytest.mark.parametrize("name", CONFIGS)
def test_same_process(tmp_path: pathlib.Path, rootfs: pathlib.Path, name: str) -> None:
    """Arguments, environment, folder, user and annotations agree.

    Differences that are meant: umoci sets ``TERM`` without a terminal too, no ``HOME`` for a uid without account, and
    that of the account in place of the image's own; it writes annotations for properties that the image does not have,
    as empty ones, and lets properties win over labels, which the specification has the other way round. Supplementary
    groups are a set.
    """
    made = Layout(tmp_path)
    made.add(made.manifest(config=made.config(config=CONFIGS[name], created="2020-01-02T03:04:05Z", author="me")), "it")

    theirs = converted(tmp_path, rootfs)
    theirs["process"]["user"].get("additionalGids", []).sort()
    theirs["annotations"] |= CONFIGS[name].get("Labels", {})
    root = os.open(rootfs, os.O_RDONLY)
    try:
        with open_image(tmp_path, reference="it") as image:
            ours = runtime_spec(image.config, root, RunOptions(terminal=True), image.source).fields
    finally:
        os.close(root)

    for key in ("args", "cwd", "user", "terminal"):
        assert ours["process"][key] == theirs["process"][key], key
    differing = HOMES.get(name)
    assert sorted(without_home(ours)) == sorted(without_home(theirs))
    assert differing or set(ours["process"]["env"]) == set(theirs["process"]["env"])
    assert not differing or differing in ours["process"]["env"]
    assert ours["annotations"] == {key: value for key, value in theirs["annotations"].items() if value}
    assert {mount["destination"] for mount in ours["mounts"]} == {mount["destination"] for mount in theirs["mounts"]}


def test_no_command(tmp_path: pathlib.Path, rootfs: pathlib.Path) -> None:
    """Umoci makes up a shell for an image without a command, which may not have one; here that is an error."""
    made = Layout(tmp_path)
    made.add(made.manifest(), "it")
    root = os.open(rootfs, os.O_RDONLY)
    try:
        with open_image(tmp_path, reference="it") as image, pytest.raises(errors.InvalidRunOption, match="no command"):
            runtime_spec(image.config, root, RunOptions(), image.source)
    finally:
        os.close(root)

    assert converted(tmp_path, rootfs)["process"]["args"] == ["sh"]
