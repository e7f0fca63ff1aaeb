"""What keeps a store sound, from the command line: gc, check, explain, status, doctor."""

import os
import pathlib

import pytest
from clirun import CommandLine, run_program
from registries import running_registry
from storeimages import BASE, layer, layout

from graphdrivers import open_store
from graphdrivers.linux import mounts
from graphdrivers.model import Mount


def damage(cli: CommandLine) -> pathlib.Path:
    """Change a file of the lowest layer behind the store's back."""
    lowest = cli("layer", "ls", "--json").json[-1]["name"]
    (path,) = (one for one in (cli.root / cli.driver).rglob("motd") if lowest in one.parts)
    path.write_text("wrong!!\n")
    return path


def test_collecting(store: CommandLine, tmp_path: pathlib.Path) -> None:
    """What an import that failed left; with --dry-run it is only told."""
    good, bad = layer({"f": b"x" * 1000}), layer({"g": b"y"})
    source = layout(tmp_path / "broken", good, bad)
    blob = max((source / "blobs/sha256").iterdir(), key=lambda path: path.read_bytes() == bad)
    blob.write_bytes(layer({"g": b"z"}))
    assert store("import", str(source), check=False).code != 0
    dry = store("gc", "--dry-run")
    told = store("gc", "--json").json

    assert dry.out.count("Would delete: image.") == 1
    assert dry.out.endswith("Space to reclaim: 0.977 KiB\n")
    assert (len(told["removed"]), told["bytes"], told["dry_run"]) == (1, 1000, False)
    assert store("gc").out == "Total reclaimed space: 0 B\n"
    assert len(store("layer", "ls", "--json").json) == 2


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
def test_collecting_what_resists(any_store: CommandLine) -> None:
    """A layer that cannot be deleted is told by rm, gc and doctor, is no damage, and goes when it can."""
    any_store("create", "debian:12", "--name", "web")
    top = any_store("inspect", "web").json[0]["Branches"][0]["layer"]
    with open_store(any_store.root) as opened:
        place = pathlib.Path(str(opened.driver.mounts(top, view=True)[0].source), "busy")
    place.mkdir()
    mounts.attach((Mount("tmpfs", "tests"),), str(place))
    try:
        removed = any_store("rm", "web")
        dry, tried = any_store("gc", "--dry-run"), any_store("gc")
        told = any_store("gc", "--dry-run", "--json").json
        checked, doctor = any_store("check"), any_store("doctor", "--json", check=False).json
    finally:
        mounts.detach(str(place))
    said = f"graphdriver: layer {top!r} is out of use, but not deleted yet: "
    done = any_store("gc")

    assert [said in ran.err for ran in (removed, dry, tried)] == [True] * 3
    assert (removed.out, dry.out.count(f"Would delete: {top}\n"), tried.out.count("Deleted")) == ("web\n", 1, 0)
    assert (told["removed"], [one["layer"] for one in told["resisted"]]) == ([top], [top])
    assert (checked.code, checked.out) == (0, "")
    assert [one["state"] for one in doctor["checks"] if f"{top} is out of use" in one["message"]] == ["note"]
    assert (done.out, done.err) == ("Total reclaimed space: 0 B\n", "")  # it was deleted when the store was opened
    assert top not in {one["name"] for one in any_store("layer", "ls", "--json").json}


def test_check_and_repair(any_store: CommandLine, tmp_path: pathlib.Path) -> None:
    """A damaged file is named, and brought back from the image it came from."""
    sound = any_store("check", "--deep")
    path = damage(any_store)
    shallow = any_store("check")
    deep = any_store("check", "--deep", "--json", check=False)
    unaided = any_store("check", "--deep", "--repair", check=False)
    repaired = any_store("check", "--deep", "--repair", "--from", str(tmp_path / "debian"))

    assert (sound.out, sound.err, shallow.code) == ("", "nothing is damaged\n", 0)
    assert deep.code == 1
    assert [(one["kind"], one["path"]) for one in deep.json["faults"]] == [("damaged", "/etc/motd")]
    assert unaided.code == 1
    assert "lost: " in unaided.out
    assert "damaged: " in repaired.out
    assert "repaired: " in repaired.out
    assert path.read_bytes() == BASE["etc/motd"]
    assert any_store("check", "--deep", "--json").json["ok"] is True


