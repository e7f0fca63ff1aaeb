"""Containers from the command line: made, mounted, branched, taken back and removed."""

import os
import pathlib

import pytest
from clirun import CommandLine, run_program
from storeimages import TOP

from graphdrivers import Container, Store, errors
from graphdrivers.cli import failures
from graphdrivers.linux import mountinfo

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")


def mounted(cli: CommandLine, *arguments: str) -> pathlib.Path:
    """Mount, and give the place that was printed."""
    return pathlib.Path(cli("mount", *arguments).out.rstrip("\n"))


def test_life_of_a_container(any_store: CommandLine) -> None:
    """Create, mount, write, umount, diff, checkpoint, rollback, fork, ls, rm."""
    cli = any_store
    assert cli("create", "debian:12", "--name", "web").out == "web\n"
    place = mounted(cli, "web")
    assert (place / "etc/motd").read_bytes() == TOP["etc/motd"]
    (place / "etc/new").write_text("new\n")
    assert cli("ls", "--json").json[0]["Mounts"] == [{"Target": str(place), "Writable": True, "Process": None}]
    assert cli("rm", "web", check=False).code == errors.ContainerInUse.exit_code
    cli("umount", "web")
    assert cli("umount", "web").err == "graphdriver: 'web' is not mounted; nothing to do\n"

    assert cli("diff", "web").out == "C /etc\nA /etc/new\n"
    assert cli("checkpoint", "web").out == "1\n"
    assert cli("checkpoint", "web", "second").out == "second\n"
    assert [one["Point"] for one in cli("checkpoint", "web", "--list", "--json").json] == ["1", "second"]
    assert cli("fork", "web", "twin").out == "twin\n"
    cli("rollback", "web", "created")
    assert (cli("diff", "web").out, cli("diff", "twin").out) == ("", "C /etc\nA /etc/new\n")
    cli("checkpoint", "web", "--delete", "1")
    cli("rollback", "web")
    assert cli("diff", "web").out == "C /etc\nA /etc/new\n"
    assert cli("ls", "-q").out.count("\n") == 2
    assert cli("rm", "web", "twin").out == "web\ntwin\n"
    assert cli("ls").out == ""


def test_branches_of_a_container(any_store: CommandLine) -> None:
    """Top to bottom: the writable one, checkpoints, the init layer by its name, the image's."""
    any_store("create", "debian:12", "--name", "web")
    (mounted(any_store, "web") / "f").touch()
    any_store("umount", "web")
    any_store("checkpoint", "web", "p")
    (found,) = any_store("inspect", "web").json

    assert [(one["role"], one["kind"]) for one in found["Branches"]] == [
        ("rw", "writable"),
        ("ro+wh", "checkpoint"),
        ("ro+wh", "init"),
        ("ro+wh", "image"),
        ("ro+wh", "image"),
    ]
    assert [one["init"] for one in found["Branches"]] == [False, False, True, False, False]
    assert found["Branches"][2]["layer"].endswith("-init")
    assert found["Checkpoints"][0]["Layer"] == found["Branches"][1]["layer"]
    assert (found["Name"], found["ImageName"]) == ("web", "debian:12")
    assert found["GraphDriver"]["Name"] == any_store.driver


@needs_root
def test_mounting_where_one_wants(any_store: CommandLine, tmp_path: pathlib.Path) -> None:
    """At TARGET, and undone by its path; an image is a view, also under a name with slashes."""
    any_store("tag", "debian:12", "team/base:1")
    any_store("create", "debian:12", "--name", "web")
    target = tmp_path / "here\n"
    target.mkdir()
    assert any_store("mount", "web", str(target)).out == f"{target}\n"
    assert mountinfo.mounted_at(str(target)) is not None
    found = any_store("--json", "umount", str(target)).json
    place = mounted(any_store, "team/base:1")
    with pytest.raises(OSError, match="Read-only"):
        (place / "f").touch()

    assert found["unmounted"] == [str(target)]
    assert mountinfo.mounted_at(str(target)) is None
    any_store("umount", "team/base:1")
    assert mountinfo.mounted_at(str(place)) is None


@needs_root
def test_busy_mounts(store: CommandLine, tmp_path: pathlib.Path) -> None:
    """What somebody uses stays mounted, and the way out is told: --lazy."""
    store("create", "debian:12", "--name", "web")
    target = tmp_path / "here"
    target.mkdir()
    store("mount", "web", str(target))
    with (target / "etc/motd").open():
        busy = store("umount", "web", check=False)
        forced = store("rm", "-f", "web", check=False)
        assert mountinfo.mounted_at(str(target)) is not None
        store("umount", "--lazy", "web")

    assert (busy.code, forced.code) == (failures.SYSTEM, failures.SYSTEM)
    assert "--lazy" in busy.err
    assert mountinfo.mounted_at(str(target)) is None
    store("rm", "web")


