"""The runtime configuration: the image's settings, what was asked for, defaults for the rest."""

import json
import os
import pathlib
from collections.abc import Callable
from typing import Any

import pytest
from containers import SOURCE, image_config

from graphdrivers import errors
from graphdrivers.images.run_options import IdMapping, Network, RunMount, RunOptions, rootless_mappings
from graphdrivers.images.runtime_spec import CAPABILITIES, PATH, runtime_spec

Make = Callable[..., dict[str, Any]]


@pytest.fixture
def make(tmp_path: pathlib.Path) -> Make:
    """Make configurations for a root with a few users."""
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/passwd").write_text("root:x:0:0::/root:/bin/sh\nworker:x:5:6::/home/worker:\n")
    (tmp_path / "etc/group").write_text("a:x:70:worker\nb:x:3:worker\n")

    def make(config: object = None, **options: Any) -> dict[str, Any]:
        root = os.open(tmp_path, os.O_RDONLY)
        try:
            given = {"Cmd": ["run"]} if config is None else config
            fields = runtime_spec(image_config(given), root, RunOptions(**options), SOURCE).fields
        finally:
            os.close(root)
        assert json.loads(json.dumps(fields)) == fields
        return fields

    return make


@pytest.mark.parametrize(
    ("config", "options", "args"),
    [
        ({"Cmd": ["a", "b"]}, {}, ["a", "b"]),
        ({"Entrypoint": ["e", "f"]}, {}, ["e", "f"]),
        ({"Entrypoint": ["e"], "Cmd": ["a"]}, {}, ["e", "a"]),
        ({"Entrypoint": ["e"], "Cmd": ["a"]}, {"args": ("x",)}, ["e", "x"]),
        ({"Entrypoint": ["e"], "Cmd": ["a"]}, {"args": ()}, ["e"]),
        ({"Cmd": ["a"]}, {"args": ("x", "y")}, ["x", "y"]),
        ({"Entrypoint": ["e"], "Cmd": ["a"]}, {"entrypoint": ("n",)}, ["n"]),
        ({"Entrypoint": ["e"], "Cmd": ["a"]}, {"entrypoint": (), "args": ("x",)}, ["x"]),
        ({"Entrypoint": ["e"], "Cmd": ["a"]}, {"entrypoint": ("n",), "args": ("x",)}, ["n", "x"]),
    ],
)
def test_args(make: Make, config: object, options: dict[str, Any], args: list[str]) -> None:
    """Entry point and arguments are joined, and replaced, as Docker does."""
    assert make(config, **options)["process"]["args"] == args


@pytest.mark.parametrize(
    ("config", "options"),
    [({}, {}), ({"Cmd": []}, {}), ({"Cmd": ["a"]}, {"entrypoint": ()}), ({"Cmd": [""]}, {}), ({}, {"args": ()})],
)
def test_no_command(make: Make, config: object, options: dict[str, Any]) -> None:
    """Without a command there is nothing to run."""
    with pytest.raises(errors.InvalidRunOption, match="no command"):
        make(config, **options)


def test_env(make: Make) -> None:
    """Defaults come only for what nobody sets; the image's order and repetitions stay; what was asked for replaces."""
    image = {"Cmd": ["run"], "Env": ["B=1", "A=1", "B=2"]}

    assert make()["process"]["env"] == [PATH, "HOME=/root"]
    assert make(image)["process"]["env"] == [PATH, "HOME=/root", "B=1", "A=1", "B=2"]
    assert make(image, env=("B=3", "PATH=/x"))["process"]["env"] == ["HOME=/root", "A=1", "B=3", "PATH=/x"]
    assert make(image, env=("C=1", "C=2"))["process"]["env"][-1:] == ["C=2"]
    assert make(terminal=True)["process"]["env"] == [PATH, "HOME=/root", "TERM=xterm"]
    assert make({"Cmd": ["x"], "Env": ["TERM=", "HOME=/h", "PATH="]}, terminal=True)["process"]["env"] == [
        "TERM=",
        "HOME=/h",
        "PATH=",
    ]


def test_user(make: Make) -> None:
    """The image's user counts unless another is asked for; only root has capabilities."""
    image = {"Cmd": ["run"], "User": "worker"}
    worker, root = make(image)["process"], make(image, user="")["process"]

    assert worker["user"] == {"uid": 5, "gid": 6, "additionalGids": [3, 70]}
    assert (worker["capabilities"]["effective"], worker["capabilities"]["permitted"]) == ([], [])
    assert root["user"] == {"uid": 0, "gid": 0}
    assert root["capabilities"]["effective"] == root["capabilities"]["permitted"] == list(CAPABILITIES)
    for process in (worker, root):
        assert process["capabilities"]["bounding"] == list(CAPABILITIES)
        assert process["capabilities"]["inheritable"] == process["capabilities"]["ambient"] == []
    with pytest.raises(errors.UserNotFound):
        make({"Cmd": ["run"], "User": "nobody"})


def test_cwd(make: Make) -> None:
    """The working directory is the image's unless another is asked for."""
    assert make({"Cmd": ["run"], "WorkingDir": "/srv"})["process"]["cwd"] == "/srv"
    assert make({"Cmd": ["run"], "WorkingDir": "/srv"}, cwd="/x")["process"]["cwd"] == "/x"
    assert make()["process"]["cwd"] == "/"


def test_switches(make: Make) -> None:
    """Each option is in its field."""
    fields = make(terminal=True, readonly=True, hostname="h-1.example", no_new_privileges=True)

    assert fields["process"]["terminal"] is fields["root"]["readonly"] is fields["process"]["noNewPrivileges"] is True
    assert fields["hostname"] == "h-1.example"
    assert make()["process"]["terminal"] is make()["root"]["readonly"] is make()["process"]["noNewPrivileges"] is False


