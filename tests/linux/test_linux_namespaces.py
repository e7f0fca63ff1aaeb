"""Privileges, as the process really has them."""

import os
import subprocess
import sys
import time
from collections.abc import Callable

import pytest

from graphdrivers.linux import namespaces

Run = Callable[[int, Callable[[], object]], None]

INSIDE = """
from graphdrivers.linux import namespaces
assert not namespaces.in_initial_user_namespace()
assert namespaces.has_capability("CAP_SYS_ADMIN")
assert namespaces.maps_owner(0, 0)
assert not namespaces.maps_owner(1, 0)
assert not namespaces.maps_owner(0, 1)
assert namespaces.describe() == "uid 0, user namespace with 1 uids", namespaces.describe()
"""


def test_own_capabilities(run_as: Run) -> None:
    """A process that gave up root has no capability, and still is in the initial namespace."""

    def check() -> None:
        assert not namespaces.has_capability("CAP_SYS_ADMIN")
        assert namespaces.in_initial_user_namespace()
        assert namespaces.describe() == "uid 65534, initial user namespace"

    run_as(65534, check)


def test_unknown_capability() -> None:
    """A misspelt name is an error, not a no."""
    with pytest.raises(KeyError):
        namespaces.has_capability("SYS_ADMIN")


def test_all_owners_of_the_initial_namespace() -> None:
    """All uids but the reserved one exist there."""
    if not namespaces.in_initial_user_namespace():
        pytest.skip("needs the initial user namespace")

    assert namespaces.maps_owner(0, 2**32 - 2)
    assert not namespaces.maps_owner(2**32 - 1, 0)


def test_inside_a_user_namespace() -> None:
    """In a user namespace root is root, of the mapped ids only."""
    if subprocess.run(["unshare", "-Ur", "true"], check=False, capture_output=True).returncode:
        pytest.skip("needs permission to create user namespaces")
    subprocess.run(["unshare", "-Ur", sys.executable, "-c", INSIDE], check=True)


def test_kernel_without_user_namespaces(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel built without them has only the initial one."""

    def missing(*_arguments: object, **_keywords: object) -> None:
        raise FileNotFoundError

    monkeypatch.setattr(os, "stat", missing)
    monkeypatch.setattr("builtins.open", missing)

    assert namespaces.in_initial_user_namespace()
    assert namespaces.maps_owner(1000, 1000)


def test_mount_namespaces_differ() -> None:
    """A process in a mount namespace of its own is told from this one, and a child in ours is not."""
    wait = ["sh", "-c", "echo; exec cat"]
    for command, same in ((wait, True), (["unshare", "--user", "--map-root-user", "--mount", *wait], False)):
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
            assert child.stdout is not None
            child.stdout.readline()
            found = namespaces.mount_namespace(child.pid)
            assert (found == namespaces.mount_namespace()) is same
            assert namespaces.lives(found)
            child.communicate()
        while not same and namespaces.lives(found):  # the kernel takes it down a moment later
            time.sleep(0.001)


@pytest.mark.parametrize(
    "nonsense", ["", "mnt:", "mnt:0x1", "mnt:" + "9" * 5000, "mnt:18446744073709551616", "mnt:[1]"]
)
def test_no_mount_namespace(nonsense: str) -> None:
    """What was written down by nobody is that of nobody."""
    assert not namespaces.lives(nonsense)
