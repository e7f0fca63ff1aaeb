"""Stores that several PID namespaces share: who cannot see a process does not take it for dead."""

import os
import pathlib
import subprocess
import sys
import time

import attrs
import pytest
from storetools import held_child, layout_of, whole

from graphdrivers import Store
from graphdrivers.linux import namespaces
from graphdrivers.store import holders, mounted
from graphdrivers.store.holders import Holder

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")

MOUNT = """
import sys
import graphdrivers
with graphdrivers.open_store(sys.argv[1]) as store:
    print(store.container("box").mount(keep=True).path, flush=True)
sys.stdin.read()
"""

REMOVE = """
import sys
import graphdrivers
from graphdrivers import errors
with graphdrivers.open_store(sys.argv[1]) as store:
    try:
        store.container("box").remove()
    except errors.ContainerInUse:
        print("in use")
"""


def apart(program: str, *arguments: str) -> list[str]:
    """Give the command that runs a program in a PID and a mount namespace of its own."""
    new = ["--pid", "--fork", "--kill-child", "--mount-proc"]
    return ["unshare", *new, sys.executable, "-c", program, *arguments]


def test_a_forked_process_in_another_pid_namespace(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that was forked from a process that has the store open holds a lock of its own, as soon as it uses it."""
    with held_child(store.images) as child:
        holder = attrs.evolve(Holder.here(), pid=child.pid, started=holders._started(child.pid))
        monkeypatch.setattr(holders, "_started", lambda _pid: None)  # as if it had no number here
        assert store.site.is_alive(holder)
        child.kill()
        child.wait()
        assert not store.site.is_alive(holder)


def test_a_kept_mount_that_another_namespace_cannot_see(
    store: Store, tars: list[bytes], tmp_path: pathlib.Path
) -> None:
    """Of two containers that share a store one does not remove what the other has mounted; later it can."""
    store.import_image(layout_of(tmp_path / "image", *tars), name="image")
    box = store.create("image", name="box")
    with subprocess.Popen(apart(MOUNT, store.root), stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        (held,) = mounted._rows(store.site)
        if held.attached and held.namespace.startswith("mnt:["):
            pytest.skip("Linux before 6.10 does not number mount namespaces")
        done = subprocess.run(apart(REMOVE, store.root), check=True, capture_output=True, text=True)
        assert done.stdout == "in use\n"
        child.communicate()
    while held.attached and namespaces.lives(held.namespace):
        time.sleep(0.001)
    if not held.attached:  # the layer's own folder, without a mount: it is kept until somebody lets go
        box.unmount()
    box.remove()
    whole(store)
