"""Bundles run as they are by a real runtime, on a root that a driver mounted."""

import contextlib
import io
import json
import os
import pathlib
import subprocess
from collections.abc import Iterator

import attrs
import pytest
from containers import SOURCE, crun, crun_as, image_config, root_tar

from graphdrivers.driver import Driver
from graphdrivers.images.bundle import write_bundle
from graphdrivers.images.initlayer import init_tar
from graphdrivers.images.run_options import IdMapping, Network, RunMount, RunOptions, rootless_mappings
from graphdrivers.images.runtime_spec import RuntimeSpec, runtime_spec
from graphdrivers.linux import mounts
from graphdrivers.loading import load_driver

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounting an overlay needs root")

PROGRAMS = ("sh", "cat", "id", "env", "ls", "touch", "mknod", "hostname", "stat")
FILES = {
    "etc/passwd": "root:x:0:0::/root:/bin/sh\nworker:x:1234:2345::/home/worker:/bin/sh\n",
    "etc/group": "staff:x:50:worker\naudio:x:29:other\nwheel:x:10:other,worker\n",
}
PLAIN_ID = 64999


@pytest.fixture(scope="module")
def tar() -> bytes:
    """A root file system with a shell and little else."""
    return root_tar(PROGRAMS, FILES)


@attrs.frozen
class Box:
    """A mounted container: image, init layer, and a writable layer."""

    driver: Driver
    bundle: pathlib.Path
    rootfs: pathlib.Path
    folder: pathlib.Path

    def spec(self, script: str, config: dict[str, object] | None = None, **options: object) -> RuntimeSpec:
        """Make the configuration that runs a shell script in it."""
        wanted = RunOptions(entrypoint=("/bin/sh", "-c", script), **options)  # type: ignore[arg-type]
        with contextlib.ExitStack() as stack:
            root = os.open(self.rootfs, os.O_RDONLY)
            stack.callback(os.close, root)
            return runtime_spec(image_config(config), root, wanted, SOURCE)

    def write(self, spec: RuntimeSpec) -> None:
        """Write the bundle, in place of an earlier one."""
        (self.bundle / "config.json").unlink(missing_ok=True)
        write_bundle(self.bundle, spec, rootfs=os.fspath(self.rootfs))

    def run(
        self, script: str, config: dict[str, object] | None = None, **options: object
    ) -> subprocess.CompletedProcess[str]:
        """Run a shell script in it; the result is whatever crun says."""
        self.write(self.spec(script, config, **options))
        return crun(self.bundle, state=self.folder / "state")

    def output(self, script: str, config: dict[str, object] | None = None, **options: object) -> str:
        """Run a shell script that has to end well."""
        done = self.run(script, config, **options)
        assert done.returncode == 0, done.stderr
        return done.stdout.rstrip("\n")


@pytest.fixture
def box(tar: bytes, tmp_path: pathlib.Path) -> Iterator[Box]:
    """A container on overlay."""
    driver = load_driver("overlay", tmp_path / "home", {})
    driver.create("image")
    driver.apply("image", io.BytesIO(tar))
    driver.seal("image")
    driver.create("init", parent="image")
    with mounts.opened(driver.mounts("image", view=True)) as root:
        driver.apply("init", io.BytesIO(init_tar(root, ["/srv/work"])))
    driver.seal("init")
    driver.create("box", parent="init")
    box = Box(driver, tmp_path / "bundle", tmp_path / "rootfs", tmp_path)
    box.rootfs.mkdir()
    mounts.attach(driver.mounts("box"), os.fspath(box.rootfs))
    try:
        yield box
    finally:
        mounts.detach(os.fspath(box.rootfs))
        for layer in ("box", "init", "image"):
            driver.remove(layer)
        driver.close()


def test_output(box: Box) -> None:
    """What the process writes comes out, its arguments arrive as they are, and its exit status is the runtime's."""
    done = box.run('printf "%s|" "$0" "$@"; exit 7', args=("zero", "two words", "", "ü\n"))

    assert (done.stdout, done.returncode) == ("zero|two words||ü\n|", 7), done.stderr