def kinds(fields: dict[str, Any]) -> set[str]:
    """Name the namespaces of a configuration."""
    return {namespace["type"] for namespace in fields["linux"]["namespaces"]}


def test_namespaces(make: Make) -> None:
    """Everything is the container's own, the network unless the host's is asked for."""
    assert kinds(make()) == {"pid", "ipc", "uts", "mount", "cgroup", "network"}
    assert kinds(make(network=Network.HOST)) == {"pid", "ipc", "uts", "mount", "cgroup"}
    assert make(network=Network.HOST)["mounts"][5]["type"] == "sysfs"
    assert all(set(namespace) == {"type"} for namespace in make()["linux"]["namespaces"])


def test_devices_are_denied(make: Make) -> None:
    """Root in the host's user namespace may make device nodes but not use them."""
    assert make()["linux"]["resources"] == {"devices": [{"allow": False, "access": "rwm"}]}


def test_mounts(make: Make) -> None:
    """The standard mounts are there, then volumes, then what was asked for."""
    extra = RunMount("/etc/hosts", "/srv/hosts", options=("bind", "ro"))
    config = {"Cmd": ["run"], "Volumes": {"/data": {}, "/proc/x": {}}}
    mounts = make(config, mounts=(extra,), tmpfs_volumes=True)["mounts"]

    standard = ["/proc", "/dev", "/dev/pts", "/dev/shm", "/dev/mqueue", "/sys", "/sys/fs/cgroup"]  # noqa: S108 - inside
    assert [mount["destination"] for mount in mounts] == [*standard, "/data", "/etc/hosts"]
    assert mounts[-1] == {
        "destination": "/etc/hosts",
        "type": "bind",
        "source": "/srv/hosts",
        "options": ["bind", "ro"],
    }
    assert [mount["destination"] for mount in make(config)["mounts"]] == standard
    assert "gid=5" in mounts[2]["options"]
    assert all({"nosuid", "noexec", "nodev"} <= set(mount["options"]) for mount in mounts if mount["type"] == "sysfs")
    make({"Cmd": ["run"], "Volumes": {"../x": {}}})
    with pytest.raises(errors.InvalidManifest):
        make({"Cmd": ["run"], "Volumes": {"../x": {}}}, tmpfs_volumes=True)


def test_rootless(make: Make) -> None:
    """With a user namespace of one id nothing is asked for that it cannot have."""
    options = rootless_mappings(1000, 1001)
    fields = make(**options)

    assert "user" in kinds(fields)
    assert fields["linux"]["uidMappings"] == [{"containerID": 0, "hostID": 1000, "size": 1}]
    assert fields["linux"]["gidMappings"] == [{"containerID": 0, "hostID": 1001, "size": 1}]
    assert "resources" not in fields["linux"]
    devpts, sysfs = fields["mounts"][2], fields["mounts"][5]
    assert "gid=5" not in devpts["options"]
    assert sysfs["type"] == "sysfs"
    shared = make(**options, network=Network.HOST)["mounts"][5]
    assert (shared["destination"], shared["type"], "ro" in shared["options"]) == ("/sys", "bind", True)
    with pytest.raises(errors.InvalidRunOption, match="uid 5 does not exist"):
        make(**options, user="worker")


def test_mapped_groups(make: Make) -> None:
    """Groups that a user namespace does not have are left out; a main one is refused."""
    ids = (IdMapping(0, 100_000, 10),)

    assert make(user="worker", uid_mappings=ids, gid_mappings=ids)["process"]["user"]["additionalGids"] == [3]
    with pytest.raises(errors.InvalidRunOption, match="gid 10 does not exist"):
        make(user="9:10", uid_mappings=ids, gid_mappings=ids)


@pytest.mark.parametrize(
    "options",
    [
        *({"hostname": ""}, {"hostname": "a b"}, {"hostname": "x" * 65}, {"hostname": "-a"}, {"hostname": "a\n"}),
        *({"env": ("A",)}, {"env": ("=b",)}, {"env": ("A=\0",)}, {"args": ("\0",)}, {"entrypoint": ("\ud800",)}),
        *({"cwd": "x"}, {"cwd": ""}, {"cwd": "/x/.."}, {"cwd": "/\0"}),
        {"uid_mappings": (IdMapping(0, 1, 1),)},
    ],
)
def test_impossible_options(options: dict[str, Any]) -> None:
    """What no runtime could do is refused before anything is made, in one line."""
    with pytest.raises(errors.InvalidRunOption) as caught:
        RunOptions(**options)

    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("destination", "source", "kind", "options"),
    [
        *(("x", "/y", "bind", ()), ("/x", "y", "bind", ()), ("/x", "/../y", "bind", ()), ("/x/..", "/y", "bind", ())),
        *(("/x", "\0", "tmpfs", ()), ("/x", "y", "tm\0pfs", ()), ("/x", "y", "tmpfs", ("ro\0",))),
    ],
)
def test_impossible_mounts(destination: str, source: str, kind: str, options: tuple[str, ...]) -> None:
    """A mount has an absolute destination, and a bind an absolute source."""
    with pytest.raises(errors.InvalidRunOption):
        RunMount(destination, source, kind, options)


@pytest.mark.parametrize("numbers", [(0, 0, 0), (-1, 0, 1), (0, -1, 1), (0, 2**32 - 1, 1), (2**32 - 2, 0, 2)])
def test_impossible_mappings(numbers: tuple[int, int, int]) -> None:
    """A range of ids has at least one and ends below 2**32 - 1."""
    with pytest.raises(errors.InvalidRunOption):
        IdMapping(*numbers)
    assert IdMapping(0, 2**32 - 2, 1).holds(0)
