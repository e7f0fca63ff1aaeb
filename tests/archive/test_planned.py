"""A plan read without mounting shows what its mount shows."""

import os
from pathlib import Path

import pytest
from treetools import look_at_mount, look_at_tree, needs_root
from verifying import DRIVERS, two_layers

import graphdrivers
from graphdrivers.archive.plain import PlainTree
from graphdrivers.archive.planned import branches_of, planned_tree
from graphdrivers.linux import mounts
from graphdrivers.model import Mount


def _look(plan: tuple[Mount, ...], *, recorded: bool = False) -> dict[bytes, object]:
    with planned_tree(plan, recorded=recorded) as tree:
        assert tree is not None
        return dict(look_at_tree(tree))


@pytest.mark.parametrize("kind", list(DRIVERS))
def test_planned_trees_are_what_mounts_show(kind: str, tmp_path: Path) -> None:
    """Every path with all that can be seen of it, for the views of a stack, and with recorded owners."""
    stack = two_layers(tmp_path / "home", kind)
    can = stack.driver.support.capabilities
    for layer in stack.tars:
        plan = stack.driver.mounts(layer, view=True)
        with mounts.opened(plan) as root:
            mounted = look_at_mount(b"/proc/self/fd/%d/." % root)
            with PlainTree(root, recorded=can.recorded_owners) as tree:
                recorded = look_at_tree(tree)
        assert _look(plan) == mounted
        assert _look(plan, recorded=can.recorded_owners) == recorded
        assert len(mounted) > 5


@needs_root
@pytest.mark.parametrize(
    ("name", "options"),
    [("aufs", {"engine": "overlay-shadow"}), ("overlay", {"redirect_dir": "on"}), ("overlay", {"metacopy": "on"})],
)
def test_planned_trees_of_written_layers(name: str, options: dict[str, str], tmp_path: Path) -> None:
    """What programs left in a mount: renamed directories and copies of metadata too; with and without an upper one."""
    stack = two_layers(tmp_path / "home", "vfs")
    driver = graphdrivers.load_driver(name, tmp_path / "other", options)
    parent = None
    for layer, tar in stack.tars.items():
        driver.create(layer, parent)
        with open(tmp_path / "tar", "w+b") as stream:
            stream.write(tar)
            stream.seek(0)
            driver.apply(layer, stream)
        driver.seal(layer)
        parent = layer
    driver.create("web", parent)
    with mounts.opened(driver.mounts("web")) as root:
        os.chmod("large", 0o600, dir_fd=root)
        os.unlink("etc/a", dir_fd=root)
        with open(os.open("etc/a.new", os.O_CREAT | os.O_WRONLY, dir_fd=root), "w") as file:
            file.write("new")
        if driver.support.capabilities.rename_directories:
            os.rename("usr", "moved", src_dir_fd=root, dst_dir_fd=root)
    plans = [driver.mounts("web"), driver.mounts("web", view=True)]
    driver.settle("web")
    driver.seal("web")
    if name == "overlay":
        assert _look(plans[0]) == _look(plans[1])
    plan = driver.mounts("web", view=True)
    assert branches_of(plan) is not None
    with mounts.opened(plan) as root:
        assert _look(plan) == look_at_mount(b"/proc/self/fd/%d/." % root)


@pytest.mark.parametrize(
    "plan",
    [
        (Mount("zfs", "pool/fs"),),
        (Mount("overlay", "x", (("lowerdir", "/a:/b"),)),),
        (Mount("overlay", "x", (("lowerdir+", "/a"), ("datadir+", "/b"))),),
        (Mount("overlay", "x"),),
        (Mount("bind", "/a"), Mount("bind", "/b", target="below")),
        (Mount("bind", "/a", target="below"),),
        (),
    ],
    ids=str,
)
def test_other_plans_are_left_to_who_can_mount(plan: tuple[Mount, ...]) -> None:
    """Nothing is guessed about other file systems, options that are unknown, and several mounts."""
    assert branches_of(plan) is None
    with planned_tree(plan) as tree:
        assert tree is None


def test_branches_are_those_of_the_overlay() -> None:
    """The upper directory comes first, then the lower ones, nearest first, in the dialect of the mount."""
    options = (("lowerdir+", "/near"), ("lowerdir+", "/far"), ("upperdir", "/own"), ("workdir", "/work"))
    trusted = branches_of((Mount("overlay", "x", options),)) or []
    user = branches_of((Mount("overlay", "x", (*options, ("userxattr", None))),), recorded=True) or []

    assert (
        [branch.directory for branch in trusted] == [branch.directory for branch in user] == ["/own", "/near", "/far"]
    )
    assert {branch.dialect.namespace for branch in trusted} == {"trusted.overlay."}
    assert {(branch.dialect.namespace, branch.dialect.records_owners) for branch in user} == {("user.overlay.", True)}