def test_image_command(box: Box) -> None:
    """Without overrides the image's entry point runs with the image's arguments."""
    config = image_config({"Entrypoint": ["/bin/sh", "-c"], "Cmd": ["echo $0 $1", "a", "b"]})
    root = os.open(box.rootfs, os.O_RDONLY)
    try:
        box.write(runtime_spec(config, root, RunOptions(), SOURCE))
    finally:
        os.close(root)

    assert crun(box.bundle, state=box.folder / "state").stdout == "a b\n"


def test_environment(box: Box) -> None:
    """The image's environment, additions and defaults are what the process sees."""
    config: dict[str, object] = {"Env": ["A=image", "B=image", "PATH=/bin"], "WorkingDir": "/srv/work"}

    seen = set(box.output("env; pwd; hostname", config, env=("B=asked", "C=x=y"), hostname="name").splitlines())

    assert {"A=image", "B=asked", "C=x=y", "PATH=/bin", "HOME=/root", "/srv/work", "name"} <= seen


def test_user_by_name(box: Box) -> None:
    """A user's name gives its uid, group, supplementary groups and home, and no capability."""
    own = "while read name value; do case $name in Cap[EPIA]*) echo $value; esac; done </proc/self/status"
    seen = box.output(f"id -u; id -g; id -G; echo $HOME; {own}", {"User": "worker"}).split()

    assert seen[:3] == ["1234", "2345", "2345"]
    assert sorted(seen[3:5]) == ["10", "50"]
    assert seen[5:] == ["/home/worker", *["0" * 16] * 4]


def test_user_and_group_by_number(box: Box) -> None:
    """Numbers that nobody has are taken as they are."""
    assert box.output("id -u; id -g; id -G", user="4000:5000").split() == ["4000", "5000", "5000"]


def test_root_leaves_no_change(box: Box) -> None:
    """With the init layer below it, a run that writes nothing changes nothing in the container's layer."""
    box.output("ls /dev/pts /dev/shm /dev/mqueue /proc/self /sys/kernel >/dev/null", cwd="/srv/work")

    assert list(box.driver.changes("box")) == []


def test_readonly_root(box: Box) -> None:
    """A read-only root is one, and all that is mounted on it has its place."""
    done = box.run("touch /bin/x || echo refused; touch /dev/shm/x && echo written", readonly=True)

    assert done.stdout.split() == ["refused", "written"], done.stderr
    assert not (box.rootfs / "bin/x").exists()


def test_writes_stay(box: Box) -> None:
    """What the process writes is in the container's layer."""
    box.output("echo content >/srv/work/file")

    assert (box.rootfs / "srv/work/file").read_text() == "content\n"
    assert {change.path for change in box.driver.changes("box")} >= {"/srv/work/file"}


def test_network(box: Box) -> None:
    """Without a network there is a loopback device; with the host's, what the host has."""
    here = set(os.listdir("/sys/class/net"))

    assert box.output("ls /sys/class/net").split() == ["lo"]
    assert set(box.output("ls /sys/class/net", network=Network.HOST).split()) == here


def test_devices_are_closed(box: Box) -> None:
    """A node of a device of the host, made inside, opens nothing; the harmless ones do."""
    done = box.run("mknod /dev/kmsg c 1 11; (: </dev/kmsg) || echo closed; (: </dev/null) && echo open")

    assert done.stdout.split() == ["closed", "open"], done.stderr


def test_masked(box: Box) -> None:
    """What shows the host reads as empty, and kernel settings cannot be written."""
    done = box.run("cat /proc/timer_list /proc/keys; ls /sys/firmware; echo 1 >/proc/sys/vm/swappiness || echo refused")

    assert done.stdout.split() == ["refused"], done.stderr


def test_bind_on_init_layer(box: Box) -> None:
    """A file of the host is mounted on the empty one of the init layer, read-only."""
    hosts = box.folder / "hosts"
    hosts.write_text("10.0.0.1 elsewhere\n")
    mount = RunMount("/etc/hosts", os.fspath(hosts), options=("bind", "ro"))

    assert box.output("cat /etc/hosts; echo x >/etc/hosts || :", mounts=(mount,)) == "10.0.0.1 elsewhere"
    assert hosts.read_text() == "10.0.0.1 elsewhere\n"