def test_removing_by_force(any_store: CommandLine) -> None:
    """It is unmounted first."""
    any_store("create", "debian:12", "--name", "web")
    place = mounted(any_store, "web")

    assert any_store("rm", "-f", "web").out == "web\n"
    assert mountinfo.mounted_at(str(place)) is None
    assert any_store("ls", "--json").json == []


def test_plans(any_store: CommandLine) -> None:
    """The plan as values that a tool can act on, and as lines for mount(8); nothing is mounted."""
    any_store("create", "debian:12", "--name", "web")
    plan = any_store("mounts", "web", "--json").json
    lines = any_store("mounts", "debian:12").out.splitlines()

    assert set(plan[0]) == {"type", "source", "options", "readonly", "target"}
    assert all(line.startswith("mount ") and line.endswith(" TARGET") for line in lines)
    assert len(lines) == len(any_store("mounts", "debian:12", "--json").json)
    assert any_store("ls", "--json").json[0]["Mounts"] == []


@needs_root
def test_plan_is_what_mount_takes(tmp_path: pathlib.Path, any_store: CommandLine) -> None:
    """The printed line, given to a shell, shows the image's tree."""
    if any_store.driver == "aufs":
        pytest.skip("no kernel aufs")
    target = tmp_path / "m"
    target.mkdir()
    line = any_store("mounts", "debian:12").out.strip().replace("TARGET", str(target))
    assert os.system(line) == 0  # noqa: S605 - what is printed is for shells

    assert (target / "etc/motd").read_bytes() == TOP["etc/motd"]


def test_list_fits_80_columns(store: CommandLine) -> None:
    """Names, short IDs, images; sizes when asked for."""
    for name in ("web", "a.name-with_all.kinds.of_them"):
        store("create", "debian:12", "--name", name)
    lines = store("ls", "--size").out.splitlines()

    assert lines[0].split() == ["NAME", "CONTAINER", "ID", "IMAGE", "CREATED", "SIZE", "MOUNTED"]
    assert max(map(len, lines)) <= 80
    assert "SizeRw" in store("ls", "-s", "--json").json[0]


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["create", "nope"], errors.ImageNotFound.exit_code),
        (["create", "debian:12", "--name", "web"], errors.ContainerExists.exit_code),
        (["create", "debian:12", "--name", "../x"], errors.InvalidContainerName.exit_code),
        (["create", "debian:12", "--size", "lots"], failures.USAGE),
        (["create", "debian:12", "--size", "1G"], errors.NotSupported.exit_code),
        (["create"], failures.USAGE),
        (["rm", "nope"], errors.ContainerNotFound.exit_code),
        (["rm"], failures.USAGE),
        (["mount", "nope"], errors.ObjectNotFound.exit_code),
        (["mount", "web", "/nonexistent/place"], failures.SYSTEM),
        (["umount", "nope"], errors.ObjectNotFound.exit_code),
        (["fork", "web", "web"], errors.ContainerExists.exit_code),
        (["fork", "web", "-x"], failures.USAGE),
        (["rollback", "web", "p"], errors.CheckpointNotFound.exit_code),
        (["rollback", "web"], errors.CheckpointNotFound.exit_code),
        (["checkpoint", "web", "a", "--list"], failures.USAGE),
        (["checkpoint", "web", "created"], errors.CheckpointExists.exit_code),
        (["checkpoint", "web", "--delete", "p"], errors.CheckpointNotFound.exit_code),
        (["diff", "web", "nope"], errors.ObjectNotFound.exit_code),
        (["export", "nope", "-o", "x"], errors.ObjectNotFound.exit_code),
        (["export", "web", "--json"], failures.USAGE),
        (["export", "web", "--compress", "lzma"], failures.USAGE),
        (["explain", "nope"], errors.ObjectNotFound.exit_code),
        (["tag", "debian:12", "UPPER"], errors.InvalidReference.exit_code),
        (["tag", "debian:12"], failures.USAGE),
        (["history", "nope"], errors.ImageNotFound.exit_code),
        (["commit", "nope"], errors.ContainerNotFound.exit_code),
        (["commit", "web", "x", "-c", "FROM y"], errors.InvalidChange.exit_code),
        (["save", "debian:12", "--format", "docker", "--compress", "gzip", "-o", "x"], failures.USAGE),
        (["save", "nope", "-o", "x"], errors.ImageNotFound.exit_code),
        (["check", "--from", "x"], failures.USAGE),
        (["push", "debian:12", "UPPER"], errors.InvalidReference.exit_code),
        (["push", "debian:12", "localhost/x", "--jobs", "0"], failures.USAGE),
        (["pull", "UPPER"], errors.InvalidReference.exit_code),
        (["pull", "localhost/x", "--creds", "user"], failures.USAGE),
        (["pull", "localhost/x", "--creds", ":password"], failures.USAGE),
        (["bundle", "web", "b", "--volume", "x"], failures.USAGE),
        (["bundle", "web", "b", "--volume", "x:relative"], errors.InvalidRunOption.exit_code),
        (["bundle", "nope", "b"], errors.ContainerNotFound.exit_code),
    ],
)
def test_mistakes(store: CommandLine, tmp_path: pathlib.Path, arguments: list[str], code: int) -> None:
    """Each is one line, says what to do, has the exit code of its class, and leaves the container as it is."""
    store("create", "debian:12", "--name", "web")
    ran = run_program(*store.globals, *arguments, cwd=str(tmp_path))

    assert ran.code == code, ran
    assert ran.err.count("\n") == 1
    assert bool(ran.out) is ("--json" in arguments)
    assert [one["Name"] for one in store("ls", "--json").json] == ["web"]
    assert not (tmp_path / "x").exists()


