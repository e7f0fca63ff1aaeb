"""Whatever an image says, its runtime configuration is one that a runtime can be given, or a typed error."""

import json
import os
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphdrivers import errors
from graphdrivers.images.accounts import GROUPS_MAX, ID_MAX, read_account
from graphdrivers.images.conversion import OBEYED
from graphdrivers.images.manifests import ImageConfig
from graphdrivers.images.run_options import RunOptions
from graphdrivers.images.runtime_spec import runtime_spec

Result = TypeVar("Result")

PIECES = [
    "",
    "/",
    "..",
    "/..",
    ".",
    "a",
    "A=b",
    "=",
    "0",
    "7",
    "worker",
    ":",
    "\0",
    "\n",
    "\ud800",
    "é",
    "run.oci.x",
    "/proc",
]
KEYS = ["User", "Env", "Cmd", "Entrypoint", "WorkingDir", "Volumes", "Labels", "ExposedPorts", "StopSignal", "cmd", "X"]

texts = st.lists(st.sampled_from(PIECES), max_size=3).map("".join) | st.text(max_size=5)
good = st.sampled_from(["/srv", "A=b", "worker", "12:34"])
leaves = st.one_of(st.none(), st.booleans(), st.integers(-5, 5), texts, good)
arrays = st.lists(texts | good, max_size=3)
maps = st.dictionaries(texts, st.one_of(texts, st.just({})), max_size=3)
values = st.one_of(leaves, arrays, maps, st.lists(leaves, max_size=2))
typed = st.fixed_dictionaries(
    {},
    optional={
        "User": texts | st.sampled_from(["0", "12:34", ""]),
        "Env": st.lists(texts.map("A=".__add__) | good.map("B=".__add__), max_size=3),
        "Cmd": arrays,
        "Entrypoint": arrays,
        "WorkingDir": texts | texts.map("/".__add__) | good.map("/".__add__),
        "Labels": st.dictionaries(texts, texts, max_size=3),
        "Volumes": st.dictionaries(texts | texts.map("/".__add__), st.just({}), max_size=3),
    },
)
configs = st.one_of(typed, typed, st.dictionaries(st.sampled_from(KEYS), values, max_size=4))

fields = st.sampled_from(
    [b"", b"x", b"0", b"7", b"worker", b"1000", b"4294967295", b"-1", b"/home", b"\xff", b"a,worker", b"9" * 40]
)
lines = st.lists(fields, max_size=8).map(b":".join) | st.binary(max_size=20)
files = st.lists(lines, max_size=6).map(b"\n".join)


def strings(value: object) -> list[str]:
    """Give every string of a document, keys too."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        return [*value, *(text for item in value.values() for text in strings(item))]
    return [text for item in value for text in strings(item)] if isinstance(value, list) else []


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """A root directory, with an ``etc``."""
    folder = tmp_path_factory.mktemp("root")
    (folder / "etc").mkdir()
    opened = os.open(folder, os.O_RDONLY)
    yield opened
    os.close(opened)


def attempt(make: Callable[[], Result]) -> Result | errors.GraphDriverError:
    """Give what is made, or the error if it is one of those that are promised."""
    try:
        return make()
    except (errors.InvalidManifest, errors.UserNotFound, errors.InvalidRunOption) as error:
        return error


@settings(max_examples=1000, deadline=None)
@given(config=configs, tmpfs_volumes=st.booleans())
def test_configuration(root: int, *, config: Any, tmpfs_volumes: bool) -> None:
    """No configuration of an image makes another error, or a document with what no process can be given."""
    parsed = {"os": "linux", "architecture": "x", "rootfs": {"type": "layers"}, "config": config}
    image = ImageConfig.parse(json.dumps(parsed).encode(), "image", "config", 0)
    options = RunOptions(args=("run",), tmpfs_volumes=tmpfs_volumes)
    spec = attempt(lambda: runtime_spec(image, root, options, "image"))

    if isinstance(spec, errors.GraphDriverError):
        assert str(spec).isprintable()
        return
    assert not any("\0" in text for text in strings(spec.fields))
    assert json.loads(json.dumps(spec.fields, ensure_ascii=False).encode()) == spec.fields
    assert not [key for key in spec.fields["annotations"] if key.lower().startswith(OBEYED)]
    assert all("=" in entry and entry[0] != "=" for entry in spec.fields["process"]["env"])
    for path in (spec.fields["process"]["cwd"], *(mount["destination"] for mount in spec.fields["mounts"])):
        assert path.startswith("/")
        assert ".." not in path.split("/")


@settings(max_examples=300, deadline=None)
@given(passwd=files, group=files, user=texts | st.sampled_from(["worker", "7", "worker:x", "0:7", "1000", ":worker"]))
def test_accounts(root: int, passwd: bytes, group: bytes, user: str) -> None:
    """No content of the two files makes another error, or an account that no process can have."""
    for name, content in (("passwd", passwd), ("group", group)):
        with open(f"/proc/self/fd/{root}/etc/{name}", "wb") as file:
            file.write(content)

    account = attempt(lambda: read_account(root, user, "image"))
    for name in ("passwd", "group"):
        os.unlink(f"/proc/self/fd/{root}/etc/{name}")

    if isinstance(account, errors.GraphDriverError):
        assert str(account).isprintable()
        return
    assert 0 <= min(account.uid, account.gid) <= max(account.uid, account.gid) <= ID_MAX
    assert all(0 <= gid <= ID_MAX for gid in account.additional_gids)
    assert len(account.additional_gids) <= GROUPS_MAX
    assert account.gid not in account.additional_gids
    assert account.home.startswith("/")
    assert account.home.isprintable()
    number = user.partition(":")[0]
    if number.isascii() and number.isdigit():
        assert account.uid == int(number)
