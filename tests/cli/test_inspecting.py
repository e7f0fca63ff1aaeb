"""``graphdriver status`` and ``layer inspect``: what they tell, and that looking changes nothing."""

import os
import pathlib

import pytest
from clirun import CommandLine

from graphdrivers.linux import mountinfo


def test_status_counts_layers(any_cli: CommandLine, tar: bytes) -> None:
    """The root, its driver and engine, and how many layers there are."""
    any_cli("layer", "create", "base")
    any_cli("layer", "apply", "base", "-", stdin=tar)
    any_cli("layer", "seal", "base")
    any_cli("layer", "create", "web", "--parent", "base")
    found = any_cli("--json", "status").json

    assert (found["layers"], found["sealed"], found["driver"]) == (2, 1, any_cli.driver)
    assert found["disk"] > 0
    assert found["engine"]
    assert "layers: 2" in any_cli("status").out


def test_inspect_tells_the_stack(any_cli: CommandLine) -> None:
    """Parent, all ancestors nearest first, the state and where it is mounted."""
    parent: list[str] = []
    for name in ("a", "b", "c"):
        any_cli("layer", "create", name, *(["--parent", *parent] if parent else []))
        if name != "c":
            any_cli("layer", "seal", name)
        parent = [name]
    found = any_cli("--json", "layer", "inspect", "c").json

    assert (found["parent"], found["ancestors"], found["sealed"], found["mounted"]) == ("b", ["b", "a"], False, [])
    assert any_cli("layer", "inspect", "ghost", check=False).code != 0


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
def test_inspect_names_the_branches_of_aufs(tmp_path: pathlib.Path) -> None:
    """The branches are listed from top to bottom with their roles, mounted or not, and looking changes no dialect."""
    cli = CommandLine(tmp_path / "root", "aufs")
    for name, parent in (("base", None), ("app", "base"), ("web", "app")):
        cli("layer", "create", name, *(["--parent", parent] if parent else []))
        if name != "web":
            cli("layer", "seal", name)
    home = os.path.join(cli.root, "aufs", "diff")
    place = cli("layer", "mount", "web").out.strip()
    mounted = cli("--json", "layer", "inspect", "web").json
    cli("layer", "umount", "web")
    resting = cli("--json", "layer", "inspect", "web").json

    assert mounted["mounted"] == [place]
    assert mounted["facts"]["dialect"] == "overlay-shadow, live"
    assert [mounted["facts"][f"br{number}"] for number in range(3)] == [
        f"{home}/web=rw",
        f"{home}/app=ro+wh",
        f"{home}/base=ro+wh",
    ]
    assert (resting["mounted"], resting["facts"]["dialect"]) == ([], "wh")
    assert mountinfo.mounted_at(place) is None