def test_volumes(box: Box) -> None:
    """What is written to a volume on a tmpfs is not in the container's layer."""
    config: dict[str, object] = {"Volumes": {"/srv/work": {}, "/sys/fs/cgroup": {}}}

    assert box.output("echo x >/srv/work/file; cat /srv/work/file", config, tmpfs_volumes=True) == "x"
    assert os.listdir(box.rootfs / "srv/work") == []


def test_labels_are_not_obeyed(box: Box) -> None:
    """A label that would leave the process in groups of the host has no effect; the very same annotation has."""
    label = {"run.oci.keep_original_groups": "1"}
    spec = box.spec("id -G", {"Labels": {**label, "maintainer": "me"}, "User": "1:1"})
    box.write(spec)
    command = (box.bundle, "setpriv", "--groups", "77")
    assert crun(*command, state=box.folder / "state").stdout.split() == ["1"]
    assert spec.withheld == ("run.oci.keep_original_groups",)

    box.write(attrs.evolve(spec, fields={**spec.fields, "annotations": label}))
    assert crun(*command, state=box.folder / "state").stdout.split() == ["1", "77"]


@pytest.mark.parametrize("network", Network)
def test_rootless(tar: bytes, tmp_path: pathlib.Path, network: Network) -> None:
    """A plain user runs a container: root inside, itself outside."""
    place = tmp_path / "plain"
    (place / "bundle").mkdir(parents=True)
    driver = load_driver("vfs", place / "home", {})
    driver.create("box")
    driver.apply("box", io.BytesIO(tar))
    (plan,) = driver.mounts("box")
    options = RunOptions(
        args=("/bin/sh", "-c", "id -u; cat /proc/self/uid_map; ls /sys/class/net; touch /file"),
        network=network,
        **rootless_mappings(PLAIN_ID, PLAIN_ID),  # type: ignore[arg-type]
    )
    root = os.open(plan.source, os.O_RDONLY)
    try:
        write_bundle(place / "bundle", runtime_spec(image_config(), root, options, SOURCE))
    finally:
        os.close(root)
    subprocess.run(["cp", "-a", f"{plan.source}/.", place / "bundle" / "rootfs"], check=True)
    subprocess.run(["chown", "-R", f"{PLAIN_ID}:{PLAIN_ID}", place], check=True)

    done = crun_as(PLAIN_ID, place)

    assert done.returncode == 0, done.stderr
    uid, inside, outside, size, *devices = done.stdout.split()
    assert (uid, inside, outside, size) == ("0", "0", str(PLAIN_ID), "1")
    assert devices == (["lo"] if network is Network.NONE else sorted(os.listdir("/sys/class/net")))
    assert (place / "bundle/rootfs/file").stat().st_uid == PLAIN_ID
    assert json.loads((place / "bundle/config.json").read_text())["linux"]["uidMappings"][0]["size"] == 1


def test_mapped_root(tar: bytes, tmp_path: pathlib.Path) -> None:
    """Root runs a container whose root is somebody else outside, with a range of ids."""
    ids = (IdMapping(0, 100_000, 65_536),)
    place = tmp_path / "plain"
    place.mkdir()
    options = RunOptions(args=("/bin/sh", "-c", "id -u; stat -c %u /bin/sh"), uid_mappings=ids, gid_mappings=ids)
    root = os.open(place, os.O_RDONLY)
    try:
        write_bundle(place / "bundle", runtime_spec(image_config(), root, options, SOURCE))
    finally:
        os.close(root)
    subprocess.run(["tar", "-xC", place / "bundle/rootfs"], input=tar, check=True)
    subprocess.run(["chown", "-R", "100000:100000", place / "bundle/rootfs"], check=True)

    done = crun_as(0, place)

    assert done.stdout.split() == ["0", "0"], done.stderr
