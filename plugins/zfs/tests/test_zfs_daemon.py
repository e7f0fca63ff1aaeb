# ruff: noqa: INP001, S101 -- pytest asserts, and a folder of tests is no package
"""Pools that go and come back: an import, one under another name, and a zfs-fuse that is killed and started again.

Each has a daemon of its own (``with-zfs``), so that only its own test loses it.
"""

import json
import os
import subprocess
import sys

import pytest
import zfspools

HEAD = """
import json, os, signal, subprocess, sys, time
from graphdrivers import loading
from graphdrivers.edits import Create
from graphdrivers.conformance.workbench import Workbench
from graphdrivers.linux import mountinfo, mounts

folder, pool = sys.argv[1], os.environ["WITH_ZFS_POOL"]
home, options = os.path.join(folder, "home"), {}

def zfs(*words):
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL)

def opened():
    driver = loading.load_driver("zfs", home, options)
    driver.settle()
    scratch = os.path.join("/tmp", "flat-" + os.urandom(4).hex())
    os.mkdir(scratch)
    return Workbench(driver, scratch)

def look(bench):
    return {record.name: bench.contents(record.name) for record in bench.driver.layers()}

def killed():
    (daemon,) = subprocess.run(["pgrep", "-x", "zfs-fuse"], capture_output=True, text=True).stdout.split()
    os.kill(int(daemon), signal.SIGKILL)
    mounts.detach(folder, lazy=True)  # and all that is mounted below it
    new = None
    while subprocess.run(["zpool", "list", pool], capture_output=True).returncode:
        if new is None or new.poll() is not None:  # it gives up while there are remains of the one before
            new = subprocess.Popen(os.environ["WITH_ZFS_DAEMON"].split(), stderr=subprocess.DEVNULL)
        time.sleep(0.05)
    zfs("zfs", "mount", pool)

def begun():
    bench = opened()
    bench.layer("base", None, [Create("file", b"1")])
    bench.layer("middle", "base", [Create("more", b"2")])
    bench.layer("writable", "middle", seal=False)
    assert look(bench) == wanted
    return bench

wanted = {"base": {"file": "1"}, "middle": {"file": "1", "more": "2"}, "writable": {"file": "1", "more": "2"}}
bench = begun()
"""

SCENES = {
    "a pool that is imported again": """
zfs("zpool", "export", pool)
assert not os.path.exists(home)
zfs("zpool", "import", "-d", os.path.dirname(folder), pool)
assert not [one for one in mountinfo.mounted_below(home)]
""",
    "a pool that is imported under another name": """
zfs("zpool", "export", pool)
zfs("zpool", "import", "-d", os.path.dirname(folder), pool, "other")
""",
    "a daemon that was killed": "killed()",
    "a daemon that was killed right after a layer was sealed and another created": """
bench.layer("top", "middle", [Create("last", b"3")])
bench.driver.create("fresh", "top")
killed()
wanted["top"] = {**wanted["middle"], "last": "3"}
wanted["fresh"] = wanted["top"]
""",
    "a daemon that was killed right after a layer was sealed": """
bench.driver.seal("writable")
killed()
assert [record.sealed for record in opened().driver.layers()] == [True] * 3
""",
    "a daemon that was killed right after a layer was removed": """
bench.driver.remove("writable")
killed()
del wanted["writable"]
""",
    "a daemon that was killed right after a snapshot": """
with bench.writing("writable") as root:
    Create("live", b"4").perform(root)
bench.driver.snapshot("writable", "branch")
killed()
wanted["branch"] = wanted["writable"] = {**wanted["middle"], "live": "4"}
""",
    "a daemon that was killed, with a home that lies elsewhere and still has its mounts": """
bench.forget()
home, options = os.path.join(os.path.dirname(folder), "home"), {"dataset": pool}
bench = begun()
killed()
""",
}

TAIL = """
again = opened()
assert look(again) == wanted, look(again)
again.layer("new", "middle", [Create("new", b"5")])
assert again.contents("new") == {**wanted["middle"], "new": "5"}
again.forget()
left = subprocess.run(["zfs", "list", "-H", "-o", "name"], capture_output=True, text=True).stdout.split()
assert len(left) == 1, left
print(json.dumps(sorted(wanted)))
"""


@pytest.mark.parametrize("name", SCENES)
def test_layers_come_back(name: str) -> None:
    """All layers that a verb returned for are there, and only they; new ones can be made, and all removed."""
    zfspools.pool()
    script = HEAD + SCENES[name] + TAIL
    done = subprocess.run(
        [str(zfspools.HERE / "with-zfs"), sys.executable, "-c", script, "@"],
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert "base" in json.loads(done.stdout.splitlines()[-1])


def test_nothing_is_left_of_a_killed_run() -> None:
    """Killed together with its command, ``with-zfs`` leaves no daemon, no image and no mount."""
    zfspools.pool()
    command = [str(zfspools.HERE / "with-zfs"), "sh", "-c", 'echo "$1"; exec sleep 1000', "sh", "@"]
    running = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert running.stdout is not None
    place = running.stdout.readline().strip()
    folder = os.path.dirname(place)
    assert os.path.exists(os.path.join(folder, "image"))
    daemons = subprocess.run(["pgrep", "-c", "-x", "zfs-fuse"], capture_output=True, text=True, check=False).stdout
    running.kill()
    running.communicate()
    while os.path.exists(folder) or alive() == int(daemons):
        pass

    assert alive() == int(daemons) - 1


def alive() -> int:
    """Count the daemons that can be seen here."""
    done = subprocess.run(["pgrep", "-c", "-x", "zfs-fuse"], capture_output=True, text=True, check=False)
    return int(done.stdout)
