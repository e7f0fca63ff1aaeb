"""Tiny images for tests of the store's commands."""

import io
import os
import pathlib
import tarfile
from collections.abc import Mapping
from typing import Any

from layouts import Layout

from graphdrivers.images.descriptors import Platform

BASE: dict[str, bytes | None] = {"etc/motd": b"welcome\n", "etc/issue": b"draft\n", "bin/sh": b"#!" * 100}
TOP: dict[str, bytes | None] = {"etc/motd": b"welcome again\n", "etc/issue": None}


def layer(files: Mapping[str, bytes | None]) -> bytes:
    """Make a layer tar of regular files of ours; ``None`` deletes."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for path, content in files.items():
            head, _, name = path.rpartition("/")
            member = tarfile.TarInfo(path if content is not None else f"{head}/.wh.{name}")
            member.size, member.mtime = len(content or b""), 1_700_000_000
            member.uid, member.gid = os.geteuid(), os.getegid()
            tar.addfile(member, io.BytesIO(content or b""))
    return buffer.getvalue()


def layout(folder: pathlib.Path, *layers: bytes, name: str | None = "12", **config: Any) -> pathlib.Path:
    """Make an OCI layout of one image for this machine."""
    folder.mkdir(parents=True)
    made = Layout(folder)
    described = made.config(*layers, architecture=Platform.here().architecture, **config)
    made.add(made.manifest(*layers, config=described), name)
    return folder


def debian(folder: pathlib.Path, **config: Any) -> pathlib.Path:
    """Make an image of two layers that is called ``debian:12`` by its folder and its tag."""
    return layout(folder / "debian", layer(BASE), layer(TOP), **config)