@needs_root
def test_places_that_are_not_utf8(any_store: CommandLine, tmp_path: pathlib.Path) -> None:
    """Something is mounted there as anywhere else; the path is printed as it is, escaped in tables, exact in JSON."""
    any_store("create", "debian:12", "--name", "web")
    target = tmp_path / "to\udcff"
    target.mkdir()
    printed = any_store("mount", "web", str(target)).out
    assert (target / "etc/motd").read_bytes() == TOP["etc/motd"]
    listed, found = any_store("ls").out, any_store("ls", "--json").json[0]["Mounts"]
    refused = any_store("rm", "web", check=False)
    any_store("umount", str(target))

    assert printed == f"{target}\n"
    assert "to\\xff\n" in listed
    assert [one["Target"] for one in found] == [str(target)]
    assert (refused.code, refused.err.isascii()) == (errors.ContainerInUse.exit_code, True)
    assert mountinfo.mounted_at(str(target)) is None
    assert any_store("ls", "--json").json[0]["Mounts"] == []


@needs_root
def test_what_is_in_the_way(any_store: CommandLine, tmp_path: pathlib.Path) -> None:
    """A mount that another one keeps from being made is told in the words that people know: no layer's name alone."""
    cli = any_store
    cli("create", "debian:12", "--name", "web")
    cli("create", "debian:12", "--name", "other")
    (tmp_path / "first").mkdir()
    place = str(tmp_path / "first")
    cli("mount", "web", place)
    second = cli("mount", "web", str(tmp_path), check=False)
    view = cli("mount", "web", place, "--read-only", check=False)
    taken = [cli("mount", name, place, check=False) for name in ("other", "debian:12")]

    for ran in (second, view):
        assert ran.code == errors.ContainerInUse.exit_code
        assert ran.err.startswith(f"graphdriver: container 'web' is in use: mounted at {place!r}")
        assert ran.err.count("\n") == 1
    assert "a place of its own" in view.err
    for ran in taken:
        assert ran.code == errors.LayerInUse.exit_code
        assert f"at {place!r}" in ran.err
        assert "a layer of container web" in ran.err


def test_a_list_while_containers_go(
    store: CommandLine, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A container that another process removes while the list is made is left out; the others keep their mounts."""
    for name in ("first", "second", "third"):
        store("create", "debian:12", "--name", name)
    (tmp_path / "place").mkdir()
    if os.geteuid() == 0:
        store("mount", "third", str(tmp_path / "place"))
    listed = Store.containers

    def slow(opened: Store) -> list[Container]:
        found = listed(opened)
        if len(found) == 3:
            found[1].remove()
        return found

    monkeypatch.setattr(Store, "containers", slow)
    made = {one["Name"]: one for one in store("--json", "ls", "--size").json}

    assert list(made) == ["first", "third"]
    assert [one["Target"] for one in made["third"]["Mounts"]] == [str(tmp_path / "place")] * (os.geteuid() == 0)
    assert {one["ImageName"] for one in made.values()} == {"debian:12"}
