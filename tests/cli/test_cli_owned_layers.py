"""Layers that belong to the store, seen by the verbs on single layers."""

import pytest
from clirun import CommandLine

from graphdrivers import errors


@pytest.fixture
def own(any_store: CommandLine) -> dict[str, str]:
    """The store with a container ``web``: its layers by their kind; of the image the upper one."""
    any_store("create", "debian:12", "--name", "web")
    branches = any_store("inspect", "web").json[0]["Branches"]
    return {one["kind"]: one["layer"] for one in reversed(branches)}


def test_verbs_that_change_are_refused(any_store: CommandLine, own: dict[str, str]) -> None:
    """With a line that names the owner; the store is as before."""
    before = any_store("layer", "ls", "--json").json
    shared = own["init"].startswith("image.")
    for arguments, owner in [
        (["rm", own["image"]], "image debian:12"),
        (["rm", own["writable"]], "container web"),
        (["seal", own["writable"]], "container web"),
        (["mount", own["writable"]], "container web"),
        (["apply", own["init"], "-"], "image debian:12" if shared else "container web"),
        (["create", "mine", "--parent", own["image"]], "image debian:12"),
        (["create", "image." + "0" * 32], "the store"),
    ]:
        ran = any_store("layer", *arguments, check=False)

        assert ran.code == errors.LayerOwned.exit_code, arguments
        assert f"belongs to {owner};" in ran.err
        assert ran.err.count("\n") == 1
    assert any_store("layer", "ls", "--json").json == before


def test_verbs_that_look_are_not(any_store: CommandLine, own: dict[str, str]) -> None:
    """Listing tells the owners; a layer made by hand has none."""
    any_store("layer", "create", "mine")
    listed = {one["name"]: one["owner"] for one in any_store("layer", "ls", "--json").json}

    assert (listed["mine"], listed[own["image"]], listed[own["writable"]]) == (None, "image debian:12", "container web")
    assert "container web" in any_store("layer", "ls").out
    assert any_store("layer", "changes", own["image"]).out == "C /etc\nD /etc/issue\nC /etc/motd\n"
    assert any_store("layer", "usage", own["image"], "--json").json["inodes"] > 0
    assert any_store("layer", "diff", own["image"]).out
    assert any_store("layer", "inspect", own["init"], "--json").json["parent"] == own["image"]
    assert any_store("inspect", own["image"]).json[0]["Owner"] == "image debian:12"
    assert any_store("inspect", "mine").json[0]["Owner"] is None