def test_repair_from_a_registry(any_store: CommandLine, tmp_path: pathlib.Path) -> None:
    """A reference is as good a source as a path; with other layers all stays as it is, and what is lost is told."""
    (tmp_path / "registry").mkdir()
    other = layout(tmp_path / "other", layer({"f": b"x"}))
    with running_registry(tmp_path / "registry") as registry:
        any_store("push", "debian:12", f"{registry.host}/debian:12")
        path = damage(any_store)
        useless = any_store("check", "--deep", "--repair", "--from", str(other), check=False)
        assert (useless.code, useless.out.count("lost: "), path.read_bytes()) == (1, 1, b"wrong!!\n")
        assert any_store("inspect", "debian:12").json[0]["RootFS"]["Layers"][0] in useless.out
        repaired = any_store("check", "--deep", "--repair", "--from", f"{registry.host}/debian:12")

    assert "repaired: " in repaired.out
    assert path.read_bytes() == BASE["etc/motd"]
    assert any_store("check", "--deep", "--json").json["ok"] is True


def test_repair_in_rounds(any_store: CommandLine, tmp_path: pathlib.Path) -> None:
    """What stands on a lost layer is judged, told and repaired when that is back, by one command."""
    top, lowest = (one["name"] for one in any_store("layer", "ls", "--json").json)
    (path,) = (one for one in (any_store.root / any_store.driver).rglob("motd") if top in one.parts)
    path.write_text("wrong\n")
    with open_store(any_store.root) as opened:
        opened.driver.remove(lowest)
    told = any_store("check", "--deep", "--json", check=False).json["faults"]
    repaired = any_store("check", "--deep", "--repair", "--from", str(tmp_path / "debian"), "--json").json

    assert [(one["kind"], one["layer"]) for one in told] == [("lost", lowest)]
    assert [(one["kind"], one["layer"], one["path"]) for one in repaired["faults"]] == [
        ("lost", lowest, ""),
        ("damaged", top, "/etc/motd"),
    ]
    assert (repaired["repaired"], repaired["lost"]) == ([lowest, top], [])
    assert any_store("check", "--deep").out == ""


def test_explaining_an_image_without_layers(cli: CommandLine, tmp_path: pathlib.Path) -> None:
    """There is nothing that could be kept, which is no error."""
    cli("import", str(layout(tmp_path / "empty", name="1")), "--name", "empty:1")
    found = cli("explain", "empty:1")

    assert (found.out, "has no layers" in found.err) == ("", True)
    assert cli("explain", "empty:1", "--json").json == []


def test_explaining(store: CommandLine) -> None:
    """Images and containers that need a layer, under the names that people use, each once."""
    store("create", "debian:12", "--name", "web")
    lines = store("explain", "debian:12").out.splitlines()
    found = store("explain", "debian:12", "--json").json

    assert [line.split() for line in lines[1:]] == [["image", "debian:12", "0"], ["container", "web", "1"]]
    assert (found[0]["kind"], len(found[0]["through"])) == ("image", 1)
    store("layer", "create", "mine")
    assert "'layer rm'" in store("explain", "mine").err


def test_status_of_a_store(any_store: CommandLine) -> None:
    """Images, containers and mounts are counted, whoever chose the driver."""
    any_store("create", "debian:12", "--name", "web")
    any_store("mount", "web")
    found = any_store("status", "--json").json
    automatic = run_program("--root", str(any_store.root), "status").out

    assert (found["images"], found["containers"], found["mounts"], found["layers"]) == (1, 1, 1, 4)
    assert found["problems"] == []
    assert f"driver: {any_store.driver}" in automatic


def test_doctor_looks_at_the_store(any_store: CommandLine, tmp_path: pathlib.Path) -> None:
    """A healthy store is told with its counts; a layer that is gone is a problem with its fix."""
    env = {"TMPDIR": str(tmp_path)}
    healthy = run_program("--root", str(any_store.root), "doctor", env=env)
    lost = any_store("layer", "ls", "--json").json[0]["name"]
    (any_store.root / "store" / "records" / lost).unlink()
    ill = run_program("--root", str(any_store.root), "doctor", env=env)

    assert healthy.code == 0, healthy
    assert "store: 1 image, 0 containers, 0 mounts" in healthy.out
    assert ill.code == 1
    assert "graphdriver check --repair" in ill.out
